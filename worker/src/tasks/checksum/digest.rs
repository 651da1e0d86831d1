//! The second pass: one file's SHA-256.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Why a file has no digest.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error("it is gone")]
    Vanished,
    #[error("it was replaced by something else meanwhile")]
    Replaced,
    #[error("it grew meanwhile")]
    Grew,
    #[error("it shrank meanwhile")]
    Shrank,
    #[error("{0}")]
    Io(io::Error),
    #[error("the work was stopped")]
    Stopped,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::Vanished,
            _ => Self::Io(error),
        }
    }
}

/// The digest in hex of a file that has `expected` bytes.
///
/// After each chunk `more` hears its size, and says whether to go on.
pub(super) fn sha256(
    path: &Path,
    expected: u64,
    buffer: &mut [u8],
    mut more: impl FnMut(u64) -> bool,
) -> Result<String, Fault> {
    let mut file = open(path)?;
    let mut hasher = Sha256::new();
    let mut left = expected;
    loop {
        let count = match file.read(buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Fault::Io(error)),
        };
        // Not at the end only: a log that never stops growing would be read for ever.
        left = left.checked_sub(count as u64).ok_or(Fault::Grew)?;
        hasher.update(buffer.get(..count).unwrap_or_default());
        if !more(count as u64) {
            return Err(Fault::Stopped);
        }
    }
    if left > 0 {
        return Err(Fault::Shrank);
    }
    Ok(format!("{:x}", hasher.finalize()))
}

/// Opens a file that was regular and reached without a symlink when the folder was walked, if it
/// still is.
fn open(path: &Path) -> Result<File, Fault> {
    // Before opening: to open a pipe would wait for a writer.
    if !path.symlink_metadata()?.is_file() || path.canonicalize()? != path {
        return Err(Fault::Replaced);
    }
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(Fault::Replaced)
    }
}
