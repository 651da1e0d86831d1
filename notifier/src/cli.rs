//! The commands.

mod alerts;
mod api;
mod mail;
mod push;
mod revoke;
mod silence;
mod store;
mod vapid;

use anyhow::Context as _;
use bellhop_common::cli::{health_check, say};
use bellhop_common::config::{ConfigFlags, HumanDuration, Sources, to_redacted_toml};
use bellhop_common::telemetry::init_logs;
use bellhop_common::wire::MAX_ID_BYTES;
use bellhop_common::{http, shutdown};
use bellhop_notifier::NotifierConfig;
use bellhop_notifier::auth::{Draft, Verifier, mint};
use bellhop_notifier::mail::Mailer;
use bellhop_notifier::push::VapidKey;
use clap::{Parser, Subcommand};
use jiff::Timestamp;

/// Tells users what happens, over WebSocket.
#[derive(Debug, Parser)]
#[command(name = "notifier", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve connections until SIGTERM or Ctrl-C
    Run {
        #[command(flatten)]
        config: ConfigFlags,
        /// Read the configuration, print it without secrets, and stop
        #[arg(long)]
        check_config: bool,
    },
    /// Print a token for a user, signed with the configured secret; for development
    Token {
        /// The user
        #[arg(long, value_name = "ID")]
        user: String,
        /// How long it is good
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        ttl: HumanDuration,
        /// What it is good for besides, e.g. `admin`
        #[arg(long, value_name = "WORDS")]
        scope: Option<String>,
        /// A pattern of rooms it may enter, e.g. `room:proj-*`; may be repeated
        #[arg(long, value_name = "PATTERN")]
        room: Vec<String>,
        /// Its own id (`jti`), by which it can be revoked
        #[arg(long, value_name = "ID")]
        token_id: Option<String>,
        /// Where the user gets mail (`email`)
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
        #[command(flatten)]
        config: ConfigFlags,
    },
    /// Make tokens good no more, at every notifier, and close the connections that use them
    Revoke(revoke::Revoke),
    /// Look after the file that events are kept in
    #[command(subcommand)]
    Store(store::Store),
    /// Have alerts held back for a while, at a notifier that runs
    #[command(subcommand)]
    Silence(silence::Silence),
    /// Show what is open at a notifier that runs, and which receivers fail
    Alerts(alerts::Alerts),
    /// Make a key for Web Push: writes the private one into a file, prints the public one
    Vapid(vapid::Vapid),
    /// See whether mails go out
    #[command(subcommand)]
    Mail(mail::Mail),
    /// See whether Web Push goes out
    #[command(subcommand)]
    Push(push::Push),
    /// Exit with 0 if the notifier that runs with this configuration is ready
    Healthcheck {
        #[command(flatten)]
        config: ConfigFlags,
    },
}

impl Cli {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Run {
                config,
                check_config,
            } => run(&config, check_config).await,
            Command::Token {
                user,
                ttl,
                scope,
                room,
                token_id,
                email,
                config,
            } => {
                let config: NotifierConfig = Sources::of_process(&config).load()?;
                anyhow::ensure!(
                    (1..=MAX_ID_BYTES).contains(&user.len()),
                    "--user must have 1 to {MAX_ID_BYTES} bytes"
                );
                let draft = Draft {
                    scope: scope.as_deref(),
                    rooms: &room,
                    token_id: token_id.as_deref(),
                    email: email.as_deref(),
                    ..Draft::new(&user, Timestamp::now(), ttl.0)
                };
                say(&mint(&config.auth, &draft)?);
                Ok(())
            }
            Command::Revoke(command) => command.run().await,
            Command::Store(command) => command.run(),
            Command::Silence(command) => command.run().await,
            Command::Alerts(command) => command.run().await,
            Command::Vapid(command) => command.run(),
            Command::Mail(command) => command.run().await,
            Command::Push(command) => command.run().await,
            Command::Healthcheck { config } => {
                let config: NotifierConfig = Sources::of_process(&config).load()?;
                Ok(health_check(config.http.listen).await?)
            }
        }
    }
}

async fn run(flags: &ConfigFlags, check_config: bool) -> anyhow::Result<()> {
    let config: NotifierConfig = Sources::of_process(flags).load()?;
    if check_config {
        Verifier::new(&config.auth)?;
        if let Some(path) = &config.push.key_file {
            VapidKey::read(path)?;
        }
        if config.mail.smtp.is_some() {
            Mailer::new(&config.mail)?;
        }
        say(to_redacted_toml(&config).trim_end());
        return Ok(());
    }
    init_logs(&config.log)?;
    let listen = config.http.listen;
    let listener =
        http::listen(listen).with_context(|| format!("cannot listen on http.listen = {listen}"))?;
    let shutdown = shutdown::on_signal(|| {}).context("cannot handle signals")?;
    Ok(bellhop_notifier::run(listener, config, shutdown).await?)
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
