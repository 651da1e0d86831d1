use super::*;
use bellhop_common::backoff::jitter;

/// Seconds after some moment.
fn at(seconds: f64) -> Timestamp {
    let start: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
    start + jiff::SignedDuration::from_secs_f64(seconds)
}

/// What a meter says at last of `(seconds, done)` with a total.
fn bytes(total: u64, points: &[(f64, u64)]) -> Progress {
    let mut meter = Meter::default();
    let measured = points
        .iter()
        .map(|(seconds, done)| meter.measure(Progress::of(*done, total, "bytes"), at(*seconds)));
    measured.last().unwrap()
}

/// A hundred bytes a second, looked at ten times a second.
fn steady(seconds: u32) -> Vec<(f64, u64)> {
    let looks = 0..=u64::from(seconds) * 10;
    looks
        .map(|look| (f64::from(u32::try_from(look).unwrap()) / 10.0, look * 10))
        .collect()
}

fn estimates(progress: &Progress) -> (Option<f64>, Option<u64>) {
    (progress.rate, progress.remaining_s)
}

/// A generator for property tests; a failure prints the seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        from[usize::try_from(self.below(N as u64)).unwrap()]
    }

    /// 0 up to 1.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

/// Runs a property with many seeds, new ones each time.
fn for_seeds(property: impl Fn(&mut Random)) {
    for _ in 0..300 {
        let seed = jitter().to_bits() | 1;
        let case = std::panic::AssertUnwindSafe(|| property(&mut Random(seed)));
        if let Err(panic) = std::panic::catch_unwind(case) {
            eprintln!("the seed is {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_steady_task_has_its_rate_after_a_second_and_keeps_it() {
    assert_eq!(
        estimates(&bytes(10_000, &steady(1)[..10])),
        (None, None),
        "too early to tell"
    );
    for seconds in [1, 2, 10, 90] {
        let told = bytes(10_000, &steady(seconds));
        let left = 100 - u64::from(seconds);
        assert_eq!(
            estimates(&told),
            (Some(100.0), Some(left)),
            "after {seconds} s"
        );
    }
}

#[test]
fn one_change_is_not_enough_however_long_it_took() {
    assert_eq!(estimates(&bytes(9, &[(0.0, 0), (60.0, 1)])), (None, None));
    let two = bytes(9, &[(0.0, 0), (60.0, 1), (120.0, 2)]);
    assert_eq!(two.remaining_s, Some(420));
}

#[test]
fn a_change_of_pace_is_followed_within_seconds_without_a_jump() {
    let mut meter = Meter::default();
    for (seconds, done) in steady(20) {
        meter.measure(Progress::of(done, 100_000, "bytes"), at(seconds));
    }
    let mut last = 100.0;
    for look in 1..=200_u32 {
        let done = 2000 + u64::from(look);
        let seconds = 20.0 + f64::from(look) / 10.0;
        let told = meter.measure(Progress::of(done, 100_000, "bytes"), at(seconds));
        let rate = told.rate.unwrap();
        assert!(
            rate <= last && rate > last * 0.9,
            "from {last} to {rate} at {seconds}"
        );
        last = rate;
    }
    assert!(last < 12.0, "{last} after 20 s at 10 a second");
}

#[test]
fn a_stall_slows_down_and_then_stands_still() {
    let mut meter = Meter::default();
    for (seconds, done) in steady(10) {
        meter.measure(Progress::of(done, 2000, "bytes"), at(seconds));
    }
    let stuck = Progress::of(1000, 2000, "bytes");
    let mut now = 10.0;
    let mut told = vec![estimates(&meter.measure(stuck.clone(), at(now)))];
    while let Some(wait) = meter.next_look(at(now)) {
        now += wait.as_secs_f64();
        told.push(estimates(&meter.measure(stuck.clone(), at(now))));
    }
    assert!(
        told.is_sorted_by(|a, b| a.0 > b.0 && (b.1.is_none() || a.1 < b.1)),
        "{told:?}"
    );
    assert_eq!(told.first(), Some(&(Some(100.0), Some(10))));
    assert_eq!(told.last(), Some(&(Some(0.0), None)));
    assert!(told.len() < 10, "a stall costs {} events", told.len());
    let again = meter.measure(Progress::of(1010, 2000, "bytes"), at(now + 0.1));
    assert!(again.rate.is_some_and(|rate| rate > 0.0), "{again:?}");
}

#[test]
fn a_task_that_says_something_twice_a_minute_does_not_stall_in_between() {
    let pages: Vec<_> = (0..5_u32)
        .map(|page| (f64::from(page) * 30.0, u64::from(page)))
        .collect();
    let mut meter = Meter::default();
    for (seconds, done) in &pages {
        meter.measure(Progress::of(*done, 10, "pages"), at(*seconds));
    }
    let between = meter.measure(Progress::of(4, 10, "pages"), at(150.0));
    assert_eq!(estimates(&between), (Some(0.0333), Some(180)));
    assert!(meter.next_look(at(150.0)).unwrap() > Duration::from_secs(20));
}

#[test]
fn what_counts_something_else_starts_anew_and_a_new_total_does_not() {
    let mut meter = Meter::default();
    for (seconds, done) in steady(10) {
        meter.measure(Progress::of(done, 2000, "bytes"), at(seconds));
    }
    let grown = meter.measure(Progress::of(1010, 3010, "bytes"), at(10.1));
    assert_eq!(estimates(&grown), (Some(100.0), Some(20)));
    for other in [
        Progress::of(1020, 2000, "rows"),
        Progress {
            percent: Some(50.0),
            ..Progress::default()
        },
        Progress::default(),
    ] {
        let told = meter.measure(other, at(10.2));
        assert_eq!(estimates(&told), (None, None));
    }
}

#[test]
fn a_percentage_alone_has_a_time_left_and_no_rate() {
    let mut meter = Meter::default();
    let told = (0..=20_u32).map(|look| {
        let progress = Progress {
            percent: Some(f64::from(look)),
            ..Progress::default()
        };
        meter.measure(progress, at(f64::from(look) / 2.0))
    });
    assert_eq!(estimates(&told.last().unwrap()), (None, Some(40)));
}

#[test]
fn counting_without_a_total_has_a_rate_and_no_time_left() {
    let mut meter = Meter::default();
    let told = steady(5).into_iter().map(|(seconds, done)| {
        let progress = Progress {
            done: Some(done),
            ..Progress::default()
        };
        meter.measure(progress, at(seconds))
    });
    assert_eq!(estimates(&told.last().unwrap()), (Some(100.0), None));
}

#[test]
fn what_is_done_or_more_than_done_has_no_time_left() {
    for total in [1000, 900, 0] {
        assert_eq!(estimates(&bytes(total, &steady(10))), (Some(100.0), None));
    }
}

#[test]
fn a_clock_that_is_set_back_costs_nothing_but_the_moment() {
    let mut points = steady(10);
    points.extend(
        steady(10)
            .iter()
            .map(|(seconds, done)| (seconds - 3600.0, done + 1010)),
    );
    assert_eq!(
        estimates(&bytes(12_010, &points)),
        (Some(100.0), Some(100)),
        "the hour is not waited for"
    );
}

#[test]
fn a_handler_that_knows_better_is_believed_unless_it_talks_nonsense() {
    let own = Progress {
        rate: Some(7.0),
        remaining_s: Some(3),
        ..Progress::of(1, 2, "x")
    };
    let mut meter = Meter::default();
    assert_eq!(
        estimates(&meter.measure(own, at(0.0))),
        (Some(7.0), Some(3))
    );
    let odd = Progress {
        rate: Some(f64::NAN),
        ..Progress::of(1, 2, "x")
    };
    assert_eq!(meter.measure(odd, at(1.0)).rate, None);
}

fn in_step(name: &str, index: u32, count: u32, progress: Progress) -> Progress {
    Progress {
        step: Some(Box::new(Step {
            name: name.into(),
            index,
            count,
            progress,
        })),
        ..Progress::default()
    }
}

#[test]
fn each_step_is_measured_on_its_own_and_only_the_last_tells_the_end_of_all() {
    let mut meter = Meter::default();
    let mut run = |name: &str, index, offset: f64| {
        let told = steady(5).into_iter().map(|(seconds, done)| {
            let inner = Progress::of(done, 1000, "bytes");
            meter.measure(in_step(name, index, 2, inner), at(offset + seconds))
        });
        let told: Vec<_> = told.collect();
        let first = told.first().unwrap().step.clone().unwrap();
        assert_eq!(
            estimates(&first.progress),
            (None, None),
            "{name} begins anew"
        );
        told.into_iter().next_back().unwrap()
    };
    let first = run("fetch", 1, 0.0);
    let step = first.step.as_deref().unwrap();
    assert_eq!(estimates(&step.progress), (Some(100.0), Some(5)));
    assert_eq!((first.percent, first.remaining_s), (Some(25.0), None));
    let last = run("store", 2, 5.0);
    assert_eq!((last.percent, last.remaining_s), (Some(75.0), Some(5)));
    assert_eq!(last.rate, None, "the whole counts no bytes");
}

#[test]
fn a_step_that_ends_takes_its_stall_with_it() {
    let mut meter = Meter::default();
    for (seconds, done) in steady(5) {
        let inner = in_step("part", 1, 9, Progress::of(done, 1000, "bytes"));
        meter.measure(in_step("store", 1, 2, inner), at(seconds));
    }
    assert!(meter.next_look(at(5.0)).is_some());
    meter.measure(in_step("store", 2, 2, Progress::default()), at(5.1));
    assert_eq!(meter.next_look(at(5.1)), None);
}

/// Whatever comes, in whatever order: numbers that JSON can carry, and within their bounds.
#[test]
fn nothing_a_handler_or_a_clock_does_makes_the_figures_absurd() {
    for_seeds(|random| {
        let mut meter = Meter::default();
        let mut now = 0.0;
        for _ in 0..200 {
            now += match random.below(10) {
                0 => -1e4 * random.share(),
                1 => 0.0,
                2 => 1e6 * random.share(),
                _ => random.share(),
            };
            let limit = random.pick([1, 2, 1000, u64::MAX]);
            let percent = random.share() * 200.0 - 50.0;
            let mut progress = Progress {
                percent: random.pick([None, Some(f64::NAN), Some(percent)]),
                done: (random.below(4) > 0).then(|| random.below(limit)),
                total: (random.below(4) > 0).then(|| random.below(limit)),
                unit: (random.below(20) > 0).then(|| "bytes".into()),
                ..Progress::default()
            };
            for depth in 0..random.below(8) {
                let count = u32::try_from(random.below(3)).unwrap();
                progress = in_step(&depth.to_string(), 1, count, progress);
            }
            let told = meter.measure(progress, at(now));
            assert!(meter.levels.len() <= MAX_LEVELS);
            assert!(meter.next_look(at(now)).is_none_or(|wait| !wait.is_zero()));
            let mut level = Some(&told);
            while let Some(progress) = level {
                assert!(
                    progress
                        .percent
                        .is_none_or(|percent| (0.0..=100.0).contains(&percent))
                );
                assert!(
                    progress
                        .rate
                        .is_none_or(|rate| rate.is_finite() && rate >= 0.0)
                );
                assert!(
                    progress
                        .remaining_s
                        .is_none_or(|left| (1..=8_640_000).contains(&left))
                );
                level = progress.step.as_ref().map(|step| &step.progress);
            }
            let text = serde_json::to_string(&told).unwrap();
            assert!(!text.contains("null"), "{text}");
        }
    });
}

/// The rate is an average: never above the fastest stretch that was seen, nor below the slowest.
#[test]
fn the_rate_lies_between_the_slowest_and_the_fastest_stretch() {
    for_seeds(|random| {
        let mut meter = Meter::default();
        let (mut now, mut done) = (0.0, 0);
        let (mut slowest, mut fastest) = (f64::INFINITY, 0.0_f64);
        let mut before = at(now);
        meter.measure(Progress::of(done, u64::MAX, "x"), before);
        for _ in 0..100 {
            let grown = 1 + random.below(1000);
            now += 0.01 + random.share() * 3.0;
            done += grown;
            let elapsed = at(now).duration_since(before).as_secs_f64();
            before = at(now);
            let pace = f64::from(u32::try_from(grown).unwrap()) / elapsed;
            (slowest, fastest) = (slowest.min(pace), fastest.max(pace));
            if let Some(rate) = meter
                .measure(Progress::of(done, u64::MAX, "x"), before)
                .rate
            {
                // Three digits are shown.
                assert!(
                    rate > slowest * 0.99 && rate < fastest * 1.01,
                    "{slowest} {rate} {fastest}"
                );
            }
        }
    });
}

/// While nothing changes the rate only falls, and the time left only grows until it is gone.
#[test]
fn a_stall_never_looks_better_than_before() {
    for_seeds(|random| {
        let mut meter = Meter::default();
        let (mut now, mut done) = (0.0, 0);
        for _ in 0..=random.below(50) {
            now += random.share() * 10.0;
            done += random.below(100);
            meter.measure(Progress::of(done, 10_000, "x"), at(now));
        }
        let mut last = estimates(&meter.measure(Progress::of(done, 10_000, "x"), at(now)));
        for _ in 0..50 {
            now += random.share() * 20.0;
            let told = estimates(&meter.measure(Progress::of(done, 10_000, "x"), at(now)));
            assert!(told.0 <= last.0, "{told:?} after {last:?}");
            assert!(
                told.1.is_none() || (last.1.is_some() && told.1 >= last.1),
                "{told:?} after {last:?}"
            );
            last = told;
        }
        assert!(
            last.0.is_none() || now < 500.0 || last == (Some(0.0), None),
            "{last:?}"
        );
    });
}
