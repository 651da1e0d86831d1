//! The store alone: what an event costs when there are few and when there are very many.

use std::time::{Duration, Instant};

use anyhow::ensure;
use bellhop_notifier::store::{InboxQuery, NewEvent, PAGE_BYTES, SharedStore, StreamName};
use jiff::Timestamp;

use crate::realtime::confirmed::event;
use crate::realtime::figures::Figures;
use crate::realtime::servers::Side;
use crate::realtime::storage::{Kind, Storage};
use crate::realtime::{Stage, progress};
use crate::report::Bar;
use crate::series::percentile;

const OURS: &str = Side::Ours.name();
const USERS: u32 = 10_000;
/// As many as the notifier keeps in one step at most.
const TOGETHER: u32 = 500;
const PAGE: u32 = 50;
const PAGES: usize = 1000;

/// A store fills up.
pub(super) async fn measure(
    stage: &Stage<'_>,
    events: u32,
    kind: Kind,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let name = kind.name();
    let storage = Storage::start(stage.scratch.path(), kind).await?;
    let before = storage.resident().unwrap_or(0);
    let store = storage.open()?;
    let (steps, payload) = fill(&store, events).await?;
    let tenths = tenths(&steps);
    progress(&format!(
        "{name}: {events} events are kept; µs for each, by tenths: {tenths:.1?}"
    ));
    for (what, tenth) in [
        (first_of(kind), tenths.first()),
        (last_of(kind), tenths.last()),
    ] {
        figures.note(OURS, &what, tenth.copied().unwrap_or(f64::NAN));
    }
    let mut pages = pages(&store).await?;
    let what = format!("ms for a page of the inbox, {name}, p50");
    figures.note(OURS, &what, percentile(&mut pages, 50.0));
    figures.note(OURS, &page_of(kind), percentile(&mut pages, 99.0));
    let resident = storage.resident();
    // The last connection that closes the file writes the log into it.
    drop(store);
    let bytes = match resident {
        Some(resident) => resident.saturating_sub(before),
        None => on_disk(&storage)?,
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let overhead = bytes.saturating_sub(payload) as f64 / f64::from(events);
    figures.note(OURS, &bytes_of(kind), overhead);
    storage.stop().await
}

pub(super) fn bars(kind: Kind, figures: &Figures) -> Vec<Bar> {
    let name = kind.name();
    let median = |what: String| figures.median(OURS, &what);
    let mut bars = Vec::new();
    if let (Some(first), Some(last)) = (median(first_of(kind)), median(last_of(kind))) {
        let what = format!("cost of keeping the last events in {name}, times that of the first");
        bars.push(Bar::at_most(&what, last / first, 1.2));
    }
    if let Some(p99) = median(page_of(kind)) {
        let what = format!("ms for a page of {PAGE} of a user's inbox from {name}, p99");
        bars.push(Bar::at_most(&what, p99, 5.0));
    }
    if let Some(bytes) = median(bytes_of(kind)).filter(|_| kind == Kind::Sqlite) {
        let what = format!("bytes of the {name} file for an event, besides its own");
        bars.push(Bar::at_most(&what, bytes, 500.0));
    }
    bars
}

fn first_of(kind: Kind) -> String {
    format!("µs to keep an event, {}, the first tenth", kind.name())
}

fn last_of(kind: Kind) -> String {
    format!("µs to keep an event, {}, the last tenth", kind.name())
}

fn page_of(kind: Kind) -> String {
    format!("ms for a page of the inbox, {}, p99", kind.name())
}

fn bytes_of(kind: Kind) -> String {
    let where_from = match kind {
        Kind::Sqlite => "of the file",
        Kind::Redis => "resident",
    };
    format!("bytes {where_from} besides the event, {}", kind.name())
}

/// Microseconds for an event in each tenth of the steps; what does not fill one is left out.
fn tenths(steps: &[Duration]) -> Vec<f64> {
    let size = (steps.len() / 10).max(1);
    let events = f64::from(TOGETHER) * f64::from(u32::try_from(size).unwrap_or(u32::MAX));
    let each = |steps: &[Duration]| {
        let total: Duration = steps.iter().sum();
        total.as_secs_f64() * 1e6 / events
    };
    steps.chunks_exact(size).map(each).collect()
}

/// How long each step took, and how many bytes the events have. Whose
/// they are is random, so that nearly every event of a step is in another stream: the most work.
async fn fill(store: &SharedStore, events: u32) -> anyhow::Result<(Vec<Duration>, u64)> {
    let mut users = Users(1);
    let (mut steps, mut payload) = (Vec::new(), 0);
    for from in (0..events).step_by(TOGETHER as usize) {
        let numbers = from..events.min(from + TOGETHER);
        let batch = numbers.clone().zip(&mut users).map(|(number, user)| {
            let (id, body) = event(number);
            payload += body.len() as u64;
            NewEvent {
                stream: StreamName::user(&user),
                id,
                body: body.into(),
                task: None,
                group: None,
            }
        });
        let batch: Vec<_> = batch.collect();
        let began = Instant::now();
        let kept = store.append(batch, Timestamp::now()).await?;
        steps.push(began.elapsed());
        let all_new = kept.len() == numbers.len() && kept.iter().all(|kept| kept.is_new);
        ensure!(all_new, "the store did not keep all of a batch");
    }
    Ok((steps, payload))
}

/// Users at random: xorshift, with the same for every store.
struct Users(u64);

impl Iterator for Users {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Some(format!("user-{}", self.0 % u64::from(USERS)))
    }
}

/// How long the newest page of a user's inbox takes, in milliseconds, for users at random.
async fn pages(store: &SharedStore) -> anyhow::Result<Vec<f64>> {
    let query = InboxQuery {
        before: None,
        unread_only: false,
        archived: false,
        limit: PAGE,
        max_bytes: PAGE_BYTES,
    };
    let mut took = Vec::new();
    for user in Users(1).take(PAGES) {
        let began = Instant::now();
        let page = store.inbox(user, query).await?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
        ensure!(!page.items.is_empty(), "an inbox is empty");
    }
    Ok(took)
}

/// The file of the embedded store and what is beside it.
fn on_disk(storage: &Storage) -> anyhow::Result<u64> {
    let file = storage.file();
    let mut log = file.clone().into_os_string();
    log.push("-wal");
    let beside = std::fs::metadata(log).map_or(0, |log| log.len());
    Ok(std::fs::metadata(file)?.len() + beside)
}
