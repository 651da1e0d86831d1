//! A double of an issuer: serves a key set, well or badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use warp::http::Response;
use warp::{Filter, Reply};

/// How it answers.
#[derive(Debug, Clone)]
pub enum Answer {
    Keys(Vec<Value>),
    /// Any text with status 200.
    Text(String),
    Status(u16),
    /// To where it would have given the keys.
    Redirect,
    /// Not before a minute has passed.
    Never,
}

/// A running double. Ends when dropped.
pub struct Issuer {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: watch::Sender<u64>,
    server: JoinHandle<()>,
}

impl Issuer {
    pub async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(answer));
        let asked = watch::Sender::new(0);
        let (answers, count) = (Arc::clone(&answer), asked.clone());
        let route = warp::path::full().then(move |_| {
            let answer = answers.lock().unwrap().clone();
            count.send_modify(|count| *count += 1);
            give(answer)
        });
        let server = tokio::spawn(warp::serve(route).incoming(listener).run());
        Self {
            address,
            answer,
            asked,
            server,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/keys?tenant=1", self.address)
    }

    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How often it was asked.
    pub fn asked(&self) -> u64 {
        *self.asked.borrow()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn give(answer: Answer) -> warp::reply::Response {
    let of = |status: u16, text: String| {
        let answer = Response::builder()
            .status(status)
            .header("location", "/others");
        answer.body(text).unwrap().into_response()
    };
    match answer {
        Answer::Keys(keys) => of(200, json!({ "keys": keys }).to_string()),
        Answer::Text(text) => of(200, text),
        Answer::Status(status) => of(status, String::new()),
        Answer::Redirect => of(302, String::new()),
        Answer::Never => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            of(500, String::new())
        }
    }
}
