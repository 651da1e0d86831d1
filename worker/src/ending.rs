//! What a job's end sets going: the dead letter, the jobs that follow, the answer, the event.

use std::time::Instant;

use bellhop_common::wire::{Status, TaskStatus};
use jiff::Timestamp;
use metrics::histogram;
use tracing::{info, warn};

use crate::feed::Feed;
use crate::follow_up::follow;
use crate::ledger::Known;
use crate::message::JobMessage;
use crate::metric;
use crate::outcome::Outcome;
use crate::service::Service;
use crate::settle::{OutOfTime, acknowledge, bury, reject, reply, tell_end};

/// What is known of the message that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// There may be another message of this job, or another worker at it.
    pub(crate) in_doubt: bool,
    /// Its dead letter is written already.
    pub(crate) buried: bool,
}

/// Ends a job. In this order, because a crash in between repeats what came before, and every repeat
/// is recognised: the dead letter, the jobs that follow, the answer, the owner's event, the
/// acknowledgement.
pub(crate) async fn end(
    service: &Service,
    feed: &mut Feed,
    message: &JobMessage,
    outcome: &Outcome,
    standing: Standing,
) -> Result<(), OutOfTime> {
    let began = Instant::now();
    let status = feed.ended(message, outcome, Timestamp::now());
    let task_id = &message.job.id;
    let mut buried = standing.buried;
    if standing.in_doubt {
        match look_up(service, message).await? {
            Known::Open { .. } => {}
            Known::Buried(_) => buried = true,
            Known::Settled => {
                info!(task_id, "another worker has ended it already");
                service.monitor.forget(task_id);
                release(service, message).await;
                return Ok(());
            }
        }
    }
    let mut too_large = false;
    let failed = status.status == Status::Failed && !buried;
    if let Some(error) = status.error.as_ref().filter(|_| failed) {
        let letter = message.dead(error, Timestamp::now());
        if let Err(error) = bury(service, &message.queue, &letter).await? {
            warn!(%error, task_id, "the message goes to the dead letters without its reason");
            too_large = true;
        }
    }
    follow(service, message, &status, standing.in_doubt).await?;
    reply(service, message, &status).await?;
    tell_end(service, message, &status).await?;
    match service.in_hand.let_go(message) {
        Some(receipt) if too_large => reject(receipt, task_id).await,
        Some(receipt) => acknowledge(receipt, task_id).await,
        None => {}
    }
    count(service, message, &status, began);
    Ok(())
}

fn count(service: &Service, message: &JobMessage, status: &TaskStatus, began: Instant) {
    let outcome = status.status.as_str();
    info!(
        task_id = status.task_id,
        kind = status.kind,
        user_id = status.user_id,
        outcome,
        attempt = status.attempt,
        "job ended"
    );
    let kind = service.label(&message.job.kind);
    histogram!(metric::SETTLE_SECONDS).record(began.elapsed());
    histogram!(metric::ATTEMPTS, "kind" => kind.to_owned()).record(f64::from(status.attempt));
    service.board.count(kind, outcome);
}

/// What the ledger knows of a message.
pub(crate) async fn look_up(service: &Service, message: &JobMessage) -> Result<Known, OutOfTime> {
    let asking = service
        .ledger
        .look_up(message.settlement(), message.end_id());
    tokio::select! {
        known = asking => known.ok_or(OutOfTime),
        () = service.out_of_time() => Err(OutOfTime),
    }
}

/// Lets a message go that somebody else has dealt with.
pub(crate) async fn release(service: &Service, message: &JobMessage) {
    if let Some(receipt) = service.in_hand.let_go(message) {
        acknowledge(receipt, &message.job.id).await;
    }
}
