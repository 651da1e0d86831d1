//! `files.checksum`: the SHA-256 of every file below a folder, with progress in bytes.
//!
//! Arguments: `{"path": "photos/2024"}`, a file or a folder below the configured root; `"."`, the
//! whole root, when absent. Nothing outside the root is read: an absolute path, a `..` that climbs
//! out and a symlink that leads out fail with `outside_root`, a missing path with `not_found`.
//!
//! The walk never follows a symlink. Only regular files are read; symlinks, sockets, pipes and
//! devices are counted as `skipped`.
//!
//! # Result
//! ```json
//! {"path": "photos/2024", "count": 2, "bytes": 20, "skipped": 0, "omitted": 0,
//!  "files": [{"path": "a.jpg", "bytes": 12, "sha256": "…"}, {"path": "b/c.jpg", "bytes": 8, "sha256": "…"}],
//!  "manifest_sha256": "…"}
//! ```
//! `files` holds the first entries in byte order of their path; `omitted` counts those that were
//! left out to keep the result small. `manifest_sha256` covers all of them. It is what this prints,
//! in the folder that was named (for a single file: in its folder, for that file):
//! ```sh
//! find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum | sha256sum
//! ```
//! A name that is not UTF-8 has its bad bytes replaced in `files` and in messages;
//! `manifest_sha256` is taken over the name's real bytes.
//!
//! # When files change meanwhile
//! A file that is gone when its turn comes counts as `skipped`: deleting is ordinary, and the
//! result is true for what is left. A file that has another size than when the folder was walked,
//! that was replaced by something else, or that cannot be read fails the job with `unreadable` and
//! its path: a checksum of a state that never existed is worth nothing. A change of content that
//! keeps the size is not noticed.
//!
//! Paths are checked when they are named and again when each file is opened. Someone who may
//! rename things below the root while a job runs can still win the moment in between; the root is
//! no fence against them.

mod digest;
mod manifest;
mod path;
mod survey;

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use bellhop_common::wire::{Progress, TaskError};
use serde::Deserialize;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::outcome::Outcome;
use crate::task::{Task, TaskContext};
use digest::Fault;
use manifest::{Manifest, ManifestBuilder};
use survey::Survey;

/// Large enough that a system call costs nothing beside the hashing, small enough that a
/// cancellation is seen within milliseconds.
const BUFFER: usize = 1 << 20;

/// The task `files.checksum`: hashes every file below a folder, and the list of them.
#[derive(Debug)]
pub struct Checksum {
    root: PathBuf,
}

/// Why a folder cannot be the root of [`Checksum`].
#[derive(Debug, Error)]
pub enum RootError {
    /// It is missing or may not be entered.
    #[error("the files root {} cannot be used: set files.root to a folder that exists", path.display())]
    Unusable {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("the files root {} is not a folder: set files.root to one", path.display())]
    NotAFolder {
        /// Which one.
        path: PathBuf,
    },
}

/// A job's arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChecksumArgs {
    /// A file or folder, relative to the root.
    pub path: String,
}

impl Default for ChecksumArgs {
    fn default() -> Self {
        Self { path: ".".into() }
    }
}

impl Checksum {
    /// A task that reads below `root` and nowhere else.
    ///
    /// # Errors
    /// [`RootError`] when `root` is not a folder that can be reached.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self, RootError> {
        let path = root.into();
        let root = match path.canonicalize() {
            Ok(root) => root,
            Err(source) => return Err(RootError::Unusable { path, source }),
        };
        if root.is_dir() {
            Ok(Self { root })
        } else {
            Err(RootError::NotAFolder { path })
        }
    }
}

impl Task for Checksum {
    const KIND: &'static str = "files.checksum";
    type Args = ChecksumArgs;

    async fn run(&self, ctx: TaskContext, args: ChecksumArgs) -> Outcome {
        // The thread learns from the token that this future was dropped, too.
        let stop = ctx.cancelled().child_token();
        let _stop_when_dropped = stop.clone().drop_guard();
        let root = self.root.clone();
        let work = move || {
            let target = path::resolve(&root, &args.path)?;
            let survey = survey::survey(&target, &args.path, &stop)?;
            checksum(survey, args.path, &ctx, &stop)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(manifest)) => Outcome::done(&manifest),
            Ok(Err(Stop::Failed(error))) => Outcome::Fail(error),
            Ok(Err(Stop::Cancelled)) => Outcome::Cancelled,
            Err(error) => match error.try_into_panic() {
                // Whoever runs the task turns it into a failed attempt, like a panic right here.
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Outcome::Cancelled,
            },
        }
    }
}

/// Why the work ended without a manifest.
#[derive(Debug)]
enum Stop {
    Cancelled,
    Failed(TaskError),
}

impl From<TaskError> for Stop {
    fn from(error: TaskError) -> Self {
        Self::Failed(error)
    }
}

/// Hashes what the survey found.
fn checksum(
    survey: Survey,
    given: String,
    ctx: &TaskContext,
    stop: &CancellationToken,
) -> Result<Manifest, Stop> {
    let Survey {
        base,
        single,
        files,
        bytes: mut total,
        mut skipped,
    } = survey;
    let mut manifest = ManifestBuilder::default();
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    ctx.progress(Progress::of(done, total, "bytes"));
    for file in files {
        if stop.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        let name = file.path.to_string_lossy();
        let digest = digest::sha256(&base.join(&file.path), file.bytes, &mut buffer, |read| {
            done += read;
            ctx.progress(Progress::of(done, total, "bytes").with_message(name.as_ref()));
            !stop.is_cancelled()
        });
        match digest {
            Ok(sha256) => manifest.add(&file.path, file.bytes, sha256),
            Err(Fault::Vanished) => {
                skipped += 1;
                total -= file.bytes;
                ctx.progress(Progress::of(done, total, "bytes"));
            }
            Err(Fault::Stopped) => return Err(Stop::Cancelled),
            Err(fault) => {
                // A single file's path is the one that was given, whatever it resolved to.
                let below = if single { Path::new("") } else { &file.path };
                return Err(unreadable(&given, below, &fault).into());
            }
        }
    }
    Ok(manifest.build(given, skipped))
}

/// The failure of a path below the one that was given; `relative` is empty for that one itself.
fn unreadable(given: &str, relative: &Path, reason: &dyn Display) -> TaskError {
    let path = match given {
        given if relative.as_os_str().is_empty() => Path::new(given).to_path_buf(),
        "." => relative.to_path_buf(),
        given => Path::new(given).join(relative),
    };
    let path = path.to_string_lossy();
    TaskError::new(
        "unreadable",
        format!("{path:?} could not be read: {reason}"),
    )
}

#[cfg(test)]
mod tests;
