//! What this worker is doing, for whoever asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bellhop_common::amqp::{Delivery, Message, Properties, Route, Source};
use bellhop_common::wire::{ASK_STATUS, MAX_REPORTED, QueueReport, RunningTask, WorkerReport};
use jiff::Timestamp;
use metrics::{Gauge, counter, gauge};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;
use uuid::Uuid;

use crate::in_hand::Held;
use crate::metric;
use crate::service::Service;
use crate::tally::Tally;

/// Whoever asks does not wait longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Questions that were asked while the worker could not answer; they are small.
const QUESTIONS_BYTES: u32 = 64 * 1024;

/// What runs here, and what ended.
#[derive(Debug)]
pub(crate) struct Board {
    id: Uuid,
    started_at: Timestamp,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order they began.
    running: BTreeMap<u64, Entry>,
    next: u64,
    /// One for each queue and label, because a new one for each job would cost memory.
    gauges: BTreeMap<Arc<str>, BTreeMap<String, Gauge>>,
    ended: BTreeMap<&'static str, Ended>,
}

#[derive(Debug)]
struct Entry {
    held: Arc<Held>,
    since: Timestamp,
}

#[derive(Debug)]
struct Ended {
    total: u64,
    tally: Tally,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            id: Uuid::now_v7(),
            started_at: Timestamp::now(),
            began: Instant::now(),
            state: Mutex::default(),
        }
    }

    /// An attempt begins; it runs until the answer is dropped. `label` is its kind as a metric's
    /// label.
    pub(crate) fn begin(&self, label: &str, held: &Arc<Held>) -> Running<'_> {
        let entry = Entry {
            held: Arc::clone(held),
            since: Timestamp::now(),
        };
        let mut state = self.lock();
        let gauge = state.gauge(&held.message.queue, label);
        gauge.increment(1.0);
        let number = state.next;
        state.next += 1;
        state.running.insert(number, entry);
        Running {
            board: self,
            number,
            gauge,
        }
    }

    /// An attempt ended. `label` is its kind as a metric's label.
    pub(crate) fn count(&self, label: &str, outcome: &'static str) {
        counter!(metric::JOBS, "kind" => label.to_owned(), "outcome" => outcome).increment(1);
        let mut state = self.lock();
        let ended = state.ended.entry(outcome).or_insert_with(|| Ended {
            total: 0,
            tally: Tally::new(self.began),
        });
        ended.total += 1;
        ended.tally.record(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn gauge(&mut self, queue: &Arc<str>, label: &str) -> Gauge {
        let of_queue = self.gauges.entry(Arc::clone(queue)).or_default();
        if let Some(gauge) = of_queue.get(label) {
            return gauge.clone();
        }
        let (queue, kind) = (queue.to_string(), label.to_owned());
        let gauge = gauge!(metric::RUNNING, "queue" => queue, "kind" => kind.clone());
        of_queue.insert(kind, gauge.clone());
        gauge
    }

    fn running_of(&self, queue: &str) -> u64 {
        let of_queue = |entry: &&Entry| &*entry.held.message.queue == queue;
        self.running.values().filter(of_queue).count() as u64
    }

    fn longest(&self) -> Vec<RunningTask> {
        let longest = self.running.values().take(MAX_REPORTED);
        longest.map(Entry::report).collect()
    }
}

impl Entry {
    fn report(&self) -> RunningTask {
        let message = &self.held.message;
        let job = &message.job;
        RunningTask {
            task_id: job.id.clone(),
            kind: job.kind.clone(),
            user_id: job.user_id.clone(),
            queue: message.queue.to_string(),
            attempt: message.attempt(),
            since: self.since,
            percent: self.held.link.percent(),
        }
    }
}

/// An attempt that runs, until dropped.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    board: &'a Board,
    number: u64,
    gauge: Gauge,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
        self.board.lock().running.remove(&self.number);
    }
}

