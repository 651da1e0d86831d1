//! A TCP relay that cuts connections wherever chance has it, or where a test wants it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::random::Random;

/// A relay. Ends, with its connections, when dropped.
pub struct Relay {
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

struct State {
    random: Mutex<Random>,
    /// A connection passes up to twice as many bytes in either direction.
    mean_bytes: u64,
    cuts: AtomicU64,
    calm: AtomicBool,
    way: watch::Sender<Way>,
}

/// What a test lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Nothing comes back from the broker; it comes when the way is open again.
    Deaf,
    Cut,
}

impl State {
    fn allowance(&self) -> u64 {
        1 + self.random.lock().unwrap().below(self.mean_bytes * 2)
    }
}

impl Relay {
    /// Relays to the broker of an AMQP address.
    pub async fn start(url: &str, random: Random, mean_bytes: u64) -> Self {
        let target = authority(url).to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            random: Mutex::new(random),
            mean_bytes,
            cuts: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            way: watch::Sender::new(Way::Open),
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *shared.way.borrow() == Way::Cut {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&target).await else {
                    continue;
                };
                tokio::spawn(pass(near, far, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            state,
            accepting: accepting.abort_handle(),
        }
    }

    /// A relay that only does what it is told.
    pub async fn steered(url: &str) -> Self {
        let relay = Self::start(url, Random::seeded(0), 1).await;
        relay.calm();
        relay
    }

    /// Cuts all connections, and lets none through until the way is open again.
    pub fn cut(&self) {
        self.state.way.send_replace(Way::Cut);
    }

    /// Holds back what the broker says, while it hears everything.
    pub fn deafen(&self) {
        self.state.way.send_replace(Way::Deaf);
    }

    pub fn open(&self) {
        self.state.way.send_replace(Way::Open);
    }

    /// The address of the same broker by way of the relay.
    pub fn url(&self, url: &str) -> String {
        url.replace(authority(url), &self.address.to_string())
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Cuts no more.
    pub fn calm(&self) {
        self.state.calm.store(true, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// `host:port` of an AMQP address.
fn authority(url: &str) -> &str {
    let rest = url.split('@').nth(1).unwrap();
    rest.split('/').next().unwrap()
}

async fn pass(near: TcpStream, far: TcpStream, state: Arc<State>) {
    for stream in [&near, &far] {
        stream.set_nodelay(true).unwrap();
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let (mut way, answers) = (state.way.subscribe(), state.way.subscribe());
    // Whichever direction ends first takes the other with it: both streams are dropped.
    tokio::select! {
        () = forward(near_in, far_out, None, &state) => {}
        () = forward(far_in, near_out, Some(answers), &state) => {}
        _ = way.wait_for(|way| *way == Way::Cut) => {}
    }
}

/// Forwards up to an allowance; what was read beyond it is lost, as it would be.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: Option<watch::Receiver<Way>>,
    state: &State,
) {
    let mut left = state.allowance();
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = match from.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        if let Some(way) = &mut way {
            drop(way.wait_for(|way| *way != Way::Deaf).await);
        }
        let calm = state.calm.load(Ordering::SeqCst);
        let pass = if calm {
            read
        } else {
            read.min(usize::try_from(left).unwrap())
        };
        if to.write_all(&bytes[..pass]).await.is_err() {
            return;
        }
        left = left.saturating_sub(pass as u64);
        if left == 0 && !calm {
            state.cuts.fetch_add(1, Ordering::SeqCst);
            // Sometimes one side learns of it later than the other.
            if state.allowance().is_multiple_of(4) {
                drop(from);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            return;
        }
    }
}
