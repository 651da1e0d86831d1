//! Many jobs whose fate is known beforehand, workers that are killed meanwhile, and who watches.
//!
//! What a job does is a function of its id, so that the end that its owner must see is known, down
//! to the number of attempts, however often a worker dies on the way.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bellhop_common::amqp::{Names, Publisher, Topology};
use bellhop_common::telemetry::Component;
use bellhop_common::wire::{FollowUp, Job, NAMESPACE};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;
use uuid::Uuid;

use crate::program::Program;
use crate::random::{Random, number_of};
use crate::stack::Stack;
use crate::watch::{ClientWatch, End, QueueWatch};

/// How often `flaky` is tried; the same for all, so that some fail for good.
const MAX_ATTEMPTS: u32 = 4;

/// Whether this attempt of a `flaky` job fails.
pub fn does_fail(task_id: &str, attempt: u32) -> bool {
    number_of(&format!("{task_id}/{attempt}")) % 100 < 35
}

/// How long a `slow` job takes.
pub fn nap(task_id: &str) -> Duration {
    Duration::from_millis(100 + number_of(task_id) % 900)
}

/// How a job must end: its status and its last attempt.
pub type Fate = (&'static str, u32);

fn fate(kind: &str, task_id: &str) -> Fate {
    if kind != "flaky" {
        return ("succeeded", 1);
    }
    let first_good = (1..=MAX_ATTEMPTS).find(|attempt| !does_fail(task_id, *attempt));
    first_good.map_or(("failed", MAX_ATTEMPTS), |attempt| ("succeeded", attempt))
}

/// How many jobs a test runs: `BELLHOP_TEST_JOBS`, or so many that CI does not mind.
pub fn job_count(usual: usize) -> usize {
    let count = std::env::var("BELLHOP_TEST_JOBS").ok();
    count.map_or(usual, |count| {
        count.parse().expect("BELLHOP_TEST_JOBS is a number")
    })
}

/// The jobs of one test, and who watches them end.
pub struct Run {
    pub stack: Stack,
    pub fates: HashMap<String, Fate>,
    pub queue: QueueWatch,
    pub client: ClientWatch,
    log: PathBuf,
    began: Instant,
}

impl Run {
    /// Declares everything, connects the watchers and puts the jobs in. No worker runs yet.
    pub async fn prepare(
        stack: Stack,
        client: ClientWatch,
        count: usize,
        random: &mut Random,
    ) -> Self {
        declare(&stack).await;
        let rabbit = stack.rabbit().await;
        rabbit
            .declare("watched", "quorum", "events", "stored.user.#")
            .await;
        rabbit
            .declare("isolated", "classic", "delay", "#.quarantine.*")
            .await;
        let queue = QueueWatch::start(&stack.worker_config().amqp, "watched");
        let name = format!("bellhop-chaos-{}", Uuid::now_v7().simple());
        let log = std::env::temp_dir().join(name);
        let run_id = random.number();
        let (mut fates, mut bodies) = (HashMap::new(), Vec::new());
        for n in 0..count {
            let id = format!("{run_id:x}-{n}");
            let kind = match random.below(100) {
                0..60 => "noop",
                60..95 => "flaky",
                _ => "slow",
            };
            let mut job = Job::new(id.as_str(), kind, json!({"log": log}), "ann");
            job.max_attempts = Some(MAX_ATTEMPTS);
            if kind == "noop" && random.below(10) == 0 {
                job.then.push(FollowUp::new("noop", json!({"log": log})));
                let next = Uuid::new_v5(&NAMESPACE, format!("{id}/result/0").as_bytes());
                fates.insert(next.to_string(), ("succeeded", 1));
            }
            fates.insert(id.clone(), fate(kind, &id));
            bodies.push(serde_json::to_vec(&job).unwrap());
        }
        rabbit.publish_all("jobs", "default", bodies).await;
        Self {
            stack,
            fates,
            queue,
            client,
            log,
            began: Instant::now(),
        }
    }

    /// Puts in one more job, which has no fate.
    pub async fn put_in(&self, kind: &str) -> String {
        self.stack
            .enqueue(kind, json!({"log": self.log}), "ann")
            .await
    }

    /// How many jobs were told to have ended.
    pub fn ended(&self) -> usize {
        self.queue.ended()
    }

    pub fn is_over(&self) -> bool {
        self.ended() >= self.fates.len()
    }

    /// Waits until so many jobs ended.
    pub async fn until_ended(&self, count: usize, patience: Duration) {
        let end = Instant::now() + patience;
        while self.ended() < count {
            assert!(
                Instant::now() < end,
                "after {patience:?}: {}",
                self.report()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until nothing of the jobs is left in any queue, so that no second end can come.
    pub async fn until_empty(&self) {
        let rabbit = self.stack.rabbit().await;
        let queues = [
            "jobs.default",
            "quarantine.default",
            "delay.00",
            "delay.01",
            "delay.02",
            "inbox",
        ];
        let end = Instant::now() + Duration::from_mins(1);
        let mut still = 0;
        // Between two queues a message is in neither for a moment.
        while still < 5 {
            still += 1;
            for queue in queues {
                let ready = rabbit.ready(queue).await;
                if ready > 0 {
                    still = 0;
                }
                assert!(Instant::now() < end, "{ready} messages stay in {queue}");
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn dead_letters(&self) -> usize {
        self.stack.rabbit().await.ready("dead").await as usize
    }

    /// How often a job was sent to run alone.
    pub async fn isolations(&self) -> usize {
        self.stack.rabbit().await.ready("isolated").await as usize
    }

    pub fn report(&self) -> Report {
        let ends = self.queue.ends();
        let runs = std::fs::read_to_string(&self.log).unwrap_or_default();
        let planned: u64 = self
            .fates
            .values()
            .map(|(_, attempts)| u64::from(*attempts))
            .sum();
        let mut report = Report {
            jobs: self.fates.len(),
            seconds: self.began.elapsed().as_secs_f64(),
            reruns: (runs.lines().count() as u64).saturating_sub(planned),
            reconnects: self.client.reconnects(),
            after_end: self.client.after_end(),
            ..Report::default()
        };
        let shown = self.client.ends();
        for (id, fate) in &self.fates {
            let told = ends.get(id).map_or(&[][..], Vec::as_slice);
            report.judge(id, *fate, told, shown.get(id).copied().unwrap_or(0));
        }
        report
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.log));
    }
}

/// What workers declare, and the rungs of the ladder that the retries need: RabbitMQ 3.10 loses
/// quorum queues that it is killed too soon after.
async fn declare(stack: &Stack) {
    let config = stack.worker_config().amqp;
    let names = Names::new(&config);
    let mut topology = Topology::worker(&names).with_job_queue(&names, "default");
    let ladder = Topology::ladder(&names, 2);
    topology.exchanges.extend(ladder.exchanges);
    topology.queues.extend(ladder.queues);
    topology.bindings.extend(ladder.bindings);
    let (publisher, task) = Publisher::start(&config, "chaos", topology, Component::default());
    publisher.declare(&Topology::default()).await.unwrap();
    task.close().await;
}

/// What was seen of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub jobs: usize,
    pub seconds: f64,
    /// Attempts that were begun more than once.
    pub reruns: u64,
    /// Jobs whose end was not told.
    pub lost: Vec<String>,
    /// Ends that were told again, with the id of the first.
    pub second_ends: Vec<String>,
    /// Ends that were told again, with another id.
    pub other_ends: Vec<String>,
    /// Jobs whose end is not the one they had to have.
    pub wrong: BTreeMap<String, String>,
    /// Jobs given up because workers died.
    pub worker_lost: usize,
    /// Jobs whose end the client did not see.
    pub unseen: Vec<String>,
    /// Jobs whose end the client saw again.
    pub seen_twice: Vec<String>,
    /// Events that came to the client after the end of their task.
    pub after_end: Vec<String>,
    pub reconnects: usize,
}

impl Report {
    fn judge(&mut self, id: &str, (status, attempt): Fate, told: &[End], shown: usize) {
        match shown {
            0 => self.unseen.push(id.to_owned()),
            1 => {}
            _ => self.seen_twice.push(id.to_owned()),
        }
        let Some(first) = told.first() else {
            self.lost.push(id.to_owned());
            return;
        };
        for again in &told[1..] {
            if again.event_id == first.event_id {
                self.second_ends.push(format!("{id}: {told:?}"));
            } else {
                self.other_ends.push(id.to_owned());
            }
        }
        if first.code.as_deref() == Some("worker_lost") {
            self.worker_lost += 1;
        } else if (first.status.as_str(), first.attempt) != (status, attempt) {
            let text = format!("wanted {status} at {attempt}, got {told:?}");
            self.wrong.insert(id.to_owned(), text);
        }
    }

    /// Shown with the test's output.
    pub fn print(&self, what: &str) {
        eprintln!("{what}; {self}");
    }

    /// Each job ended once, as it had to: whoever tells an end again gives it the same id.
    pub fn check(&self) {
        let lists = [&self.lost, &self.other_ends];
        assert!(lists.iter().all(|list| list.is_empty()), "{self}");
        assert!(self.wrong.is_empty(), "{self}");
    }

    /// The owner saw each end, and saw it once.
    pub fn check_shown(&self) {
        let lists = [&self.unseen, &self.seen_twice];
        assert!(lists.iter().all(|list| list.is_empty()), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} jobs in {:.1} s: {} lost, {} reruns, {} second ends, {} with another id, {} wrong, \
             {} given up as worker_lost; at the client: {} unseen, {} seen twice, {} events after \
             an end, {} reconnects",
            self.jobs,
            self.seconds,
            self.lost.len(),
            self.reruns,
            self.second_ends.len(),
            self.other_ends.len(),
            self.wrong.len(),
            self.worker_lost,
            self.unseen.len(),
            self.seen_twice.len(),
            self.after_end.len(),
            self.reconnects
        )?;
        let lists = [
            &self.lost,
            &self.other_ends,
            &self.second_ends,
            &self.unseen,
            &self.seen_twice,
            &self.after_end,
        ];
        for list in lists {
            for id in list.iter().take(5) {
                writeln!(f, "  {id}")?;
            }
        }
        for (id, text) in self.wrong.iter().take(5) {
            writeln!(f, "  {id}: {text}")?;
        }
        Ok(())
    }
}

/// Workers that come and go.
pub struct Swarm {
    stack: Stack,
    settings: Vec<String>,
    workers: Vec<Program>,
    leaving: Vec<Program>,
    random: Random,
    pub losses: usize,
}

impl Swarm {
    pub async fn start(stack: &Stack, count: usize, more: &[&str], random: Random) -> Self {
        let usual = [
            "log.level=warn",
            "queues.default.concurrency=20",
            "jobs.retry_base=1s",
            "jobs.retry_cap=3s",
            "jobs.grace=2s",
        ];
        let mut swarm = Self {
            stack: stack.clone(),
            settings: usual
                .iter()
                .chain(more)
                .map(|&setting| setting.to_owned())
                .collect(),
            workers: Vec::new(),
            leaving: Vec::new(),
            random,
            losses: 0,
        };
        for _ in 0..count {
            swarm.workers.push(swarm.one());
        }
        for worker in &swarm.workers {
            worker.wait_ready().await;
        }
        swarm
    }

    fn one(&self) -> Program {
        let settings: Vec<_> = self.settings.iter().map(String::as_str).collect();
        Program::start_unready("chaos-worker", &self.stack, &settings)
    }

    /// Sends a signal to one that is ready and starts another in its place; to none as long as
    /// only one is, because a machine may need longer for a start than there is between two calls.
    pub async fn lose_one(&mut self, signal: Signal) {
        let mut ready = Vec::new();
        for (which, worker) in self.workers.iter().enumerate() {
            if worker.is_ready().await {
                ready.push(which);
            }
        }
        let chosen = self.random.below(self.workers.len() as u64);
        let chosen = usize::try_from(chosen).unwrap();
        if ready.len() < 2 {
            return;
        }
        let which = ready[chosen % ready.len()];
        let next = self.one();
        let mut old = std::mem::replace(&mut self.workers[which], next);
        old.signal(signal);
        self.losses += 1;
        if signal == Signal::KILL {
            old.ended().await;
        } else {
            self.leaving.push(old);
        }
    }

    /// Stops them all in order.
    pub async fn stop(mut self) {
        for worker in &self.workers {
            // One that just began would die of the signal instead of obeying it.
            worker.wait_ready().await;
            worker.signal(Signal::TERM);
        }
        self.leaving.append(&mut self.workers);
        for mut worker in self.leaving {
            assert!(worker.ended().await.success());
        }
    }
}
