//! A job with the message it came in, and the messages that follow from it. Pure.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellhop_common::amqp::{Message, Properties, headers_to_keep, ladder};
use bellhop_common::dead_letters::bury;
use bellhop_common::wire::{Job, JobProperties, MAX_DELAY_S, NAMESPACE, TaskError, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::celery::{NoTask, why_no_job};

/// The longest that a message stays in the delay ladder before a worker looks at it again: a
/// cancellation is kept for twice as long, and so finds every job, however far ahead it is
/// scheduled.
const LONGEST_WAIT: Duration = Duration::from_hours(7 * 24);

/// A job, and what its message says of it.
#[derive(Debug)]
pub(crate) struct JobMessage {
    /// Without its arguments.
    pub(crate) job: Job,
    args: Mutex<Option<Box<Value>>>,
    body: Vec<u8>,
    kept: Kept,
    /// The short name of the queue it belongs to.
    pub(crate) queue: Arc<str>,
    /// How often it was published again.
    hop: AtomicU32,
    /// Whether it came from the quarantine.
    is_alone: bool,
}

/// What is kept of a message's properties, as small as can be: ten thousand messages are in hand at
/// once. The others are in the job.
#[derive(Debug)]
struct Kept {
    timestamp: Option<u64>,
    reply: Option<Box<Reply>>,
    headers: Box<[(Box<str>, Box<str>)]>,
}

#[derive(Debug)]
struct Reply {
    to: String,
    correlation_id: Option<String>,
}

/// How a job goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Again {
    /// Not before this time.
    pub(crate) due: Timestamp,
    /// For which attempt.
    pub(crate) attempt: u32,
    /// How often in a row it was put off.
    pub(crate) deferrals: u32,
    /// Whether it must run alone.
    pub(crate) alone: bool,
    /// Whether there may be another message of this job.
    pub(crate) once: bool,
}

/// A message that goes through the delay ladder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delayed {
    pub(crate) message: Message,
    pub(crate) key: String,
    /// The rung it needs, if any.
    pub(crate) level: Option<u8>,
}

impl JobMessage {
    /// Reads a delivery from a queue.
    pub(crate) fn read(
        queue: impl Into<Arc<str>>,
        body: Vec<u8>,
        properties: Properties,
    ) -> Result<Self, Box<Unreadable>> {
        let stand_ins = JobProperties {
            message_id: properties.message_id.clone(),
            kind: properties.kind.clone(),
            priority: properties.priority,
        };
        match Job::parse(&body, &stand_ins) {
            Ok(mut job) => Ok(Self {
                args: Mutex::new(Some(Box::new(std::mem::take(&mut job.args)))),
                job,
                queue: queue.into(),
                hop: AtomicU32::new(number(&properties, header::HOP).unwrap_or(0)),
                is_alone: false,
                body,
                kept: Kept::of(properties),
            }),
            Err(error) => Err(Box::new(Unreadable {
                queue: queue.into().as_ref().to_owned(),
                error: why_no_job(&body, &error),
                body,
                properties,
            })),
        }
    }

    /// The same for a queue's jobs that run apart from the others.
    pub(crate) fn isolated(mut self) -> Self {
        self.is_alone = true;
        self
    }

