//! Scenario `deliver`: what a push and a mail cost the notifier, from the event of somebody who is away
//! to the push service and the mail server.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bellhop_notifier::push::VapidKey;
use bellhop_tests::push::{self, PushService};
use bellhop_tests::smtp::Smtp;
use clap::Args;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;
use tokio::time::{interval, sleep};
use uuid::Uuid;

use super::service::Service;
use super::{OURS, Stage, mib, progress};
use crate::place;
use crate::realtime::confirmed::Confirmed;
use crate::realtime::figures::Figures;
use crate::report::{Bar, Report};

const PATIENCE: Duration = Duration::from_mins(5);
const MINUTE: Duration = Duration::from_mins(1);

/// What is written after the last was taken: the log of deliveries, acknowledgements.
const AFTER: Duration = Duration::from_secs(1);

const SECONDS: &str = "seconds, all pushes and mails";
const SHARE: &str = "cores at that many a minute";

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How often all of it is done
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many users are away, each with a browser and an address
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users: u32,
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let stage = Stage::set().await?;
    let mut figures = Figures::default();
    for round in 1..=options.rounds {
        let mut scene = Scene::begin(&stage, options.users).await?;
        scene.measure(&mut figures).await?;
        scene.service.group.stop().await?;
        progress(&format!("round {round}: {}", figures.last_of(OURS)));
    }
    let count = options.users;
    let bar = |what: &str, figure, bar| {
        let median = figures.median(OURS, figure)?;
        Some(Bar::at_most(what, median, bar))
    };
    let seconds = format!("seconds for {count} pushes and then {count} mails");
    let share = format!("cores for {count} pushes and {count} mails a minute");
    let bars = [bar(&seconds, SECONDS, 60.0), bar(&share, SHARE, 0.5)];
    let bars = bars.into_iter().flatten().collect();
    Ok(stage.report("deliver", &figures, bars))
}

/// A kind of event, which is sent in one way.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Pushed,
    Mailed,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Pushed => "pushed",
            Self::Mailed => "mailed",
        }
    }
}

/// The users, and who takes what they are sent.
struct Scene {
    users: Vec<String>,
    service: Service,
    push: PushService,
    smtp: Smtp,
    sender: Confirmed,
}

impl Scene {
    async fn begin(stage: &Stage, users: u32) -> anyhow::Result<Self> {
        let (push, smtp) = (PushService::start().await, Smtp::start().await);
        let config = push::config(stage.scratch.path());
        let key_file = config.key_file.context("a key")?;
        let settings = format!(
            r#"
[push]
key_file = "{}"
subject = "mailto:ops@example.org"
allow_private = true

[mail]
smtp = "{}"
from = "Bellhop <noreply@example.org>"

[escalation]
public_url = "https://live.example.org"

[[escalation.categories]]
name = "pushed"
events = ["pushed"]
push_after = "1s"

[[escalation.categories]]
name = "mailed"
events = ["mailed"]
mail_after = "1s"
"#,
            key_file.display(),
            smtp.url()
        );
        let amqp = place::fresh(&stage.broker.url);
        let scene = Self {
            users: (0..users).map(|n| format!("user-{n}")).collect(),
            service: Service::start(stage.scratch.path(), &amqp, &settings).await?,
            push,
            smtp,
            sender: Confirmed::connect(&amqp).await?,
        };
        let key = VapidKey::read(&key_file)?;
        for user in &scene.users {
            let browser = scene.push.subscribe(key.public()).to_json();
            let path = "/api/push/subscriptions";
            scene
                .service
                .ask(Method::POST, path, user, &browser)
                .await?;
            let (path, contact) = (
                format!("/api/users/{user}/contact"),
                json!({"email": format!("{user}@example.org"), "name": user}),
            );
            let putting = scene.service.administer(Method::PUT, &path, &contact);
            putting.await?;
        }
        Ok(scene)
    }

