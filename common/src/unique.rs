//! `unique_key`: of several jobs of one kind, user and key, the first within its window is run.

use std::time::Duration;

use crate::amqp::{Claim, ClaimError, Claimed, Names, Publisher};
use crate::wire::{Job, TaskError};

/// The window of a job that does not say.
const DEFAULT_WINDOW: Duration = Duration::from_hours(1);

/// The error code of a job that was not the first.
pub const DUPLICATE: &str = "duplicate";

/// Asks for the job's key; `None` when it has none. The same job may ask again, and is told with
/// which mark it did before.
///
/// # Errors
/// [`ClaimError`].
pub async fn claim(
    publisher: &Publisher,
    names: &Names,
    job: &Job,
    mark: &str,
) -> Result<Option<Claimed>, ClaimError> {
    let Some(key) = &job.unique_key else {
        return Ok(None);
    };
    let window = job.unique_for_s.map_or(DEFAULT_WINDOW, Duration::from_secs);
    let claim = Claim {
        queue: &names.unique(&job.kind, &job.user_id, key),
        holder: &job.id,
        mark,
        window,
    };
    publisher.claim(&claim).await.map(Some)
}

/// Gives up the key of a job that was not put in after all.
pub async fn release(publisher: &Publisher, names: &Names, job: &Job) {
    if let Some(key) = &job.unique_key {
        let queue = names.unique(&job.kind, &job.user_id, key);
        publisher.release(&queue).await;
    }
}

/// Why a job that a worker has before it must not be run: it came straight from a producer that
/// did not ask for its key, and somebody else has it. A job that may run travels on with the header
/// [`CLAIMED`](crate::wire::header::CLAIMED) (`claimed`), so that its key is not asked for again when the window is over.
///
/// # Errors
/// [`ClaimError`]: ask again later.
pub async fn duplicate(
    publisher: &Publisher,
    names: &Names,
    job: &Job,
    claimed: bool,
) -> Result<Option<TaskError>, ClaimError> {
    if claimed {
        return Ok(None);
    }
    Ok(match claim(publisher, names, job, "").await? {
        None | Some(Claimed::Mine | Claimed::Still(_)) => None,
        Some(Claimed::By(first)) => {
            let message = format!("task {first} was first with this unique_key");
            Some(TaskError::new(DUPLICATE, message))
        }
    })
}
