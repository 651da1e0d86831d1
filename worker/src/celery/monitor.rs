//! Tells Celery's monitors what goes on, and answers them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellhop_common::amqp::{
    CELERY_CONTROL, CELERY_EVENTS, CELERY_REPLIES, Consumer, Delivery, Message, Names, Publisher,
    PublisherTask, Route, Source, Subscription, Topology,
};
use bellhop_common::config::HumanDuration;
use bellhop_common::enqueue::cancel;
use bellhop_common::telemetry::Component;
use bellhop_common::wire::TaskStatus;
use jiff::Timestamp;
use metrics::counter;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::about::{facts, identity, load_average};
use super::mailbox::{Facts, Question};
use super::record::{Event, HEARTBEAT_S, Record};
use crate::config::WorkerConfig;
use crate::message::JobMessage;
use crate::metric;
use crate::registry::Registry;

/// Events that wait to be sent; what comes beyond is dropped and counted. A monitor may miss
/// something, a job may not wait for it.
const MAX_WAITING: usize = 4096;

/// How many events go in one message, when so many wait.
const MAX_TOGETHER: usize = 200;

/// An event that is not sent in this time is worth nothing any more.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last events may take when the worker stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Questions that wait, in bytes: from so far back nobody waits for an answer.
const MAX_MAILBOX_BYTES: u32 = 1024 * 1024;

/// Where statuses are told. Does nothing unless `celery.events` is on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Monitor(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    record: Mutex<Record>,
    waiting: mpsc::Sender<Event>,
}

/// Owns the connections and the task that sends. [`close`](Self::close) it after the last status.
#[derive(Debug)]
pub(crate) struct MonitorTask {
    stop: CancellationToken,
    sending: JoinHandle<()>,
    mailbox: Consumer,
    publisher: PublisherTask,
}

impl Monitor {
    /// Starts to send heartbeats and to answer, if `celery.events` is on; returns at once.
    pub(crate) fn start(config: &WorkerConfig, registry: &Registry) -> (Self, Option<MonitorTask>) {
        if !config.celery.events {
            return (Self::default(), None);
        }
        let (record, facts) = (Record::new(identity(config)), facts(config, registry));
        let mut amqp = config.amqp.clone();
        amqp.publish_timeout = HumanDuration(SEND_TIMEOUT);
        let topology = Topology::celery_monitoring();
        // Whether monitors can be told is no part of whether the worker is ready.
        let health = Component::default();
        let (publisher, publisher_task) =
            Publisher::start(&amqp, "celery monitor", topology.clone(), health);
        let (asked, questions) = mpsc::channel(1);
        let source = Source::Own {
            stem: format!("{}.{CELERY_CONTROL}.", record.identity().node),
            exchange: CELERY_CONTROL.to_owned(),
            patterns: vec![String::new()],
            max_bytes: MAX_MAILBOX_BYTES,
        };
        let subscription = Subscription::new(source, 16, asked);
        let mailbox = Consumer::start(
            &amqp,
            "celery mailbox",
            topology,
            vec![subscription],
            Component::default(),
        );
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let inner = Arc::new(Inner {
            record: Mutex::new(record),
            waiting: sender,
        });
        let sending = Sending {
            inner: Arc::clone(&inner),
            facts,
            names: Names::new(&amqp),
            publisher,
            waiting,
            questions,
        };
        let stop = CancellationToken::new();
        let task = MonitorTask {
            sending: tokio::spawn(sending.run(stop.clone())),
            stop,
            mailbox,
            publisher: publisher_task,
        };
        (Self(Some(inner)), Some(task))
    }

    /// Tells a status to whoever watches. Never waits.
    pub(crate) fn tell(&self, status: &TaskStatus, message: &JobMessage) {
        let Some(inner) = &self.0 else { return };
        // Sent under the lock, so that they are sent in the order of their clock.
        let mut record = inner.record();
        let events = message.with_args(|args| record.tell(status, &message.job, args));
        for event in events {
            if inner.waiting.try_send(event).is_err() {
                counter!(metric::CELERY_EVENTS_DROPPED).increment(1);
            }
        }
    }

    /// A task that ran here has been ended by somebody else, who told it.
    pub(crate) fn forget(&self, task_id: &str) {
        if let Some(inner) = &self.0 {
            inner.record().forget(task_id);
        }
    }
}

impl MonitorTask {
    /// Sends what waits, says that the worker is gone, and closes the connections.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        if let Err(error) = self.sending.await {
            warn!(%error, "the task that tells Celery's monitors ended badly");
        }
        self.mailbox.close().await;
        self.publisher.close().await;
    }
}

impl Inner {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Sending {
    inner: Arc<Inner>,
    facts: Facts,
    names: Names,
    publisher: Publisher,
    waiting: mpsc::Receiver<Event>,
    questions: mpsc::Receiver<Delivery>,
}

impl Sending {
    async fn run(mut self, stop: CancellationToken) {
        // Whatever is being sent is given up: the broker may be away.
        stop.run_until_cancelled(self.until_stopped()).await;
        let farewell = async {
            let mut last = Vec::new();
            while let Ok(event) = self.waiting.try_recv() {
                last.push(event);
            }
            for events in last.chunks(MAX_TOGETHER) {
                self.send(events).await;
            }
            self.send_alive("worker-offline").await;
        };
        if timeout(FAREWELL, farewell).await.is_err() {
            debug!("Celery's monitors could not be told that the worker stops");
        }
    }