    /// Whether it runs apart from the others of its queue.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.number(header::ATTEMPT).unwrap_or(1).max(1)
    }

    pub(crate) fn deferrals(&self) -> u32 {
        self.number(header::DEFERRALS).unwrap_or(0)
    }

    /// How often the broker delivered it before without an answer.
    pub(crate) fn returns(&self) -> u32 {
        self.number("x-delivery-count").unwrap_or(0)
    }

    /// How many attempts were lost with their worker, of which `begun` were noted. What only waited
    /// in a worker that died, or was told to stop, came back too, but is not to blame.
    pub(crate) fn losses(&self, begun: u32) -> u32 {
        // Only a message that is in doubt is noted: of others the first attempt is not.
        let first = u32::from(!self.is_suspect());
        self.returns().min(begun.saturating_add(first))
    }

    /// Whether there may be another message of this job.
    pub(crate) fn is_suspect(&self) -> bool {
        self.header(header::ONCE).is_some()
    }

    /// Whether no worker has published it again yet.
    pub(crate) fn is_fresh(&self) -> bool {
        self.hop() == 0
    }

    fn hop(&self) -> u32 {
        self.hop.load(Ordering::SeqCst)
    }

    /// Looks at the job's arguments; nothing once they are [taken](Self::take_args).
    pub(crate) fn with_args<T>(&self, look: impl FnOnce(&Value) -> T) -> T {
        look(self.args().as_deref().unwrap_or(&Value::Null))
    }

    /// The arguments for the handler. A second copy here would be of no use.
    pub(crate) fn take_args(&self) -> Value {
        self.args().take().map(|args| *args).unwrap_or_default()
    }

    fn args(&self) -> MutexGuard<'_, Option<Box<Value>>> {
        self.args.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its unique key was asked for.
    pub(crate) fn is_claimed(&self) -> bool {
        self.header(header::CLAIMED).is_some()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.kept.headers();
        headers
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// When it was put in, as far as the message knows.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        let stamped = || {
            let seconds = i64::try_from(self.kept.timestamp?).ok()?;
            Timestamp::from_second(seconds).ok()
        };
        self.time(header::SINCE).or_else(stamped)
    }

    /// How often it was brought back from the dead letters.
    pub(crate) fn replays(&self) -> u32 {
        self.number(header::REPLAYS).unwrap_or(0)
    }

    /// When it may run.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let of_job = || self.job.due(self.since().unwrap_or(now));
        self.time(header::DUE).or_else(of_job)
    }

    pub(crate) fn traceparent(&self) -> Option<&str> {
        self.header(header::TRACEPARENT)
    }

    /// Who waits for the result: a queue and what it calls this job.
    pub(crate) fn reply_to(&self) -> Option<(&str, Option<&str>)> {
        let reply = self.kept.reply.as_deref()?;
        Some((&reply.to, reply.correlation_id.as_deref()))
    }

    /// Identifies this message of the job: whatever is published to be done with it carries this.
    pub(crate) fn settlement(&self) -> Uuid {
        self.settlement_of(self.hop())
    }

    /// The same of the message that takes the place of this one.
    pub(crate) fn next_settlement(&self) -> Uuid {
        self.settlement_of(self.hop().saturating_add(1))
    }

    fn settlement_of(&self, hop: u32) -> Uuid {
        let name = format!("{}/{}/{hop}", self.job.id, self.origin());
        Uuid::new_v5(&NAMESPACE, name.as_bytes())
    }

    /// The id of the event that ends the job: the same from whichever worker, and another after a
    /// replay.
    pub(crate) fn end_id(&self) -> Uuid {
        let (id, origin) = (&self.job.id, self.origin());
        let name = format!("{id}/{origin}/{}/end", self.replays());
        Uuid::new_v5(&NAMESPACE, name.as_bytes())
    }

    /// What tells this job from an earlier one that had its id, as far as the producer said when he
    /// put it in.
    fn origin(&self) -> String {
        let header = |name| self.header(name).map(str::to_owned);
        let stamped = || self.kept.timestamp.map(|time| time.to_string());
        let known = header(header::ORIGIN).or_else(|| header(header::SINCE));
        known.or_else(stamped).unwrap_or_default()
    }

    /// The message that takes the place of this one.
    pub(crate) fn again(&self, again: &Again, now: Timestamp) -> Delayed {
        let wait = Duration::try_from(again.due.duration_since(now)).unwrap_or_default();
        let wait = wait.min(LONGEST_WAIT).min(Duration::from_secs(MAX_DELAY_S));
        let destination = if again.alone {
            ladder::quarantine(&self.queue)
        } else {
            ladder::job_queue(&self.queue)
        };
        let mut message = self.copy();
        // Of a dead letter that somebody moved by hand: the ledger would take it for buried.
        for name in [header::REASON, header::ERROR, header::DIED_AT] {
            message.headers.remove(name);
        }
        let since = self.since().unwrap_or(now);
        for (name, value) in [
            (header::ATTEMPT, again.attempt.to_string()),
            (header::HOP, self.hop().saturating_add(1).to_string()),
            (header::SINCE, since.to_string()),
            (header::ORIGIN, self.origin()),
            (header::DUE, again.due.to_string()),
            (header::QUEUE, self.queue.to_string()),
            (header::DEFERRALS, again.deferrals.to_string()),
            (header::SETTLED, self.settlement().to_string()),
        ] {
            message.headers.insert(name.to_owned(), value);
        }
        if self.job.unique_key.is_some() {
            // Asked for when the job first came; after its window somebody else may have the key.
            let claimed = header::CLAIMED.to_owned();
            message.headers.insert(claimed, "true".to_owned());
        }
        if again.once {
            message.headers.insert(header::ONCE.into(), "1".into());
        } else {
            message.headers.remove(header::ONCE);
        }
        Delayed {
            message,
            key: ladder::key(wait, &destination),
            level: ladder::top_level(wait),
        }
    }

    /// From here on the message is the one that [`again`](Self::again) made.
    pub(crate) fn replaced(&self) {
        let next = self.hop().saturating_add(1);
        self.hop.store(next, Ordering::SeqCst);
    }

    /// The job as a dead letter.
    pub(crate) fn dead(&self, error: &TaskError, now: Timestamp) -> Message {
        let mut message = self.copy();
        bury(&mut message, &self.queue, error, now);
        for (name, value) in [
            (header::ATTEMPT, self.attempt().to_string()),
            (header::HOP, self.hop().to_string()),
            (header::SETTLED, self.settlement().to_string()),
        ] {
            message.headers.insert(name.to_owned(), value);
        }
        message
    }

    fn copy(&self) -> Message {
        let (reply_to, correlation_id) = self.reply_to().unzip();
        Message {
            body: self.body.clone(),
            id: Some(self.job.id.clone()),
            kind: Some(self.job.kind.clone()),
            priority: self.job.priority,
            reply_to: reply_to.map(str::to_owned),
            correlation_id: correlation_id.flatten().map(str::to_owned),
            timestamp: self.kept.timestamp,
            headers: headers_to_keep(self.kept.headers()),
            persistent: true,
        }
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.header(name)?.parse().ok()
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        self.header(name)?.parse().ok()
    }
}

