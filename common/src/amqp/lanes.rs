//! Which messages may share a channel.
//!
//! When a stream gets a new leader, as it does whenever the broker restarts, RabbitMQ before 4.0
//! mixes two counts up for what it still owes that stream: the number that a message has on its
//! channel, and its number among those of the channel that went to the stream. Then it drops
//! messages that it confirms, and leaves others without a confirm for ever
//! ([mended in `rabbit_stream_queue:resend_all`][mended]). On a channel that carries nothing but
//! messages of one stream the two counts are the same, and nothing goes wrong.
//!
//! [mended]: https://github.com/rabbitmq/rabbitmq-server/commit/c68c9a48c3b79b9e9f67b27268ef5d4acad47e47

use super::names::Names;
use super::publisher::Route;
use super::topology::{QueueKind, Target, Topology};
use crate::wire::topic_matches;

/// What the messages of a channel have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// They reach no stream of ours.
    NoStream,
    /// They all reach this one, by its place among [`Lanes`].
    Stream(usize),
}

/// Our streams, and what reaches them.
#[derive(Debug)]
pub(super) struct Lanes(Vec<Stream>);

#[derive(Debug)]
struct Stream {
    name: String,
    /// Exchanges and patterns.
    bindings: Vec<(String, String)>,
}

impl Lanes {
    /// Of all streams, also of those that the other service declares: a notifier tells the ends of
    /// groups, which the workers' ledger hears.
    pub(super) fn new(names: &Names) -> Self {
        let topology = Topology::worker(names).with_revocations(names);
        let is_stream = |kind: &QueueKind| matches!(kind, QueueKind::Stream { .. });
        let streams = topology.queues.iter().filter(|one| is_stream(&one.kind));
        let stream = |name: &String| Stream {
            name: name.clone(),
            bindings: topology
                .bindings
                .iter()
                .filter(|binding| matches!(&binding.to, Target::Queue(to) if to == name))
                .map(|binding| (binding.exchange.clone(), binding.pattern.clone()))
                .collect(),
        };
        Self(streams.map(|one| stream(&one.name)).collect())
    }

    /// Where a message goes. None of ours reaches two streams.
    pub(super) fn lane(&self, route: Route<'_>) -> Lane {
        let stream = self.0.iter().position(|stream| stream.gets(route));
        stream.map_or(Lane::NoStream, Lane::Stream)
    }
}

impl Stream {
    fn gets(&self, route: Route<'_>) -> bool {
        // The default exchange knows every queue by its name.
        if route.exchange.is_empty() {
            return route.key == self.name;
        }
        let mut bindings = self.bindings.iter();
        bindings.any(|(exchange, pattern)| {
            exchange == route.exchange && topic_matches(pattern, route.key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AmqpConfig;

    #[test]
    fn a_channel_carries_what_reaches_one_stream_or_none() {
        let lanes = Lanes::new(&Names::new(&AmqpConfig::default()));
        let (orders, settled, revocations) = (Lane::Stream(0), Lane::Stream(1), Lane::Stream(2));
        let end = "stored.user.ann.task.status_changed.succeeded";
        for (exchange, key, lane) in [
            ("bellhop.control", "cancel.default", orders),
            ("bellhop.control", "spent.1", orders),
            ("bellhop.control", "revoke.ann", revocations),
            ("bellhop.control", "pause.default", Lane::NoStream),
            ("bellhop.events", end, settled),
            (
                "bellhop.events",
                "stored.user.ann.mail.sent",
                Lane::NoStream,
            ),
            (
                "bellhop.events",
                &end.replace("stored", "live"),
                Lane::NoStream,
            ),
            (
                "bellhop.events",
                &end.replace("user", "room"),
                Lane::NoStream,
            ),
            ("bellhop.delay", "0.1.jobs.default", settled),
            ("bellhop.dead", "default", settled),
            ("bellhop.jobs", "default", Lane::NoStream),
            ("", "bellhop.settled", settled),
            ("", "bellhop.orders", orders),
            ("", "bellhop.revocations", revocations),
            ("", "bellhop.quarantine.default", Lane::NoStream),
            ("", "cancel.default", Lane::NoStream),
        ] {
            let route = Route {
                exchange,
                key,
                mandatory: false,
            };
            assert_eq!(lanes.lane(route), lane, "{exchange} {key}");
        }
    }
}
