//! `worker status`: asks all workers, looks at the queues, and shows what it learns.

mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, stdout};
use std::time::Duration;

use crate::WorkerConfig;
use bellhop_common::amqp::{Depth, Inquiry, InquiryError, Names, ladder};
use bellhop_common::cli::{complain, say};
use bellhop_common::config::{AmqpConfig, ConfigFlags, HumanDuration, LogConfig, Sources};
use bellhop_common::telemetry::{init_logs, with_causes};
use bellhop_common::wire::{ASK_STATUS, WorkerReport};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use self::table::table;

/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(2);

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, Args)]
pub(super) struct Status {
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Look again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// How long to wait for answers
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    wait: HumanDuration,
    #[command(flatten)]
    config: ConfigFlags,
}

/// What one look shows.
#[derive(Debug)]
struct Snapshot {
    time: Timestamp,
    /// Which system.
    prefix: String,
    waited: HumanDuration,
    workers: Vec<WorkerReport>,
    /// How many answers were none that this version reads.
    unreadable: usize,
    /// By short name; `None` where there is no such queue.
    queues: BTreeMap<String, Option<Depth>>,
    dead: Option<Depth>,
    quarantine: u64,
    /// Messages in the delay ladder: scheduled, to be tried again, or put off.
    delayed: u64,
}

impl Status {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config: WorkerConfig = Sources::of_process(&self.config).load()?;
        let level = "warn".into();
        init_logs(&LogConfig {
            level,
            ..config.log.clone()
        })?;
        if !self.watch {
            let snapshot = self.look(&config).await?;
            self.show(&snapshot);
            return Ok(());
        }
        loop {
            match self.look(&config).await {
                Ok(snapshot) => self.show(&snapshot),
                Err(error) => complain("worker", &with_causes(&error)),
            }
            sleep(WATCH).await;
        }
    }

    async fn look(&self, config: &WorkerConfig) -> Result<Snapshot, InquiryError> {
        let inquiry = Inquiry::open(&config.amqp, "worker status").await?;
        let looked = self.look_over(&inquiry, config).await;
        inquiry.close().await;
        looked
    }

    async fn look_over(
        &self,
        inquiry: &Inquiry,
        config: &WorkerConfig,
    ) -> Result<Snapshot, InquiryError> {
        let names = Names::new(&config.amqp);
        let answers = inquiry.ask(ASK_STATUS, self.wait.0).await?;
        let read: Vec<WorkerReport> = answers
            .iter()
            .filter_map(|answer| serde_json::from_slice(answer).ok())
            .collect();
        let unreadable = answers.len() - read.len();
        // An answer may come twice.
        let by_id: BTreeMap<Uuid, _> = read.into_iter().map(|report| (report.id, report)).collect();
        let mut workers: Vec<_> = by_id.into_values().collect();
        workers.sort_by(|a, b| (&a.host, a.pid).cmp(&(&b.host, b.pid)));
        let (mut queues, mut quarantine) = (BTreeMap::new(), 0);
        for queue in queue_names(config, &workers) {
            let alone = inquiry.depth(&names.quarantine(&queue)).await?;
            quarantine += alone.map_or(0, |depth| u64::from(depth.ready));
            let depth = inquiry.depth(&names.job_queue(&queue)).await?;
            queues.insert(queue, depth);
        }
        Ok(Snapshot {
            time: Timestamp::now(),
            prefix: config.amqp.prefix.clone(),
            waited: self.wait,
            workers,
            unreadable,
            queues,
            dead: inquiry.depth(&names.dead()).await?,
            quarantine,
            delayed: delayed(inquiry, &config.amqp).await?,
        })
    }

    fn show(&self, snapshot: &Snapshot) {
        if self.json {
            say(&to_json(snapshot).to_string());
            return;
        }
        let text = table(snapshot);
        if self.watch && stdout().is_terminal() {
            say(&format!("{CLEAR}{text}"));
        } else {
            say(&text);
        }
    }
}

/// The queues that are configured here, and those that workers serve.
fn queue_names(config: &WorkerConfig, workers: &[WorkerReport]) -> BTreeSet<String> {
    let served = workers.iter().flat_map(|worker| worker.queues.keys());
    served.chain(config.queues.keys()).cloned().collect()
}

/// How many messages are in the delay ladder, whose rungs exist up to the highest that was needed.
async fn delayed(inquiry: &Inquiry, config: &AmqpConfig) -> Result<u64, InquiryError> {
    let (names, mut messages) = (Names::new(config), 0);
    for level in 0..ladder::LEVELS {
        match inquiry.depth(&names.delay_level(level)).await? {
            Some(depth) => messages += u64::from(depth.ready),
            None => break,
        }
    }
    Ok(messages)
}

fn to_json(snapshot: &Snapshot) -> Value {
    let depth = |depth: &Option<Depth>| match depth {
        Some(depth) => json!({"ready": depth.ready, "consumers": depth.consumers}),
        None => Value::Null,
    };
    let queues: BTreeMap<_, _> = snapshot
        .queues
        .iter()
        .map(|(name, queue)| (name, depth(queue)))
        .collect();
    json!({
        "time": snapshot.time,
        "workers": snapshot.workers,
        "unreadable_answers": snapshot.unreadable,
        "queues": queues,
        "dead": depth(&snapshot.dead),
        "quarantine": snapshot.quarantine,
        "delayed": snapshot.delayed,
    })
}
