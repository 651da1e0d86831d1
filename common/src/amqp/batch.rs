//! Messages that go out together by one channel, and what becomes of each.
//!
//! lapin gives a returned message to whichever confirm of the channel comes next, so that no confirm
//! tells its own message's fate. A channel therefore carries one batch at a time, whose owner sees
//! all of its confirms. The broker returns a message before it confirms it; hence a confirm that
//! brings nothing says that every return before it was given to an earlier one, and a return that
//! another message's confirm brings is recognised by its address.

use std::future::poll_fn;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::lanes::Lane;
use super::publisher::{Message, Route};

/// A message on its way to a channel.
#[derive(Debug)]
pub(super) struct Outgoing {
    address: Address,
    mandatory: bool,
    properties: BasicProperties,
    body: Vec<u8>,
    /// With which others it may go.
    pub(super) lane: Lane,
    /// Whether it may have taken a channel down, and must not do so to others again.
    pub(super) alone: bool,
    /// Nobody waits for it any longer then.
    pub(super) deadline: Instant,
    fate: oneshot::Sender<lapin::Result<Fate>>,
    /// Its share of the bytes that may wait.
    room: OwnedSemaphorePermit,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// The broker has it.
    Kept,
    /// No queue took it; the broker's words.
    Returned(String),
    /// The broker could not keep it.
    Refused,
}

/// What a returned message is recognised by. Several messages with the same one go to the same
/// queues.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    exchange: ShortString,
    key: ShortString,
    id: Option<ShortString>,
}

impl Outgoing {
    pub(super) fn new(
        route: Route<'_>,
        lane: Lane,
        message: &Message,
        alone: bool,
        deadline: Instant,
        room: OwnedSemaphorePermit,
    ) -> (Self, oneshot::Receiver<lapin::Result<Fate>>) {
        let (fate, told) = oneshot::channel();
        let outgoing = Self {
            address: Address {
                exchange: route.exchange.into(),
                key: route.key.into(),
                id: message.id.as_deref().map(ShortString::from),
            },
            mandatory: route.mandatory,
            properties: properties(message),
            body: message.body.clone(),
            lane,
            alone,
            deadline,
            fate,
            room,
        };
        (outgoing, told)
    }

    /// It was not sent.
    pub(super) fn fail(self, error: lapin::Error) {
        // Nobody may be waiting any more.
        drop(self.fate.send(Err(error)));
    }
}

fn properties(message: &Message) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(if message.persistent { 2 } else { 1 });
    if let Some(id) = &message.id {
        properties = properties.with_message_id(id.as_str().into());
    }
    if let Some(kind) = &message.kind {
        properties = properties.with_type(kind.as_str().into());
    }
    if let Some(priority) = message.priority {
        properties = properties.with_priority(priority);
    }
    if let Some(reply_to) = &message.reply_to {
        properties = properties.with_reply_to(reply_to.as_str().into());
    }
    if let Some(id) = &message.correlation_id {
        properties = properties.with_correlation_id(id.as_str().into());
    }
    if let Some(timestamp) = message.timestamp {
        properties = properties.with_timestamp(timestamp);
    }
    if !message.headers.is_empty() {
        let mut headers = FieldTable::default();
        for (name, value) in &message.headers {
            headers.insert(
                name.as_str().into(),
                AMQPValue::LongString(value.as_str().into()),
            );
        }
        properties = properties.with_headers(headers);
    }
    properties
}

/// Sends a batch by a channel with confirms that nobody else uses, and tells each sender his
/// message's fate as soon as it is certain. Ends with the last one.
///
/// Dropped before its end it leaves confirms behind, so that the channel must go with it.
pub(super) async fn send(channel: &Channel, batch: Vec<Outgoing>) {
    let mut flights: Vec<_> = batch
        .into_iter()
        .map(|outgoing| Flight::begin(channel, outgoing))
        .collect();
    let mut returned = Vec::new();
    poll_fn(|context| {
        // Until a look finds nothing new: only then every return is seen that was given to a
        // confirm before the ones that we know of.
        while look(&mut flights, context, &mut returned) {}
        let complete = flights.iter().all(Flight::has_landed);
        for flight in &mut flights {
            flight.tell(&returned, complete);
        }
        if complete {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// A message that was written, or waits to be.
struct Flight<'a> {
    address: Address,
    mandatory: bool,
    stage: Stage<'a>,
    fate: Option<oneshot::Sender<lapin::Result<Fate>>>,
}

enum Stage<'a> {
    UnderWay(BoxFuture<'a, lapin::Result<Confirmation>>),
    Landed(lapin::Result<Answer>),
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    kept: bool,
    /// The confirm brought some message's return.
    brought_return: bool,
}

struct Returned {
    address: Address,
    reason: String,
}

impl<'a> Flight<'a> {
    fn begin(channel: &'a Channel, outgoing: Outgoing) -> Self {
        let Outgoing {
            address,
            mandatory,
            properties,
            body,
            fate,
            room,
            ..
        } = outgoing;
        let (exchange, key) = (address.exchange.clone(), address.key.clone());
        let publishing = async move {
            let options = BasicPublishOptions {
                mandatory,
                immediate: false,
            };
            let confirm = channel
                .basic_publish(exchange, key, options, &body, properties)
                .await?;
            drop((body, room));
            confirm.await
        };
        Self {
            address,
            mandatory,
            stage: Stage::UnderWay(publishing.boxed()),
            fate: Some(fate),
        }
    }

    const fn has_landed(&self) -> bool {
        matches!(self.stage, Stage::Landed(_))
    }

    /// Tells what is certain.
    fn tell(&mut self, returned: &[Returned], complete: bool) {
        let Stage::Landed(answer) = &self.stage else {
            return;
        };
        let mut returned = returned.iter().filter(|_| self.mandatory);
        let mine = returned.find(|returned| returned.address == self.address);
        let fate = match (answer, mine) {
            (Err(error), _) => Err(error.clone()),
            (Ok(_), Some(returned)) => Ok(Fate::Returned(returned.reason.clone())),
            // Its own return may be the next one.
            (Ok(answer), None) if answer.brought_return && !complete => return,
            (Ok(answer), None) if answer.kept => Ok(Fate::Kept),
            (Ok(_), None) => Ok(Fate::Refused),
        };
        if let Some(sender) = self.fate.take() {
            // Nobody may be waiting any more.
            drop(sender.send(fate));
        }
    }
}

/// Looks at each message once; whether any of them landed.
fn look(
    flights: &mut [Flight<'_>],
    context: &mut Context<'_>,
    returned: &mut Vec<Returned>,
) -> bool {
    let mut any = false;
    for flight in flights {
        let Stage::UnderWay(publishing) = &mut flight.stage else {
            continue;
        };
        let Poll::Ready(confirmed) = publishing.poll_unpin(context) else {
            continue;
        };
        any = true;
        flight.stage = Stage::Landed(confirmed.map(|confirmation| {
            let kept = confirmation.is_ack();
            let message = confirmation.take_message();
            let brought_return = message.is_some();
            returned.extend(message.map(Returned::from));
            Answer {
                kept,
                brought_return,
            }
        }));
    }
    any
}

impl From<BasicReturnMessage> for Returned {
    fn from(message: BasicReturnMessage) -> Self {
        let delivery = message.delivery;
        Self {
            address: Address {
                id: delivery.properties.message_id().clone(),
                exchange: delivery.exchange,
                key: delivery.routing_key,
            },
            reason: message.reply_text.to_string(),
        }
    }
}
