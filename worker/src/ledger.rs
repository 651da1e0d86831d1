//! The ledger: what became of messages that come back.
//!
//! A worker that dies between telling a job's end and acknowledging its message leaves a message
//! that another worker gets. Everything that a worker publishes to be done with a message carries
//! that message's [settlement](crate::message::JobMessage::settlement) and is routed to a stream as
//! well, in one and the same publish, so that the two cannot part. Whoever gets a message for the
//! second time looks it up there before the job runs, and again before its end is told.
//!
//! The stream is only read while there are questions: a worker that nothing happens to reads
//! nothing. An answer waits until a mark of our own has come out of the stream, and so counts
//! everything that was in it when the question was asked.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{
    Consumer, Delivery, Message, Names, Publisher, Route, Source, StreamPosition, Subscription,
    Topology,
};
use bellhop_common::config::AmqpConfig;
use bellhop_common::telemetry::Component;
use bellhop_common::wire::{TaskError, header};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

/// How far back a settlement is found: this many before the newest. They are kept for a day at
/// most, and up to 1 GiB.
const WINDOW: u64 = 100_000;

/// How long the ledger is followed after the last question.
const IDLE: Duration = Duration::from_mins(1);

/// How long the stream may be silent before the mark is looked for anew.
const MARK_TIMEOUT: Duration = Duration::from_secs(30);

/// How many messages of the stream are under way at once.
const PREFETCH: u16 = 200;

/// How many questions wait; they are answered together.
const QUESTIONS: usize = 1024;

/// What [`BEGUN`](header::BEGUN) says of an attempt that has not begun, of a job that has its unique
/// key.
pub(crate) const CLAIMED: &str = "claimed";

/// What is known of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nobody is done with it.
    Open {
        /// How many attempts are [noted](crate::settle::note_begun) that began and did not end.
        begun: u32,
        /// Whether the job has its unique key, as far as is [noted](crate::settle::note_claimed).
        claimed: bool,
    },
    /// Its outcome is told; it can go.
    Settled,
    /// The job is in the dead letters for this error, but its end may not be told yet.
    Buried(TaskError),
}

impl Known {
    const NOTHING: Self = Self::Open {
        begun: 0,
        claimed: false,
    };
}

/// Where to ask.
#[derive(Debug, Clone)]
pub(crate) struct Ledger(mpsc::Sender<Question>);

#[derive(Debug)]
struct Question {
    settlement: Uuid,
    end: Uuid,
    answer: oneshot::Sender<Known>,
}

impl Ledger {
    /// A ledger and its reader, which runs until `stop`.
    pub(crate) fn new(
        config: AmqpConfig,
        names: Names,
        publisher: Publisher,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, questions) = mpsc::channel(QUESTIONS);
        let reader = Reader {
            config,
            names,
            publisher,
            following: None,
        };
        let reading = async move {
            tokio::select! {
                () = reader.answer(questions) => {}
                () = stop.cancelled() => {}
            }
        };
        (Self(sender), reading)
    }

    /// What is known of a message, or of the end of its job. Waits as long as the broker is away;
    /// `None` when the worker ends before there is an answer.
    pub(crate) async fn look_up(&self, settlement: Uuid, end: Uuid) -> Option<Known> {
        let (answer, known) = oneshot::channel();
        let question = Question {
            settlement,
            end,
            answer,
        };
        self.0.send(question).await.ok()?;
        known.await.ok()
    }
}

/// What the stream said, the newest [`WINDOW`] of it. Pure.
#[derive(Debug, Default)]
struct Records {
    known: HashMap<Uuid, Known>,
    /// Oldest first.
    order: VecDeque<Uuid>,
}

