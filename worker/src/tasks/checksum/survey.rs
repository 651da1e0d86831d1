//! The first pass: what is there, and how much.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;
use walkdir::{DirEntry, WalkDir};

use super::{Stop, unreadable};

/// What the walk found.
#[derive(Debug)]
pub(super) struct Survey {
    /// What the files' paths are relative to.
    pub(super) base: PathBuf,
    /// Whether a file was named, not a folder.
    pub(super) single: bool,
    /// The regular files in byte order of their path, as `LC_ALL=C sort` has them.
    pub(super) files: Vec<Found>,
    /// How large they are together.
    pub(super) bytes: u64,
    /// Symlinks and special files, and what was gone before it could be looked at.
    pub(super) skipped: u64,
}

/// A regular file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Looks at `target`, a file or a folder; `given` is what the caller called it.
pub(super) fn survey(target: &Path, given: &str, stop: &CancellationToken) -> Result<Survey, Stop> {
    let fail =
        |path: &Path, reason: &dyn std::fmt::Display| Stop::Failed(unreadable(given, path, reason));
    let here = Path::new("");
    let metadata = target
        .symlink_metadata()
        .map_err(|error| fail(here, &error))?;
    let mut survey = Survey {
        base: target.to_path_buf(),
        single: metadata.is_file(),
        files: Vec::new(),
        bytes: 0,
        skipped: 0,
    };
    if let (true, Some(folder), Some(name)) = (survey.single, target.parent(), target.file_name()) {
        survey.base = folder.to_path_buf();
        survey.bytes = metadata.len();
        survey.files.push(Found {
            path: name.into(),
            bytes: metadata.len(),
        });
        return Ok(survey);
    }
    if !metadata.is_dir() {
        return Err(fail(here, &"it is neither a file nor a folder"));
    }
    for entry in WalkDir::new(target).min_depth(1) {
        if stop.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        match entry.and_then(|entry| survey.add(&entry)) {
            Ok(()) => {}
            Err(error) => match error.io_error() {
                Some(cause) if cause.kind() == ErrorKind::NotFound && error.depth() > 0 => {
                    survey.skipped += 1;
                }
                // walkdir's own text would name the absolute path.
                cause => {
                    let path = error.path().and_then(|path| path.strip_prefix(target).ok());
                    let cause = cause.map_or_else(|| "unknown".into(), ToString::to_string);
                    return Err(fail(path.unwrap_or(here), &cause));
                }
            },
        }
    }
    survey.files.sort_unstable_by(|a, b| {
        a.path
            .as_os_str()
            .as_bytes()
            .cmp(b.path.as_os_str().as_bytes())
    });
    Ok(survey)
}

impl Survey {
    fn add(&mut self, entry: &DirEntry) -> walkdir::Result<()> {
        let kind = entry.file_type();
        if kind.is_file() {
            let bytes = entry.metadata()?.len();
            let path = entry
                .path()
                .strip_prefix(&self.base)
                .unwrap_or(entry.path());
            self.bytes = self.bytes.saturating_add(bytes);
            self.files.push(Found {
                path: path.to_path_buf(),
                bytes,
            });
        } else if !kind.is_dir() {
            self.skipped += 1;
        }
        Ok(())
    }
}
