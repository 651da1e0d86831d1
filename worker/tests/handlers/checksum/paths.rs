//! What may be read, and what is said about the rest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use bellhop_worker::tasks::{Checksum, RootError};
use bellhop_worker::{Outcome, Registry, TaskContext};
use serde_json::json;

use super::{failure, manifest};
use crate::scratch::Scratch;

#[tokio::test]
async fn links_and_special_files_are_skipped_and_counted() {
    let (dir, outside) = (Scratch::new(), Scratch::new());
    dir.write("d/file", "x");
    outside.write("secret", "y");
    symlink(outside.path(), dir.path().join("d/out")).unwrap();
    symlink("file", dir.path().join("d/in")).unwrap();
    symlink("nowhere", dir.path().join("d/dangling")).unwrap();
    symlink("..", dir.path().join("d/loop")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(dir.path().join("d/pipe"))
            .status()
            .unwrap()
            .success()
    );
    let manifest = manifest(dir.path(), "d").await;
    assert_eq!(
        (&manifest["count"], &manifest["skipped"]),
        (&json!(1), &json!(5))
    );
    assert_eq!(manifest["files"][0]["path"], "file");
}

#[tokio::test]
async fn what_leads_outside_is_refused() {
    let (dir, outside) = (Scratch::new(), Scratch::new());
    dir.write("d/file", "x");
    outside.write("secret", "y");
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("d/secret")).unwrap();
    symlink("../..", dir.path().join("d/up")).unwrap();
    // A folder whose name begins like the root's.
    let sibling = format!("{}-sibling", dir.path().display());
    fs::create_dir(&sibling).unwrap();
    symlink(&sibling, dir.path().join("sibling")).unwrap();

    let absolute = dir.path().join("d").display().to_string();
    for path in [
        "/",
        "/etc/passwd",
        &absolute,
        "..",
        "../",
        "d/../..",
        "missing/../../x",
        "out",
        "out/secret",
        // Whether this exists is not told.
        "out/missing",
        "out/..",
        "d/secret",
        "d/up",
        "d/up/etc",
        "sibling",
    ] {
        let (code, message) = failure(dir.path(), path).await;
        assert_eq!(code, "outside_root", "{path}");
        assert!(message.contains(&format!("{path:?}")), "{message}");
        assert!(
            !message.contains(&outside.path().display().to_string()),
            "{message}"
        );
        if path != absolute {
            assert!(
                !message.contains(&dir.path().display().to_string()),
                "{message}"
            );
        }
    }
    fs::remove_dir(&sibling).unwrap();
}

#[tokio::test]
async fn links_and_dots_that_stay_inside_are_followed() {
    let dir = Scratch::new();
    dir.write("d/file", "x");
    symlink("d", dir.path().join("link")).unwrap();
    symlink("d/file", dir.path().join("file")).unwrap();
    for path in [
        "d/..//./d",
        "link",
        "link/",
        "link/file",
        "file",
        "./d/../link/file",
    ] {
        let manifest = manifest(dir.path(), path).await;
        assert_eq!(
            (&manifest["count"], &manifest["path"]),
            (&json!(1), &json!(path))
        );
        assert_eq!(manifest["files"][0]["path"], "file");
    }
}

#[tokio::test]
async fn a_missing_path_is_named_without_the_root() {
    let dir = Scratch::new();
    dir.write("file", "x");
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    let long = "x".repeat(300);
    for path in [
        "missing",
        "missing/a",
        "file/a",
        "file/..",
        "dangling",
        "nul\0",
        &long,
    ] {
        let (code, message) = failure(dir.path(), path).await;
        assert_eq!(code, "not_found", "{path:?}");
        assert!(message.contains(&format!("{path:?}")), "{message}");
        assert!(
            !message.contains(&dir.path().display().to_string()),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_root_that_vanished_is_no_crash_and_not_named() {
    let dir = Scratch::new();
    let task = Registry::new().with(Checksum::new(dir.path()).unwrap());
    let path = dir.path().display().to_string();
    drop(dir);
    for args in [json!({}), json!({"path": ""})] {
        let handler = task.get("files.checksum").unwrap();
        let Outcome::Fail(error) = handler.run(TaskContext::detached().0, args).await else {
            panic!()
        };
        assert!(["unreadable", "not_found"].contains(&error.code.as_str()));
        assert!(!error.message.contains(&path), "{error:?}");
    }
}

/// Linux' own files: one that nobody can read at its start, and one that has more in it than its
/// size says. Both are so for root, too.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_file_that_cannot_be_read_fails_the_job_by_name() {
    let root = Path::new("/proc/self");
    for (path, wants) in [
        ("mem", "\"mem\" could not be read: Input/output error"),
        ("status", "\"status\" could not be read: it grew"),
        ("../self/./status", ""),
    ] {
        let (code, message) = failure(root, path).await;
        if wants.is_empty() {
            assert_eq!(code, "outside_root");
            continue;
        }
        assert_eq!(code, "unreadable");
        assert!(message.starts_with(wants), "{message}");
        assert!(!message.contains("/proc"), "{message}");
    }
    // Found by a walk it is named below the folder.
    let (code, message) = failure(Path::new("/proc"), "self/net/stat").await;
    assert_eq!(code, "unreadable");
    assert!(message.starts_with("\"self/net/stat/"), "{message}");
}

#[tokio::test]
async fn something_else_than_a_file_or_folder_is_refused() {
    let (code, message) = failure(Path::new("/dev"), "null").await;
    assert_eq!(code, "unreadable");
    assert!(
        message.contains("\"null\"") && message.contains("neither"),
        "{message}"
    );
}

#[test]
fn the_root_must_be_a_folder() {
    let dir = Scratch::new();
    dir.write("file", "x");
    let missing = Checksum::new(dir.path().join("missing")).unwrap_err();
    assert!(matches!(missing, RootError::Unusable { .. }));
    let file = Checksum::new(dir.path().join("file")).unwrap_err();
    assert!(matches!(file, RootError::NotAFolder { .. }));
    for (error, name) in [(missing, "missing"), (file, "file")] {
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("files.root"), "{text}");
    }
}

#[tokio::test]
async fn a_root_may_be_reached_through_a_link() {
    let (dir, other) = (Scratch::new(), Scratch::new());
    dir.write("d/file", "x");
    symlink(dir.path(), other.path().join("root")).unwrap();
    assert_eq!(manifest(&other.path().join("root"), "d").await["count"], 1);
}
