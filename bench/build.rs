//! Finds lapin's version in `Cargo.lock`, for the report.

fn main() {
    const LOCK: &str = "../Cargo.lock";
    println!("cargo::rerun-if-changed={LOCK}");
    let lock = std::fs::read_to_string(LOCK).unwrap_or_default();
    let mut lines = lock.lines();
    let version = lines
        .find(|line| *line == "name = \"lapin\"")
        .and_then(|_| lines.next())
        .and_then(|line| line.strip_prefix("version = "))
        .unwrap_or("unknown");
    println!(
        "cargo::rustc-env=LAPIN_VERSION={}",
        version.trim_matches('"')
    );
}
