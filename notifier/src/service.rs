//! The running notifier: starts everything, and stops it in order.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{
    Consumer, Delivery, Names, Publisher, Source, StreamPosition, Subscription, Topology,
};
use bellhop_common::config::{Secret, SecretError};
use bellhop_common::http::{Limits, serve};
use bellhop_common::telemetry::{Health, Metrics, MetricsError};
use bellhop_common::tls;
use bellhop_common::wire::encode_word;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::alerts::mattermost::{SetupError, WebhookUrlError};
use crate::alerts::{self, Mattermost, WebhookUrl};
use crate::auth::{Issuer, IssuerError, KeyError, Verifier};
use crate::config::{AuthMode, MAX_INSTANCE_BYTES, MattermostConfig, NotifierConfig};
use crate::gateway::Gateway;
use crate::http;
use crate::hub::Hub;
use crate::inbound::{self, HAND_BACKS};
use crate::metric;
use crate::recent::Recent;
use crate::revocations::{self, Gate};

/// How many live events may be with us at once.
const LIVE_PREFETCH: u16 = 500;

/// How many revocations may be with us at once.
const REVOCATIONS_PREFETCH: u16 = 500;

/// What the broker keeps for an instance that does not keep up, before it drops the oldest.
const LIVE_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// How long Mattermost may take for one post.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

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
}

/// Serves until `shutdown`: then is no longer ready, closes every connection with a code that says
/// "come back", and waits for them until `shutdown.deadline`. The broker may be away at any time,
/// at the start too.
///
/// # Errors
/// [`RunError`] before anything is started.
pub async fn run(
    listener: TcpListener,
    config: NotifierConfig,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    tls::install_provider();
    let metrics = Metrics::install()?;
    metric::describe();
    let verifier = Verifier::new(&config.auth)?;
    let issuer = match verifier.issuer() {
        Some(issuer) => Some((issuer, Issuer::client()?)),
        None => None,
    };
    let mattermost = mattermost(&config.mattermost)?;
    let health = Health::new();
    let names = Names::new(&config.amqp);
    let mut topology = Topology::base(&names).with_revocations(&names);
    if mattermost.is_some() {
        topology = topology.with_alerts(&names, &[alerts::PATTERN]);
    }
    let component = health.component("amqp.publisher");
    let (publisher, publisher_task) =
        Publisher::start(&config.amqp, "notifier", topology.clone(), component);
    let gateway = Arc::new(Gateway {
        instance: config.instance.clone().unwrap_or_else(host_name),
        hub: Hub::new(config.websocket.connections_per_user),
        recent: Recent::default(),
        stop: shutdown.clone(),
        sessions: TaskTracker::new(),
        names,
        publisher,
        gate: gate(&config),
        verifier,
        config,
    });
    let routes = http::routes(Arc::clone(&gateway), health.clone(), metrics.clone());
    let tasks = TaskTracker::new();
    tasks.spawn(metrics.upkeep(shutdown.clone()));
    tasks.spawn(serve(listener, routes, Limits::default(), shutdown.clone()));
    if let Some((issuer, client)) = issuer {
        let component = health.component("auth.jwks");
        tasks.spawn(issuer.keep_fresh(client, component, shutdown.clone()));
    }
    let consumer = start_queues(&gateway, topology, mattermost, &health, &tasks, &shutdown);
    info!(
        instance = gateway.instance,
        listen = %gateway.config.http.listen,
        "notifier started"
    );

    shutdown.cancelled().await;
    consumer.stop_intake();
    drain(&gateway).await;
    // Ends the queues that the tasks read from.
    consumer.close().await;
    tasks.close();
    if timeout(LAST_WORDS, tasks.wait()).await.is_err() {
        warn!("HTTP requests or events were still in hand");
    }
    publisher_task.close().await;
    info!("notifier stopped");
    Ok(())
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
    health: &Health,
    tasks: &TaskTracker,
    stop: &CancellationToken,
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
            stem: names.notifier(&encode_word(&gateway.instance)),
            exchange: names.events(),
            patterns: vec!["live.#".into()],
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
    let inbox = subscribe(Source::Queue(names.inbox()), HAND_BACKS);
    let component = health.component("auth.revocations");
    tasks.spawn(revocations::follow(Arc::clone(gateway), revoked, component));
    tasks.spawn(inbound::deliver(Arc::clone(gateway), live));
    tasks.spawn(inbound::hand_back(Arc::clone(gateway), inbox));
    if let Some(client) = mattermost {
        // One at a time: the channel reads them in order.
        let waiting = subscribe(Source::Queue(names.alerts()), 1);
        let gateway = Arc::clone(gateway);
        tasks.spawn(alerts::dispatch(gateway, client, waiting, stop.clone()));
    }
    let component = health.component("amqp.consumer");
    Consumer::start(
        &gateway.config.amqp,
        "notifier",
        topology,
        subscriptions,
        component,
    )
}

async fn drain(gateway: &Gateway) {
    let deadline = gateway.config.shutdown.deadline.0;
    gateway.sessions.close();
    if timeout(deadline, gateway.sessions.wait()).await.is_err() {
        let connections = gateway.sessions.len();
        warn!(
            connections,
            ?deadline,
            "the deadline is over, connections were still open"
        );
    }
}