    async fn until_stopped(&mut self) {
        let mut beat = interval(Duration::from_secs(HEARTBEAT_S));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Vec::with_capacity(MAX_TOGETHER);
        self.send_alive("worker-online").await;
        // The first tick comes at once.
        beat.tick().await;
        loop {
            tokio::select! {
                _ = beat.tick() => self.send_alive("worker-heartbeat").await,
                _ = self.waiting.recv_many(&mut events, MAX_TOGETHER) => {
                    self.send(&events).await;
                    events.clear();
                }
                Some(delivery) = self.questions.recv() => self.answer(delivery).await,
            }
        }
    }

    async fn send_alive(&self, name: &'static str) {
        let load = load_average();
        let event = self.inner.record().alive(name, load, Timestamp::now());
        self.send(std::slice::from_ref(&event)).await;
    }

    /// One event under its own key; several as Celery's workers send them, in one message.
    async fn send(&self, events: &[Event]) {
        let (key, body) = match events {
            [] => return,
            [event] => (event.name.replace('-', "."), event.fields.clone()),
            events => {
                let all = events.iter().map(|event| event.fields.clone());
                ("task.multi".to_owned(), all.collect())
            }
        };
        let node = self.inner.record().identity().node.clone();
        let sent = self.publish(CELERY_EVENTS, &key, &body, [("hostname", node)]);
        if !sent.await {
            let dropped = u64::try_from(events.len()).unwrap_or(u64::MAX);
            counter!(metric::CELERY_EVENTS_DROPPED).increment(dropped);
        }
    }

    async fn answer(&self, delivery: Delivery) {
        if let Some((node, question)) = self.question(&delivery) {
            if question.method == "heartbeat" {
                self.send_alive("worker-heartbeat").await;
            }
            for task_id in question.revoked() {
                // From every worker that hears it, as the order may be given more than once.
                let now = Timestamp::now();
                let order = cancel(&self.publisher, &self.names, task_id, None, now);
                if let Err(error) = order.await {
                    warn!(%error, task_id, "a task was not revoked");
                }
            }
            if let Some(address) = question.reply_to() {
                let now = Timestamp::now();
                let answer = question.answer(&self.inner.record(), &self.facts, now);
                let body = json!({ node: answer });
                let ticket = [("ticket", address.ticket)];
                self.publish(CELERY_REPLIES, &address.key, &body, ticket)
                    .await;
            }
        }
        if let Err(error) = delivery.receipt.ack().await {
            debug!(%error, "a question of a Celery monitor could not be acknowledged");
        }
    }

    fn question(&self, delivery: &Delivery) -> Option<(String, Question)> {
        let mut record = self.inner.record();
        let clock = delivery.properties.headers.get("clock");
        if let Some(clock) = clock.and_then(|clock| clock.parse().ok()) {
            record.adjust_clock(clock);
        }
        let node = record.identity().node.clone();
        let (body, properties) = (&delivery.body, &delivery.properties);
        let question = Question::read(body, properties, &node, Timestamp::now())?;
        Some((node, question))
    }

    async fn publish<const N: usize>(
        &self,
        exchange: &str,
        key: &str,
        body: &Value,
        headers: [(&str, String); N],
    ) -> bool {
        let message = Message {
            body: body.to_string().into_bytes(),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
            persistent: false,
            ..Message::default()
        };
        let route = Route {
            exchange,
            key,
            mandatory: false,
        };
        match self.publisher.publish(route, &message).await {
            Ok(()) => true,
            Err(error) => {
                debug!(%error, exchange, "not sent to Celery's monitors");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::celery::record::Identity;
    use bellhop_common::amqp::Properties;
    use bellhop_common::wire::Status;

    #[test]
    fn what_does_not_fit_is_dropped_and_nobody_waits() {
        let identity = Identity {
            node: "bellhop@h".into(),
            pid: 7,
            system: "Linux".into(),
        };
        let (waiting, mut sent) = mpsc::channel(2);
        let monitor = Monitor(Some(Arc::new(Inner {
            record: Mutex::new(Record::new(identity)),
            waiting,
        })));
        let body = br#"{"id": "t1", "kind": "report", "user_id": "ann"}"#;
        let read = JobMessage::read("default", body.to_vec(), Properties::default());
        let message = read.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let mut status = TaskStatus {
            task_id: "t1".into(),
            kind: "report".into(),
            title: None,
            user_id: "ann".into(),
            status: Status::Running,
            attempt: 1,
            max_attempts: 1,
            rev: 1,
            progress: None,
            error: None,
            result: None,
            next_attempt_at: None,
            group: None,
            timestamp: now,
        };
        monitor.tell(&status, &message);
        status.status = Status::Succeeded;
        monitor.tell(&status, &message);
        let names = std::iter::from_fn(|| sent.try_recv().ok()).map(|event| event.name);
        assert_eq!(names.collect::<Vec<_>>(), ["task-received", "task-started"]);
    }
}