impl Records {
    fn add(&mut self, id: Uuid, known: Known, limit: usize) {
        let next = match (self.known.get(&id), known) {
            // What is told stays told, whatever comes late.
            (Some(Known::Settled), _) => Known::Settled,
            (
                Some(Known::Open { begun, claimed }),
                Known::Open {
                    begun: more,
                    claimed: now,
                },
            ) => Known::Open {
                begun: begun.saturating_add(more),
                claimed: *claimed || now,
            },
            (Some(last), Known::Open { .. }) => last.clone(),
            (_, known) => known,
        };
        if self.known.insert(id, next).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn take(&mut self, delivery: &Delivery) {
        let headers = &delivery.properties.headers;
        let id = |text: Option<&String>| text?.parse::<Uuid>().ok();
        let Some(settlement) = id(headers.get(header::SETTLED)) else {
            return;
        };
        // An id for the message and one for the end.
        let limit = usize::try_from(WINDOW * 2).unwrap_or(usize::MAX);
        if let Some(begun) = headers.get(header::BEGUN) {
            let claimed = begun == CLAIMED;
            let begun = u32::from(!claimed);
            self.add(settlement, Known::Open { begun, claimed }, limit);
        } else if delivery.routing_key.starts_with("stored.") {
            self.add(settlement, Known::Settled, limit);
            if let Some(end) = id(delivery.properties.message_id.as_ref()) {
                self.add(end, Known::Settled, limit);
            }
        } else if let Some(code) = headers.get(header::REASON) {
            let message = headers.get(header::ERROR).cloned().unwrap_or_default();
            let error = TaskError::new(code.as_str(), message);
            self.add(settlement, Known::Buried(error), limit);
        } else {
            self.add(settlement, Known::Settled, limit);
        }
    }

    fn look_up(&self, settlement: Uuid, end: Uuid) -> Known {
        let known = |id| self.known.get(id).cloned();
        known(&end)
            .or_else(|| known(&settlement))
            .unwrap_or(Known::NOTHING)
    }
}

struct Reader {
    config: AmqpConfig,
    names: Names,
    publisher: Publisher,
    following: Option<Following>,
}

struct Following {
    consumer: Consumer,
    deliveries: mpsc::Receiver<Delivery>,
    records: Records,
}

impl Reader {
    async fn answer(mut self, mut questions: mpsc::Receiver<Question>) {
        loop {
            let Some(first) = self.next_question(&mut questions).await else {
                return;
            };
            let mut batch = vec![first];
            while let Ok(question) = questions.try_recv() {
                batch.push(question);
            }
            let mut mark = self.set_mark().await;
            let mut following = match self.following.take() {
                Some(following) => following,
                None => self.begin().await,
            };
            // A broker that came back without its data has a new stream, in which the mark may lie
            // before the place that is read next.
            while !following.read_to(&mark).await {
                warn!("the ledger ends before its mark, reading it anew");
                following.consumer.close().await;
                mark = self.set_mark().await;
                following = self.begin().await;
            }
            for question in batch {
                let known = following.records.look_up(question.settlement, question.end);
                // Whoever asked may have given up.
                drop(question.answer.send(known));
            }
            self.following = Some(following);
        }
    }

    /// The next question; meanwhile the reader keeps up with the stream, for a while.
    async fn next_question(
        &mut self,
        questions: &mut mpsc::Receiver<Question>,
    ) -> Option<Question> {
        let waiting = async {
            loop {
                let Some(following) = &mut self.following else {
                    return questions.recv().await;
                };
                tokio::select! {
                    question = questions.recv() => return question,
                    Some(delivery) = following.deliveries.recv() => following.take(delivery).await,
                }
            }
        };
        if let Ok(question) = timeout(IDLE, waiting).await {
            return question;
        }
        if let Some(following) = self.following.take() {
            following.consumer.close().await;
        }
        questions.recv().await
    }

