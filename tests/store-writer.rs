//! Does the first so many steps of `support/store_plan.rs` with an SQLite file, and says after each
//! that it is done. For the test that kills it.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it reports")]

use std::io::Write as _;
use std::path::PathBuf;

use bellhop_tests::store_plan::{open, steps, take};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().unwrap());
    let count: usize = arguments.next().unwrap().parse().unwrap();
    let store = open(&path).unwrap();
    let mut out = std::io::stdout();
    for (index, step) in steps().into_iter().take(count).enumerate() {
        take(&store, step).await.unwrap();
        writeln!(out, "{}", index + 1).unwrap();
        out.flush().unwrap();
    }
    drop(store);
    writeln!(out, "closed").unwrap();
}
