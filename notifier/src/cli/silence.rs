//! `notifier silence`.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use bellhop_common::cli::say;
use bellhop_common::config::HumanDuration;
use bellhop_common::table::{aligned, clean};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::api::{ApiFlags, read};

const PATH: &str = "/api/alerts/silences";

/// A person reads one line; `--json` has the rest.
const WIDEST: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum Silence {
    /// Have alerts counted and not posted for a while; prints the silence's id
    Add(Add),
    /// List those that hold now
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiFlags,
    },
    /// End one before its time; what is still open is told then
    End {
        /// The silence's id
        #[arg(value_parser = id)]
        id: Uuid,
        #[command(flatten)]
        api: ApiFlags,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// A label of the alerts and what it must be, where `*` stands for anything, e.g.
    /// `kind=report.*`; of several all must fit. Besides labels there are route, receiver, severity
    #[arg(value_name = "LABEL=PATTERN", required = true, value_parser = label)]
    labels: Vec<(String, String)>,
    /// How long, at most 90 days, e.g. `2h`
    #[arg(long = "for", value_name = "DURATION")]
    lasts: HumanDuration,
    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// All of the silence, as JSON in one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiFlags,
}

/// What of a silence a table shows.
#[derive(Deserialize)]
struct Shown {
    id: Uuid,
    labels: BTreeMap<String, String>,
    until: Timestamp,
    author: String,
    reason: String,
}

fn id(text: &str) -> Result<Uuid, String> {
    let id = text.parse();
    id.map_err(|_| "an id is as `notifier silence list` shows it".into())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, pattern)) if !name.is_empty() => Ok((name.to_owned(), pattern.to_owned())),
        _ => Err("write a label and a pattern, e.g. kind=report.*".into()),
    }
}

impl Silence {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run().await,
            Self::List { json, api } => list(json, api).await,
            Self::End { id, api } => {
                let path = format!("{PATH}/{id}");
                api.open()?.ask(Method::DELETE, &path, None).await?;
                say(&format!("ended {id}"));
                Ok(())
            }
        }
    }
}

impl Add {
    async fn run(self) -> anyhow::Result<()> {
        let mut labels = BTreeMap::new();
        for (name, pattern) in &self.labels {
            ensure!(
                labels.insert(name, pattern).is_none(),
                "the label {name:?} is given twice: both could fit no alert; make two silences"
            );
        }
        let until = Timestamp::now().checked_add(self.lasts.0);
        let until = until.context("--for: nothing lasts that long; at most 90 days")?;
        let wanted = json!({"labels": labels, "until": until, "reason": self.reason});
        let api = self.api.open()?;
        let made = api.ask(Method::POST, PATH, Some(&wanted)).await?;
        if self.json {
            say(&made.to_string());
        } else {
            let made: Shown = read(made)?;
            say(&made.id.to_string());
        }
        Ok(())
    }
}

async fn list(json: bool, api: ApiFlags) -> anyhow::Result<()> {
    let mut answer = api.open()?.ask(Method::GET, PATH, None).await?;
    let silences: Vec<Value> = read(
        answer
            .get_mut("silences")
            .map(Value::take)
            .unwrap_or_default(),
    )?;
    if json {
        for silence in silences {
            say(&silence.to_string());
        }
        return Ok(());
    }
    let silences: Vec<Shown> = read(silences.into())?;
    if !silences.is_empty() {
        say(table(&silences).trim_end());
    }
    Ok(())
}

fn table(silences: &[Shown]) -> String {
    let mut rows = vec![["ID", "UNTIL", "BY", "LABELS", "REASON"].map(str::to_owned)];
    for silence in silences {
        let labels = silence.labels.iter();
        let labels: Vec<_> = labels
            .map(|(name, pattern)| format!("{name}={pattern}"))
            .collect();
        rows.push([
            silence.id.to_string(),
            silence.until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            clean(&silence.author, WIDEST),
            clean(&labels.join(" "), WIDEST),
            clean(&silence.reason, WIDEST),
        ]);
    }
    aligned(&rows)
}
