//! `[cron."<name>"]`.

use std::collections::BTreeMap;

use bellhop_common::wire::{Job, NAMESPACE};
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::plan::Entry;
use super::schedule::Schedule;

/// `[cron."<name>"]`: a job that is put in again and again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CronConfig {
    /// A cron expression of five fields, or six with the seconds first.
    pub schedule: String,
    /// Whose clock the schedule means, as in `Europe/Berlin`.
    #[serde(default = "utc")]
    pub timezone: String,
    /// Which handler runs the job.
    pub kind: String,
    /// The handler's arguments.
    #[serde(default = "no_args")]
    pub args: Value,
    /// The queue's short name.
    #[serde(default = "default_queue")]
    pub queue: String,
    /// Who owns the job.
    pub user_id: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What happens to times that passed while no worker ran.
    #[serde(default)]
    pub catch_up: CatchUp,
}

/// What happens to times that passed more than a minute ago while no worker ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// The last of them is made up for.
    #[default]
    Last,
    /// They are gone.
    None,
    /// Each is made up for, but no more than the last hundred.
    All,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn no_args() -> Value {
    json!({})
}

fn default_queue() -> String {
    "default".to_owned()
}

impl CronConfig {
    /// What is wrong with the entry of this name.
    #[must_use]
    pub fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(error) = Schedule::parse(&self.schedule, &self.timezone) {
            problems.push(format!(
                "cron.{name:?}.schedule = {:?}: {error}",
                self.schedule
            ));
        }
        // The queue's name is a routing key, the entry's is part of a UUID's name and of logs.
        for (what, text) in [("name", name), ("queue", &self.queue)] {
            if text.is_empty() || text.len() > 128 {
                problems.push(format!(
                    "cron.{name:?}: its {what} must have 1 to 128 bytes"
                ));
            }
        }
        if let Err(error) = self.job(name, Timestamp::UNIX_EPOCH).check() {
            problems.push(format!("cron.{name:?}: {error}"));
        }
        problems
    }

    /// The entry's times; `None` for one with [`problems`](Self::problems).
    pub(super) fn entry(&self, name: &str) -> Option<Entry> {
        Some(Entry {
            name: name.to_owned(),
            schedule: Schedule::parse(&self.schedule, &self.timezone).ok()?,
            catch_up: self.catch_up,
        })
    }

    /// The job for a time. Whoever fires for this time gives it the same id.
    pub(super) fn job(&self, name: &str, at: Timestamp) -> Job {
        let id = Uuid::new_v5(&NAMESPACE, format!("cron/{name}/{at}").as_bytes());
        let (kind, args) = (self.kind.as_str(), self.args.clone());
        let mut job = Job::new(id, kind, args, self.user_id.as_str());
        job.title.clone_from(&self.title);
        let of = json!({"name": name, "at": at.to_string()});
        job.extra.insert("cron".to_owned(), of);
        job
    }
}

/// An entry and its next times.
#[derive(Debug)]
pub struct Upcoming {
    /// The entry's name.
    pub name: String,
    /// In its own time zone.
    pub times: Vec<Zoned>,
}

/// The next `count` times of each entry.
#[must_use]
pub fn upcoming(
    config: &BTreeMap<String, CronConfig>,
    now: Timestamp,
    count: usize,
) -> Vec<Upcoming> {
    let entries = config.iter().filter_map(|(name, cron)| cron.entry(name));
    let times = |schedule: &Schedule| {
        let first = schedule.next(now);
        std::iter::successors(first, |time| schedule.next(*time))
            .take(count)
            .map(|time| schedule.on_the_wall(time))
            .collect()
    };
    entries
        .map(|entry| Upcoming {
            times: times(&entry.schedule),
            name: entry.name,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = "schedule = \"0 3 * * *\"\nkind = \"k\"\nuser_id = \"ann\"";

    #[test]
    fn an_entry_is_read_with_its_defaults_and_its_mistakes_are_named() {
        let cron: CronConfig = toml::from_str(NIGHTLY).unwrap();
        assert_eq!((&*cron.timezone, &*cron.queue), ("UTC", "default"));
        assert_eq!(cron.catch_up, CatchUp::Last);
        assert!(cron.problems("nightly").is_empty());
        let wrong = CronConfig {
            schedule: "0 25 * * *".into(),
            user_id: String::new(),
            ..cron
        };
        let problems = wrong.problems("nightly").join("\n");
        for wants in ["cron.\"nightly\".schedule", "hour", "user_id"] {
            assert!(problems.contains(wants), "{wants} in {problems}");
        }
        let (no_owner, _) = NIGHTLY.rsplit_once('\n').unwrap();
        assert!(toml::from_str::<CronConfig>(no_owner).is_err());
    }

    #[test]
    fn a_time_gives_its_job_the_same_id_wherever_it_is_fired() {
        let cron: CronConfig = toml::from_str(NIGHTLY).unwrap();
        let at: Timestamp = "2026-01-01T03:00:00Z".parse().unwrap();
        let job = cron.job("a", at);
        assert_eq!(cron.job("a", at), job);
        assert_eq!(job.extra["cron"]["at"], "2026-01-01T03:00:00Z");
        let later = "2026-01-02T03:00:00Z".parse().unwrap();
        assert_ne!(cron.job("a", later).id, job.id);
        assert_ne!(cron.job("b", at).id, job.id);
    }
}
