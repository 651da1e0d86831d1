//! Many connections, and what arrives at them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::connection::{Brought, Connection, Count, Entry};

/// As much as one call may bring.
const BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1024;
/// As many are begun before it is seen what has come, however many there may be.
const BURST: usize = 64;
/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Whom to connect, and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) entries: Vec<Entry>,
    /// How many may be on their way in at once.
    pub(crate) at_once: usize,
    pub(crate) count: Count,
    pub(crate) threads: usize,
}

/// What the threads and their owner share.
#[derive(Debug, Default)]
struct Shared {
    entered: AtomicUsize,
    received: AtomicU64,
    /// So many deliveries wake the owner.
    goal: AtomicU64,
    wake: Notify,
    stop: AtomicBool,
    trouble: Mutex<Option<String>>,
}

/// Connected clients, until dropped.
#[derive(Debug)]
pub(crate) struct Swarm {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<u64>>>,
    size: usize,
    began: Instant,
}

impl Swarm {
    /// Begins to connect.
    pub(crate) fn start(mut plan: Plan) -> anyhow::Result<Self> {
        let (shared, size) = (Arc::<Shared>::default(), plan.entries.len());
        let (began, count) = (Instant::now(), plan.threads.max(1));
        let mut threads = Vec::new();
        for left in (1..=count).rev() {
            let rest = plan.entries.len() - plan.entries.len() / left;
            let looped = Loop {
                address: plan.address,
                entries: plan.entries.split_off(rest),
                at_once: (plan.at_once / count).max(1),
                count: plan.count,
                shared: Arc::clone(&shared),
                epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
                connections: Vec::new(),
                entering: 0,
                ages: Vec::new(),
                began,
            };
            let thread = std::thread::Builder::new().name(format!("clients-{left}"));
            threads.push(thread.spawn(move || looped.run())?);
        }
        Ok(Self {
            shared,
            threads,
            size,
            began,
        })
    }

    /// Waits until all are in; answers how long that took.
    pub(crate) async fn all_in(&self, patience: Duration) -> anyhow::Result<Duration> {
        let entered = || self.shared.entered.load(Ordering::Acquire);
        let all = async {
            while entered() < self.size {
                self.check()?;
                self.shared.wake.notified().await;
            }
            anyhow::Ok(self.began.elapsed())
        };
        let Ok(done) = timeout(patience, all).await else {
            self.check()?;
            bail!(
                "only {} of {} clients got in within {patience:?}",
                entered(),
                self.size
            );
        };
        done
    }

    pub(crate) fn size(&self) -> u64 {
        self.size as u64
    }

    /// How many deliveries came so far.
    pub(crate) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// Waits for so many deliveries since the beginning.
    pub(crate) async fn until(&self, count: u64, patience: Duration) -> anyhow::Result<()> {
        // In one order with what is received: else each side may miss the other's news.
        self.shared.goal.store(count, Ordering::SeqCst);
        let enough = async {
            while self.received() < count {
                self.check()?;
                self.shared.wake.notified().await;
            }
            anyhow::Ok(())
        };
        let Ok(done) = timeout(patience, enough).await else {
            self.check()?;
            bail!(
                "{} deliveries are missing after {patience:?}",
                count.saturating_sub(self.received())
            );
        };
        done
    }

    /// An error if a connection was lost.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let trouble = self
            .shared
            .trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map_or(Ok(()), |text| bail!("{text}"))
    }

    /// Leaves; answers in nanoseconds the ages of what came, or after what time each client got in,
    /// if that was to be noted.
    pub(crate) fn leave(mut self) -> anyhow::Result<Vec<u64>> {
        self.check()?;
        self.shared.stop.store(true, Ordering::Release);
        let mut ages = Vec::new();
        for thread in self.threads.drain(..) {
            let noted = thread.join().ok().context("a thread of clients panicked")?;
            ages.extend(noted);
        }
        Ok(ages)
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// One thread.
struct Loop {
    address: SocketAddr,
    entries: Vec<Entry>,
    at_once: usize,
    count: Count,
    shared: Arc<Shared>,
    epoll: OwnedFd,
    /// By the number that epoll knows them by.
    connections: Vec<Connection>,
    entering: usize,
    ages: Vec<u64>,
    began: Instant,
}

impl Loop {
    fn run(mut self) -> Vec<u64> {
        if let Err(error) = self.serve() {
            let mut trouble = self
                .shared
                .trouble
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            trouble.get_or_insert(format!("{error:#}"));
            drop(trouble);
            self.shared.wake.notify_one();
        }
        self.ages
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        let mut buffer = vec![0; BUFFER];
        let (look, at_once) = (Timespec::try_from(LOOK)?, Timespec::default());
        while !self.shared.stop.load(Ordering::Acquire) {
            self.let_in()?;
            events.clear();
            let may_begin = self.entering < self.at_once && !self.entries.is_empty();
            let wait = if may_begin { &at_once } else { &look };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("epoll_wait"),
            }
            let (mut deliveries, mut entered) = (0, 0);
            for event in &events {
                let index = usize::try_from(event.data.u64())?;
                let Some(connection) = self.connections.get_mut(index) else {
                    continue;
                };
                let Brought {
                    deliveries: some,
                    entered: is_in,
                    ages,
                } = connection.read(&mut buffer, self.count)?;
                deliveries += some;
                entered += usize::from(is_in);
                self.ages.extend(ages);
                if is_in && self.count == Count::Entries {
                    let after = self.began.elapsed().as_nanos();
                    self.ages.push(u64::try_from(after)?);
                }
            }
            self.entering -= entered;
            self.tell(deliveries, entered);
        }
        Ok(())
    }

    fn let_in(&mut self) -> anyhow::Result<()> {
        for _ in 0..BURST {
            if self.entering >= self.at_once {
                break;
            }
            let Some(entry) = self.entries.pop() else {
                break;
            };
            let connection = Connection::open(self.address, entry)?;
            let id = self.connections.len() as u64;
            epoll::add(
                &self.epoll,
                &connection.socket,
                EventData::new_u64(id),
                EventFlags::IN,
            )?;
            self.connections.push(connection);
            self.entering += 1;
        }
        Ok(())
    }

    fn tell(&self, deliveries: u64, entered: usize) {
        let shared = &self.shared;
        if entered > 0 {
            shared.entered.fetch_add(entered, Ordering::AcqRel);
        }
        let before = shared.received.fetch_add(deliveries, Ordering::SeqCst);
        if entered > 0 || before + deliveries >= shared.goal.load(Ordering::SeqCst) {
            shared.wake.notify_one();
        }
    }
}
