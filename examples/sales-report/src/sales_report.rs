//! The task `sales.report`: adds up a CSV file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellhop_worker::{Outcome, Progress, Task, TaskContext, TaskError};
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};

/// How long to wait for a file that is not there yet.
const UPLOAD_PAUSE: Duration = Duration::from_secs(30);

/// Adds up the sales in the CSV files of a folder.
pub struct SalesReport {
    folder: PathBuf,
}

/// A job's `args`: `{"file": "january.csv", "by": "product"}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Args {
    file: String,
    #[serde(default)]
    by: Column,
}

/// What the sums are for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Column {
    #[default]
    Region,
    Product,
}

/// A job's result.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Report {
    rows: u64,
    cents: BTreeMap<String, u64>,
}

impl SalesReport {
    /// A task that reads the files of `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The report, or the outcome to give instead. A failure that may pass is a *retry*: the worker
    /// tries again later, and after the last attempt fails the job. One that never will is a *fail*.
    async fn report(&self, ctx: &TaskContext, args: &Args) -> Result<Report, Outcome> {
        let file = open(&self.folder, &args.file).await?;
        let size = file.metadata().await.map_err(unreadable)?.len();
        let mut lines = BufReader::new(file).lines();
        let mut report = Report::default();
        let mut done = 0;
        while let Some(line) = lines.next_line().await.map_err(unreadable)? {
            // The job was cancelled, its time is up, or the worker must stop.
            if ctx.cancelled().is_cancelled() {
                return Err(Outcome::Cancelled);
            }
            report.rows += 1;
            let (name, cents) = row(&line, &args.by).ok_or_else(|| {
                let message = format!("line {} is not region,product,cents", report.rows);
                Outcome::fail("bad_row", message)
            })?;
            *report.cents.entry(name.to_owned()).or_default() += cents;
            done += line.len() as u64 + 1;
            // As often as you like: the worker tells the owner ten times a second at most.
            ctx.progress(Progress::of(done.min(size), size, "bytes"));
        }
        Ok(report)
    }
}

impl Task for SalesReport {
    const KIND: &'static str = "sales.report";
    type Args = Args;

    async fn run(&self, ctx: TaskContext, args: Args) -> Outcome {
        match self.report(&ctx, &args).await {
            Ok(report) => Outcome::done(&report),
            Err(outcome) => outcome,
        }
    }
}

async fn open(folder: &Path, file: &str) -> Result<File, Outcome> {
    // Whoever may put a job in must not read the whole disk.
    if Path::new(file).file_name() != Some(file.as_ref()) {
        let message = format!("{file:?} is not the name of a file");
        return Err(Outcome::fail("bad_file", message));
    }
    File::open(folder.join(file)).await.map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            return unreadable(error);
        }
        let message = format!("{file} has not been uploaded yet");
        Outcome::Retry {
            after: Some(UPLOAD_PAUSE),
            error: TaskError::new("no_file_yet", message),
        }
    })
}

fn unreadable(error: std::io::Error) -> Outcome {
    Outcome::retry("unreadable", format!("the file cannot be read: {error}"))
}

fn row<'a>(line: &'a str, by: &Column) -> Option<(&'a str, u64)> {
    let mut fields = line.split(',');
    let (region, product) = (fields.next()?, fields.next()?);
    let cents = fields.next()?.trim().parse().ok()?;
    let name = match by {
        Column::Region => region,
        Column::Product => product,
    };
    fields.next().is_none().then_some((name, cents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

    /// Runs the task as a worker does, without a broker.
    async fn run(args: Value) -> (Outcome, Option<Progress>) {
        let (ctx, progress) = TaskContext::detached();
        let args = serde_json::from_value(args).unwrap();
        let outcome = SalesReport::new(DATA).run(ctx, args).await;
        let last = progress.borrow().clone();
        (outcome, last)
    }

    #[tokio::test]
    async fn sales_are_added_up() {
        let (outcome, progress) = run(json!({"file": "january.csv"})).await;
        let wants = json!({"rows": 4, "cents": {"north": 4000, "south": 1250}});
        assert_eq!(outcome, Outcome::Done(wants));
        assert_eq!(progress.unwrap().percent, Some(100.0));

        let (outcome, _) = run(json!({"file": "january.csv", "by": "product"})).await;
        let wants = json!({"rows": 4, "cents": {"pen": 1500, "lamp": 3750}});
        assert_eq!(outcome, Outcome::Done(wants));
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_yet_is_waited_for() {
        let (outcome, _) = run(json!({"file": "tomorrow.csv"})).await;
        let Outcome::Retry { after, error } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(after, Some(UPLOAD_PAUSE));
        assert_eq!(error.code, "no_file_yet");
    }

    #[tokio::test]
    async fn a_row_that_makes_no_sense_fails_the_job_for_good() {
        let (outcome, _) = run(json!({"file": "broken.csv"})).await;
        let wants = Outcome::fail("bad_row", "line 2 is not region,product,cents");
        assert_eq!(outcome, wants);
    }

    #[tokio::test]
    async fn only_files_of_the_folder_are_read() {
        for file in ["../Cargo.toml", "/etc/passwd", "..", ""] {
            let (outcome, _) = run(json!({"file": file})).await;
            let Outcome::Fail(error) = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(error.code, "bad_file");
        }
    }

    #[tokio::test]
    async fn a_cancelled_job_ends() {
        let (ctx, _progress) = TaskContext::detached();
        ctx.cancelled().cancel();
        let args = serde_json::from_value(json!({"file": "january.csv"})).unwrap();
        let outcome = SalesReport::new(DATA).run(ctx, args).await;
        assert_eq!(outcome, Outcome::Cancelled);
    }

    #[test]
    fn misspelt_arguments_are_refused() {
        let read = serde_json::from_value::<Args>(json!({"file": "a.csv", "bye": "region"}));
        assert!(read.unwrap_err().to_string().contains("bye"));
    }
}
