//! The notifier's metrics: names and what they mean.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// Without labels.
pub(crate) const CONNECTIONS: &str = "bellhop_notifier_connections";
/// Without labels.
pub(crate) const EVENT_STREAMS: &str = "bellhop_notifier_event_streams";
/// By `reason`.
pub(crate) const CLOSES: &str = "bellhop_notifier_closes_total";
/// Without labels.
pub(crate) const FRAMES_SENT: &str = "bellhop_notifier_frames_sent_total";
/// Without labels.
pub(crate) const DELIVERIES: &str = "bellhop_notifier_deliveries_total";
/// Without labels.
pub(crate) const MALFORMED: &str = "bellhop_notifier_malformed_events_total";
/// Without labels.
pub(crate) const ROOMS: &str = "bellhop_notifier_rooms";
/// By `outcome`.
pub(crate) const ENTRIES: &str = "bellhop_notifier_entries_total";
/// By `outcome`.
pub(crate) const RELAYS: &str = "bellhop_notifier_relays_total";
/// By `outcome`.
pub(crate) const CALLBACKS: &str = "bellhop_notifier_membership_callbacks_total";
/// By `code`.
pub(crate) const REFUSED_FRAMES: &str = "bellhop_notifier_refused_frames_total";
/// By `reason`.
pub(crate) const REFUSED_HANDSHAKES: &str = "bellhop_notifier_refused_handshakes_total";
/// By `outcome`.
pub(crate) const PUBLISHED: &str = "bellhop_notifier_published_events_total";
/// By `outcome`.
pub(crate) const ALERTS: &str = "bellhop_notifier_alerts_total";
/// By `outcome`.
pub(crate) const PUSHES: &str = "bellhop_notifier_pushes_total";
/// Without labels.
pub(crate) const ALERT_GROUPS: &str = "bellhop_notifier_alert_groups";
/// By `receiver`.
pub(crate) const ALERT_RECEIVER_UP: &str = "bellhop_notifier_alert_receiver_up";

/// By `outcome`.
pub(crate) const KEPT: &str = "bellhop_notifier_kept_events_total";
/// By `outcome`.
pub(crate) const GROUPS: &str = "bellhop_notifier_groups_total";
/// Without labels.
pub(crate) const KEEP_SECONDS: &str = "bellhop_notifier_keep_seconds";
/// Without labels.
pub(crate) const DEFERRED: &str = "bellhop_notifier_deferred_events_total";
/// Without labels.
pub(crate) const CAUGHT_UP: &str = "bellhop_notifier_caught_up_events_total";
/// Without labels.
pub(crate) const STREAM_RESETS: &str = "bellhop_notifier_stream_resets_total";
/// By `outcome`.
pub(crate) const RESUMES: &str = "bellhop_notifier_resumes_total";
/// Without labels.
pub(crate) const REPLAYED: &str = "bellhop_notifier_replayed_events_total";
/// By `outcome`.
pub(crate) const BOARD_STATES: &str = "bellhop_notifier_board_states_total";
/// By `what`.
pub(crate) const SWEPT: &str = "bellhop_notifier_swept_total";

/// By `channel` and `outcome`.
pub(crate) const ATTEMPTS: &str = "bellhop_notifier_delivery_attempts_total";
/// By `channel`.
pub(crate) const ATTEMPT_SECONDS: &str = "bellhop_notifier_delivery_attempt_seconds";
/// By `outcome`.
pub(crate) const JWKS_REFRESHES: &str = "bellhop_notifier_jwks_refreshes_total";
/// By `kind`.
pub(crate) const REVOCATIONS: &str = "bellhop_notifier_revocations_total";

/// Gives the metrics their help texts.
pub(crate) fn describe() {
    describe_streams();
    describe_escalation();
    describe_gauge!(
        CONNECTIONS,
        "Connections that are open now, WebSocket and Server-Sent Events"
    );
    describe_gauge!(EVENT_STREAMS, "Those of them that are Server-Sent Events");
    describe_counter!(CLOSES, "Connections that this side closed, by reason");
    describe_counter!(FRAMES_SENT, "Frames written to connections");
    describe_counter!(DELIVERIES, "Events given to connections, one for each");
    describe_counter!(
        MALFORMED,
        "Events dropped because their key or body was malformed"
    );
    describe_gauge!(
        ROOMS,
        "Rooms and chats that somebody of this instance is in"
    );
    describe_counter!(
        ENTRIES,
        "Attempts to enter a room or chat, entered or refused"
    );
    describe_counter!(
        RELAYS,
        "Frames of clients for the others in a room: sent, or failed for want of the broker"
    );
    describe_counter!(
        CALLBACKS,
        "Questions to rooms.callback_url: allowed, refused or failed"
    );
    describe_counter!(
        REFUSED_FRAMES,
        "Frames of clients answered with an error, by code"
    );
    describe_counter!(REFUSED_HANDSHAKES, "Connections not taken, by reason");
    describe_counter!(
        JWKS_REFRESHES,
        "Fetches of the issuer's key set: ok, or what was wrong"
    );
    describe_counter!(
        REVOCATIONS,
        "Revocations read since the start, also those from before it: user, token or everybody"
    );
    describe_counter!(
        PUBLISHED,
        "Events of POST /api/events: sent, repeated (and not sent again) or failed"
    );
    describe_alerts();
}

fn describe_alerts() {
    describe_counter!(
        ALERTS,
        "Alerts taken, known, unrouted, unreadable, silenced or inhibited; and posts: posted, delayed (will be tried again) or refused"
    );
    describe_gauge!(
        ALERT_GROUPS,
        "Groups of alerts that are open, where this instance looks after them"
    );
    describe_gauge!(
        ALERT_RECEIVER_UP,
        "Whether the last post to a receiver was answered: 1 or 0"
    );
    describe_counter!(
        PUSHES,
        "Messages to push services: taken, or what was wrong"
    );
}

fn describe_escalation() {
    describe_counter!(
        ATTEMPTS,
        "Attempts to reach somebody, by channel: sent, retrying, refused, gone, failed; or why there was none"
    );
    describe_histogram!(
        ATTEMPT_SECONDS,
        "How long an attempt to reach somebody took, by channel"
    );
}

fn describe_streams() {
    describe_counter!(
        KEPT,
        "Stored events put into the store: new, known (told again), or failed (tried again)"
    );
    describe_histogram!(
        KEEP_SECONDS,
        "How long a batch of stored events took to be kept and told to all instances"
    );
    describe_counter!(
        GROUPS,
        "Groups of jobs that ended: succeeded, failed or cancelled; uncounted are ends of jobs of groups where nothing is kept"
    );
    describe_counter!(
        DEFERRED,
        "Stored events that were put off until their deliver_at"
    );
    describe_counter!(
        CAUGHT_UP,
        "Stored events read from the store because they were lost on their way to this instance"
    );
    describe_counter!(
        STREAM_RESETS,
        "Streams of which events may be lost, as their clients were told"
    );
    describe_counter!(
        RESUMES,
        "Streams in which a client that came back went on: recovered or lost"
    );
    describe_counter!(REPLAYED, "Stored events shown to clients that came back");
    describe_counter!(
        BOARD_STATES,
        "States of tasks that have not ended: written to the store, superseded before by a newer one, or failed (tried again)"
    );
    describe_counter!(
        SWEPT,
        "Events, tasks, groups and delivery attempts removed because of their age"
    );
}