/// Where questions come from.
pub(crate) fn questions(service: &Service) -> Source {
    Source::Own {
        stem: service.names.worker(),
        exchange: service.names.control(),
        patterns: vec!["ask.#".into()],
        max_bytes: QUESTIONS_BYTES,
    }
}

/// Answers questions until the worker takes no more.
pub(crate) async fn answer(service: Arc<Service>, mut questions: mpsc::Receiver<Delivery>) {
    while let Some(question) = questions.recv().await {
        if question.routing_key == ASK_STATUS {
            reply(&service, &question.properties).await;
        }
        if let Err(error) = question.receipt.ack().await {
            debug!(%error, "a question is gone with its connection");
        }
    }
}

async fn reply(service: &Service, question: &Properties) {
    let Some(queue) = question.reply_to.as_deref() else {
        return;
    };
    let message = Message {
        // Texts, times and numbers: always JSON.
        body: serde_json::to_vec(&report(service)).unwrap_or_default(),
        correlation_id: question.correlation_id.clone(),
        ..Message::default()
    };
    let route = Route {
        exchange: "",
        key: queue,
        // Whoever asked may have left.
        mandatory: false,
    };
    let publishing = service.publisher.publish(route, &message);
    match timeout(ANSWER_TIMEOUT, publishing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a question was not answered"),
        Err(_) => debug!("a question was not answered in time"),
    }
}

fn report(service: &Service) -> WorkerReport {
    let (board, now) = (&service.board, Instant::now());
    let host = rustix::system::uname();
    let mut state = board.lock();
    let own = service.config.queues.iter();
    let queues = own
        .map(|(name, queue)| (name.as_str(), u64::from(queue.concurrency)))
        .take(MAX_REPORTED)
        .map(|(name, concurrency)| {
            let running = state.running_of(name);
            let queue = QueueReport {
                concurrency,
                running,
            };
            (name.to_owned(), queue)
        });
    WorkerReport {
        id: board.id,
        host: host.nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
        started_at: board.started_at,
        time: Timestamp::now(),
        queues: queues.collect(),
        kinds: service
            .registry
            .kinds()
            .take(MAX_REPORTED)
            .map(str::to_owned)
            .collect(),
        running: state.running.len() as u64,
        tasks: state.longest(),
        totals: state
            .ended
            .iter()
            .map(|(outcome, ended)| ((*outcome).to_owned(), ended.total))
            .collect(),
        per_second: state
            .ended
            .iter_mut()
            .map(|(outcome, ended)| ((*outcome).to_owned(), ended.tally.per_second(now)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::JobMessage;
    use bellhop_common::wire::Progress;

    fn held(id: &str) -> Arc<Held> {
        let body = format!(r#"{{"id": "{id}", "kind": "k", "user_id": "ann", "args": "secret"}}"#);
        let read = JobMessage::read("default", body.into_bytes(), Properties::default());
        Held::without_receipt(read.unwrap())
    }

    #[test]
    fn the_longest_running_come_first_and_no_more_than_may() {
        let board = Board::new();
        let mut running: Vec<_> = (0..MAX_REPORTED + 20)
            .map(|n| board.begin("k", &held(&format!("t{n}"))))
            .collect();
        drop(running.remove(0));
        let tasks = board.lock().longest();
        assert_eq!(tasks.len(), MAX_REPORTED);
        assert_eq!(tasks[0].task_id, "t1");
        assert_eq!(board.lock().running_of("default"), 119);
        assert_eq!(board.lock().running_of("other"), 0);
        assert!(!serde_json::to_string(&tasks).unwrap().contains("secret"));
        drop(running);
        assert!(board.lock().running.is_empty());
    }

    #[test]
    fn a_task_shows_the_newest_progress() {
        let board = Board::new();
        let held = held("t");
        let _running = board.begin("k", &held);
        assert_eq!(board.lock().longest()[0].percent, None);
        held.link.say(Progress::of(1, 4, "bytes"));
        assert_eq!(board.lock().longest()[0].percent, Some(25.0));
    }
}
