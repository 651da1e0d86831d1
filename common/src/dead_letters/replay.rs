//! The message that brings a letter back, and what its owner is told.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::letter::{DeadLetter, Origin, Past, number};
use crate::amqp::{Message, Properties};
use crate::wire::{Job, Status, TaskStatus, cut, header, next_rev};

/// All headers share one frame with the properties; the oldest past goes first.
const MAX_HISTORY_BYTES: usize = 16 * 1024;

/// The same for one entry, before it is written as JSON.
const MAX_PAST_TEXT: usize = 1024;

/// What belongs to the end that is now past, or to the way there.
const OF_THE_PAST: [&str; 5] = [
    header::REASON,
    header::ERROR,
    header::DIED_AT,
    header::DEFERRALS,
    header::SETTLED,
];

/// The letter's message with fresh attempts and its history, for the queue named.
pub(super) fn message(
    letter: &DeadLetter,
    job: Option<&Job>,
    to: &Origin,
    properties: Properties,
    body: Vec<u8>,
    now: Timestamp,
) -> Message {
    let mut headers = properties.headers_to_keep();
    for name in OF_THE_PAST {
        headers.remove(name);
    }
    let mut set = |name: &str, value: String| headers.insert(name.to_owned(), value);
    set(
        header::REPLAYS,
        letter.replays.saturating_add(1).to_string(),
    );
    set(header::HISTORY, history(letter));
    if let Origin::Jobs(queue) = to {
        set(header::QUEUE, queue.clone());
        set(header::ATTEMPT, "1".into());
        set(header::HOP, next_hop(&properties.headers).to_string());
        set(header::ORIGIN, origin(&properties));
        set(header::SINCE, since(job, now).to_string());
        // If we stop between the confirm and the acknowledgement, there is a second copy.
        set(header::ONCE, "1".into());
    }
    Message {
        body,
        id: properties.message_id,
        kind: properties.kind,
        priority: properties.priority,
        reply_to: properties.reply_to,
        correlation_id: properties.correlation_id,
        timestamp: properties.timestamp,
        headers,
        persistent: true,
    }
}

/// What the job was known by before: a second copy of this replay must be known by the same.
fn origin(properties: &Properties) -> String {
    let header = |name| properties.headers.get(name).cloned();
    let stamp = || properties.timestamp.map(|time| time.to_string());
    let known = header(header::ORIGIN).or_else(|| header(header::SINCE));
    known.or_else(stamp).unwrap_or_default()
}

/// Never a number that was there before: what a worker did with the message of that hop is on
/// record, and would be taken for done.
fn next_hop(headers: &BTreeMap<String, String>) -> u32 {
    number(headers, header::HOP).unwrap_or(0).saturating_add(1)
}

/// From when the limits on the whole job count. Its delay is over once and for all: it counts as
/// put in so long ago that it is due.
fn since(job: Option<&Job>, now: Timestamp) -> Timestamp {
    let delay = job.and_then(|job| i64::try_from(job.delay_s?).ok());
    let delay = SignedDuration::from_secs(delay.unwrap_or(0));
    now.checked_sub(delay).unwrap_or(now)
}

fn history(letter: &DeadLetter) -> String {
    let short = |past: &Past| Past {
        reason: cut(&past.reason, MAX_PAST_TEXT).to_owned(),
        error: past
            .error
            .as_deref()
            .map(|error| cut(error, MAX_PAST_TEXT).to_owned()),
        ..*past
    };
    let all = letter
        .history
        .iter()
        .chain(std::iter::once(&letter.past()))
        .map(short)
        .collect::<Vec<_>>();
    let mut kept = all.as_slice();
    loop {
        // Texts and numbers can always be written.
        let text = serde_json::to_string(kept).unwrap_or_default();
        match kept {
            [_, rest @ ..] if text.len() > MAX_HISTORY_BYTES => kept = rest,
            _ => return text,
        }
    }
}

