//! A tiny disk of a test's own, which can be filled up.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

/// A file system in memory, mounted where only this process's programs see it: in a mount namespace
/// that lasts as long as its first process. Gone when dropped.
pub struct TinyDisk {
    /// Where it is, for programs that are started [`inside`](Self::inside).
    pub folder: PathBuf,
    holder: Child,
}

impl TinyDisk {
    /// A disk of so many KiB.
    pub async fn mounted(kib: u32) -> Self {
        let folder = std::env::temp_dir().join(format!("bellhop-disk-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&folder).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={kib}k bellhop \"$0\" && echo mounted && exec sleep infinity"
        );
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(&folder)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare (of util-linux) can be run");
        let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        let said = timeout(Duration::from_secs(10), lines.next_line()).await;
        assert!(
            matches!(&said, Ok(Ok(Some(line))) if line == "mounted"),
            "a tmpfs cannot be mounted in a mount namespace: this test needs root (CAP_SYS_ADMIN)"
        );
        Self { folder, holder }
    }

    /// The command by which a program is started that sees the disk.
    pub fn inside(&self) -> Vec<String> {
        let pid = self.holder.id().unwrap().to_string();
        ["nsenter", "--target", &pid, "--mount", "--"]
            .map(Into::into)
            .to_vec()
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let block = vec![1; 4096];
        loop {
            match ballast.write(&block) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("the disk cannot be filled: {error}"),
            }
        }
    }

    /// Makes the room again.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    /// As it is seen from outside.
    fn ballast(&self) -> PathBuf {
        let pid = self.holder.id().unwrap();
        let folder = self.folder.strip_prefix("/").unwrap();
        PathBuf::from(format!("/proc/{pid}/root"))
            .join(folder)
            .join("ballast")
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // The disk itself goes with its namespace.
        drop(self.holder.start_kill());
        drop(std::fs::remove_dir(&self.folder));
    }
}
