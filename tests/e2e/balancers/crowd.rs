//! Clients that come back whenever they are cut off, by WebSocket and by SSE, each from an address
//! of its own and with the cookies that it is given; and what they were shown.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bellhop_tests::client::{Client, request};
use bellhop_tests::event_stream::EventStream;
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{PATIENCE, Stack, token};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// How many clients there are, and how many of them come by SSE.
const CLIENTS: u8 = 25;
const BY_SSE: u8 = 5;

/// How a client comes.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) user: String,
    pub(super) from: Ipv4Addr,
    pub(super) to: SocketAddr,
    pub(super) by_sse: bool,
    pub(super) cookie: Option<String>,
}

/// An open connection.
pub(super) enum Connection {
    WebSocket(Client),
    Sse(EventStream),
}

impl Way {
    /// The n-th client's.
    pub(super) fn of(number: u8, to: SocketAddr) -> Self {
        Self {
            user: format!("user-{number}"),
            from: Ipv4Addr::new(127, 0, number + 1, 1),
            to,
            by_sse: number < BY_SSE,
            cookie: None,
        }
    }

    /// Connects; or why not.
    pub(super) async fn open(
        &mut self,
        query: &str,
        headers: &[Header],
    ) -> Result<Connection, String> {
        let bearer = format!("Bearer {}", token(&self.user));
        let mut all = vec![("authorization", bearer)];
        all.extend(self.cookie.clone().map(|cookie| ("cookie", cookie)));
        all.extend(headers.iter().cloned());
        let opening = timeout(PATIENCE, async {
            if self.by_sse {
                self.listen(query, &all).await
            } else {
                self.connect(query, &all).await
            }
        });
        let (connection, cookie) = opening.await.map_err(|late| late.to_string())??;
        if let Some(cookie) = cookie {
            let (cookie, _) = cookie.split_once(';').unwrap_or((&cookie, ""));
            self.cookie = Some(cookie.to_owned());
        }
        Ok(connection)
    }

    async fn connect(&self, query: &str, headers: &[Header]) -> Opened {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((self.from, 0).into()).unwrap();
        let connected = socket.connect(self.to).await;
        let stream = connected.map_err(|error| error.to_string())?;
        let headers: Vec<_> = headers.iter().map(|(name, v)| (*name, &**v)).collect();
        let request = request(self.to, &format!("/ws{query}"), &headers);
        let opened = Client::over(stream, request).await;
        let (client, answer) = opened.map_err(|error| error.to_string())?;
        let cookie = answer.headers().get("set-cookie");
        let cookie = cookie.map(|cookie| cookie.to_str().unwrap().to_owned());
        Ok((Connection::WebSocket(client), cookie))
    }

    async fn listen(&self, query: &str, headers: &[Header]) -> Opened {
        bellhop_common::tls::install_provider();
        let client = reqwest::Client::builder().local_address(Some(self.from.into()));
        let mut request = client
            .build()
            .unwrap()
            .get(format!("http://{}/sse{query}", self.to));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let sent = request.send().await;
        let answer = sent.map_err(|error| error.to_string())?;
        if answer.status() != 200 {
            return Err(answer.status().to_string());
        }
        let cookie = answer.headers().get("set-cookie");
        let cookie = cookie.map(|cookie| cookie.to_str().unwrap().to_owned());
        Ok((Connection::Sse(EventStream::over(answer)), cookie))
    }

    /// Connects, and says to which instance; the connection is then closed.
    pub(super) async fn instance(&mut self) -> String {
        let mut connection = self.open("", &[]).await.unwrap();
        let connected = connection.next().await.expect("the first frame");
        connected["instance"].as_str().unwrap().to_owned()
    }
}

