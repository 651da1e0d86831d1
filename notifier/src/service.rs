//! The running notifier: starts everything, and stops it in order.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{
    Consumer, Delivery, Lock, Names, Publisher, Source, StreamPosition, Subscription, Topology,
};
use bellhop_common::config::{Secret, SecretError};
use bellhop_common::http::{Limits, serve};
use bellhop_common::telemetry::{Component, Health, Metrics, MetricsError};
use bellhop_common::tls;
use jiff::{SignedDuration, Timestamp};
use metrics::counter;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access::{Access, CallbackError};
use crate::admission::Admission;
use crate::alerts::mattermost::{SetupError, WebhookUrlError};
use crate::alerts::{self, Mattermost, WebhookUrl};
use crate::auth::{Issuer, IssuerError, KeyError, Verifier};
use crate::config::{
    AuthMode, MAX_INSTANCE_BYTES, MattermostConfig, NotifierConfig, StoreConfig, StoreKind,
};
use crate::drain::drain;
use crate::gateway::Gateway;
use crate::http;
use crate::hub::Hub;
use crate::inbound;
use crate::metric;
use crate::presence::{self, Presence};
use crate::recent::Recent;
use crate::relay::{self, Relays};
use crate::revocations::{self, Gate};
use crate::rooms::Rooms;
use crate::store::{Redis, Sqlite, StoreError, StreamName, Swept};
use crate::streams::{self, Streams, board, catch_up, leaving, writer};

/// How many live events may be with us at once.
const LIVE_PREFETCH: u16 = 500;

/// How many revocations may be with us at once.
const REVOCATIONS_PREFETCH: u16 = 500;

/// What the broker keeps for an instance that does not keep up, before it drops the oldest.
const LIVE_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// How long Mattermost may take for one post.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks for what is too old.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

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
    /// The webhook's address.
    #[error("mattermost.webhook_url")]
    Webhook(#[from] WebhookUrlError),
    /// The file with the webhook's address.
    #[error("mattermost.webhook_url_file")]
    WebhookFile(#[from] SecretError),
    /// The HTTP client for the issuer's key set.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The HTTP client.
    #[error(transparent)]
    Mattermost(#[from] SetupError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file with the store's address.
    #[error("store.url_file")]
    StoreUrlFile(#[source] SecretError),
    /// Another notifier keeps the events in a file.
    #[error(
        "another notifier of this broker keeps the events in an SQLite file, which only one can (it holds the          queue {queue}): set store.kind = \"redis\" and store.url for all of them, or give this one an          amqp.prefix of its own"
    )]
    OnlyOne {
        /// What it holds.
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
    let mattermost = mattermost(&config.mattermost)?;
    let health = Health::new();
    let names = Names::new(&config.amqp);
    let mut topology = Topology::base(&names).with_revocations(&names);
    if mattermost.is_some() {
        topology = topology.with_alerts(&names, &[alerts::PATTERN]);
    }
    let hears = health.component("amqp.consumer");
    let (relays, lanes) = Relays::new();
    let (streams, behind) = streams(&config.store)?.unzip();
    if streams.is_some() {
        topology = topology.with_board(&names);
    }
    let parts = Parts {
        verifier: Verifier::new(&config.auth)?,
        gate: gate(&config),
        access: Access::new(&config.rooms, config.auth.mode)?,
        presence: Presence::new(hears.clone()),
        relays,
        streams,
    };
    let issuer = match parts.verifier.issuer() {
        Some(issuer) => Some((issuer, Issuer::client()?)),
        None => None,
    };
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
        look_after_streams(&gateway, behind, hears.clone(), &tasks);
    }
    let lock = lock(&gateway);
    let queues = (hears, lock.clone());
    let consumer = start_queues(&gateway, topology, mattermost, queues, &health, &tasks);
    serves.up();
    info!(
        instance = gateway.instance,
        listen = %gateway.config.http.listen,
        "notifier started"
    );

    let mut ended = Ok(());
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = lock.refused() => {
            ended = Err(RunError::OnlyOne { queue: gateway.names.store_lock() });
            gateway.stop.cancel();
        }
    }
    // Requests are still answered, so that whoever balances the load hears it from us.
    serves.down();
    drain(&gateway).await;
    gateway.closed.cancel();
    // Ends the queues that the tasks read from.
    consumer.close().await;
    tasks.close();
    if timeout(LAST_WORDS, tasks.wait()).await.is_err() {
        warn!("HTTP requests or events were still in hand");
    }
    publisher_task.close().await;
    info!("notifier stopped");
    ended
}

/// A file has one notifier, and beside it none that keeps events elsewhere or nowhere: each would
/// have a part of them.
fn lock(gateway: &Gateway) -> Lock {
    let queue = gateway.names.store_lock();
    match gateway.config.store.kind {
        StoreKind::Sqlite => Lock::have(queue),
        StoreKind::Redis | StoreKind::None => Lock::nobody_has(queue),
    }
}

