//! `worker`: the service and its small tools.

mod cli;
mod job_options;

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            bellhop_common::cli::complain("worker", &error);
            ExitCode::FAILURE
        }
    }
}
