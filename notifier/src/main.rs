//! `notifier`: the service and its small tools.

mod cli;

use std::process::ExitCode;

use bellhop_common::cli::complain;
use bellhop_common::telemetry::with_causes;
use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain("notifier", &with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
