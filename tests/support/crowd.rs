//! Many light clients at once.

use std::time::Duration;

use futures_util::StreamExt as _;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::stack::PATIENCE;

/// How many clients a test has: `BELLHOP_TEST_CLIENTS`, or what CI can bear.
pub fn size(default: usize) -> usize {
    let size = std::env::var("BELLHOP_TEST_CLIENTS").ok();
    let size = size.map(|size| size.parse().expect("BELLHOP_TEST_CLIENTS is a number"));
    let size = size.unwrap_or(default);
    allow_files(4 * size as u64 + 200);
    size
}

/// Both ends of each connection are files of this process.
pub fn allow_files(wants: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wants) {
        limit.current = Some(limit.maximum.map_or(wants, |most| most.min(wants)));
        setrlimit(Resource::Nofile, limit).expect("the limit of open files can be raised");
    }
}

/// What a client of a crowd looks at in a frame.
#[derive(Debug, Deserialize)]
pub struct Glance {
    #[serde(rename = "type")]
    pub kind: String,
    pub id: Option<serde_json::Value>,
    pub data: Option<serde_json::Value>,
    pub after_ms: Option<u64>,
}

/// What comes next on a connection.
#[derive(Debug)]
pub enum Came {
    Frame(Glance),
    /// The end, with the code if one was sent.
    End(Option<u16>),
}

impl Client {
    /// The next frame or the end. Cancel safe.
    pub async fn glance(&mut self) -> Came {
        loop {
            match self.socket().next().await {
                Some(Ok(Message::Text(text))) => {
                    return Came::Frame(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Came::End(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Came::End(None),
            }
        }
    }

    /// Passes over frames up to one of a type.
    pub async fn until(&mut self, kind: &str) -> Glance {
        let reading = async {
            loop {
                match self.glance().await {
                    Came::Frame(frame) if frame.kind == kind => return frame,
                    Came::Frame(frame) => assert_ne!(frame.kind, "error", "{frame:?}"),
                    Came::End(code) => panic!("it ended with {code:?} before {kind}"),
                }
            }
        };
        timeout(PATIENCE, reading).await.expect(kind)
    }
}

/// Does something for each of many, so many at a time; how long it took.
pub async fn all<T, F: Future<Output = T>>(
    count: usize,
    at_once: usize,
    each: impl Fn(usize) -> F,
) -> (Vec<T>, Duration) {
    let began = Instant::now();
    let done = futures_util::stream::iter((0..count).map(each))
        .buffer_unordered(at_once)
        .collect()
        .await;
    (done, began.elapsed())
}

/// The value that so many percent of the others do not exceed.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}