/// Name and value.
pub(super) type Header = (&'static str, String);

type Opened = Result<(Connection, Option<String>), String>;

impl Connection {
    /// The next frame, as long as the connection lasts.
    pub(super) async fn next(&mut self) -> Option<Value> {
        match self {
            Self::WebSocket(client) => client.try_next().await,
            Self::Sse(stream) => Some(stream.next_event().await?.json()),
        }
    }
}

/// What a client tells of its way.
enum Told {
    At(String),
    Refused(String),
    Stored(u64, u64),
    Live(u64),
}

/// Comes back as often as it must.
async fn travel(mut way: Way, number: usize, told: mpsc::Sender<(usize, Told)>) {
    let mut since: Option<String> = None;
    loop {
        let query = since.as_ref().map(|since| format!("?since={since}"));
        let opened = way.open(&query.unwrap_or_default(), &[]).await;
        let mut connection = match opened {
            Ok(connection) => connection,
            Err(why) => {
                drop(told.send((number, Told::Refused(why))).await);
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while let Some(frame) = connection.next().await {
            let number_of = |field: &str| frame[field].as_u64().unwrap();
            let news = match frame["type"].as_str().unwrap() {
                "connected" => Told::At(frame["instance"].as_str().unwrap().to_owned()),
                "stored" => {
                    let epoch = frame["epoch"].as_str().unwrap();
                    since = Some(format!("user.{epoch}.{}", number_of("seq")));
                    Told::Stored(number_of("seq"), number_of("data"))
                }
                "live" => Told::Live(number_of("data")),
                _ => continue,
            };
            drop(told.send((number, news)).await);
        }
    }
}

/// What one client was shown, in its order, and where it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    pub(super) at: Option<String>,
    stored: Vec<(u64, u64)>,
    live: Vec<u64>,
    refused: Vec<String>,
}

/// All clients.
pub(super) struct Crowd {
    pub(super) logs: Vec<Log>,
    told: mpsc::Receiver<(usize, Told)>,
    rabbit: Rabbit,
    stored: u64,
    live: u64,
    _travelling: JoinSet<()>,
}

impl Crowd {
    /// Once all are connected.
    pub(super) async fn start(stack: &Stack, to: SocketAddr) -> Self {
        let (tell, told) = mpsc::channel(1024);
        let mut travelling = JoinSet::new();
        for number in 0..CLIENTS {
            travelling.spawn(travel(
                Way::of(number, to),
                usize::from(number),
                tell.clone(),
            ));
        }
        let mut crowd = Self {
            logs: vec![Log::default(); usize::from(CLIENTS)],
            told,
            rabbit: stack.rabbit().await,
            stored: 0,
            live: 0,
            _travelling: travelling,
        };
        let all_are_there = |log: &Log| log.at.is_some();
        crowd.until("is connected", all_are_there).await;
        crowd
    }

    /// Takes in what the clients tell until it fits for each of them.
    async fn until(&mut self, what: &str, fits: impl Fn(&Log) -> bool) {
        let listening = async {
            while !self.logs.iter().all(&fits) {
                let (number, told) = self.told.recv().await.unwrap();
                let log = &mut self.logs[number];
                match told {
                    Told::At(instance) => log.at = Some(instance),
                    Told::Refused(why) => log.refused.push(why),
                    Told::Stored(seq, data) => log.stored.push((seq, data)),
                    Told::Live(data) => log.live.push(data),
                }
            }
        };
        let is_done = timeout(PATIENCE, listening).await.is_ok();
        let missing: Vec<_> = self.logs.iter().filter(|log| !fits(log)).collect();
        assert!(is_done, "not everybody {what}: {missing:#?}");
    }

    async fn publish(&self, kind: &str, number: u64) {
        for client in 0..CLIENTS {
            let (id, time) = (Uuid::now_v7(), Timestamp::now());
            let body = json!({"type": kind, "id": id, "time": time, "data": number});
            let key = format!("{kind}.user.user-{client}.{kind}");
            self.rabbit.publish("events", &key, body.to_string()).await;
        }
    }

    /// Stored events for everybody, until something has ended.
    pub(super) async fn store_during<T>(&mut self, something: impl Future<Output = T>) -> T {
        let mut something = std::pin::pin!(something);
        loop {
            self.stored += 1;
            self.publish("stored", self.stored).await;
            tokio::select! {
                outcome = &mut something => return outcome,
                () = sleep(Duration::from_millis(50)) => {}
            }
        }
    }

    /// Waits until nobody is at this instance any more.
    pub(super) async fn has_left(&mut self, instance: &str) {
        let is_elsewhere = |log: &Log| log.at.as_deref() != Some(instance);
        self.until("is elsewhere", is_elsewhere).await;
    }

    /// Now that everybody is connected: publishes both kinds, and checks that each was shown every
    /// event once, in order, since the beginning; and that nobody was ever refused.
    pub(super) async fn sees_everything_once(&mut self) {
        for _ in 0..3 {
            self.live += 1;
            self.publish("live", self.live).await;
            self.stored += 1;
            self.publish("stored", self.stored).await;
        }
        let (stored, live) = (self.stored, self.live);
        let has_all = move |log: &Log| {
            log.stored.last() == Some(&(stored, stored)) && log.live.last() == Some(&live)
        };
        self.until("has come to the end", has_all).await;
        for log in &self.logs {
            assert!(
                log.stored.iter().copied().eq((1..=stored).map(|n| (n, n))),
                "{log:?}"
            );
            assert!(log.live.iter().copied().eq(1..=live), "{log:?}");
            assert!(log.refused.is_empty(), "{log:?}");
        }
    }
}
