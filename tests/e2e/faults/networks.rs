//! Notifiers are cut from everything, packets and all, while stored events come: every client ends
//! with every event once, in order, and when only the one that writes is cut, the other takes over.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellhop_tests::broker::{free_port, setting};
use bellhop_tests::netns::{Door, Network};
use bellhop_tests::program::{Program, Surroundings};
use bellhop_tests::random::Random;
use bellhop_tests::stack::{PATIENCE, Stack};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::streams::{Places, run, size};

const KEPT: &str = r#"bellhop_notifier_kept_events_total{outcome="new"}"#;

/// A broker gives up who says nothing for two of them.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long a link is cut: `BELLHOP_TEST_CUT` in seconds, or enough for both sides to notice.
fn cut() -> Duration {
    let cut = std::env::var("BELLHOP_TEST_CUT").ok();
    cut.map_or(4 * HEARTBEAT, |cut| {
        Duration::from_secs(cut.parse().unwrap())
    })
}

/// A notifier with a network of its own.
struct Instance {
    program: Program,
    network: Network,
    _doors: [Door; 2],
}

impl Instance {
    async fn start(stack: &Stack, name: &str) -> Self {
        let network = Network::new();
        let (login, rest) = stack.url.split_once('@').unwrap();
        let (broker, vhost) = rest.split_once('/').unwrap();
        let redis = setting("BELLHOP_TEST_REDIS_URL");
        let redis = redis.strip_prefix("unix://").expect("a socket");
        let doors = [
            Door::open(&network, broker.to_owned()).await,
            Door::open(&network, redis.to_owned()).await,
        ];
        let stack = Stack {
            url: format!("{login}@{}/{vhost}", doors[0].address),
            ..stack.clone()
        };
        let place = Surroundings {
            address: (network.theirs, free_port()).into(),
            by: network.inside(),
            environment: Vec::new(),
        };
        let settings = [
            format!("instance={name}"),
            format!("amqp.heartbeat={}s", HEARTBEAT.as_secs()),
            "store.kind=redis".into(),
            format!("store.url=redis://{}", doors[1].address),
            format!("store.prefix={}", stack.prefix),
            "websocket.drain_window=0s".into(),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let program = Program::start_in(&place, "notifier", &stack, &settings);
        program.wait_ready().await;
        Self {
            program,
            network,
            _doors: doors,
        }
    }

    fn address(&self) -> SocketAddr {
        self.program.address()
    }
}

async fn two(stack: &Stack) -> (Vec<Instance>, Places) {
    let instances = vec![
        Instance::start(stack, "one").await,
        Instance::start(stack, "two").await,
    ];
    let places = instances.iter().map(Instance::address).collect();
    (instances, Arc::new(Mutex::new(places)))
}

/// Both are ready again.
async fn joined(instances: &[Instance]) {
    for instance in instances {
        instance.program.wait_ready().await;
        instance.program.signal(Signal::TERM);
    }
}

/// How many events are kept, by both.
async fn kept(instances: &[Instance]) -> u64 {
    let mut kept = 0;
    for instance in instances {
        kept += instance.program.metric(KEPT).await;
    }
    kept
}

/// Waits until events have begun to flow, so that a cut is in the midst of them.
async fn begun(instances: &[Instance]) {
    let flows = async {
        while kept(instances).await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, flows).await.expect("events are kept");
}

/// Has one fault happen to two notifiers, in the midst of the events.
async fn amid_events(fault: impl AsyncFnOnce(&[Instance])) {
    let mut random = Random::of_test();
    let stack = Stack::shared();
    let (instances, places) = two(&stack).await;
    let held = &instances;
    run(&stack, &places, &mut random, async move |_, mut random| {
        begun(held).await;
        sleep(Duration::from_millis(random.below(200))).await;
        fault(held).await;
        1
    })
    .await;
    joined(&instances).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_notifiers_lose_every_packet_for_a_while() {
    amid_events(async |instances| {
        assert!(kept(instances).await < size().0, "some are still to come");
        for instance in instances {
            instance.network.cut();
        }
        sleep(cut()).await;
        for instance in instances {
            instance.network.join();
        }
    })
    .await;
}

/// Cuts the one that writes until the other does; how long that took.
async fn take_over(instances: &[Instance]) -> Duration {
    let mut before = [0, 0];
    for (before, instance) in before.iter_mut().zip(instances) {
        *before = instance.program.metric(KEPT).await;
    }
    let writes = usize::from(before[1] > before[0]);
    let other = &instances[1 - writes];
    instances[writes].network.cut();
    let began = Instant::now();
    let taken = async {
        while other.program.metric(KEPT).await == before[1 - writes] {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(10 * HEARTBEAT, taken)
        .await
        .expect("the other one writes");
    let took = began.elapsed();
    sleep(cut().saturating_sub(took)).await;
    instances[writes].network.join();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_takes_over_from_one_that_is_cut_off() {
    amid_events(async |instances| {
        let took = take_over(instances).await;
        eprintln!("the other took over after {took:.1?}, with a heartbeat of {HEARTBEAT:?}");
        assert!(took < 4 * HEARTBEAT, "{took:?}");
    })
    .await;
}