impl Kept {
    fn of(properties: Properties) -> Self {
        let correlation_id = properties.correlation_id;
        let reply = |to| Reply { to, correlation_id };
        let headers = properties.headers.into_iter();
        Self {
            timestamp: properties.timestamp,
            reply: properties.reply_to.map(reply).map(Box::new),
            headers: headers
                .map(|(name, value)| (name.into_boxed_str(), value.into_boxed_str()))
                .collect(),
        }
    }

    fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let headers = self.headers.iter();
        headers.map(|(name, value)| (&**name, &**value))
    }
}

/// A message that is no job.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) queue: String,
    body: Vec<u8>,
    properties: Properties,
    pub(crate) error: String,
}

impl Unreadable {
    pub(crate) fn task(queue: &str, task: NoTask) -> Self {
        Self {
            queue: queue.to_owned(),
            error: task.error.to_string(),
            body: task.body,
            properties: task.properties,
        }
    }

    pub(crate) fn dead(self, now: Timestamp) -> Message {
        let error = TaskError::new("unreadable", self.error);
        let mut message = Message {
            headers: self.properties.headers_to_keep(),
            body: self.body,
            id: self.properties.message_id,
            kind: self.properties.kind,
            persistent: true,
            ..Message::default()
        };
        bury(&mut message, &self.queue, &error, now);
        message
    }
}

fn number(properties: &Properties, name: &str) -> Option<u32> {
    properties.headers.get(name)?.parse().ok()
}

