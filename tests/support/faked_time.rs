//! A clock of a program's own, which a test sets: libfaketime.

use std::path::{Path, PathBuf};

use uuid::Uuid;

/// Where Debian and Ubuntu have it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The file by which the clock is set; it goes when dropped.
pub struct FakedTime(PathBuf);

impl FakedTime {
    /// A clock that is right.
    pub fn right() -> Self {
        assert!(
            Path::new(LIBRARY).exists(),
            "{LIBRARY} is missing: apt-get install faketime"
        );
        let name = format!("bellhop-clock-{}", Uuid::now_v7().simple());
        let clock = Self(std::env::temp_dir().join(name));
        clock.set("+0");
        clock
    }

    /// Sets it off by so much: `+2d`, `-2d`, `+0`.
    pub fn set(&self, off: &str) {
        // In one step: a file that is read half would be another time.
        let fresh = self.0.with_extension("new");
        std::fs::write(&fresh, off).unwrap();
        std::fs::rename(fresh, &self.0).unwrap();
    }

    /// What a program needs in its environment to have this clock. Its timers are right.
    pub fn environment(&self) -> Vec<(String, String)> {
        let file = self.0.display().to_string();
        let pairs = [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_NO_CACHE", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        pairs
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec()
    }
}

impl Drop for FakedTime {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}
