//! A thread with a connection of its own: SQLite waits for the disk, and tasks must not.

use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::store::StoreError;

/// How many questions may wait.
const MAX_WAITING: usize = 256;

/// How long one may take, with those before it.
const PATIENCE: Duration = Duration::from_secs(30);

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

#[derive(Debug)]
pub(super) struct Lane {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    /// Starts the thread.
    pub(super) fn start(name: &str, mut connection: Connection) -> std::io::Result<Self> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(MAX_WAITING);
        let serve = move || {
            while let Some(job) = waiting.blocking_recv() {
                job(&mut connection);
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(serve)?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Has the thread do something, and waits for the answer. Who stops waiting does not undo it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody may be waiting any more.
            drop(answer.send(work(connection)));
        });
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        let asking = async {
            jobs.send(job).await.map_err(|_| StoreError::Closed)?;
            let answer = answered.await.map_err(|_| StoreError::Closed)?;
            Ok(answer?)
        };
        let in_time = timeout(PATIENCE, asking).await;
        in_time.unwrap_or(Err(StoreError::Timeout(PATIENCE)))
    }
}

/// What is under way is finished first.
impl Drop for Lane {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of the store had panicked");
        }
    }
}
