//! The worker's metrics: names and what they mean.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// By `kind` and `outcome`.
pub(crate) const JOBS: &str = "bellhop_worker_jobs_total";
/// By `kind`.
pub(crate) const SECONDS: &str = "bellhop_worker_job_seconds";
/// By `queue`.
pub(crate) const RUNNING: &str = "bellhop_worker_jobs_running";
/// By `queue`.
pub(crate) const UNREADABLE: &str = "bellhop_worker_unreadable_total";
pub(crate) const CELERY_EVENTS_DROPPED: &str = "bellhop_worker_celery_events_dropped_total";

/// Gives the metrics their help texts.
pub(crate) fn describe() {
    describe_counter!(
        JOBS,
        "Jobs that ended here, by kind and outcome (abandoned: handed back at shutdown)"
    );
    describe_histogram!(SECONDS, Unit::Seconds, "How long attempts took");
    describe_gauge!(RUNNING, "Jobs that run now");
    describe_counter!(UNREADABLE, "Messages that were no jobs");
    describe_counter!(
        CELERY_EVENTS_DROPPED,
        "Events that Celery's monitors missed, because they were too many or the broker was away"
    );
}