/// `now` and a while later, or the end of time.
pub(crate) fn later(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-15T10:30:00Z".parse().unwrap()
    }

    fn message(body: &serde_json::Value, headers: &[(&str, &str)]) -> JobMessage {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let properties = Properties {
            reply_to: Some("answers".into()),
            headers: headers.collect(),
            ..Properties::default()
        };
        JobMessage::read("default", body.to_string().into_bytes(), properties).unwrap()
    }

    fn job() -> serde_json::Value {
        json!({"id": "t1", "kind": "k", "user_id": "ann"})
    }

    fn again(due: Timestamp) -> Again {
        Again {
            due,
            attempt: 3,
            deferrals: 0,
            alone: false,
            once: false,
        }
    }

    #[test]
    fn the_next_message_knows_what_the_last_one_knew() {
        let first = message(&job(), &[("traceparent", "00-ab"), ("x-death", "much")]);
        let delayed = first.again(&again(later(now(), Duration::from_millis(5900))), now());
        assert_eq!(
            delayed.level,
            Some(2),
            "the fraction is waited for by the worker"
        );
        assert!(
            delayed.key.ends_with(".1.0.1.jobs.default"),
            "{}",
            delayed.key
        );
        let properties = Properties {
            headers: delayed.message.headers.clone(),
            ..Properties::default()
        };
        let next = JobMessage::read("default", delayed.message.body, properties).unwrap();
        assert_eq!((next.attempt(), next.hop()), (3, 1));
        assert_eq!(next.since(), Some(now()));
        assert_eq!(
            next.due(now()),
            Some(later(now(), Duration::from_millis(5900)))
        );
        assert_eq!(next.traceparent(), Some("00-ab"));
        assert_eq!(delayed.message.reply_to.as_deref(), Some("answers"));
        assert!(!delayed.message.headers.contains_key("x-death"));
        assert_ne!(first.settlement(), next.settlement());
        assert_eq!(first.end_id(), next.end_id());
    }

    #[test]
    fn a_long_wait_is_cut_into_weeks() {
        let year = later(now(), Duration::from_hours(365 * 24));
        let delayed = message(&job(), &[]).again(&again(year), now());
        assert_eq!(delayed.level, Some(19));
        assert_eq!(delayed.message.headers[header::DUE], year.to_string());
    }

    #[test]
    fn what_is_due_already_does_not_wait() {
        let delayed = message(&job(), &[]).again(&again(now()), later(now(), Duration::MAX));
        assert_eq!(delayed.level, None);
    }

    #[test]
    fn a_job_in_quarantine_begins_anew() {
        let suspect = message(&job(), &[("x-delivery-count", "3")]);
        assert_eq!((suspect.losses(1), suspect.losses(9)), (2, 3));
        let alone = Again {
            alone: true,
            ..again(now())
        };
        let delayed = suspect.again(&alone, now());
        assert!(delayed.key.ends_with(".quarantine.default"));
        let properties = Properties {
            headers: delayed.message.headers,
            ..Properties::default()
        };
        let there = JobMessage::read("default", delayed.message.body, properties).unwrap();
        let there = there.isolated();
        assert_eq!((there.is_alone(), there.returns()), (true, 0));
    }

    #[test]
    fn a_dead_letter_carries_its_reason_and_what_it_came_with() {
        let message = message(
            &job(),
            &[("traceparent", "00-ab"), ("x-delivery-count", "12")],
        );
        let error = TaskError::new("exit_3", "ü".repeat(2000));
        let letter = message.dead(&error, now());
        assert_eq!(letter.headers["traceparent"], "00-ab");
        assert!(!letter.headers.contains_key("x-delivery-count"));
        assert_eq!(letter.headers["x-bellhop-reason"], "exit_3");
        assert_eq!(letter.headers["x-bellhop-queue"], "default");
        assert_eq!(letter.headers["x-bellhop-attempt"], "1");
        assert_eq!(letter.headers["x-bellhop-died-at"], "2026-01-15T10:30:00Z");
        assert_eq!(letter.headers["x-bellhop-error"].len(), 1024);
        assert!(letter.persistent);
    }

    #[test]
    fn jobs_that_share_an_id_are_told_apart_by_when_they_were_put_in() {
        let at = |since| message(&job(), &[(header::SINCE, since)]);
        let (first, second) = (at("2026-01-15T10:00:00Z"), at("2026-01-15T11:00:00Z"));
        assert_ne!(first.end_id(), second.end_id());
        assert_ne!(first.settlement(), second.settlement());
    }

    #[test]
    fn a_replay_ends_anew() {
        let first = message(&job(), &[]);
        let replayed = message(&job(), &[(header::REPLAYS, "1"), (header::HOP, "4")]);
        assert_ne!(first.end_id(), replayed.end_id());
    }
}
