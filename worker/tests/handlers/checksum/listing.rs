//! The manifest, compared with `sha256sum`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use bellhop_worker::Outcome;
use serde_json::json;

use super::{manifest, run};
use crate::scratch::Scratch;

/// What the documentation says to run, in that folder.
fn by_sha256sum(dir: &Path, find: &str) -> String {
    let script = format!(
        "find {find} -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum | sha256sum"
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn a_folder_is_hashed_in_byte_order() {
    let dir = Scratch::new();
    // "a-b" comes before "a/…" in bytes, and after it folder by folder.
    for name in ["a/z", "a/b/c", "a-b", "B", "é"] {
        dir.write(name, name);
    }
    dir.write("empty", "");
    fs::create_dir(dir.path().join("nothing")).unwrap();
    let manifest = manifest(dir.path(), ".").await;
    let files = manifest["files"].as_array().unwrap();
    let paths: Vec<_> = files
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["B", "a-b", "a/b/c", "a/z", "empty", "é"]);
    let hash = "df7e70e5021544f4834bbee64a9e3789febc4be81470df629cad6ddb03320a5c";
    assert_eq!(files[0], json!({"path": "B", "bytes": 1, "sha256": hash}));
    assert_eq!(manifest["count"], 6);
    assert_eq!(manifest["bytes"], 1 + 3 + 5 + 3 + 2);
    assert_eq!(
        (&manifest["skipped"], &manifest["omitted"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(manifest["path"], ".");
    assert_eq!(manifest["manifest_sha256"], by_sha256sum(dir.path(), "."));
}

#[tokio::test]
async fn the_root_is_taken_when_no_path_is_given() {
    let dir = Scratch::new();
    dir.write("a", "a");
    let Outcome::Done(result) = run(dir.path(), json!({})).await else {
        panic!()
    };
    assert_eq!(result, manifest(dir.path(), ".").await);
    assert_eq!(result["count"], 1);
}

#[tokio::test]
async fn sha256sum_agrees_on_names_that_are_hard_to_print() {
    let dir = Scratch::new();
    for name in [
        &b"new\nline"[..],
        b"back\\slash",
        b"both\\\n",
        b"-",
        b"-n",
        b" a ",
        b"*",
        b"\xff\xfe",
        b"d/\n/x",
    ] {
        dir.write(OsStr::from_bytes(name), name);
    }
    let manifest = manifest(dir.path(), "").await;
    assert_eq!(manifest["manifest_sha256"], by_sha256sum(dir.path(), "."));
    let files = manifest["files"].as_array().unwrap();
    assert_eq!(files.len(), 9);
    assert_eq!(files.last().unwrap()["path"], "\u{fffd}\u{fffd}");
    assert!(files.iter().any(|file| file["path"] == "new\nline"));
}

#[tokio::test]
async fn sha256sum_agrees_on_content_of_any_size() {
    let dir = Scratch::new();
    // Around the ends of hash blocks and of the read buffer.
    for size in [
        0,
        1,
        55,
        56,
        63,
        64,
        65,
        (1 << 20) - 1,
        1 << 20,
        (1 << 20) + 1,
        3 << 20,
    ] {
        let content: Vec<u8> = (0..=250).cycle().take(size).collect();
        dir.write(size.to_string(), content);
    }
    assert_eq!(
        manifest(dir.path(), ".").await["manifest_sha256"],
        by_sha256sum(dir.path(), ".")
    );
}

#[tokio::test]
async fn a_long_list_is_cut_and_its_digest_is_not() {
    let dir = Scratch::new();
    for n in 0..1_005 {
        dir.write(format!("{n}"), "x");
    }
    let manifest = manifest(dir.path(), ".").await;
    assert_eq!(manifest["files"].as_array().unwrap().len(), 1_000);
    assert_eq!(
        (&manifest["omitted"], &manifest["count"]),
        (&json!(5), &json!(1_005))
    );
    assert_eq!(manifest["manifest_sha256"], by_sha256sum(dir.path(), "."));
}

#[tokio::test]
async fn an_empty_folder_and_a_single_file_have_a_manifest() {
    let dir = Scratch::new();
    dir.write("sub/one", "1");
    dir.write("sub/two", "2");
    fs::create_dir(dir.path().join("empty")).unwrap();

    let empty = manifest(dir.path(), "empty").await;
    assert_eq!((&empty["count"], &empty["bytes"]), (&json!(0), &json!(0)));
    assert_eq!(empty["manifest_sha256"], by_sha256sum(dir.path(), "empty"));

    let single = manifest(dir.path(), "sub/one").await;
    assert_eq!(
        (&single["path"], &single["count"]),
        (&json!("sub/one"), &json!(1))
    );
    assert_eq!(single["files"][0]["path"], "one");
    assert_eq!(
        single["manifest_sha256"],
        by_sha256sum(&dir.path().join("sub"), "./one")
    );
}

#[tokio::test]
async fn other_arguments_are_refused() {
    let dir = Scratch::new();
    for args in [
        json!({"path": 1}),
        json!({"paht": "x"}),
        json!(null),
        json!("x"),
    ] {
        let Outcome::Fail(error) = run(dir.path(), args).await else {
            panic!()
        };
        assert_eq!(error.code, "bad_args");
    }
}
