//! One try to make a post, and what is noted of it.

use std::sync::Arc;

use bellhop_common::telemetry::with_causes;
use metrics::counter;
use tracing::info;
use uuid::Uuid;

use super::{Done, now};
use crate::alerts::PostError;
use crate::alerts::compose::compose;
use crate::alerts::engine::Notice;
use crate::alerts::receivers::Alerting;
use crate::deliveries::{self, Attempt, SENT};
use crate::gateway::Gateway;
use crate::metric;

/// Makes a post.
pub(super) async fn post(alerting: Arc<Alerting>, notice: Notice) -> Done {
    let post = compose(&notice, &alerting.plan);
    let Some(receiver) = alerting.receivers.get(&notice.receiver) else {
        // Plans name no receiver that is not there.
        return (notice, Ok(()));
    };
    let result = receiver.client.post(&post).await;
    let failures = notice.group.failures;
    (notice, result.map_err(|error| error.after(failures)))
}

/// Puts one try to make a post into the log of deliveries, for the events that it shows, and when nothing follows,
/// for the others that it counts.
pub(super) async fn log(
    gateway: &Gateway,
    channel: &str,
    notice: &Notice,
    result: &Result<(), PostError>,
) {
    let Some(tally) = &notice.posting.tally else {
        return;
    };
    let (outcome, detail) = match result {
        Ok(()) => (SENT, None),
        Err(error @ PostError::Refused { .. }) => ("refused", Some(error)),
        Err(error) => ("retrying", Some(error)),
    };
    let attempt = Attempt {
        recipient: Some(&notice.receiver),
        detail: detail.map(|error| with_causes(error)),
        ..Attempt::of_team(channel, outcome, now(gateway))
    };
    let follows = matches!(result, Err(error) if !matches!(error, PostError::Refused { .. }));
    let others: &[Uuid] = if follows { &[] } else { &tally.others };
    let shown = tally.shown.iter().map(|shown| shown.id);
    deliveries::record(gateway, shown.chain(others.iter().copied()), &attempt).await;
}

/// Notes and counts one try to make a post.
pub(super) fn note(alerting: &Alerting, notice: &Notice, result: &Result<(), PostError>) {
    alerting.note(&notice.receiver, result);
    let outcome = match result {
        Ok(()) => "posted",
        Err(PostError::Refused { .. }) => "refused",
        Err(_) => "delayed",
    };
    counter!(metric::ALERTS, "outcome" => outcome).increment(1);
    if result.is_ok() {
        let count = notice.posting.tally.as_ref().map_or(0, |tally| tally.count);
        let (group, kind) = (&notice.key, notice.posting.kind);
        info!(
            group,
            ?kind,
            count,
            receiver = notice.receiver,
            "an alert was posted"
        );
    }
}
