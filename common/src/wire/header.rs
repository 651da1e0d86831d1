//! The AMQP headers of a job's message. They travel with every copy that is made of it.

/// Which attempt this message is for, from 1. Our own, because the broker's counters do not
/// survive a republish.
pub const ATTEMPT: &str = "x-bellhop-attempt";

/// How often the job was published again: for its time to come, a retry, a place to get free.
pub const HOP: &str = "x-bellhop-hop";

/// When the job was put in, as far as is known (RFC 3339).
pub const SINCE: &str = "x-bellhop-since";

/// When the producer put it in, in the producer's own words: tells two jobs with one id apart.
pub const ORIGIN: &str = "x-bellhop-origin";

/// The short name of the queue it belongs to.
pub const QUEUE: &str = "x-bellhop-queue";

/// It may have been published twice: a worker looks for an earlier end before it runs it.
pub const ONCE: &str = "x-bellhop-once";

/// When it may run, if it waited for that (RFC 3339).
pub const DUE: &str = "x-bellhop-due";

/// The job holds its `unique_key` already: whoever put it in has asked for it.
pub const CLAIMED: &str = "x-bellhop-claimed";

/// How often in a row it was put off because its kind had no place free.
pub const DEFERRALS: &str = "x-bellhop-deferrals";

/// How often it was brought back from the dead letters.
pub const REPLAYS: &str = "x-bellhop-replays";

/// What became of it before it was replayed: a JSON list of `{reason, error, died_at, attempts}`,
/// oldest first.
pub const HISTORY: &str = "x-bellhop-history";

/// Of a dead letter: the error's code.
pub const REASON: &str = "x-bellhop-reason";

/// Of a dead letter: the error's message, cut to 1 KiB.
pub const ERROR: &str = "x-bellhop-error";

/// Of a dead letter: when it was given up (RFC 3339).
pub const DIED_AT: &str = "x-bellhop-died-at";

/// Of whatever a worker publishes to be done with a message: which one.
pub const SETTLED: &str = "x-bellhop-settled";

/// In the ledger: an attempt of the message with this [`SETTLED`] id began, or, if it is `claimed`,
/// only that the job has its unique key.
pub const BEGUN: &str = "x-bellhop-begun";

/// Of an event that waits for its time: the routing key that it was published with.
pub const EVENT_KEY: &str = "x-bellhop-event-key";

/// Of the end of a job of a group: a [`GroupSequel`](super::GroupSequel) as JSON.
pub const GROUP: &str = "x-bellhop-group";

/// W3C Trace Context: goes from the producer through every attempt to the events.
pub const TRACEPARENT: &str = "traceparent";
