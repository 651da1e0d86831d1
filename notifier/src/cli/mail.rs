//! `notifier mail`.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use bellhop_common::cli::say;
use bellhop_common::config::{ConfigFlags, Sources};
use bellhop_common::wire::Event;
use bellhop_notifier::NotifierConfig;
use bellhop_notifier::mail::{Mailer, item_of};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(super) enum Mail {
    /// Send a mail with this configuration, and say what the server answered
    Test {
        /// To whom
        address: String,
        /// A file with the event (JSON) that it tells of, to see the templates with it
        #[arg(long, value_name = "FILE")]
        event: Option<PathBuf>,
        /// How many, one after the other, to see how fast the server takes them
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
        #[command(flatten)]
        config: ConfigFlags,
    },
}

impl Mail {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Self::Test {
            address,
            event,
            count,
            config,
        } = self;
        let config: NotifierConfig = Sources::of_process(&config).load()?;
        let mailer = Mailer::new(&config.mail)?;
        let event = match event {
            Some(path) => {
                let body = std::fs::read(&path);
                let body = body.with_context(|| format!("cannot read {}", path.display()))?;
                Event::parse(&body).with_context(|| path.display().to_string())?
            }
            None => sample()?,
        };
        let items = [item_of(&event, config.mail.task_url.as_deref())];
        let began = Instant::now();
        let mut answer = String::new();
        for _ in 0..count {
            let mail = bellhop_notifier::mail::Mail {
                to: &address,
                name: None,
                id: Uuid::now_v7(),
                thread: None,
                items: &items,
                more: 0,
                category: "test",
                unsubscribe: None,
                settings: None,
            };
            answer = mailer.submit(&mail).await?;
        }
        mailer.close().await;
        say(&format!("{address}: the server answered {answer}"));
        if count > 1 {
            let took = began.elapsed().as_secs_f64();
            say(&format!("{count} mails in {took:.2} s"));
        }
        Ok(())
    }
}

fn sample() -> anyhow::Result<Event> {
    let data = json!({
        "title": "A mail from Bellhop",
        "body": "If you can read this, mails work.\nNothing happened; somebody tried `notifier mail test`.",
    });
    let event = Event::new(
        "notification.created",
        Uuid::now_v7(),
        Timestamp::now(),
        &data,
    )?;
    Ok(event)
}