/// `queued` again, above everything that was said of the task's end, so that a client which
/// ignores what is not newer takes it.
pub(super) fn queued_again(letter: &DeadLetter, job: &Job, now: Timestamp) -> TaskStatus {
    // The end was said by a worker's clock, which may be ahead of ours.
    let end = letter.died_at.map_or(0, |at| next_rev(0, at));
    TaskStatus {
        task_id: job.id.clone(),
        kind: job.kind.clone(),
        title: job.title.clone(),
        user_id: job.user_id.clone(),
        status: Status::Queued,
        attempt: 0,
        max_attempts: job.max_attempts.unwrap_or(1),
        rev: next_rev(end, now),
        progress: None,
        error: None,
        result: None,
        next_attempt_at: None,
        group: job.group.as_ref().map(|group| group.place()),
        timestamp: now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amqp::Names;
    use crate::config::AmqpConfig;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-15T10:30:00Z".parse().unwrap()
    }

    fn properties(headers: &[(&str, &str)]) -> Properties {
        let headers = headers.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        Properties {
            message_id: Some("t1".into()),
            reply_to: Some("answers".into()),
            headers: headers.collect(),
            ..Properties::default()
        }
    }

    fn replayed(properties: &Properties, job: &Job) -> (DeadLetter, Message) {
        let body = serde_json::to_vec(job).unwrap();
        let names = Names::new(&AmqpConfig::default());
        let letter = DeadLetter::read(&names, "mail", properties, None, &body);
        let to = Origin::Jobs("mail".into());
        let message = message(&letter, Some(job), &to, properties.clone(), body, now());
        (letter, message)
    }

    #[test]
    fn a_replay_starts_with_fresh_attempts_and_keeps_the_history() {
        let job = Job::new("t1", "k", json!({}), "ann");
        let first = properties(&[
            (header::QUEUE, "mail"),
            (header::REASON, "timeout"),
            (header::ERROR, "too long"),
            (header::DIED_AT, "2026-01-15T09:00:00Z"),
            (header::ATTEMPT, "5"),
            (header::HOP, "9"),
            (header::SETTLED, "x"),
            (header::TRACEPARENT, "00-ab"),
            ("x-delivery-count", "3"),
        ]);
        let (_, message) = replayed(&first, &job);
        let wants = [
            (header::ATTEMPT, "1"),
            (
                header::HISTORY,
                r#"[{"reason":"timeout","error":"too long","died_at":"2026-01-15T09:00:00Z","attempts":5}]"#,
            ),
            (header::HOP, "10"),
            (header::ONCE, "1"),
            (header::ORIGIN, ""),
            (header::QUEUE, "mail"),
            (header::REPLAYS, "1"),
            (header::SINCE, "2026-01-15T10:30:00Z"),
            (header::TRACEPARENT, "00-ab"),
        ];
        let headers = message
            .headers
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()));
        let mut wanted = wants.to_vec();
        wanted.sort_unstable();
        assert_eq!(headers.collect::<Vec<_>>(), wanted);
        assert_eq!(message.reply_to.as_deref(), Some("answers"));
        assert!(message.persistent);

        let mut second = Properties {
            headers: message.headers,
            ..first
        };
        second.headers.insert(header::REASON.into(), "panic".into());
        let (letter, message) = replayed(&second, &job);
        assert_eq!((letter.replays, letter.history.len()), (1, 1));
        assert_eq!(message.headers[header::REPLAYS], "2");
        assert_eq!(message.headers[header::HOP], "11");
        let history: Vec<Past> = serde_json::from_str(&message.headers[header::HISTORY]).unwrap();
        let reasons: Vec<_> = history.iter().map(|past| past.reason.as_str()).collect();
        assert_eq!(reasons, ["timeout", "panic"]);
    }

    #[test]
    fn the_hop_grows_even_when_the_headers_are_too_many_to_keep() {
        let job = Job::new("t1", "k", json!({}), "ann");
        let much = "x".repeat(70_000);
        let properties = properties(&[(header::HOP, "9"), (header::REPLAYS, "2"), ("much", &much)]);
        let (_, message) = replayed(&properties, &job);
        assert_eq!(message.headers[header::HOP], "10");
        assert_eq!(message.headers[header::REPLAYS], "3");
        assert!(!message.headers.contains_key("much"));
    }

    #[test]
    fn the_history_stays_within_its_bound_and_forgets_the_oldest() {
        let job = Job::new("t1", "k", json!({}), "ann");
        // As JSON, six bytes each.
        let error = "\u{1}".repeat(5000);
        let mut headers = properties(&[(header::REASON, "r"), (header::ERROR, &error)]);
        for round in 0..20 {
            headers
                .headers
                .insert(header::REASON.into(), format!("r{round}"));
            headers.headers.insert(header::ERROR.into(), error.clone());
            let (_, message) = replayed(&headers, &job);
            let history = &message.headers[header::HISTORY];
            assert!(history.len() <= MAX_HISTORY_BYTES, "{}", history.len());
            assert!(
                history.contains(&format!("\"r{round}\"")),
                "the newest is kept"
            );
            headers.headers = message.headers;
        }
        assert_eq!(headers.headers[header::REPLAYS], "20");
        assert!(!headers.headers[header::HISTORY].contains("\"r1\""));
    }

    #[test]
    fn a_job_that_had_a_delay_is_due_at_once() {
        let mut job = Job::new("t1", "k", json!({}), "ann");
        job.delay_s = Some(90);
        let (_, message) = replayed(&properties(&[]), &job);
        let since: Timestamp = message.headers[header::SINCE].parse().unwrap();
        assert_eq!(job.due(since), Some(now()));
    }

    #[test]
    fn queued_is_above_the_end_whichever_clock_is_ahead() {
        let job = Job::new("t1", "k", json!({}), "ann");
        for died_at in ["2026-01-15T10:29:59.999999Z", "2026-01-15T10:31:00Z"] {
            let properties = properties(&[(header::DIED_AT, died_at)]);
            let (letter, _) = replayed(&properties, &job);
            let end = next_rev(0, died_at.parse().unwrap());
            let status = queued_again(&letter, &job, now());
            assert!(status.rev > end);
            assert_eq!((status.status, status.attempt), (Status::Queued, 0));
        }
    }
}
