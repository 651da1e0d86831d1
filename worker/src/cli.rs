//! The commands.

mod dead;
mod group;
mod status;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use bellhop_common::amqp::{Names, Publisher, PublisherTask, Topology};
use bellhop_common::cli::{complain, health_check, say};
use bellhop_common::config::{AmqpConfig, ConfigFlags, LogConfig, Sources, to_redacted_toml};
use bellhop_common::enqueue::{cancel, enqueue};
use bellhop_common::telemetry::{Component, init_logs, with_causes};
use bellhop_common::wire::Job;
use bellhop_common::{shutdown, tls};
use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::config::WorkerConfig;
use crate::cron::{Upcoming, upcoming};
use crate::registry::Registry;
use crate::service;
use crate::tasks::{Checksum, Endpoint, Exec, kill_programs};

/// The program `worker` with `tasks` besides those that the configuration names: reads the command
/// line, runs the command to its end, and says on standard error why it failed.
///
/// ```no_run
/// # use bellhop_worker::{Outcome, Registry, Task, TaskContext};
/// # struct Greet;
/// # impl Task for Greet {
/// #     const KIND: &'static str = "greet";
/// #     type Args = String;
/// #     async fn run(&self, _: TaskContext, name: String) -> Outcome { Outcome::done(&name) }
/// # }
/// #[tokio::main]
/// async fn main() -> std::process::ExitCode {
///     bellhop_worker::main(Registry::new().with(Greet)).await
/// }
/// ```
pub async fn main(tasks: Registry) -> ExitCode {
    match Cli::parse().run(tasks).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&program(), &with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// What this program is called.
fn program() -> String {
    let path = std::env::args_os().next();
    let name = path.as_deref().map(Path::new).and_then(Path::file_name);
    name.map_or_else(|| "worker".into(), |name| name.to_string_lossy().into())
}
use crate::job_options::JobOptions;

/// Runs background jobs from RabbitMQ.
#[derive(Debug, Parser)]
#[command(name = "worker", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take jobs and run them until SIGTERM or Ctrl-C
    Run {
        #[command(flatten)]
        config: ConfigFlags,
        /// Read the configuration, print it without secrets, and stop
        #[arg(long)]
        check_config: bool,
    },
    /// Put a job into a queue and print its id
    Enqueue(Box<Enqueue>),
    /// Put in many jobs that belong together, and print the group's id and then theirs
    EnqueueGroup(Box<group::EnqueueGroup>),
    /// End a task, or all jobs of a group, wherever it is: queued, scheduled, waiting to be tried again or running
    Cancel {
        /// The task's id, or the group's
        id: String,
        /// Only if it belongs to this user
        #[arg(long, value_name = "ID")]
        user: Option<String>,
        #[command(flatten)]
        config: ConfigFlags,
    },
    /// Look after the jobs that failed for good, and the messages nobody can read
    #[command(subcommand)]
    Dead(dead::Command),
    /// Print the periodic jobs of the configuration and when they come next
    Cron {
        #[command(flatten)]
        config: ConfigFlags,
        /// How many times of each
        #[arg(long, value_name = "N", default_value_t = 5)]
        next: u8,
    },
    /// Ask the workers what they do, and look how full the queues are
    Status(status::Status),
    /// Exit with 0 if the worker that runs with this configuration is ready
    Healthcheck {
        #[command(flatten)]
        config: ConfigFlags,
    },
}

#[derive(Debug, Args)]
struct Enqueue {
    /// Which handler is to run it, e.g. `files.checksum`
    kind: String,
    /// Its arguments
    #[arg(long, value_name = "JSON", default_value = "{}")]
    args: String,
    /// Who owns it and sees its progress
    #[arg(long, value_name = "ID")]
    user: String,
    /// The queue's short name
    #[arg(long, default_value = "default")]
    queue: String,
    /// A name for people
    #[arg(long)]
    title: Option<String>,
    /// The task's id [default: a new UUID]
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    options: JobOptions,
    #[command(flatten)]
    config: ConfigFlags,
}

impl Cli {
    async fn run(self, tasks: Registry) -> anyhow::Result<()> {
        match self.command {
            Command::Run {
                config,
                check_config,
            } => run(&config, check_config, tasks).await,
            Command::Enqueue(job) => job.run().await,
            Command::EnqueueGroup(group) => group.run().await,
            Command::Cancel { id, user, config } => {
                cancel_task(&config, &id, user.as_deref()).await
            }
            Command::Dead(command) => command.run().await,
            Command::Cron { config, next } => {
                let config: WorkerConfig = Sources::of_process(&config).load()?;
                say_upcoming(&config, Timestamp::now(), next);
                Ok(())
            }
            Command::Status(status) => status.run().await,
            Command::Healthcheck { config } => {
                let config: WorkerConfig = Sources::of_process(&config).load()?;
                Ok(health_check(config.http.listen).await?)
            }
        }
    }
}

