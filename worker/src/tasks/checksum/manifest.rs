//! The result: a list for people, and one digest over all of it for programs.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// The result travels in an event to every window of its owner: so many files are listed, and so
/// many bytes of names as JSON writes them, and the others are only counted. Together they stay
/// below the 256 KiB that a result may have by default, with some 100 bytes a file besides its name.
const LISTED_FILES: usize = 1_000;
const LISTED_NAMES: usize = 100 * 1024;

/// A job's result.
#[derive(Debug, Serialize)]
pub(super) struct Manifest {
    path: String,
    files: Vec<Entry>,
    omitted: u64,
    count: u64,
    bytes: u64,
    skipped: u64,
    #[serde(rename = "manifest_sha256")]
    sha256: String,
}

/// A file in the list.
#[derive(Debug, Serialize)]
struct Entry {
    path: String,
    bytes: u64,
    sha256: String,
}

/// Collects files in order. What it holds does not grow with their number.
#[derive(Default)]
pub(super) struct ManifestBuilder {
    files: Vec<Entry>,
    name_bytes: usize,
    count: u64,
    bytes: u64,
    listing: Sha256,
}

impl ManifestBuilder {
    pub(super) fn add(&mut self, path: &Path, bytes: u64, sha256: String) {
        self.listing
            .update(listing_line(path.as_os_str().as_bytes(), &sha256));
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        // Counted for omitted files too, so that the list is a prefix.
        let path = path.to_string_lossy();
        let written = serde_json::to_string(&path).map_or(usize::MAX, |json| json.len());
        self.name_bytes = self.name_bytes.saturating_add(written);
        if self.files.len() < LISTED_FILES && self.name_bytes <= LISTED_NAMES {
            let path = path.into_owned();
            self.files.push(Entry {
                path,
                bytes,
                sha256,
            });
        }
    }

    pub(super) fn build(self, path: String, skipped: u64) -> Manifest {
        Manifest {
            path,
            omitted: self.count.saturating_sub(self.files.len() as u64),
            files: self.files,
            count: self.count,
            bytes: self.bytes,
            skipped,
            sha256: format!("{:x}", self.listing.finalize()),
        }
    }
}

/// A line as GNU `sha256sum ./name` prints it: with a backslash in front, and escapes in the name,
/// when the name would break the line.
fn listing_line(name: &[u8], sha256: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(sha256.len() + name.len() + 6);
    if name
        .iter()
        .any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'))
    {
        line.push(b'\\');
    }
    line.extend_from_slice(sha256.as_bytes());
    line.extend_from_slice(b"  ./");
    for byte in name {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_break_the_line_is_escaped() {
        for (name, wants) in [
            (&b"a b"[..], &b"00  ./a b\n"[..]),
            (b"-n", b"00  ./-n\n"),
            (b"a\nb", b"\\00  ./a\\nb\n"),
            (b"a\rb", b"\\00  ./a\\rb\n"),
            (b"a\\b", b"\\00  ./a\\\\b\n"),
            (b"a\xffb", b"00  ./a\xffb\n"),
        ] {
            assert_eq!(listing_line(name, "00"), wants, "{}", name.escape_ascii());
        }
    }

    fn built(names: impl Iterator<Item = String>) -> Manifest {
        let mut manifest = ManifestBuilder::default();
        for name in names {
            manifest.add(Path::new(&name), 2, "00".into());
        }
        manifest.build(".".into(), 0)
    }

    #[test]
    fn a_long_list_is_cut_and_the_rest_is_counted() {
        let all = |count: usize| (0..count).map(|n| format!("{n:04}"));
        let whole = built(all(1_000));
        assert_eq!((whole.files.len(), whole.omitted), (1_000, 0));
        let cut = built(all(1_203));
        assert_eq!((cut.files.len(), cut.omitted), (1_000, 203));
        assert_eq!((cut.count, cut.bytes), (1_203, 2_406));
        assert_ne!(cut.sha256, whole.sha256, "covers what was omitted");
    }

    #[test]
    fn long_names_cut_the_list_too() {
        // A short name after the cut is not listed: the list has no holes.
        let names = (0..400).map(|n| format!("{n:04}{}", "x".repeat(996)));
        let cut = built(names.chain(["y".to_owned()]));
        assert_eq!(cut.files.len(), LISTED_NAMES / 1_002);
        assert_eq!(cut.omitted, 401 - cut.files.len() as u64);
    }
}
