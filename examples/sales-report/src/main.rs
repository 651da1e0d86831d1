//! A worker with a task of its own.

mod sales_report;

use std::process::ExitCode;

use bellhop_worker::Registry;
use sales_report::SalesReport;

#[tokio::main]
async fn main() -> ExitCode {
    // Settings of your own come from where you like. The worker's (broker, queues, retries, logs)
    // come from its configuration; variables that begin with BELLHOP_ belong to it.
    let folder = std::env::var_os("SALES_FOLDER").unwrap_or_else(|| "data".into());
    let tasks = Registry::new().with(SalesReport::new(folder));
    bellhop_worker::main(tasks).await
}
