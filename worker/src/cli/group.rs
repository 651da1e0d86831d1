//! `worker enqueue-group`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use bellhop_common::cli::say;
use bellhop_common::config::ConfigFlags;
use bellhop_common::enqueue_group::{NewGroup, enqueue_group};
use bellhop_common::wire::{FollowUp, Group, Job, JobProperties, MAX_GROUP_SIZE, group_job_id};
use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::producer;

#[derive(Debug, Args)]
pub(super) struct EnqueueGroup {
    /// The jobs, one JSON object a line with at least a `kind`, else the fields of a job and a `queue`
    /// [default: standard input]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Who owns them and sees their progress
    #[arg(long, value_name = "ID")]
    user: String,
    /// The short name of the queue of those that name none
    #[arg(long, default_value = "default")]
    queue: String,
    /// A name for people
    #[arg(long)]
    title: Option<String>,
    /// The group's id [default: a new UUID]. With the same one the same jobs get the same ids
    #[arg(long)]
    id: Option<String>,
    /// Some of it may be in already: jobs that have ended do not run again
    #[arg(long, requires = "id")]
    again: bool,
    #[command(flatten)]
    sequel: Sequel,
    #[command(flatten)]
    config: ConfigFlags,
}

/// What follows.
#[derive(Debug, Args)]
struct Sequel {
    /// Which handler is to run when all have succeeded
    #[arg(long, value_name = "KIND")]
    then: Option<String>,
    /// Its arguments; the results are added as `result`
    #[arg(long, value_name = "JSON", default_value = "{}", requires = "then")]
    then_args: String,
    /// Which handler is to run when some have failed
    #[arg(long, value_name = "KIND")]
    on_failure: Option<String>,
    /// Its arguments; the error is added as `error`
    #[arg(
        long,
        value_name = "JSON",
        default_value = "{}",
        requires = "on_failure"
    )]
    on_failure_args: String,
}

impl EnqueueGroup {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut group = Group::new(self.id.unwrap_or_else(|| Uuid::now_v7().to_string()));
        group.title = self.title;
        let sequel = self.sequel;
        group.then = follow_up(sequel.then, "--then-args", &sequel.then_args)?;
        let (kind, args) = (sequel.on_failure, sequel.on_failure_args);
        group.on_failure = follow_up(kind, "--on-failure-args", &args)?;
        let usual = Usual {
            group: &group.id,
            user: &self.user,
            queue: &self.queue,
        };
        let jobs = match &self.file {
            Some(path) => {
                let file = std::fs::File::open(path);
                let file = file.with_context(|| format!("cannot read {}", path.display()))?;
                usual.read(BufReader::new(file))?
            }
            None => usual.read(std::io::stdin().lock())?,
        };
        let ids: Vec<_> = jobs.iter().map(|(_, job)| job.id.clone()).collect();
        let id = group.id.clone();
        let (publisher, task, names) = producer(&self.config, "enqueue").await?;
        let new = NewGroup {
            group,
            jobs,
            again: self.again,
        };
        let result = enqueue_group(&publisher, &names, new, Timestamp::now()).await;
        task.close().await;
        result.with_context(|| format!("group {id}"))?;
        say(&id);
        for id in ids {
            say(&id);
        }
        Ok(())
    }
}

fn follow_up(kind: Option<String>, flag: &str, args: &str) -> anyhow::Result<Vec<FollowUp>> {
    let Some(kind) = kind else {
        return Ok(Vec::new());
    };
    let args: Map<String, Value> =
        serde_json::from_str(args).with_context(|| format!("{flag} is no JSON object: {args}"))?;
    Ok(vec![FollowUp::new(kind, Value::Object(args))])
}

/// What holds for jobs that do not say otherwise.
struct Usual<'a> {
    group: &'a str,
    user: &'a str,
    queue: &'a str,
}

impl Usual<'_> {
    /// The jobs, each with its queue. Empty lines are passed over.
    fn read(&self, lines: impl BufRead) -> anyhow::Result<Vec<(String, Job)>> {
        let mut jobs = Vec::new();
        let most = usize::try_from(MAX_GROUP_SIZE).unwrap_or(usize::MAX);
        for (number, line) in (1..).zip(lines.lines()) {
            let line = line.context("cannot read the jobs")?;
            if line.trim().is_empty() {
                continue;
            }
            ensure!(
                jobs.len() < most,
                "a group has at most {MAX_GROUP_SIZE} jobs"
            );
            let job = self.job(&line, jobs.len());
            jobs.push(job.with_context(|| format!("line {number}"))?);
        }
        Ok(jobs)
    }

    fn job(&self, line: &str, index: usize) -> anyhow::Result<(String, Job)> {
        let mut fields: Map<String, Value> =
            serde_json::from_str(line).context("this is no JSON object")?;
        let queue = match fields.remove("queue") {
            None => self.queue.to_owned(),
            Some(Value::String(queue)) => queue,
            Some(other) => bail!("`queue` must be a text, it is {other}"),
        };
        ensure!(
            !fields.contains_key("group"),
            "the job has a `group` already: leave it out, this command says it"
        );
        let user = fields.entry("user_id").or_insert_with(|| json!(self.user));
        let owner = user.as_str().unwrap_or_default();
        let id = group_job_id(owner, self.group, index).to_string();
        fields.entry("id").or_insert_with(|| json!(id));
        let body = Value::Object(fields).to_string();
        Ok((
            queue,
            Job::parse(body.as_bytes(), &JobProperties::default())?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, Job)>, String> {
        let usual = Usual {
            group: "g",
            user: "ann",
            queue: "default",
        };
        let read = usual.read(text.as_bytes());
        read.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn lines_are_jobs_with_ids_that_stay() {
        let text = "{\"kind\":\"a\"}\n\n{\"kind\":\"b\",\"id\":\"own\",\"queue\":\"slow\"}\n";
        let jobs = read(text).unwrap();
        let (queue, job) = &jobs[1];
        assert_eq!((queue.as_str(), job.id.as_str()), ("slow", "own"));
        assert!(job.extra.is_empty());
        let (queue, job) = &jobs[0];
        assert_eq!((queue.as_str(), job.user_id.as_str()), ("default", "ann"));
        assert_eq!(job.id, read(text).unwrap()[0].1.id);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (line, wants) in [
            ("[]", "no JSON object"),
            ("{}", "property type"),
            ("{\"kind\":\"a\",\"queue\":1}", "`queue` must be a text"),
            ("{\"kind\":\"a\",\"group\":{}}", "leave it out"),
            ("{\"kind\":\"a\",\"delay_s\":-1}", "-1"),
        ] {
            let error = read(&format!("{{\"kind\":\"a\"}}\n{line}")).unwrap_err();
            assert!(error.contains("line 2") && error.contains(wants), "{error}");
        }
    }
}
