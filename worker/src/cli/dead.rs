//! `worker dead`: what failed for good.

mod table;

use std::time::Duration;

use crate::WorkerConfig;
use anyhow::{Context as _, bail};
use bellhop_common::amqp::{Names, Publisher, Topology};
use bellhop_common::cli::say;
use bellhop_common::config::{ConfigFlags, HumanDuration, LogConfig, Sources};
use bellhop_common::dead_letters::{Bounds, Filter, Office, Report};
use bellhop_common::telemetry::{Component, init_logs};
use bellhop_common::{shutdown, tls};
use clap::{Args, Subcommand};

use self::table::Table;

/// How long to wait for somebody else who looks through the dead letters.
const TURN: Duration = Duration::from_secs(15);

/// How long one command may look through them. RabbitMQ takes back what is held for 30 minutes.
const WORK: Duration = Duration::from_mins(10);

/// More letters of one id than anybody wants to read.
const MAX_SHOWN: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List them, oldest first
    List(List),
    /// Print one with its arguments, headers and history, as JSON
    Show(Show),
    /// Put them back into their queues, with fresh attempts
    Replay(Replay),
    /// Take them away for good
    Drop(Drop),
}

/// Filters; letters must match all that are given.
#[derive(Debug, Args)]
struct Filters {
    /// Only jobs of this kind; may be given several times
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Only with this reason (an error's code, `unreadable`, `delivery_limit`); may be repeated
    #[arg(long = "reason", value_name = "CODE")]
    reasons: Vec<String>,
    /// Only those given up longer ago, e.g. `1h`
    #[arg(long, value_name = "DURATION")]
    older_than: Option<HumanDuration>,
    /// Only those given up less long ago, e.g. `1d`
    #[arg(long, value_name = "DURATION")]
    newer_than: Option<HumanDuration>,
}

impl Filters {
    fn with_ids(self, ids: Vec<String>) -> Filter {
        Filter {
            ids,
            kinds: self.kinds,
            reasons: self.reasons,
            older_than: self.older_than.map(Duration::from),
            newer_than: self.newer_than.map(Duration::from),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only the letter with this id; may be repeated
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    /// How many to list at most
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The letter's id
    id: String,
    /// In one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFlags,
}

/// Which letters a command changes. Nothing asked for is not everything.
#[derive(Debug, Args)]
struct Selection {
    /// Their ids
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filters: Filters,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Selection {
    fn filter(self) -> anyhow::Result<Filter> {
        let filter = self.filters.with_ids(self.ids);
        match (filter.is_empty(), self.all) {
            (true, false) => bail!(
                "which ones? Give ids, filters (--kind, --reason, --older-than, --newer-than), or --all"
            ),
            (false, true) => bail!("--all goes with no ids and no filters: leave one out"),
            _ => Ok(filter),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    selection: Selection,
    /// Into this queue (its short name), not the one they came from. Needed for what nobody could
    /// read
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Debug, Args)]
pub(super) struct Drop {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    config: ConfigFlags,
}

impl Command {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Replay(replay) => replay.run().await,
            Self::Drop(drop) => drop.run().await,
        }
    }
}

/// The configuration, with what every command here begins with.
fn begin(flags: &ConfigFlags) -> anyhow::Result<(WorkerConfig, Office, Bounds)> {
    let config: WorkerConfig = Sources::of_process(flags).load()?;
    // The answer goes to standard output; only what goes wrong is worth a line besides.
    init_logs(&LogConfig {
        level: "warn".into(),
        ..config.log.clone()
    })?;
    tls::install_provider();
    let office = Office::new(&config.amqp, "worker dead");
    let bounds = Bounds {
        turn: TURN,
        work: WORK,
        // Ctrl-C stops between two letters, and puts the others back in their places.
        stop: shutdown::on_signal(|| {}).context("cannot handle signals")?,
    };
    Ok((config, office, bounds))
}

const INCOMPLETE: &str = "not all letters were looked at: run the command again";

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let (_, office, bounds) = begin(&self.config)?;
        let filter = self.filters.with_ids(self.ids);
        let mut table = Table::default();
        let mut unwritten = None;
        let listing = office
            .list(&filter, self.limit, &bounds, |letter| {
                if !self.json {
                    return table.add(&letter);
                }
                match serde_json::to_string(&letter) {
                    Ok(line) => say(&line),
                    Err(error) => unwritten = Some(error),
                }
            })
            .await?;
        table.flush();
        if let Some(error) = unwritten {
            return Err(error.into());
        }
        if listing.more {
            hint(&format!(
                "there are more: raise --limit, it is {}",
                self.limit
            ));
        }
        if !listing.complete {
            bail!(INCOMPLETE);
        }
        // With a limit the rest was not looked for.
        if !listing.more && !listing.missing.is_empty() {
            bail!(missing(&listing.missing));
        }
        Ok(())
    }
}

impl Show {
    async fn run(self) -> anyhow::Result<()> {
        let (_, office, bounds) = begin(&self.config)?;
        let opened = office.open(&self.id, MAX_SHOWN, &bounds).await?;
        if opened.is_empty() {
            bail!(missing([&self.id]));
        }
        for letter in &opened {
            say(&if self.json {
                // A body may have line breaks; a value has none.
                serde_json::to_value(letter)?.to_string()
            } else {
                serde_json::to_string_pretty(letter)?
            });
        }
        Ok(())
    }
}

impl Replay {
    async fn run(self) -> anyhow::Result<()> {
        let filter = self.selection.filter()?;
        let (config, office, bounds) = begin(&self.config)?;
        let topology = Topology::base(&Names::new(&config.amqp));
        let (publisher, task) =
            Publisher::start(&config.amqp, "worker dead", topology, Component::default());
        let queue = self.queue.as_deref();
        let report = office.replay(&publisher, &filter, queue, &bounds).await;
        task.close().await;
        conclude("replayed", report?)
    }
}

impl Drop {
    async fn run(self) -> anyhow::Result<()> {
        let filter = self.selection.filter()?;
        let (_, office, bounds) = begin(&self.config)?;
        conclude("dropped", office.discard(&filter, &bounds).await?)
    }
}

/// Prints the count; what is left undone is an error.
fn conclude(done: &str, report: Report) -> anyhow::Result<()> {
    let Report {
        done: count,
        unreadable,
        failed,
        missing: ids,
        problem,
        complete,
    } = report;
    say(&format!("{done} {count}"));
    if unreadable > 0 {
        hint(&format!(
            "left {unreadable} that nobody could read: mend and publish them anew, or give --queue to \
             put them in as they are"
        ));
    }
    if let Some(problem) = problem {
        let problem = anyhow::Error::new(problem);
        return Err(match failed {
            0 => problem,
            _ => problem.context(format!("{failed} could not be {done}; the first")),
        });
    }
    if !complete {
        bail!(INCOMPLETE);
    }
    if !ids.is_empty() {
        bail!(missing(&ids));
    }
    if count == 0 && unreadable > 0 {
        bail!("none was {done}");
    }
    Ok(())
}

fn missing<'a>(ids: impl IntoIterator<Item = &'a String>) -> String {
    let ids: Vec<_> = ids.into_iter().map(String::as_str).collect();
    format!("there is no dead letter {}", ids.join(", "))
}

/// For the person; standard output is for the answer.
fn hint(text: &str) {
    bellhop_common::cli::complain("worker", &text);
}