fn say_upcoming(config: &WorkerConfig, now: Timestamp, count: u8) {
    if config.cron.is_empty() {
        say("no periodic jobs are configured: add [cron.\"<name>\"]");
    }
    for Upcoming { name, times } in upcoming(&config.cron, now, usize::from(count)) {
        let Some(cron) = config.cron.get(&name) else {
            continue;
        };
        say(&format!(
            "{name}: {} to {} ({}, {})",
            cron.kind, cron.queue, cron.schedule, cron.timezone
        ));
        for time in times {
            say(&format!("  {}", time.strftime("%a %Y-%m-%d %H:%M:%S %:z")));
        }
    }
}

async fn run(flags: &ConfigFlags, check_config: bool, tasks: Registry) -> anyhow::Result<()> {
    let config: WorkerConfig = Sources::of_process(flags).load()?;
    let registry = with_configured(tasks, &config)?;
    if check_config {
        say(to_redacted_toml(&config).trim_end());
        return Ok(());
    }
    init_logs(&config.log)?;
    let listen = config.http.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on http.listen = {listen}"))?;
    let shutdown = shutdown::on_signal(kill_programs).context("cannot handle signals")?;
    Ok(service::run(listener, config, registry, shutdown).await?)
}

/// Adds the tasks that come with the worker, as far as they are configured.
fn with_configured(mut registry: Registry, config: &WorkerConfig) -> anyhow::Result<Registry> {
    let configured = config.exec.keys().map(|kind| ("exec", kind));
    let configured = configured.chain(config.endpoint.keys().map(|kind| ("endpoint", kind)));
    for (section, kind) in configured {
        anyhow::ensure!(
            registry.get(kind).is_none(),
            "{section}.{kind:?} would replace the task of that kind which this program brings: \
             take another kind"
        );
    }
    if let Some(root) = &config.files.root {
        let checksum = Checksum::new(root.clone())
            .with_context(|| format!("files.root = {}", root.display()))?;
        registry = registry.with(checksum);
    }
    for (kind, exec) in &config.exec {
        registry = registry.with_handler(kind, Exec::new(kind, exec.clone())?);
    }
    for (kind, endpoint) in &config.endpoint {
        registry = registry.with_handler(kind, Endpoint::new(kind, endpoint.clone())?);
    }
    Ok(registry)
}

async fn cancel_task(flags: &ConfigFlags, id: &str, user: Option<&str>) -> anyhow::Result<()> {
    let (publisher, task, names) = producer(flags, "cancel").await?;
    let result = cancel(&publisher, &names, id, user, Timestamp::now()).await;
    task.close().await;
    result?;
    say("the order is given; the task ends when a worker has it in hand");
    Ok(())
}

/// A publisher for one command, which logs only what goes wrong.
async fn producer(
    flags: &ConfigFlags,
    name: &str,
) -> anyhow::Result<(Publisher, PublisherTask, Names)> {
    let config: WorkerConfig = Sources::of_process(flags).load()?;
    let level = "warn".into();
    init_logs(&LogConfig {
        level,
        ..config.log
    })?;
    tls::install_provider();
    let names = Names::new(&config.amqp);
    // No queue of jobs is made here, or a misspelt one would swallow them.
    let topology = Topology::base(&names);
    let (publisher, task) = Publisher::start(&config.amqp, name, topology, Component::default());
    let AmqpConfig {
        url,
        publish_timeout,
        ..
    } = &config.amqp;
    anyhow::ensure!(
        publisher.connects().await,
        "cannot reach RabbitMQ at {url}: tried for {publish_timeout}"
    );
    Ok((publisher, task, names))
}

impl Enqueue {
    async fn run(self) -> anyhow::Result<()> {
        let args = serde_json::from_str(&self.args)
            .with_context(|| format!("--args is not JSON: {}", self.args))?;
        let id = self.id.unwrap_or_else(|| Uuid::now_v7().to_string());
        let mut job = Job::new(id, self.kind, args, self.user);
        job.title = self.title;
        self.options.apply(&mut job);
        job.check()?;
        let (publisher, task, names) = producer(&self.config, "enqueue").await?;
        let result = enqueue(&publisher, &names, &self.queue, &job, Timestamp::now()).await;
        task.close().await;
        let enqueued = result?;
        if enqueued.duplicate {
            tracing::warn!(
                task_id = enqueued.task_id,
                "this unique key is taken: nothing was put in, and the id is that of the first"
            );
        }
        say(&enqueued.task_id);
        Ok(())
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
