//! Orders that hold for every worker: cancelled tasks, and messages that are of no use any more.
//!
//! They are in a stream, which every worker reads from its beginning, so that an order holds
//! although no worker was running when it was given.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellhop_common::amqp::{Delivery, Message, Route};
use bellhop_common::wire::Order;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::message::JobMessage;
use crate::service::Service;

/// How many orders are held; the oldest go first.
const REMEMBERED: usize = 100_000;

/// The orders that were read so far.
#[derive(Debug)]
pub(crate) struct Orders {
    book: Mutex<Book>,
    /// Whether all orders were read that were given before this worker started.
    caught_up: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Book {
    cancelled: HashMap<String, Vec<Cancel>>,
    spent: HashSet<Uuid>,
    /// Oldest first, to forget them in order.
    order: VecDeque<Order>,
}

#[derive(Debug)]
struct Cancel {
    user_id: Option<String>,
    time: Timestamp,
}

impl Orders {
    pub(crate) fn new() -> Self {
        Self {
            book: Mutex::default(),
            caught_up: watch::Sender::new(false),
        }
    }

    /// Waits until it is safe to begin a job.
    pub(crate) async fn caught_up(&self) {
        // The sender lives as long as `self`.
        drop(self.caught_up.subscribe().wait_for(|done| *done).await);
    }

    /// Whether this job is to end.
    pub(crate) fn cancels(&self, message: &JobMessage) -> bool {
        // A cancelled job is not in the dead letters; one that was replayed is meant to run.
        let since = message.since().filter(|_| message.replays() > 0);
        let book = self.lock();
        let group = message.job.group.as_ref().map(|group| &group.id);
        let ids = std::iter::once(&message.job.id).chain(group);
        let mut orders = ids.filter_map(|id| book.cancelled.get(id)).flatten();
        orders.any(|order| {
            let of_owner = order
                .user_id
                .as_ref()
                .is_none_or(|user| *user == message.job.user_id);
            of_owner && since.is_none_or(|since| order.time > since)
        })
    }

    /// Whether this message is of no use any more.
    pub(crate) fn is_spent(&self, message: &JobMessage) -> bool {
        self.lock().spent.contains(&message.settlement())
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn add(&mut self, order: Order, limit: usize) {
        match &order {
            Order::Cancel {
                task_id,
                user_id,
                time,
            } => self
                .cancelled
                .entry(task_id.clone())
                .or_default()
                .push(Cancel {
                    user_id: user_id.clone(),
                    time: *time,
                }),
            Order::Spent { settlement } => {
                self.spent.insert(*settlement);
            }
        }
        self.order.push_back(order);
        if self.order.len() > limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, order: Order) {
        match order {
            Order::Cancel { task_id, .. } => {
                if let Some(orders) = self.cancelled.get_mut(&task_id) {
                    orders.remove(0);
                    if orders.is_empty() {
                        self.cancelled.remove(&task_id);
                    }
                }
            }
            Order::Spent { settlement } => {
                self.spent.remove(&settlement);
            }
        }
    }
}

/// Reads orders until the worker ends.
pub(crate) async fn read(service: Arc<Service>, mut deliveries: mpsc::Receiver<Delivery>) {
    let mark = Uuid::now_v7().to_string();
    let reading = async {
        while let Some(delivery) = deliveries.recv().await {
            if delivery.properties.message_id.as_deref() == Some(&mark) {
                service.orders.caught_up.send_replace(true);
            } else {
                take(&service, &delivery.body);
            }
            if let Err(error) = delivery.receipt.ack().await {
                debug!(%error, "the stream of orders is read again from here");
            }
        }
    };
    tokio::join!(reading, set_mark(&service, &mark));
}

/// What was ordered before the mark is known once the mark is read.
async fn set_mark(service: &Service, mark: &str) {
    let queue = service.names.orders();
    let route = Route {
        exchange: "",
        key: &queue,
        mandatory: true,
    };
    let message = Message {
        id: Some(mark.to_owned()),
        ..Message::default()
    };
    while let Err(error) = service.publisher.publish(route, &message).await {
        warn!(%error, "no job begins before the orders are read");
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            () = service.stop.cancelled() => return,
        }
    }
}

fn take(service: &Service, body: &[u8]) {
    // Marks of other workers have no body.
    if body.is_empty() {
        return;
    }
    let order = match serde_json::from_slice::<Order>(body) {
        Ok(order) => order,
        Err(error) => return warn!(%error, "an order that cannot be read was passed over"),
    };
    let cancelled = match &order {
        Order::Cancel {
            task_id, user_id, ..
        } => Some((task_id.clone(), user_id.clone())),
        Order::Spent { .. } => None,
    };
    // In this order: a job that begins between the two looks into the book itself.
    service.orders.lock().add(order, REMEMBERED);
    if let Some((task_id, user_id)) = cancelled
        && service.in_hand.cancel(&task_id, user_id.as_deref())
    {
        info!(task_id, "cancelled");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancel(task_id: &str, user_id: Option<&str>) -> Order {
        Order::Cancel {
            task_id: task_id.into(),
            user_id: user_id.map(str::to_owned),
            time: "2026-01-15T10:30:00Z".parse().unwrap(),
        }
    }

    fn message(headers: &[(&str, &str)]) -> JobMessage {
        let body = br#"{"id": "t", "kind": "k", "user_id": "ann"}"#;
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let properties = bellhop_common::amqp::Properties {
            headers: headers.collect(),
            ..Default::default()
        };
        JobMessage::read("default", body.to_vec(), properties).unwrap()
    }

    fn orders(all: impl IntoIterator<Item = Order>) -> Orders {
        let orders = Orders::new();
        for order in all {
            orders.lock().add(order, 3);
        }
        orders
    }

    #[test]
    fn only_the_owner_or_an_operator_cancels() {
        assert!(orders([cancel("t", None)]).cancels(&message(&[])));
        assert!(orders([cancel("t", Some("ann"))]).cancels(&message(&[])));
        assert!(!orders([cancel("t", Some("bob"))]).cancels(&message(&[])));
        let both = orders([cancel("t", Some("bob")), cancel("t", Some("ann"))]);
        assert!(both.cancels(&message(&[])));
        assert!(!orders([cancel("other", None)]).cancels(&message(&[])));
    }

    #[test]
    fn a_replay_is_not_cancelled_by_an_order_from_before() {
        let orders = orders([cancel("t", None)]);
        let replayed = |since| {
            let headers = [("x-bellhop-replays", "1"), ("x-bellhop-since", since)];
            orders.cancels(&message(&headers))
        };
        assert!(!replayed("2026-01-15T11:00:00Z"));
        assert!(replayed("2026-01-15T10:00:00Z"));
    }

    #[test]
    fn the_oldest_orders_are_forgotten() {
        let of_hop = |hop: &str| message(&[("x-bellhop-hop", hop)]);
        let spent = |hop: &str| Order::Spent {
            settlement: of_hop(hop).settlement(),
        };
        let orders = orders([
            cancel("t", None),
            spent("0"),
            spent("1"),
            spent("2"),
            spent("3"),
        ]);
        assert!(!orders.cancels(&message(&[])));
        assert!(!orders.is_spent(&message(&[])));
        assert!(orders.is_spent(&of_hop("1")));
        let book = orders.lock();
        assert_eq!((book.order.len(), book.spent.len()), (3, 3));
        assert!(book.cancelled.is_empty());
    }
}
