//! A double of a push service: browsers that subscribe to it, and an endpoint for each that checks who
//! sends, decrypts what comes, and answers well or badly.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellhop_notifier::PushConfig;
use bellhop_notifier::push::{Subscription, VapidKey};
use bytes::Bytes;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use p256::SecretKey;
use p256::elliptic_curve::rand_core::{OsRng, RngCore as _};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use warp::http::{HeaderMap, StatusCode};
use warp::{Filter, Reply as _};

/// In every secret of an endpoint, so that a test can look for it.
pub const SECRET_WORD: &str = "hunter2-endpoint";

/// How it answers who is in order.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 201.
    Takes,
    /// 201, with a body that never ends.
    TakesSlowly,
    /// This status, headers, and what of the endpoint it repeats in its body.
    Says(u16, Vec<(&'static str, String)>),
    /// Nothing, ever.
    Hangs,
}

/// A message as its browser sees it, and how it was sent.
#[derive(Debug, Clone)]
pub struct Message {
    pub browser: String,
    pub body: Value,
    pub headers: HashMap<String, String>,
}

/// A browser that has subscribed.
#[derive(Clone)]
pub struct Browser {
    pub endpoint: String,
    secret: SecretKey,
    auth: [u8; 16],
    /// The only key that may send.
    key: String,
}

struct State {
    answer: watch::Sender<Answer>,
    browsers: Mutex<HashMap<String, Browser>>,
    messages: watch::Sender<Vec<Message>>,
    requests: watch::Sender<u64>,
    /// What was wrong with requests.
    problems: Mutex<Vec<String>>,
}

/// A running double. Ends when dropped.
pub struct PushService {
    address: SocketAddr,
    state: Arc<State>,
    _server: AbortOnDropHandle<()>,
}

impl Browser {
    /// `PushSubscription.toJSON()`.
    pub fn to_json(&self) -> Value {
        let subscription = self.subscription();
        json!({"endpoint": self.endpoint, "expirationTime": null,
            "keys": {"p256dh": subscription.p256dh, "auth": subscription.auth}})
    }

    /// The same as the notifier keeps it.
    pub fn subscription(&self) -> Subscription {
        let point = self.secret.public_key().to_encoded_point(false);
        Subscription {
            endpoint: self.endpoint.clone(),
            p256dh: URL_SAFE_NO_PAD.encode(point.as_bytes()),
            auth: URL_SAFE_NO_PAD.encode(self.auth),
            key: self.key.clone(),
        }
    }
}

impl PushService {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answer: watch::Sender::new(Answer::Takes),
            browsers: Mutex::default(),
            messages: watch::Sender::default(),
            requests: watch::Sender::default(),
            problems: Mutex::default(),
        });
        let (shared, origin) = (Arc::clone(&state), format!("http://{address}"));
        let route = warp::path::param::<String>()
            .and(warp::path::end())
            .and(warp::post())
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .then(move |name: String, headers: HeaderMap, body: Bytes| {
                let (state, origin) = (Arc::clone(&shared), origin.clone());
                async move {
                    let answer = state.take(&origin, &name, &headers, &body);
                    give(answer, &name).await
                }
            });
        let server = tokio::spawn(warp::serve(route).incoming(listener).run());
        Self {
            address,
            state,
            _server: AbortOnDropHandle::new(server),
        }
    }

    /// A browser subscribes; only who has this key may send to it.
    pub fn subscribe(&self, key: &str) -> Browser {
        let mut auth = [0; 16];
        OsRng.fill_bytes(&mut auth);
        let name = format!("{SECRET_WORD}-{}", OsRng.next_u64());
        let browser = Browser {
            endpoint: format!("http://{}/{name}", self.address),
            secret: SecretKey::random(&mut OsRng),
            auth,
            key: key.to_owned(),
        };
        let mut browsers = self.state.browsers.lock().unwrap();
        browsers.insert(name, browser.clone());
        browser
    }

    /// The browser gives its subscription up.
    pub fn unsubscribe(&self, browser: &Browser) {
        let mut browsers = self.state.browsers.lock().unwrap();
        browsers.retain(|_, known| known.endpoint != browser.endpoint);
    }

    pub fn answers(&self, answer: Answer) {
        self.state.answer.send_replace(answer);
    }

    pub fn messages(&self) -> Vec<Message> {
        self.state.messages.borrow().clone()
    }

    /// Waits until so many have come.
    pub async fn wait_for_messages(&self, count: usize) -> Vec<Message> {
        let mut messages = self.state.messages.subscribe();
        let wait = messages.wait_for(|messages| messages.len() >= count);
        let wait = tokio::time::timeout(crate::stack::PATIENCE, wait).await;
        wait.expect("messages in time").unwrap().clone()
    }

    /// How many requests came, in order or not.
    pub fn requests(&self) -> u64 {
        *self.state.requests.borrow()
    }

    /// Waits until so many have come.
    pub async fn wait_for_requests(&self, count: u64) {
        let mut requests = self.state.requests.subscribe();
        let wait = requests.wait_for(|requests| *requests >= count);
        let wait = tokio::time::timeout(crate::stack::PATIENCE, wait).await;
        wait.expect("requests in time").unwrap();
    }

    pub fn problems(&self) -> Vec<String> {
        self.state.problems.lock().unwrap().clone()
    }
}

