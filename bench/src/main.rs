//! Measures Bellhop against its peers on one machine: `cargo run --release -p bellhop-bench -- worker`.
//!
//! A scenario starts what it measures as processes of their own, on a broker of its own, several
//! rounds interleaved, and ends in one [`report::Report`].

mod away;
mod broker;
mod machine;
mod place;
mod process;
mod realtime;
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
    /// Deliveries a second to one room and to many, and single broadcasts, against centrifuge and nchan
    Fanout {
        #[command(flatten)]
        options: realtime::FanoutOptions,
        #[command(flatten)]
        output: Output,
    },
    /// Memory and heartbeats of idle connections, against centrifuge and nchan
    Idle {
        #[command(flatten)]
        options: realtime::IdleOptions,
        #[command(flatten)]
        output: Output,
    },
    /// Connections a second, each with a token, against centrifuge
    Accept {
        #[command(flatten)]
        options: realtime::AcceptOptions,
        #[command(flatten)]
        output: Output,
    },
    /// From AMQP publication to frame, against a bare lapin consumer
    Latency {
        #[command(flatten)]
        options: realtime::LatencyOptions,
        #[command(flatten)]
        output: Output,
    },
    /// Stored events end to end, against the broker alone; and in the store alone
    Stored {
        #[command(flatten)]
        options: realtime::StoredOptions,
        #[command(flatten)]
        output: Output,
    },
    /// Everybody comes back at once, and is shown what was missed
    Resume {
        #[command(flatten)]
        options: realtime::ResumeOptions,
        #[command(flatten)]
        output: Output,
    },
    /// Pushes and mails to people who are away, and what they cost
    Deliver {
        #[command(flatten)]
        options: away::DeliverOptions,
        #[command(flatten)]
        output: Output,
    },
    /// A storm of alerts, told within the rate
    Alerts {
        #[command(flatten)]
        options: away::AlertsOptions,
        #[command(flatten)]
        output: Output,
    },
    /// What a scenario starts as a process of its own
    #[command(hide = true)]
    Act {
        #[command(subcommand)]
        part: Part,
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

/// A part of one of the scenarios.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(flatten)]
    Worker(worker::Part),
    #[command(flatten)]
    Realtime(realtime::Part),
    #[command(flatten)]
    Away(away::Part),
}

#[tokio::main]
async fn main() -> ExitCode {
    let (measured, output) = match Cli::parse().command {
        Command::Worker { options, output } => {
            (until_signal(worker::measure(&options)).await, output)
        }
        Command::Fanout { options, output } => {
            (until_signal(realtime::fanout(&options)).await, output)
        }
        Command::Idle { options, output } => (until_signal(realtime::idle(&options)).await, output),
        Command::Accept { options, output } => {
            (until_signal(realtime::accept(&options)).await, output)
        }
        Command::Latency { options, output } => {
            (until_signal(realtime::latency(&options)).await, output)
        }
        Command::Stored { options, output } => {
            (until_signal(realtime::stored(&options)).await, output)
        }
        Command::Resume { options, output } => {
            (until_signal(realtime::resume(&options)).await, output)
        }
        Command::Deliver { options, output } => {
            (until_signal(away::deliver(&options)).await, output)
        }
        Command::Alerts { options, output } => (until_signal(away::alerts(&options)).await, output),
        Command::Act { part } => return act(part).await,
    };
    match measured {
        Ok(report) => report.print(output.json, output.check),
        Err(error) => failed(&error),
    }
}

async fn act(part: Part) -> ExitCode {
    let done = match part {
        Part::Worker(part) => worker::act(part).await,
        Part::Realtime(part) => realtime::act(part).await,
        Part::Away(part) => away::act(part).await,
    };
    done.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    complain("bellhop-bench", error);
    ExitCode::FAILURE
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