    /// Publishes a mark into the stream, however long that takes; answers its id.
    async fn set_mark(&self) -> String {
        let mark = Uuid::now_v7().to_string();
        let stream = self.names.settled();
        let route = Route {
            exchange: "",
            key: &stream,
            mandatory: true,
        };
        let message = Message {
            id: Some(mark.clone()),
            ..Message::default()
        };
        while let Err(error) = self.publisher.publish(route, &message).await {
            warn!(%error, "jobs that came back wait until the ledger can be read");
            sleep(Duration::from_secs(1)).await;
        }
        mark
    }

    /// Starts to read [`WINDOW`] before the end.
    async fn begin(&self) -> Following {
        let (end, mut deliveries) = self.consume(StreamPosition::last());
        let offset = loop {
            let Some(delivery) = deliveries.recv().await else {
                // The consumer holds its sender until it is closed.
                break 0;
            };
            if let Some(offset) = delivery.offset() {
                break offset;
            }
        };
        drop(deliveries);
        end.close().await;
        let from = offset.saturating_sub(WINDOW);
        info!(
            from,
            end = offset,
            "reading what became of jobs that came back"
        );
        let (consumer, deliveries) = self.consume(StreamPosition::at(from));
        Following {
            consumer,
            deliveries,
            records: Records::default(),
        }
    }

    fn consume(&self, position: Arc<StreamPosition>) -> (Consumer, mpsc::Receiver<Delivery>) {
        let (sender, deliveries) = mpsc::channel(usize::from(PREFETCH));
        let source = Source::Stream {
            name: self.names.settled(),
            position,
        };
        let subscription = Subscription::new(source, PREFETCH, sender);
        let consumer = Consumer::start(
            &self.config,
            "worker ledger",
            Topology::default(),
            vec![subscription],
            Component::default(),
        );
        (consumer, deliveries)
    }
}

impl Following {
    /// Reads up to a mark; whether it comes.
    async fn read_to(&mut self, mark: &str) -> bool {
        while let Ok(Some(delivery)) = timeout(MARK_TIMEOUT, self.deliveries.recv()).await {
            let found = delivery.properties.message_id.as_deref() == Some(mark);
            self.take(delivery).await;
            if found {
                return true;
            }
        }
        false
    }

    async fn take(&mut self, delivery: Delivery) {
        self.records.take(&delivery);
        if let Err(error) = delivery.receipt.ack().await {
            debug!(%error, "the ledger is read on over another connection");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn what_is_told_stays_told() {
        let mut records = Records::default();
        let buried = Known::Buried(TaskError::new("c", "m"));
        records.add(id(1), buried.clone(), 10);
        assert_eq!(records.look_up(id(1), id(9)), buried);
        records.add(id(1), Known::Settled, 10);
        records.add(id(1), buried, 10);
        assert_eq!(records.look_up(id(1), id(9)), Known::Settled);
        assert_eq!(records.look_up(id(2), id(1)), Known::Settled, "its end is");
        assert_eq!(records.look_up(id(2), id(3)), Known::NOTHING);
    }

    #[test]
    fn attempts_that_only_began_are_counted() {
        let mut records = Records::default();
        let open = |begun, claimed| Known::Open { begun, claimed };
        let began = open(1, false);
        records.add(id(1), began.clone(), 10);
        records.add(id(1), began.clone(), 10);
        assert_eq!(records.look_up(id(1), id(9)), open(2, false));
        records.add(id(1), open(0, true), 10);
        records.add(id(1), began.clone(), 10);
        assert_eq!(records.look_up(id(1), id(9)), open(3, true));
        let buried = Known::Buried(TaskError::new("c", "m"));
        records.add(id(1), buried.clone(), 10);
        records.add(id(1), began, 10);
        assert_eq!(records.look_up(id(1), id(9)), buried);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut records = Records::default();
        for n in 0..5 {
            records.add(id(n), Known::Settled, 3);
        }
        assert_eq!(records.look_up(id(1), id(1)), Known::NOTHING);
        assert_eq!(records.look_up(id(2), id(2)), Known::Settled);
        assert_eq!((records.known.len(), records.order.len()), (3, 3));
    }
}
