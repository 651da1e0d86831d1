//! Scenario `alerts`: a storm of alerts becomes few posts, and each alert is in one of them or silenced.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bellhop_tests::alerts::{count, failure_of, most_beyond};
use bellhop_tests::mattermost::{Mattermost, Post};
use clap::Args;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{interval, sleep};

use super::service::Service;
use super::{OURS, Stage, mib, progress};
use crate::place;
use crate::realtime::confirmed::Confirmed;
use crate::realtime::figures::Figures;
use crate::report::{Bar, Report};

const PATIENCE: Duration = Duration::from_mins(5);

/// `alerts.rate` a second, and `alerts.burst`.
const RATE: u32 = 2;
const BURST: u32 = 5;

/// One alert of so many is of a user whose alerts are silenced.
const SILENCED_EVERY: u32 = 10;

const BEYOND: &str = "posts at once beyond the rate";
const GROWTH: &str = "MiB grown";
const MISSING: &str = "alerts in no post and not silenced";

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How often all of it is done
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many alerts
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    alerts: u32,
    /// Of how many groups
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    groups: u32,
    /// Within how many seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let stage = Stage::set().await?;
    let mut figures = Figures::default();
    for round in 1..=options.rounds {
        take_turn(&stage, options, &mut figures).await?;
        progress(&format!("round {round}: {}", figures.last_of(OURS)));
    }
    let worst = |figure| figures.series(OURS, figure).map(|series| series.max);
    let bar = |what: &str, figure, bar| Some(Bar::at_most(what, worst(figure)?, bar));
    let bars = [
        // One more for the time that a request takes.
        bar(
            "posts in any window, beyond those of the rate",
            BEYOND,
            f64::from(BURST + 1),
        ),
        bar("alerts that nobody was told of", MISSING, 0.0),
        bar("MiB that the notifier grows", GROWTH, 50.0),
    ];
    let bars = bars.into_iter().flatten().collect();
    Ok(stage.report("alerts", &figures, bars))
}

async fn take_turn(stage: &Stage, options: &Options, figures: &mut Figures) -> anyhow::Result<()> {
    let double = Mattermost::start().await?;
    let settings = format!(
        "[mattermost]\nwebhook_url = {:?}\n\n[alerts]\ngroup_wait = \"1s\"\ngroup_interval = \"5s\"\n\
         rate = \"{RATE}/s\"\nburst = {BURST}\n",
        double.hook_url()
    );
    let amqp = place::fresh(&stage.broker.url);
    let mut service = Service::start(stage.scratch.path(), &amqp, &settings).await?;
    silence(&service).await?;
    let mut sender = Confirmed::connect(&amqp).await?;
    let before = service.group.settled_kib().await?;
    let (begun, cpu) = (Instant::now(), service.group.usage().cpu);
    publish(&mut sender, options).await?;
    let published = begun.elapsed().as_secs_f64();
    let wanted = u64::from(options.alerts - options.alerts.div_ceil(SILENCED_EVERY));
    let all_told = || told(&double.posts()) >= wanted;
    service.until("all alerts told", PATIENCE, all_told).await?;
    let seconds = begun.elapsed().as_secs_f64();
    // What is told twice would come now.
    sleep(Duration::from_secs(6)).await;
    let (posts, silenced) = (double.posts(), silenced(&service).await?);
    let spent = service.group.usage().cpu.saturating_sub(cpu).as_secs_f64();
    let grown = service.group.peak_kib().saturating_sub(before);
    service.group.stop().await?;
    let accounted = told(&posts) + silenced;
    let all = u64::from(options.alerts);
    ensure!(
        accounted <= all,
        "{accounted} alerts told or silenced, of {all}"
    );
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let number = |count: u64| count as f64;
    for (what, value) in [
        ("seconds to publish", published),
        ("seconds until all is told", seconds),
        ("posts", number(posts.len() as u64)),
        ("alerts in posts", number(told(&posts))),
        ("alerts silenced", number(silenced)),
        (MISSING, number(all - accounted)),
        (BEYOND, most_beyond(&double.times(), f64::from(RATE))),
        ("ms of processor, an alert", 1000.0 * spent / number(all)),
        (GROWTH, mib(grown)),
    ] {
        figures.note(OURS, what, value);
    }
    Ok(())
}

/// Takes single alerts out of all groups.
async fn silence(service: &Service) -> anyhow::Result<()> {
    let until = Timestamp::now() + Duration::from_hours(1);
    let silence = json!({"labels": {"user_id": "robot"}, "until": until, "reason": "bench"});
    let path = "/api/alerts/silences";
    service.administer(Method::POST, path, &silence).await?;
    Ok(())
}

/// Evenly, as far as a tick allows.
async fn publish(sender: &mut Confirmed, options: &Options) -> anyhow::Result<()> {
    const TICK: Duration = Duration::from_millis(10);
    let per_tick = options.alerts.div_ceil(100 * options.seconds);
    let mut ticks = interval(TICK);
    for n in 0..options.alerts {
        if n.is_multiple_of(per_tick) {
            ticks.tick().await;
        }
        let user = if n.is_multiple_of(SILENCED_EVERY) {
            "robot"
        } else {
            "ann"
        };
        // Each group has some that are silenced.
        let kind = format!("kind-{}", (n / SILENCED_EVERY + n) % options.groups);
        let body = failure_of(user, &kind, "no disk", Timestamp::now());
        let key = format!("stored.user.{user}.task.status_changed.failed");
        sender.put(&key, &body).await?;
    }
    sender.all().await
}

fn told(posts: &[Post]) -> u64 {
    posts.iter().map(count).sum()
}

/// What the notifier says that it has silenced.
async fn silenced(service: &Service) -> anyhow::Result<u64> {
    let metrics = service.administer(Method::GET, "/metrics", &Value::Null);
    let metrics = metrics.await?;
    let wanted = r#"bellhop_notifier_alerts_total{outcome="silenced"} "#;
    let found = metrics.lines().find_map(|line| line.strip_prefix(wanted));
    Ok(found.map_or(Ok(0), str::parse)?)
}