/// The parts that may fail, made before anything is started.
struct Parts {
    verifier: Verifier,
    gate: Gate,
    access: Access,
    presence: Presence,
    relays: Relays,
    streams: Option<Streams>,
}

impl Parts {
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
            streams: self.streams,
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

type Behind = mpsc::Receiver<StreamName>;

fn streams(config: &StoreConfig) -> Result<Option<(Streams, Behind)>, RunError> {
    let retention = config.retention();
    match config.kind {
        StoreKind::None => Ok(None),
        StoreKind::Sqlite => {
            let store = Sqlite::open(&config.path, retention)?;
            Ok(Some(Streams::new(Arc::new(store))))
        }
        StoreKind::Redis => {
            let url = config.url().map_err(RunError::StoreUrlFile)?;
            let url = url.unwrap_or_else(|| Secret::new(""));
            let store = Redis::open(url.expose(), &config.prefix, retention)?;
            Ok(Some(Streams::new(Arc::new(store))))
        }
    }
}

fn look_after_streams(
    gateway: &Arc<Gateway>,
    behind: Behind,
    hears: Component,
    tasks: &TaskTracker,
) {
    let closed = || gateway.closed.clone();
    tasks.spawn(catch_up::run(Arc::clone(gateway), behind, closed()));
    tasks.spawn(catch_up::watch(Arc::clone(gateway), hears, closed()));
    tasks.spawn(leaving::keep(Arc::clone(gateway), closed()));
    tasks.spawn(sweep(Arc::clone(gateway), closed()));
}

/// Removes what is too old.
async fn sweep(gateway: Arc<Gateway>, closed: CancellationToken) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    // A clock that is set forward while we run must not make everything too old.
    let (began, clock) = (Timestamp::now(), Instant::now());
    loop {
        tokio::select! {
            () = sleep(SWEEP_EVERY) => {}
            () = closed.cancelled() => return,
        }
        let elapsed = SignedDuration::try_from(clock.elapsed()).unwrap_or_default();
        let Ok(now) = began.saturating_add(elapsed) else {
            continue;
        };
        while !closed.is_cancelled() {
            match streams.store.sweep(now).await {
                Ok(Swept {
                    events,
                    tasks,
                    more,
                }) => {
                    counter!(metric::SWEPT, "what" => "events").increment(events);
                    counter!(metric::SWEPT, "what" => "tasks").increment(tasks);
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    warn!(%error, "what is too old cannot be removed");
                    break;
                }
            }
        }
    }
}

fn gate(config: &NotifierConfig) -> Gate {
    Gate::new(match config.auth.mode {
        AuthMode::Jwt => config.auth.revocations_wait.0,
        // There are no tokens, so none can have been revoked.
        AuthMode::None => Duration::ZERO,
    })
}

fn mattermost(config: &MattermostConfig) -> Result<Option<Mattermost>, RunError> {
    let url = match (&config.webhook_url, &config.webhook_url_file) {
        (Some(url), _) => url.clone(),
        (None, Some(path)) => Secret::from_file(path)?,
        (None, None) => return Ok(None),
    };
    let webhook: WebhookUrl = url.expose().parse()?;
    Ok(Some(Mattermost::new(webhook, POST_TIMEOUT)?))
}

fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    name.chars().take(MAX_INSTANCE_BYTES / 4).collect()
}

fn start_queues(
    gateway: &Arc<Gateway>,
    topology: Topology,
    mattermost: Option<Mattermost>,
    (hears, lock): (Component, Lock),
    health: &Health,
    tasks: &TaskTracker,
) -> Consumer {
    let names = &gateway.names;
    let mut subscriptions = Vec::new();
    let mut subscribe = |source, prefetch| -> mpsc::Receiver<Delivery> {
        let (deliveries, receiver) = mpsc::channel(usize::from(prefetch));
        subscriptions.push(Subscription::new(source, prefetch, deliveries));
        receiver
    };
    // Before the inbox: what is handed back must find this instance listening.
    let live = subscribe(
        Source::Own {
            stem: names.notifier(&gateway.instance_word()),
            exchange: names.events(),
            patterns: vec![
                "live.#".into(),
                format!("{}.#", presence::KEY_WORD),
                format!("{}.#", streams::KEY_WORD),
            ],
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
    let component = health.component("store");
    component.up();
    tasks.spawn(writer::keep(Arc::clone(gateway), inbox, component));
    if gateway.streams.is_some() {
        let states = subscribe(Source::Queue(names.board()), board::PREFETCH);
        tasks.spawn(board::keep(Arc::clone(gateway), states));
    }
    if let Some(client) = mattermost {
        // One at a time: the channel reads them in order.
        let waiting = subscribe(Source::Queue(names.alerts()), 1);
        let gateway = Arc::clone(gateway);
        let stop = gateway.stop.clone();
        tasks.spawn(alerts::dispatch(gateway, client, waiting, stop));
    }
    Consumer::start_locked(
        &gateway.config.amqp,
        "notifier",
        topology,
        subscriptions,
        hears,
        Some(lock),
    )
}
