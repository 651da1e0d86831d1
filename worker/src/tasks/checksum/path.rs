//! From the path a caller gave to the place on disk, which is never outside the root.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use bellhop_common::wire::TaskError;

/// Where `given` leads, without symlinks; `root` has none itself.
pub(super) fn resolve(root: &Path, given: &str) -> Result<PathBuf, TaskError> {
    if climbs_out(Path::new(given)) {
        return Err(outside(given));
    }
    // Step by step: a path through a symlink that leads outside is refused at the symlink, so the
    // answer does not tell whether something exists out there.
    let mut place = root.to_path_buf();
    for step in Path::new(given).components() {
        place = place
            .join(step)
            .canonicalize()
            .map_err(|error| match error.kind() {
            ErrorKind::NotFound
            | ErrorKind::NotADirectory
            // A name that no file can have: with a NUL, or too long.
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidFilename => missing(given),
            _ => super::unreadable(given, Path::new(""), &error),
        })?;
        if !place.starts_with(root) {
            return Err(outside(given));
        }
    }
    Ok(place)
}

/// Whether the text alone says so, whatever lies on the disk.
fn climbs_out(path: &Path) -> bool {
    let mut depth = 0_u32;
    for step in path.components() {
        match step {
            Component::Normal(_) => depth = depth.saturating_add(1),
            Component::CurDir => {}
            Component::ParentDir => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

fn outside(given: &str) -> TaskError {
    let message = format!(
        "{given:?} is outside the files root: give a path relative to the root that stays below it"
    );
    TaskError::new("outside_root", message)
}

fn missing(given: &str) -> TaskError {
    TaskError::new(
        "not_found",
        format!("there is no file or folder {given:?} below the files root"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_alone_tells_most_escapes() {
        for path in [
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../..",
            "a/./../../a",
            "./..",
        ] {
            assert!(climbs_out(Path::new(path)), "{path}");
        }
        for path in [
            "",
            ".",
            "a",
            "a/..",
            "a/../b",
            "./a//b/",
            "..a",
            "a/...",
            "a/b/../../c",
        ] {
            assert!(!climbs_out(Path::new(path)), "{path}");
        }
    }
}
