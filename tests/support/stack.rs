//! The two services in this process, on a port and a prefix of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bellhop_common::config::{AmqpUrl, LogConfig, LogFormat, Secret};
use bellhop_common::telemetry::init_logs;
use bellhop_common::wire::Job;
use bellhop_notifier::auth::{Draft, mint};
use bellhop_notifier::{AuthConfig, NotifierConfig, OpenKind, StoreKind};
use bellhop_worker::{Registry, WorkerConfig};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::{fresh_prefix, setting, shared_url};
use crate::client::Client;
use crate::rabbit::Rabbit;

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Long enough for anything that should happen at all.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running service.
pub struct Running {
    pub address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asks it to stop, without waiting.
    pub fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Stops it and waits for its end.
    pub async fn stop(self) {
        self.stop_within(PATIENCE).await;
    }

    /// The same for one that has many clients to move elsewhere.
    pub async fn stop_within(self, patience: Duration) {
        self.stop.cancel();
        timeout(patience, self.task).await.unwrap().unwrap();
    }

    /// Waits until `/readyz` says what the test wants.
    pub async fn wait_ready(&self, ready: bool) {
        let wait = async {
            while self.is_ready().await != ready {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let end = Duration::from_mins(1);
        timeout(end, wait).await.expect("readiness as expected");
    }

    pub async fn is_ready(&self) -> bool {
        let answer = http().get(self.url("/readyz")).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }
}

/// An HTTP client.
pub fn http() -> reqwest::Client {
    bellhop_common::tls::install_provider();
    reqwest::Client::builder()
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

/// Where a test's services meet.
#[derive(Debug, Clone)]
pub struct Stack {
    pub url: String,
    pub prefix: String,
    /// Files of the services; they go with the last clone.
    pub folder: Arc<Folder>,
}

/// A folder that goes with its owner.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("bellhop-test-{}", Uuid::now_v7()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Stack {
    /// On the shared broker.
    pub fn shared() -> Self {
        Self::on(shared_url())
    }

    /// On a given broker.
    pub fn on(url: String) -> Self {
        // Shown when a test fails; an error means that an earlier stack of the test did it.
        let level = "info,bellhop_common=debug,bellhop_worker=debug,bellhop_notifier=debug";
        drop(init_logs(&LogConfig {
            level: level.into(),
            format: LogFormat::Text,
        }));
        Self {
            url,
            prefix: fresh_prefix(),
            folder: Arc::default(),
        }
    }

    pub fn worker_config(&self) -> WorkerConfig {
        let mut config = WorkerConfig::default();
        config.amqp.url = AmqpUrl::new(self.url.as_str());
        config.amqp.prefix.clone_from(&self.prefix);
        config
    }

    pub fn notifier_config(&self) -> NotifierConfig {
        let mut config = NotifierConfig::default();
        config.amqp.url = AmqpUrl::new(self.url.as_str());
        config.amqp.prefix.clone_from(&self.prefix);
        config.auth.secret = Some(Secret::new(SECRET));
        config.instance = Some("test".into());
        config.store.path = self.folder.0.join("store.db");
        // Otherwise every test with a client waits for it.
        config.websocket.drain_window.0 = Duration::ZERO;
        config
    }

    /// One of several notifiers, which share a store.
    pub fn shared_config(&self) -> NotifierConfig {
        let mut config = self.notifier_config();
        config.store.kind = StoreKind::Redis;
        config.store.url = Some(Secret::new(setting("BELLHOP_TEST_REDIS_URL")));
        config.store.prefix.clone_from(&self.prefix);
        config
    }

    /// A worker that knows these tasks, once it is ready.
    pub async fn worker(&self, config: WorkerConfig, registry: Registry) -> Running {
        let worker = self.start_worker(config, registry).await;
        worker.wait_ready(true).await;
        worker
    }

    pub async fn start_worker(&self, config: WorkerConfig, registry: Registry) -> Running {
        let (listener, address) = listen().await;
        let stop = CancellationToken::new();
        let running = bellhop_worker::run(listener, config, registry, stop.clone());
        let task = tokio::spawn(async move { running.await.unwrap() });
        Running {
            address,
            stop,
            task,
        }
    }

    /// A notifier, once it is ready.
    pub async fn notifier(&self, config: NotifierConfig) -> Running {
        let notifier = self.start_notifier(config).await;
        notifier.wait_ready(true).await;
        notifier
    }

    pub async fn start_notifier(&self, config: NotifierConfig) -> Running {
        let (listener, address) = listen().await;
        let stop = CancellationToken::new();
        let running = bellhop_notifier::run(listener, config, stop.clone());
        let task = tokio::spawn(async move { running.await.unwrap() });
        Running {
            address,
            stop,
            task,
        }
    }

    pub async fn rabbit(&self) -> Rabbit {
        Rabbit::connect(&self.url, &self.prefix).await
    }

    /// Puts a job into the default queue as a foreign producer would; answers its id.
    pub async fn enqueue(&self, kind: &str, args: Value, user: &str) -> String {
        let id = Uuid::now_v7().to_string();
        let job = Job::new(id.as_str(), kind, args, user);
        let rabbit = self.rabbit().await;
        rabbit
            .publish("jobs", "default", serde_json::to_vec(&job).unwrap())
            .await;
        id
    }

    /// Puts a job of any form into the default queue; answers its id.
    pub async fn put_in(&self, mut job: Value) -> String {
        let id = Uuid::now_v7().to_string();
        job["id"] = json!(id);
        let rabbit = self.rabbit().await;
        rabbit.publish("jobs", "default", job.to_string()).await;
        id
    }

    /// A connected client of a user.
    pub async fn client(&self, notifier: &Running, user: &str) -> Client {
        let mut client = Client::connect(notifier.address, &token(user)).await;
        let connected = client.next_of("connected").await;
        assert_eq!(connected["user_id"], user);
        client
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A good token.
pub fn token(user: &str) -> String {
    minted(|_| {}, user)
}

/// A good token that says more.
pub fn minted<'a>(more: impl FnOnce(&mut Draft<'a>), user: &'a str) -> String {
    let auth = AuthConfig {
        secret: Some(Secret::new(SECRET)),
        ..AuthConfig::default()
    };
    let mut draft = Draft::new(user, Timestamp::now(), Duration::from_mins(10));
    more(&mut draft);
    mint(&auth, &draft).unwrap()
}

/// A good token with the administrator's scope.
pub fn admin_token(user: &str) -> String {
    scoped_token(user, "admin")
}

/// A good token with a scope.
pub fn scoped_token<'a>(user: &'a str, scope: &'a str) -> String {
    minted(|draft| draft.scope = Some(scope), user)
}

/// A good token that lets a user into the rooms and chats of these patterns.
pub fn room_token(user: &str, patterns: &[&str]) -> String {
    let now = Timestamp::now().as_second();
    let claims = json!({"sub": user, "iat": now, "exp": now + 600, "rooms": patterns});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// Opens a kind to users.
pub fn open_kind(config: &mut NotifierConfig, kind: &str) {
    config.tasks.open.insert(kind.into(), OpenKind::default());
}

/// The arguments of a job without any.
pub fn no_args() -> Value {
    json!({})
}
