//! The running notifier: starts everything, and stops it in order.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{
    Consumer, Delivery, Lock, Names, Publisher, PublisherTask, Rungs, Source, StreamPosition,
    Subscription, Topology,
};
use bellhop_common::config::SecretError;
use bellhop_common::http::{Limits, serve};
use bellhop_common::telemetry::{Component, Health, Metrics, MetricsError};
use bellhop_common::tls;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access::{Access, CallbackError};
use crate::admission::Admission;
use crate::alerts::{self, Alerting, AlertsError};
use crate::auth::{Issuer, IssuerError, KeyError, Verifier};
use crate::away::contacts::{self, Contacts};
use crate::away::unsubscribe::Unsubscribe;
use crate::away::{CHANNELS, Channel, escalate};
use crate::clock::Clock;
use crate::config::{
    AuthMode, MAX_INSTANCE_BYTES, MailConfig, NotifierConfig, PushConfig, StoreKind,
};
use crate::deliver;
use crate::directory::Directory;
use crate::drain::drain;
use crate::gateway::Gateway;
use crate::http;
use crate::hub::Hub;
use crate::inbound;
use crate::mail::{MailSetupError, Mailer};
use crate::metric;
use crate::presence::{self, Presence};
use crate::push::{Pusher, PusherError};
use crate::recent::Recent;
use crate::relay::{self, Relays};
use crate::revocations::{self, Gate};
use crate::rooms::Rooms;
use crate::store::StoreError;
use crate::streams::{self, Streams, board, bundle, writer};

/// How many live events may be with us at once.
const LIVE_PREFETCH: u16 = 500;

/// How many revocations may be with us at once.
const REVOCATIONS_PREFETCH: u16 = 500;

