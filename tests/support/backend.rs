//! A double of the backend that knows who may enter a room.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use warp::Filter;
use warp::http::{HeaderMap, Response, StatusCode};

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This status and body.
    Says(u16, &'static str),
    /// The same, but only when it is set to answer otherwise.
    SaysLater(u16, &'static str),
    /// Nothing, ever.
    Hangs,
}

pub const YES: Answer = Answer::Says(200, r#"{"allowed":true}"#);
pub const NO: Answer = Answer::Says(200, r#"{"allowed":false}"#);

/// What it was asked.
#[derive(Debug, Clone)]
pub struct Question {
    pub body: Value,
    pub authorization: Option<String>,
}

/// A running double; gone when dropped.
pub struct Backend {
    address: SocketAddr,
    answer: watch::Sender<Answer>,
    questions: Arc<watch::Sender<Vec<Question>>>,
    _server: AbortOnDropHandle<()>,
}

impl Backend {
    pub async fn start(first: Answer) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = watch::Sender::new(first);
        let questions = Arc::new(watch::Sender::new(Vec::new()));
        let (current, asked) = (answer.subscribe(), Arc::clone(&questions));
        let routes = warp::post()
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .then(move |headers: HeaderMap, body: bytes::Bytes| {
                let (mut current, asked) = (current.clone(), Arc::clone(&asked));
                async move {
                    let answer = *current.borrow_and_update();
                    let authorization = headers.get("authorization");
                    let authorization = authorization.map(|it| it.to_str().unwrap().to_owned());
                    let body = serde_json::from_slice(&body).unwrap();
                    asked.send_modify(|all| {
                        all.push(Question {
                            body,
                            authorization,
                        });
                    });
                    let (status, body) = match answer {
                        Answer::Hangs => std::future::pending().await,
                        Answer::Says(status, body) => (status, body),
                        Answer::SaysLater(status, body) => {
                            current.changed().await.unwrap();
                            (status, body)
                        }
                    };
                    let mut response = Response::new(body);
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    response
                }
            });
        let server = tokio::spawn(warp::serve(routes).incoming(listener).run());
        Self {
            address,
            answer,
            questions,
            _server: AbortOnDropHandle::new(server),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}/may-enter", self.address)
    }

    /// Changes what the next questions are answered.
    pub fn answers(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    /// Every question so far.
    pub fn questions(&self) -> Vec<Question> {
        self.questions.borrow().clone()
    }

    pub fn count(&self) -> usize {
        self.questions.borrow().len()
    }

    /// Waits until it was asked so often.
    pub async fn asked(&self, count: usize) {
        let mut questions = self.questions.subscribe();
        let asked = questions.wait_for(|all| all.len() >= count);
        let asked = tokio::time::timeout(crate::stack::PATIENCE, asked).await;
        asked.expect("asked in time").unwrap();
    }
}
