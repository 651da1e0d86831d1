//! `notifier push`.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use bellhop_common::cli::say;
use bellhop_common::config::{ConfigFlags, Sources};
use bellhop_common::tls;
use bellhop_common::wire::Event;
use bellhop_notifier::NotifierConfig;
use bellhop_notifier::push::{Given, PushNote, Pusher};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

/// The longest subscription, in bytes.
const MAX_INPUT: u64 = 16 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Push {
    /// Send a message with this configuration to a browser, whose subscription (JSON) is read from standard input
    Test {
        /// A file with the event (JSON) that it tells of
        #[arg(long, value_name = "FILE")]
        event: Option<PathBuf>,
        /// How many, one after the other, to see how fast the push service takes them
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
        #[command(flatten)]
        config: ConfigFlags,
    },
}

impl Push {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self::Test {
            event,
            count,
            config,
        } = self;
        let config: NotifierConfig = Sources::of_process(&config).load()?;
        tls::install_provider();
        let pusher = Pusher::new(&config.push)?;
        let event = match event {
            Some(path) => {
                let body = std::fs::read(&path);
                let body = body.with_context(|| format!("cannot read {}", path.display()))?;
                Event::parse(&body).with_context(|| path.display().to_string())?
            }
            None => sample()?,
        };
        let note = PushNote::of_event(&event, None, config.push.ttl.0);
        let given = given()?;
        let (subscription, ..) =
            given.check(pusher.policy(), pusher.public_key(), Timestamp::now())?;
        let began = Instant::now();
        for _ in 0..count {
            pusher.send(&subscription, &note).await?;
        }
        say("the push service has taken it; the browser shows it when it is there");
        if count > 1 {
            let took = began.elapsed().as_secs_f64();
            say(&format!("{count} messages in {took:.2} s"));
        }
        Ok(())
    }
}

/// From standard input, because it is a secret, and others can see arguments.
fn given() -> anyhow::Result<Given> {
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(MAX_INPUT);
    input.read_to_string(&mut text).context("standard input")?;
    // Without the cause, which would quote the secret.
    serde_json::from_str(&text).map_err(|_| {
        anyhow::anyhow!(
            "standard input must be a subscription, as JSON.stringify(subscription) writes it in a browser"
        )
    })
}

fn sample() -> anyhow::Result<Event> {
    let data = json!({
        "title": "A message from Bellhop",
        "body": "If you can read this, Web Push works. Nothing happened; somebody tried it.",
    });
    let event = Event::new(
        "notification.created",
        Uuid::now_v7(),
        Timestamp::now(),
        &data,
    )?;
    Ok(event)
}
