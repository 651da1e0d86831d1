//! What `worker enqueue` may say of a job besides what it is.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_common::wire::Job;
use clap::Args;
use jiff::Timestamp;

#[derive(Debug, Default, Args)]
pub(crate) struct JobOptions {
    /// Not before this time, e.g. `2026-12-24T18:00:00Z`
    #[arg(long, value_name = "TIME", conflicts_with = "delay", value_parser = time)]
    run_at: Option<Timestamp>,
    /// Not before so much time has passed, e.g. `90s` or `2h`
    #[arg(long, value_name = "DURATION")]
    delay: Option<HumanDuration>,
    /// Not after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires_at: Option<Timestamp>,
    /// How often it may be tried
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// How long one attempt may take
    #[arg(long, value_name = "DURATION")]
    timeout: Option<HumanDuration>,
    /// AMQP priority, heeded from `RabbitMQ` 4.0 on
    #[arg(long, value_name = "0-255")]
    priority: Option<u8>,
    /// A room that sees the progress, too
    #[arg(long, value_name = "ID")]
    room: Option<String>,
    /// Only if no job of this kind, user and key was put in before; else the id of that one is printed
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,
    /// How long the key is taken [default: 1h]
    #[arg(long, value_name = "DURATION", requires = "unique_key")]
    unique_for: Option<HumanDuration>,
}

impl JobOptions {
    pub(crate) fn apply(self, job: &mut Job) {
        job.run_at = self.run_at;
        job.delay_s = self.delay.map(whole_seconds);
        job.expires_at = self.expires_at;
        job.max_attempts = self.max_attempts;
        job.timeout_s = self.timeout.map(whole_seconds);
        job.priority = self.priority;
        job.room_id = self.room;
        job.unique_key = self.unique_key;
        job.unique_for_s = self.unique_for.map(whole_seconds);
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = text.parse();
    time.map_err(|_| format!("{text:?} is not a time such as 2026-12-24T18:00:00Z"))
}

/// Rounded up: never sooner or shorter than asked for.
fn whole_seconds(duration: HumanDuration) -> u64 {
    let duration = Duration::from(duration);
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_rounded_up_to_whole_seconds() {
        let options = JobOptions {
            delay: "1500ms".parse().ok(),
            timeout: "2m".parse().ok(),
            ..JobOptions::default()
        };
        let mut job = Job::new("t", "k", json!({}), "u");
        options.apply(&mut job);
        assert_eq!((job.delay_s, job.timeout_s), (Some(2), Some(120)));
    }
}
