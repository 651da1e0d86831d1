//! A folder that ends with its scenario.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use uuid::Uuid;

/// A folder of our own, deleted when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let name = format!("bellhop-bench-{}", Uuid::now_v7().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A file that cannot be deleted is no reason to lose the result.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