    async fn measure(&mut self, figures: &mut Figures) -> anyhow::Result<()> {
        let before = self.service.group.settled_kib().await?;
        let mut all = 0.0;
        for (kind, what) in [(Kind::Pushed, "push"), (Kind::Mailed, "mail")] {
            let (seconds, cpu) = self.burst(kind).await?;
            figures.note(OURS, &format!("seconds, all of one {what}"), seconds);
            figures.note(OURS, &format!("ms of processor, a {what}"), cpu);
            all += seconds;
        }
        figures.note(OURS, SECONDS, all);
        let share = self.over_a_minute().await?;
        figures.note(OURS, SHARE, share);
        figures.note(OURS, "MiB before", mib(before));
        figures.note(OURS, "MiB at most", mib(self.service.group.peak_kib()));
        self.check(2)
    }

    async fn publish(&mut self, user: usize, kind: Kind) -> anyhow::Result<()> {
        let user = self.users.get(user).context("a user")?;
        let word = kind.word();
        let body = json!({"type": word, "id": Uuid::now_v7(), "time": Timestamp::now(),
            "data": {"title": "Your report is done", "body": "It has 12 pages and took 3 minutes.",
                "url": "https://app.example.org/reports/12"}});
        let key = format!("stored.user.{user}.{word}");
        self.sender.put(&key, body.to_string().as_bytes()).await
    }

    fn taken(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Pushed => self.push.requests(),
            Kind::Mailed => self.smtp.count() as u64,
        }
    }

    /// An event for each user at once: until the last is there, in seconds, and the milliseconds of
    /// processor for one.
    async fn burst(&mut self, kind: Kind) -> anyhow::Result<(f64, f64)> {
        let (begun, cpu) = (Instant::now(), self.service.group.usage().cpu);
        let wants = self.taken(kind) + self.users.len() as u64;
        for user in 0..self.users.len() {
            self.publish(user, kind).await?;
        }
        self.sender.all().await?;
        self.wait(kind, wants).await?;
        let seconds = begun.elapsed().as_secs_f64();
        sleep(AFTER).await;
        let cpu = self.service.group.usage().cpu.saturating_sub(cpu);
        let each = 1000.0 * cpu.as_secs_f64() / self.count();
        Ok((seconds, each))
    }

    /// Both for each user, spread over a minute: the share of one core.
    async fn over_a_minute(&mut self) -> anyhow::Result<f64> {
        let (begun, cpu) = (Instant::now(), self.service.group.usage().cpu);
        let each = self.users.len() as u64;
        let wants = [Kind::Pushed, Kind::Mailed].map(|kind| (kind, self.taken(kind) + each));
        let mut ticks = interval(MINUTE.div_f64(self.count()));
        for user in 0..self.users.len() {
            ticks.tick().await;
            self.publish(user, Kind::Pushed).await?;
            self.publish(user, Kind::Mailed).await?;
        }
        self.sender.all().await?;
        for (kind, wants) in wants {
            self.wait(kind, wants).await?;
        }
        sleep(AFTER).await;
        let cpu = self.service.group.usage().cpu.saturating_sub(cpu);
        Ok(cpu.as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    async fn wait(&mut self, kind: Kind, wants: u64) -> anyhow::Result<()> {
        let (push, smtp) = (&self.push, &self.smtp);
        let done = || match kind {
            Kind::Pushed => push.requests() >= wants,
            Kind::Mailed => smtp.count() as u64 >= wants,
        };
        self.service.until(kind.word(), PATIENCE, done).await
    }

    /// Each user has got exactly so many pushes, which he can read, and so many mails.
    fn check(&self, each: usize) -> anyhow::Result<()> {
        let problems = self.push.problems();
        ensure!(problems.is_empty(), "pushes that are wrong: {problems:?}");
        let (messages, mails) = (self.push.messages(), self.smtp.mails());
        let browsers = messages.iter().map(|message| message.browser.as_str());
        let receivers = mails.iter().map(|mail| mail.to.as_str());
        for (what, all) in [
            ("pushes", browsers.collect::<Vec<_>>()),
            ("mails", receivers.collect()),
        ] {
            let mut counts = HashMap::new();
            for one in all {
                *counts.entry(one).or_insert(0) += 1;
            }
            ensure!(
                counts.len() == self.users.len() && counts.values().all(|count| *count == each),
                "not {each} {what} for each of {} users, but some for {}",
                self.users.len(),
                counts.len()
            );
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 100,000")]
    fn count(&self) -> f64 {
        self.users.len() as f64
    }
}
