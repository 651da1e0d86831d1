//! A program that writes an SQLite file is killed at each of its system calls in turn: whatever it had
//! said to be done is there, whole, and the rest can be done again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bellhop_notifier::store::{StoreError, check};
use bellhop_tests::program::path;
use bellhop_tests::stack::Folder;
use bellhop_tests::store_plan::{Content, content, open, steps, take};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::process::Command;

/// What changes a file, in SQLite's words on Linux.
const CALLS: [&str; 7] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "unlink",
];

/// What the file has to be like after each number of steps, by a writer that nobody kills.
async fn expected() -> Vec<Content> {
    let folder = Folder::new();
    let store = open(&folder.0.join("store.db")).unwrap();
    let mut contents = vec![content(&store).await.unwrap()];
    for step in steps() {
        take(&store, step).await.unwrap();
        contents.push(content(&store).await.unwrap());
    }
    contents
}

/// Of a run that was traced.
struct Run {
    /// How many steps it said were done.
    done: usize,
    ended: bool,
}

/// Runs the writer until the `nth` of a call, or its end.
async fn run_until(file: &Path, count: usize, call: &str, nth: usize) -> Run {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=KILL:when={nth}"))
        .arg(path("store-writer"))
        .arg(file)
        .arg(count.to_string())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("strace can be run: apt-get install strace");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut numbers = said.lines().filter_map(|line| line.parse().ok());
    let (done, ended) = (numbers.next_back().unwrap_or(0), said.contains("closed"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.is_empty(),
        "the writer, or strace (is ptrace allowed here?), says: {errors}"
    );
    Run { done, ended }
}

/// What the writer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// No file: it makes one, and does nothing with it.
    Fresh,
    /// An empty file of its own, so that each call belongs to a step, and not to the beginning. Strace
    /// counts for each thread.
    Made,
}

/// A kill, and how to look what it did.
struct Kill<'a> {
    begin: Begin,
    call: &'a str,
    nth: usize,
    file: PathBuf,
    expected: &'a [Content],
}

impl Kill<'_> {
    /// Whether it came to it; or what is wrong then.
    async fn run(self) -> Result<bool, String> {
        let last = self.expected.len() - 1;
        let count = match self.begin {
            Begin::Fresh => 0,
            Begin::Made => {
                drop(open(&self.file).map_err(|error| self.place(0, &error))?);
                last
            }
        };
        let run = run_until(&self.file, count, self.call, self.nth).await;
        let looked = self.look(&run).await;
        looked.map_err(|what| self.place(run.done, &what))?;
        if run.ended {
            return Ok(false);
        }
        let again = self.do_again(&run).await;
        again.map_err(|error| self.place(run.done, &error))?;
        Ok(true)
    }

    fn place(&self, done: usize, what: &dyn std::fmt::Debug) -> String {
        let Self {
            begin, call, nth, ..
        } = self;
        format!("{begin:?}, {call} {nth}, {done} steps done: {what:#?}")
    }

    /// What was done is there; the step after may be, too, and is not said to be.
    async fn look(&self, run: &Run) -> Result<(), String> {
        let said = |error: StoreError| format!("{error:?}");
        {
            // As the next notifier does.
            let store = open(&self.file).map_err(said)?;
            let found = content(&store).await.map_err(said)?;
            let last = self.expected.len() - 1;
            let fits = &self.expected[run.done..=(run.done + 1).min(last)];
            if !fits.contains(&found) {
                return Err(format!("{found:#?}"));
            }
        }
        let wrong = check(&self.file).map_err(said)?;
        wrong
            .is_empty()
            .then_some(())
            .ok_or_else(|| wrong.join("; "))
    }

    /// What was not acknowledged comes again.
    async fn do_again(&self, run: &Run) -> Result<(), StoreError> {
        let store = open(&self.file)?;
        for step in steps().into_iter().skip(run.done) {
            take(&store, step).await?;
        }
        assert_eq!(Some(&content(&store).await?), self.expected.last());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writer_of_a_file_is_killed_at_each_of_its_system_calls() {
    let (folder, expected) = (Folder::new(), expected().await);
    for begin in [Begin::Fresh, Begin::Made] {
        let mut tried = BTreeMap::new();
        for call in CALLS {
            let kills = stream::iter(1..).map(|nth| {
                let kill = Kill {
                    begin,
                    call,
                    nth,
                    file: folder.0.join(format!("{begin:?}-{call}-{nth}.db")),
                    expected: &expected,
                };
                kill.run()
            });
            // In order, so that the first that ends by itself is behind all that can be killed.
            let mut kills = kills.buffered(2);
            let mut killed = 0;
            while kills.next().await.unwrap().unwrap() {
                killed += 1;
            }
            tried.insert(call, killed);
        }
        let points: usize = tried.values().sum();
        eprintln!("{begin:?}: {points} kill points tried: {tried:?}");
        assert!(tried["pwrite64"] > 10 && tried["fsync"] > 2, "{tried:?}");
    }
}