/// A configuration with a fresh key, whose file lies in `folder`, for push services on loopback.
pub fn config(folder: &Path) -> PushConfig {
    let path = folder.join("vapid.pem");
    let key = VapidKey::generate(&mut OsRng).unwrap();
    std::fs::write(&path, key.expose()).unwrap();
    PushConfig {
        key_file: Some(path),
        subject: Some("mailto:ops@example.org".into()),
        allow_private: true,
        ..PushConfig::default()
    }
}

impl State {
    fn take(&self, origin: &str, name: &str, headers: &HeaderMap, body: &Bytes) -> Answer {
        self.requests.send_modify(|count| *count += 1);
        let says = |status| Answer::Says(status, Vec::new());
        let Some(browser) = self.browsers.lock().unwrap().get(name).cloned() else {
            return says(410);
        };
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|it| it.to_str().ok())
                .unwrap_or_default()
        };
        if let Err(problem) = authorized(header("authorization"), origin, &browser.key) {
            self.problems.lock().unwrap().push(problem);
            return says(403);
        }
        match read(&browser, headers, body) {
            Ok(body) => {
                let answer = self.answer.borrow().clone();
                if matches!(answer, Answer::Takes | Answer::TakesSlowly) {
                    let known = ["ttl", "urgency", "topic"];
                    let headers = known
                        .map(|name| (name.to_owned(), header(name).to_owned()))
                        .into();
                    let browser = browser.endpoint;
                    let message = Message {
                        browser,
                        body,
                        headers,
                    };
                    self.messages.send_modify(|all| all.push(message));
                }
                answer
            }
            Err(problem) => {
                self.problems.lock().unwrap().push(problem);
                says(400)
            }
        }
    }
}

/// RFC 8292: who sends, to whom, and until when.
fn authorized(header: &str, origin: &str, key: &str) -> Result<(), String> {
    let parts = header
        .strip_prefix("vapid t=")
        .and_then(|rest| rest.split_once(", k="));
    let (token, sender) = parts.ok_or("no VAPID header")?;
    if sender != key {
        return Err("the subscription is for another key".into());
    }
    let point = URL_SAFE_NO_PAD
        .decode(sender)
        .map_err(|_| "k is no base64url")?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.leeway = 0;
    validation.set_audience(&[origin]);
    validation.set_required_spec_claims(&["exp", "aud", "sub"]);
    let key = DecodingKey::from_ec_der(&point);
    let decoded = jsonwebtoken::decode::<Value>(token, &key, &validation);
    let claims = decoded
        .map_err(|error| format!("the token: {error}"))?
        .claims;
    let now = Timestamp::now().as_second();
    let day = 24 * 3600;
    if claims["exp"].as_i64().is_none_or(|exp| exp > now + day) {
        return Err(format!("exp is {}", claims["exp"]));
    }
    let is_contact = |sub: &str| sub.starts_with("mailto:");
    if !claims["sub"].as_str().is_some_and(is_contact) {
        return Err(format!("sub is {}", claims["sub"]));
    }
    Ok(())
}

fn read(browser: &Browser, headers: &HeaderMap, body: &Bytes) -> Result<Value, String> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default()
    };
    if header("content-encoding") != "aes128gcm" {
        return Err("the encoding is another".into());
    }
    if header("ttl").parse::<u64>().is_err() {
        return Err("ttl is missing".into());
    }
    if body.len() > 4096 {
        return Err(format!("{} bytes", body.len()));
    }
    let auth = web_push_native::Auth::from(browser.auth);
    let plain = web_push_native::decrypt(body.to_vec(), &browser.secret, &auth);
    let plain = plain.map_err(|error| error.to_string())?;
    serde_json::from_slice(&plain).map_err(|error| error.to_string())
}

async fn give(answer: Answer, name: &str) -> warp::reply::Response {
    let (status, headers) = match answer {
        Answer::Takes => (201, Vec::new()),
        Answer::Says(status, headers) => (status, headers),
        Answer::Hangs => std::future::pending().await,
        Answer::TakesSlowly => {
            let first = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"x"))]);
            let endless = first.chain(futures_util::stream::pending());
            let mut response = warp::reply::stream(endless).into_response();
            *response.status_mut() = StatusCode::CREATED;
            return response;
        }
    };
    // Push services repeat what they were sent.
    let body = format!("{{\"errno\":109,\"reason\":\"BadJwtToken\",\"endpoint\":\"/{name}\"}}");
    let mut response = warp::http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body.into()).unwrap()
}