/// What the broker keeps for an instance that does not keep up, before it drops the oldest.
const LIVE_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// How long HTTP requests and the last close frames may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why the notifier cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The key that tokens are checked with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Team alerts.
    #[error(transparent)]
    Alerts(#[from] AlertsError),
    /// The HTTP client for the issuer's key set.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// Web Push.
    #[error(transparent)]
    Push(#[from] PusherError),
    /// What sends mails.
    #[error(transparent)]
    Mail(#[from] MailSetupError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file with the store's address.
    #[error("store.url_file")]
    StoreUrlFile(#[source] SecretError),
    /// This notifier or another keeps the events in a file.
    #[error(
        "a notifier that keeps the events in an SQLite file must be the only one of its broker, and there is another (it has the queue {queue}): set store.kind = \"redis\" and store.url for all of them, stop the other one first, or give this one an amqp.prefix of its own"
    )]
    OnlyOne {
        /// What the other has.
        queue: String,
    },
    /// The HTTP client that asks who may enter.
    #[error(transparent)]
    Callback(#[from] CallbackError),
}

/// Serves until `shutdown`: then is no longer ready, moves its connections elsewhere over
/// `websocket.drain_window`, and waits for their end until `shutdown.deadline`. The broker may be away at any time,
/// at the start too.
///
/// # Errors
/// [`RunError`] before anything is started, or [`RunError::OnlyOne`] once the broker has said so.
pub async fn run(
    listener: TcpListener,
    config: NotifierConfig,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    tls::install_provider();
    let metrics = Metrics::install()?;
    metric::describe();
    let health = Health::new();
    let alerting = Alerting::open(&config, &health)?;
    let names = Names::new(&config.amqp);
    let topology = topology(&names, alerting.as_ref(), &config);
    let hears = health.component("amqp.consumer");
    let (relays, lanes) = Relays::new();
    let (streams, behind) = streams::open(&config.store)?.unzip();
    let parts = Parts::new(&config, hears.clone(), relays, streams)?;
    let with_client = |issuer| Ok::<_, IssuerError>((issuer, Issuer::client()?));
    let issuer = parts.verifier.issuer().map(with_client).transpose()?;
    let component = health.component("amqp.publisher");
    let (publisher, publisher_task) =
        Publisher::start(&config.amqp, "notifier", topology.clone(), component);
    let gateway = parts.assemble(config, names, publisher, shutdown.clone());
    let serves = health.component("serving");
    let routes = http::routes(Arc::clone(&gateway), health.clone(), metrics.clone());
    let (tasks, closed) = (TaskTracker::new(), &gateway.closed);
    tasks.spawn(metrics.upkeep(closed.clone()));
    tasks.spawn(serve(listener, routes, Limits::default(), closed.clone()));
    tasks.spawn(presence::tell(Arc::clone(&gateway), closed.clone()));
    relay::run(&gateway, lanes, &tasks);
    if let Some((issuer, client)) = issuer {
        let component = health.component("auth.jwks");
        tasks.spawn(issuer.keep_fresh(client, component, closed.clone()));
    }
    if let Some(behind) = behind {
        streams::look_after(&gateway, behind, (hears.clone(), &health), &tasks);
    }
    let lock = streams::lock(&gateway);
    let queues = (hears, lock.clone());
    let (consumer, posts) = start_queues(&gateway, topology, alerting, queues, &health, &tasks);
    serves.up();
    info!(
        instance = gateway.instance,
        listen = %gateway.config.http.listen,
        "notifier started"
    );

    let ended = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        () = lock.refused() => Err(RunError::OnlyOne { queue: gateway.names.store_lock() }),
    };
    gateway.stop.cancel();
    // Requests are still answered, so that whoever balances the load hears it from us.
    serves.down();
    drain(&gateway).await;
    if let Some(posts) = posts {
        // What the last posts told is acknowledged over the connection that is closed next.
        drop(timeout(LAST_WORDS, posts).await);
    }
    stop(&gateway, consumer, tasks, publisher_task).await;
    info!("notifier stopped");
    ended
}

fn topology(names: &Names, alerting: Option<&Alerting>, config: &NotifierConfig) -> Topology {
    let base = Topology::base(names);
    let mut topology = base.with_revocations(names).with_deferral(names);
    if let Some(alerting) = alerting {
        let patterns = [alerting.plan.patterns(), vec![alerts::TURN]].concat();
        topology = topology.with_alerts(names, &patterns);
    }
    if config.escalation.is_on() {
        topology = topology.with_escalation(names, &CHANNELS.map(Channel::as_str));
    }
    match config.store.kind {
        StoreKind::None => topology,
        StoreKind::Sqlite | StoreKind::Redis => topology.with_board(names),
    }
}

/// The last connection has ended.
async fn stop(gateway: &Gateway, consumer: Consumer, tasks: TaskTracker, publisher: PublisherTask) {
    gateway.closed.cancel();
    // Ends the queues that the tasks read from.
    consumer.close().await;
    tasks.close();
    if timeout(LAST_WORDS, tasks.wait()).await.is_err() {
        warn!("HTTP requests or events were still in hand");
    }
    publisher.close().await;
}

/// The parts that may fail, made before anything is started.
struct Parts {
    verifier: Verifier,
    gate: Gate,
    access: Access,
    presence: Presence,
    relays: Relays,
    streams: Option<Streams>,
    pusher: Option<Pusher>,
    mailer: Option<Mailer>,
}

impl Parts {
    fn new(
        config: &NotifierConfig,
        hears: Component,
        relays: Relays,
        streams: Option<Streams>,
    ) -> Result<Self, RunError> {
        Ok(Self {
            verifier: Verifier::new(&config.auth)?,
            gate: gate(config),
            access: Access::new(&config.rooms, config.auth.mode)?,
            presence: Presence::new(hears),
            relays,
            streams,
            pusher: pusher(&config.push)?,
            mailer: mailer(&config.mail)?,
        })
    }

    fn assemble(
        self,
        config: NotifierConfig,
        names: Names,
        publisher: Publisher,
        stop: CancellationToken,
    ) -> Arc<Gateway> {
        let sockets = &config.websocket;
        Arc::new(Gateway {
            instance: config.instance.clone().unwrap_or_else(host_name),
            verifier: self.verifier,
            gate: self.gate,
            access: self.access,
            admission: Admission::new(sockets.connections, sockets.connections_per_address),
            hub: Hub::new(sockets.connections_per_user),
            rooms: Rooms::new(),
            presence: self.presence,
            relays: self.relays,
            rungs: Rungs::default(),
            directory: Directory::new(
                self.streams
                    .as_ref()
                    .and_then(|streams| streams.redis.clone()),
            ),
            streams: self.streams,
            pusher: self.pusher,
            mailer: self.mailer,
            contacts: Contacts::new(),
            clock: Clock::start(),
            unsubscribe: Unsubscribe::default(),
            recent: Recent::default(),
            stop,
            closed: CancellationToken::new(),
            sessions: TaskTracker::new(),
            names,
            publisher,
            config,
        })
    }
}

fn gate(config: &NotifierConfig) -> Gate {
    Gate::new(match config.auth.mode {
        AuthMode::Jwt => config.auth.revocations_wait.0,
        // There are no tokens, so none can have been revoked.
        AuthMode::None => Duration::ZERO,
    })
}

fn mailer(config: &MailConfig) -> Result<Option<Mailer>, MailSetupError> {
    let is_configured = config.smtp.is_some();
    is_configured.then(|| Mailer::new(config)).transpose()
}

fn pusher(config: &PushConfig) -> Result<Option<Pusher>, PusherError> {
    let has_key = config.key_file.is_some();
    has_key.then(|| Pusher::new(config)).transpose()
}

fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    name.chars().take(MAX_INSTANCE_BYTES / 4).collect()
}

