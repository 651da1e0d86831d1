//! Measures Bellhop against its peers on one machine: `cargo run --release -p bellhop-bench -- worker`.
//!
//! A scenario starts what it measures as processes of their own, on a broker of its own, several
//! rounds interleaved, and ends in one [`report::Report`].

mod broker;
mod machine;
mod process;
mod report;
mod scratch;
mod series;
mod worker;

use std::process::ExitCode;

use bellhop_common::cli::complain;
use bellhop_common::shutdown;
use clap::{Args, Parser, Subcommand};

use report::Report;

/// Measures Bellhop against its peers.
#[derive(Debug, Parser)]
#[command(name = "bellhop-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// No-op jobs a second and memory, against a bare lapin loop and Celery
    Worker {
        #[command(flatten)]
        options: worker::Options,
        #[command(flatten)]
        output: Output,
    },
    /// What a scenario starts as a process of its own
    #[command(hide = true)]
    Act {
        #[command(subcommand)]
        part: worker::Part,
    },
}

#[derive(Debug, Clone, Args)]
struct Output {
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Exit with 1 when a bar is missed
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Worker { options, output } => {
            match until_signal(worker::measure(&options)).await {
                Ok(report) => return report.print(output.json, output.check),
                Err(error) => Err(error),
            }
        }
        Command::Act { part } => worker::act(part).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain("bellhop-bench", &error);
            ExitCode::FAILURE
        }
    }
}

/// Gives a scenario up on a signal, so that what it started ends with it.
async fn until_signal(
    measuring: impl Future<Output = anyhow::Result<Report>>,
) -> anyhow::Result<Report> {
    let stop = shutdown::on_signal(|| {})?;
    tokio::select! {
        report = measuring => report,
        () = stop.cancelled() => anyhow::bail!("stopped by a signal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
