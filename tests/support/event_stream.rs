//! A client of Server-Sent Events that reads them as the specification says (HTML, 9.2.6).

use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::time::timeout;

use crate::stack::{PATIENCE, Running};

/// An open stream.
pub struct EventStream {
    response: Response,
    text: String,
    /// How many comments came.
    pub comments: usize,
    /// Every `retry` that came, in milliseconds.
    pub retries: Vec<u64>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The `id` field, if it has one.
    pub id: Option<String>,
    /// The `event` field, if it has one.
    pub name: Option<String>,
    /// Its lines.
    pub data: String,
}

impl Event {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

/// A request for a stream; the client has no deadline for the whole answer.
pub fn listen(notifier: &Running, query: &str) -> RequestBuilder {
    bellhop_common::tls::install_provider();
    let client = reqwest::Client::builder().build().unwrap();
    client.get(notifier.url(&format!("/sse{query}")))
}

impl EventStream {
    /// Connects with the token in the header, past `connected`.
    pub async fn of(notifier: &Running, token: &str, query: &str) -> Self {
        let mut stream = Self::open(listen(notifier, query).bearer_auth(token)).await;
        assert_eq!(stream.next().await["type"], "connected");
        stream
    }

    /// Sends a request that must be answered with a stream.
    pub async fn open(request: RequestBuilder) -> Self {
        Self::over(request.send().await.unwrap())
    }

    /// Reads an answer that must be a stream.
    pub fn over(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            text: String::new(),
            comments: 0,
            retries: Vec::new(),
        }
    }

    /// The next event's data.
    pub async fn next(&mut self) -> Value {
        self.next_event().await.expect("an event").json()
    }

    /// The next event's data, if it is of this type; others are passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await;
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// The next event, or nothing at the end of the stream.
    pub async fn next_event(&mut self) -> Option<Event> {
        loop {
            let block = timeout(PATIENCE, self.block()).await;
            let block = block.expect("an event in time")?;
            if let Some(event) = self.understand(&block) {
                return Some(event);
            }
        }
    }

    /// Waits for a comment.
    pub async fn comment(&mut self) {
        let wait = async {
            let before = self.comments;
            while self.comments == before {
                let block = self.block().await.expect("a comment before the end");
                let event = self.understand(&block);
                assert!(event.is_none(), "{event:?}");
            }
        };
        timeout(PATIENCE, wait).await.expect("a comment in time");
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let chunk = self.response.chunk().await.ok().flatten()?;
            self.text += std::str::from_utf8(&chunk).unwrap();
        }
    }

    fn understand(&mut self, block: &str) -> Option<Event> {
        let mut event = Event {
            id: None,
            name: None,
            data: String::new(),
        };
        let mut lines = Vec::new();
        for line in block.split(['\n', '\r']) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "id" => event.id = Some(value.to_owned()),
                "event" => event.name = Some(value.to_owned()),
                "data" => lines.push(value),
                "retry" => self.retries.push(value.parse().unwrap()),
                other => panic!("the field {other:?} in {block:?}"),
            }
        }
        event.data = lines.join("\n");
        (!lines.is_empty()).then_some(event)
    }
}
