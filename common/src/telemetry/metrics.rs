//! Metrics in Prometheus's text form.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// Seconds; from a no-op to an hour.
const SECONDS_BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0,
];

/// How often something was tried.
const ATTEMPTS_BUCKETS: [f64; 6] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0];

/// How often the exporter drops what it no longer needs of the histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why metrics could not be set up.
#[derive(Debug, Error)]
#[error("metrics cannot be set up")]
pub struct MetricsError(#[from] metrics_exporter_prometheus::BuildError);

/// The process's metrics.
#[derive(Debug, Clone)]
pub struct Metrics(PrometheusHandle);

// The `metrics` macros write to one recorder per process; two services in one process (as in a
// test) share it.
static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);

impl Metrics {
    /// Sets the process's recorder up, once; later calls answer the same.
    ///
    /// # Errors
    /// [`MetricsError`] if another recorder is installed.
    pub fn install() -> Result<Self, MetricsError> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = &*installed {
            return Ok(metrics.clone());
        }
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_attempts".into()), &ATTEMPTS_BUCKETS)?
            .install_recorder()?;
        let metrics = Self(handle);
        *installed = Some(metrics.clone());
        Ok(metrics)
    }

    /// The page that Prometheus reads.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps the histograms small until `stop`.
    pub async fn upkeep(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.0.run_upkeep(),
                () = stop.cancelled() => return,
            }
        }
    }
}
