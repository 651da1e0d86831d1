//! `notifier revoke`.

use bellhop_common::amqp::{Names, Publisher, Topology};
use bellhop_common::cli::say;
use bellhop_common::config::{ConfigFlags, LogConfig, Sources};
use bellhop_common::revoke::revoke;
use bellhop_common::telemetry::{Component, init_logs};
use bellhop_common::tls;
use bellhop_common::wire::Revocation;
use bellhop_notifier::NotifierConfig;
use clap::Args;
use jiff::Timestamp;

#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    what: What,
    /// Only tokens issued before this time (RFC 3339) [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "token_id")]
    issued_before: Option<Timestamp>,
    #[command(flatten)]
    config: ConfigFlags,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The tokens of this user
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// The token with this id (`jti`)
    #[arg(long, value_name = "ID")]
    token_id: Option<String>,
    /// All tokens
    #[arg(long)]
    everybody: bool,
}

impl Revoke {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config: NotifierConfig = Sources::of_process(&self.config).load()?;
        let What {
            user,
            token_id,
            everybody,
        } = self.what;
        let now = Timestamp::now();
        let revocation = Revocation::new(user, token_id, everybody, self.issued_before, now)?;
        let level = "warn".into();
        init_logs(&LogConfig {
            level,
            ..config.log
        })?;
        tls::install_provider();
        let names = Names::new(&config.amqp);
        let topology = Topology::base(&names).with_revocations(&names);
        let (publisher, task) =
            Publisher::start(&config.amqp, "revoke", topology, Component::default());
        anyhow::ensure!(
            publisher.connects().await,
            "cannot reach RabbitMQ at {}: tried for {}",
            config.amqp.url,
            config.amqp.publish_timeout
        );
        let result = revoke(&publisher, &names, &revocation).await;
        task.close().await;
        result?;
        say("revoked: every notifier hears of it now, or when it starts");
        Ok(())
    }
}
