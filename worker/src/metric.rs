//! The worker's metrics: names and what they mean.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// By `kind` and `outcome`.
pub(crate) const JOBS: &str = "bellhop_worker_jobs_total";
/// By `kind`.
pub(crate) const SECONDS: &str = "bellhop_worker_job_seconds";
/// By `kind`.
pub(crate) const WAIT_SECONDS: &str = "bellhop_worker_wait_seconds";
/// By `kind`.
pub(crate) const ATTEMPTS: &str = "bellhop_worker_attempts";
/// Without labels.
pub(crate) const SETTLE_SECONDS: &str = "bellhop_worker_settle_seconds";
/// By `queue` and `kind`.
pub(crate) const RUNNING: &str = "bellhop_worker_jobs_running";
/// By `kind`.
pub(crate) const DEFERRED: &str = "bellhop_worker_deferred_total";
/// By `queue`.
pub(crate) const UNREADABLE: &str = "bellhop_worker_unreadable_total";
pub(crate) const CELERY_EVENTS_DROPPED: &str = "bellhop_worker_celery_events_dropped_total";

/// By `cron` (the entry) and `outcome`.
pub(crate) const CRON: &str = "bellhop_worker_cron_total";

/// Gives the metrics their help texts.
pub(crate) fn describe() {
    describe_counter!(
        JOBS,
        "Attempts that ended here, by kind and outcome (retrying: another follows; abandoned: handed back at shutdown)"
    );
    describe_histogram!(SECONDS, Unit::Seconds, "How long attempts took");
    describe_histogram!(
        WAIT_SECONDS,
        Unit::Seconds,
        "How long jobs waited from being put in to their first attempt"
    );
    describe_histogram!(ATTEMPTS, "How many attempts jobs took that ended");
    describe_histogram!(
        SETTLE_SECONDS,
        Unit::Seconds,
        "How long it took until the broker had a job's end"
    );
    describe_gauge!(RUNNING, "Jobs that run now");
    describe_counter!(
        DEFERRED,
        "Jobs put off because their kind had no place free"
    );
    describe_counter!(
        CRON,
        "Times for which a periodic job was put in (failed: could not be)"
    );
    describe_counter!(UNREADABLE, "Messages that were no jobs");
    describe_counter!(
        CELERY_EVENTS_DROPPED,
        "Events that Celery's monitors missed, because they were too many or the broker was away"
    );
}