fn start_queues(
    gateway: &Arc<Gateway>,
    topology: Topology,
    alerting: Option<Alerting>,
    (hears, lock): (Component, Lock),
    health: &Health,
    tasks: &TaskTracker,
) -> (Consumer, Option<JoinHandle<()>>) {
    let names = &gateway.names;
    let mut subscriptions = Vec::new();
    let mut subscribe = |source, prefetch| -> mpsc::Receiver<Delivery> {
        let (deliveries, receiver) = mpsc::channel(usize::from(prefetch));
        subscriptions.push(Subscription::new(source, prefetch, deliveries));
        receiver
    };
    // Before the inbox: what is told from there must find this instance listening.
    let mut patterns = vec!["live.#".into(), format!("{}.#", presence::KEY_WORD)];
    match gateway.streams.as_ref().and_then(Streams::batches) {
        Some(batches) => patterns.push(batches.key().to_owned()),
        None => patterns.push(format!("{}.#", bundle::KEY_WORD)),
    }
    let live = subscribe(
        Source::Own {
            stem: names.notifier(&gateway.instance_word()),
            exchange: names.events(),
            patterns,
            max_bytes: LIVE_MAX_BYTES,
        },
        LIVE_PREFETCH,
    );
    let revoked = subscribe(
        Source::Stream {
            name: names.revocations(),
            position: StreamPosition::at(0),
        },
        REVOCATIONS_PREFETCH,
    );
    let inbox = subscribe(Source::Queue(names.inbox()), writer::PREFETCH);
    let component = health.component("auth.revocations");
    tasks.spawn(revocations::follow(Arc::clone(gateway), revoked, component));
    tasks.spawn(inbound::deliver(Arc::clone(gateway), live));
    // Up until it fails: it is only tried when there is something to keep.
    let component = health.component("store.writes");
    component.up();
    tasks.spawn(writer::keep(Arc::clone(gateway), inbox, component));
    if gateway.streams.is_some() {
        let states = subscribe(Source::Queue(names.board()), board::PREFETCH);
        tasks.spawn(board::keep(Arc::clone(gateway), states));
    }
    if gateway.config.escalation.is_on() {
        start_escalation(gateway, &mut subscribe, tasks);
    }
    let posts = alerting.map(|alerting| {
        let waiting = subscribe(Source::Queue(names.alerts()), alerts::PREFETCH);
        let (gateway, hears) = (Arc::clone(gateway), hears.clone());
        let stop = gateway.stop.clone();
        tasks.spawn(alerts::dispatch(gateway, alerting, waiting, hears, stop))
    });
    let consumer = Consumer::start_locked(
        &gateway.config.amqp,
        "notifier",
        topology,
        subscriptions,
        hears,
        Some(lock),
    );
    (consumer, posts)
}

/// What sends to people who are away.
fn start_escalation(
    gateway: &Arc<Gateway>,
    subscribe: &mut impl FnMut(Source, u16) -> mpsc::Receiver<Delivery>,
    tasks: &TaskTracker,
) {
    let names = &gateway.names;
    let due = subscribe(Source::Queue(names.escalation()), escalate::PREFETCH);
    tasks.spawn(escalate::escalate(Arc::clone(gateway), due));
    for channel in CHANNELS {
        let queue = Source::Queue(names.deliver(channel.as_str()));
        let prefetch = deliver::prefetch(channel, &gateway.config);
        let orders = subscribe(queue, prefetch);
        tasks.spawn(deliver::deliver(Arc::clone(gateway), channel, orders));
    }
    let closed = gateway.closed.clone();
    tasks.spawn(contacts::keep(Arc::clone(gateway), closed));
}
