//! What happens between the walk and the hashing.

use super::*;
use serde_json::json;
use std::fs;

/// A folder that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        fs::create_dir(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Walks the folder, lets `meanwhile` happen, and hashes. Whatever is gone then, a success ends
/// at 100 %.
fn with_change_between(meanwhile: impl FnOnce(&Path)) -> Result<Manifest, Stop> {
    let dir = Scratch::new();
    fs::create_dir(dir.0.join("d")).unwrap();
    for name in ["a", "d/b", "c"] {
        fs::write(dir.0.join(name), "four").unwrap();
    }
    let (ctx, seen) = TaskContext::detached();
    let survey = survey::survey(&dir.0, "sub", ctx.cancelled()).unwrap();
    meanwhile(&dir.0);
    let result = checksum(survey, "sub".into(), &ctx, ctx.cancelled());
    if result.is_ok() {
        let last = seen.borrow().clone().unwrap();
        assert_eq!((last.percent, last.done), (Some(100.0), last.total));
    }
    result
}

fn failure(result: Result<Manifest, Stop>) -> TaskError {
    match result {
        Err(Stop::Failed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_or_folder_that_vanishes_is_skipped() {
    let manifest = with_change_between(|dir| {
        fs::remove_file(dir.join("a")).unwrap();
        fs::remove_dir_all(dir.join("d")).unwrap();
    })
    .unwrap();
    let manifest = serde_json::to_value(manifest).unwrap();
    assert_eq!(manifest["skipped"], 2);
    assert_eq!(manifest["count"], 1);
    assert_eq!(manifest["bytes"], 4);
    assert_eq!(manifest["files"][0]["path"], "c");
}

#[test]
fn a_folder_that_becomes_a_file_takes_its_files_with_it() {
    let manifest = with_change_between(|dir| {
        fs::remove_dir_all(dir.join("d")).unwrap();
        fs::write(dir.join("d"), "x").unwrap();
    })
    .unwrap();
    let manifest = serde_json::to_value(manifest).unwrap();
    assert_eq!(
        (&manifest["skipped"], &manifest["count"]),
        (&json!(1), &json!(2))
    );
}

#[test]
fn a_file_that_grows_or_shrinks_fails_the_job_by_name() {
    for (content, wants) in [("fours", "grew"), ("for", "shrank"), ("", "shrank")] {
        let error = failure(with_change_between(|dir| {
            fs::write(dir.join("d/b"), content).unwrap();
        }));
        assert_eq!(error.code, "unreadable");
        assert!(error.message.starts_with("\"sub/d/b\" "), "{error:?}");
        assert!(error.message.contains(wants), "{error:?}");
    }
}

#[test]
fn a_file_that_becomes_something_else_is_not_read() {
    let outside = Scratch::new();
    fs::write(outside.0.join("b"), "four").unwrap();
    // The file itself, and the folder that it lies in.
    for link in ["d/b", "d"] {
        let error = failure(with_change_between(|dir| {
            fs::remove_dir_all(dir.join("d")).unwrap();
            let target = match link {
                "d" => outside.0.clone(),
                _ => outside.0.join("b"),
            };
            if link != "d" {
                fs::create_dir(dir.join("d")).unwrap();
            }
            std::os::unix::fs::symlink(target, dir.join(link)).unwrap();
        }));
        assert_eq!(error.code, "unreadable", "{link}");
        assert!(error.message.contains("\"sub/d/b\""), "{error:?}");
    }
    let error = failure(with_change_between(|dir| {
        fs::remove_file(dir.join("a")).unwrap();
        // Opening a pipe would wait for someone who writes into it.
        assert!(
            std::process::Command::new("mkfifo")
                .arg(dir.join("a"))
                .status()
                .unwrap()
                .success()
        );
    }));
    assert_eq!(error.code, "unreadable");
}

#[test]
fn a_path_is_named_as_the_caller_gave_it() {
    for (given, relative, wants) in [
        (".", "a/b", "\"a/b\" "),
        ("sub", "a", "\"sub/a\" "),
        ("./sub/", "a", "\"./sub/a\" "),
        ("sub/f", "", "\"sub/f\" "),
        (".", "", "\".\" "),
    ] {
        let error = unreadable(given, Path::new(relative), &"no");
        assert!(error.message.starts_with(wants), "{error:?}");
    }
}
