//! Which streams somebody of this instance is in, and how far each has been shown here.
//!
//! Every event of a stream is shown once, in the order of the numbers: what came already is passed
//! over, and after a gap nothing is shown until what is missing has been read from the store.
//! All connections of an instance see the same of a stream, so that one number for each stream is
//! enough. No I/O.

use std::collections::hash_map::Entry;
use std::time::Duration;

use tokio::time::Instant;

use crate::shards::Shards;
use crate::store::{Position, StreamName};

/// What waits for a stream that is behind. More is left out, and read from the store instead.
const MAX_WAITING: usize = 256;

/// The streams that somebody here follows. `T` is what is shown.
#[derive(Debug)]
pub(crate) struct Followed<T> {
    streams: Shards<StreamName, Stream<T>>,
}

#[derive(Debug)]
struct Stream<T> {
    followers: usize,
    /// When the first of them came.
    since: Instant,
    /// What came up to here, nobody here was shown.
    begun: Option<Position>,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    /// Everything up to here was shown, or was there before anybody followed.
    UpTo(Position),
    /// What comes next is not known, or is missing.
    Behind {
        shown: Option<Position>,
        /// What came meanwhile, in the order of the numbers.
        waiting: Vec<(Position, T)>,
    },
}

/// A stream that somebody here follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) name: StreamName,
    /// How far it has been shown; `None` while nobody has learnt it from the store.
    pub(crate) shown: Option<Position>,
    /// When the first of those who follow it came.
    pub(crate) since: Instant,
}

impl Standing {
    /// What is to be read of it. Who comes asks the store himself, and has his answer or does without
    /// after `patience`.
    pub(crate) fn missing(&self, now: Instant, patience: Duration) -> Missing {
        match self.shown {
            Some(shown) => Missing::After(shown),
            None if now <= self.since + patience => Missing::IsAsked,
            None => Missing::Unknown,
        }
    }
}

/// What there is to be read of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// What comes after this.
    After(Position),
    /// Who has come is about to learn where it stands, and nobody here was shown anything of it.
    IsAsked,
    /// Nobody knows, or is about to learn it.
    Unknown,
}

/// What became of an event that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Nobody here follows its stream.
    NotFollowed,
    /// It was shown.
    Shown,
    /// It was shown; the stream has begun another life.
    NewLife,
    /// It was shown before.
    Known,
    /// It waits; the stream was behind already.
    Waits,
    /// It waits: the stream is behind from now on.
    Gap,
}

/// Where a stream stands, after a look at the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Nobody follows it any more.
    NotFollowed,
    /// Everything up to here was shown.
    UpTo(Position),
    /// There is more in the store after this.
    Behind(Position),
}

impl<T> Followed<T> {
    pub(crate) fn new() -> Self {
        Self {
            streams: Shards::new(),
        }
    }

    /// One more here follows a stream, and `join`s those who are shown it, under the stream's lock:
    /// exactly what comes after the answer, which he gets at once, is shown to him, too. `None` means that somebody must look
    /// into the store and [`settle`](Self::settle) it; then it is what comes after
    /// [`begun`](Self::begun).
    pub(crate) fn follow(
        &self,
        name: &StreamName,
        now: Instant,
        join: impl FnOnce(Option<Position>),
    ) -> Option<Position> {
        let mut shard = self.streams.lock(name);
        let stream = shard.entry(name.clone()).or_insert_with(|| Stream {
            followers: 0,
            since: now,
            begun: None,
            state: State::Behind {
                shown: None,
                waiting: Vec::new(),
            },
        });
        stream.followers += 1;
        let shown = stream.state.shown();
        join(shown);
        shown
    }

    /// What came up to here, none of those who followed before it was known was shown.
    pub(crate) fn begun(&self, name: &StreamName) -> Option<Position> {
        self.streams.lock(name).get(name)?.begun
    }

    /// The first that waits, of a stream that is behind.
    pub(crate) fn first_waiting(&self, name: &StreamName) -> Option<Position> {
        match &self.streams.lock(name).get(name)?.state {
            State::UpTo(_) => None,
            State::Behind { waiting, .. } => waiting.first().map(|(position, _)| *position),
        }
    }

    /// One follows it no more. How far it was shown, if that was the last.
    pub(crate) fn unfollow(&self, name: &StreamName) -> Option<Position> {
        let mut shard = self.streams.lock(name);
        let Entry::Occupied(mut stream) = shard.entry(name.clone()) else {
            return None;
        };
        if stream.get().followers > 1 {
            stream.get_mut().followers -= 1;
            return None;
        }
        stream.remove().state.shown()
    }

    /// Where a stream stands, if somebody follows it.
    pub(crate) fn standing(&self, name: &StreamName) -> Option<Standing> {
        let shard = self.streams.lock(name);
        let stream = shard.get(name)?;
        Some(Standing {
            name: name.clone(),
            shown: stream.state.shown(),
            since: stream.since,
        })
    }

    /// How far a stream has been shown here.
    pub(crate) fn shown(&self, name: &StreamName) -> Option<Position> {
        self.streams.lock(name).get(name)?.state.shown()
    }

    /// An event came. `event` makes what is shown, and `show` shows it, under the stream's lock, so
    /// that no other comes between.
    pub(crate) fn arrive(
        &self,
        name: &StreamName,
        position: Position,
        event: impl FnOnce() -> Option<T>,
        show: impl FnOnce(T),
    ) -> Arrived {
        let mut shard = self.streams.lock(name);
        let Some(stream) = shard.get_mut(name) else {
            return Arrived::NotFollowed;
        };
        let arrived = match &mut stream.state {
            State::UpTo(last) if last.epoch != position.epoch => Arrived::NewLife,
            State::UpTo(last) if position.seq <= last.seq => return Arrived::Known,
            State::UpTo(last) if position.seq == last.seq + 1 => Arrived::Shown,
            State::UpTo(last) => {
                let shown = Some(*last);
                let waiting = event().map(|event| (position, event)).into_iter().collect();
                stream.state = State::Behind { shown, waiting };
                return Arrived::Gap;
            }
            State::Behind { waiting, .. } => {
                if waiting.len() < MAX_WAITING
                    && let Some(event) = event()
                {
                    waiting.push((position, event));
                }
                return Arrived::Waits;
            }
        };
        stream.state = State::UpTo(position);
        if let Some(event) = event() {
            show(event);
        }
        arrived
    }

    /// The store has been looked at: everything up to `position` was shown by `show`, or is not to be
    /// shown. What waits after that is shown as far as it follows without a gap.
    ///
    /// `show` is called first with `None`, which means the events that were read, and only if they
    /// are still missing.
    pub(crate) fn settle(
        &self,
        name: &StreamName,
        after: Option<Position>,
        position: Position,
        mut show: impl FnMut(Option<T>),
    ) -> Settled {
        let mut shard = self.streams.lock(name);
        let Some(stream) = shard.get_mut(name) else {
            return Settled::NotFollowed;
        };
        let State::Behind { shown, waiting } = &mut stream.state else {
            return stream.state.settled(position);
        };
        // Somebody else was faster.
        if *shown != after {
            return stream.state.settled(position);
        }
        if after.is_none() {
            stream.begun = Some(position);
        }
        show(None);
        let mut last = position;
        // When it was full, some were left out.
        let mut is_whole = waiting.len() < MAX_WAITING;
        for (position, event) in std::mem::take(waiting) {
            if position.epoch != last.epoch || position.seq <= last.seq || !is_whole {
                continue;
            }
            is_whole = position.seq == last.seq + 1;
            if is_whole {
                last = position;
                show(Some(event));
            }
        }
        stream.state = if is_whole {
            State::UpTo(last)
        } else {
            State::Behind {
                shown: Some(last),
                waiting: Vec::new(),
            }
        };
        stream.state.settled(last)
    }

    /// Something may have been missed: what streams there are, and where each stands.
    pub(crate) fn all(&self) -> Vec<Standing> {
        let mut all = Vec::new();
        for shard in self.streams.each() {
            all.extend(shard.iter().map(|(name, stream)| Standing {
                name: name.clone(),
                shown: stream.state.shown(),
                since: stream.since,
            }));
        }
        all
    }

    /// The store has more of a stream than was shown here, so that it is behind from now on; false if
    /// it is already or was shown meanwhile.
    pub(crate) fn fall_behind(&self, name: &StreamName, shown: Position) -> bool {
        let mut shard = self.streams.lock(name);
        let Some(stream) = shard.get_mut(name) else {
            return false;
        };
        let is_up_to = matches!(stream.state, State::UpTo(last) if last == shown);
        if is_up_to {
            stream.state = State::Behind {
                shown: Some(shown),
                waiting: Vec::new(),
            };
        }
        is_up_to
    }
}

impl<T> State<T> {
    const fn shown(&self) -> Option<Position> {
        match self {
            Self::UpTo(position) => Some(*position),
            Self::Behind { shown, .. } => *shown,
        }
    }

    fn settled(&self, position: Position) -> Settled {
        match self {
            Self::UpTo(last) => Settled::UpTo(*last),
            Self::Behind { shown, .. } => Settled::Behind(shown.unwrap_or(position)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Epoch;

    fn at(seq: u64) -> Position {
        Position {
            epoch: Epoch::new(1),
            seq,
        }
    }

    struct Here {
        followed: Followed<u64>,
        name: StreamName,
        shown: Vec<u64>,
    }

    impl Here {
        fn new() -> Self {
            Self {
                followed: Followed::new(),
                name: StreamName::user("ann"),
                shown: Vec::new(),
            }
        }

        fn follow(&mut self) -> Option<Position> {
            self.followed.follow(&self.name, Instant::now(), |_| {})
        }

        fn comes(&mut self, seq: u64) -> Arrived {
            let Self {
                followed,
                name,
                shown,
            } = self;
            followed.arrive(name, at(seq), || Some(seq), |seq| shown.push(seq))
        }

        /// The store was read from `after` up to `last`.
        fn settle(&mut self, after: Option<u64>, last: u64) -> Settled {
            let Self {
                followed,
                name,
                shown,
            } = self;
            let first = after.map_or(last + 1, |after| after + 1);
            followed.settle(name, after.map(at), at(last), |event| match event {
                Some(seq) => shown.push(seq),
                None => shown.extend(first..=last),
            })
        }
    }

    #[test]
    fn nobody_is_shown_what_nobody_follows() {
        let mut here = Here::new();
        assert_eq!(here.comes(1), Arrived::NotFollowed);
        assert_eq!(here.settle(None, 5), Settled::NotFollowed);
        assert!(here.shown.is_empty());
    }

    #[test]
    fn what_comes_before_the_store_was_read_is_shown_after_it_once() {
        let mut here = Here::new();
        assert_eq!(here.follow(), None);
        // Kept before we read, told after; and told before, kept after.
        assert_eq!(here.comes(5), Arrived::Waits);
        assert_eq!(here.comes(6), Arrived::Waits);
        assert_eq!(here.settle(None, 5), Settled::UpTo(at(6)));
        assert_eq!(here.comes(5), Arrived::Known);
        assert_eq!(here.comes(7), Arrived::Shown);
        assert_eq!(here.shown, [6, 7]);
        assert_eq!(here.followed.begun(&here.name), Some(at(5)));
        assert_eq!(here.follow(), Some(at(7)));
    }

    #[test]
    fn after_a_gap_nothing_is_shown_before_what_is_missing() {
        let mut here = Here::new();
        here.follow();
        here.settle(None, 2);
        assert_eq!(here.comes(3), Arrived::Shown);
        assert_eq!(here.comes(6), Arrived::Gap);
        assert_eq!(here.comes(7), Arrived::Waits);
        assert_eq!(here.comes(9), Arrived::Waits);
        // 8 is missing again.
        assert_eq!(here.settle(Some(3), 6), Settled::Behind(at(7)));
        assert_eq!(here.settle(Some(3), 6), Settled::Behind(at(7)), "too late");
        assert_eq!(here.comes(10), Arrived::Waits);
        assert_eq!(here.settle(Some(7), 9), Settled::UpTo(at(10)));
        assert_eq!(here.shown, (3..=10).collect::<Vec<_>>());
    }

    #[test]
    fn another_life_begins_anew() {
        let mut here = Here::new();
        here.follow();
        here.settle(None, 9);
        let other = Position {
            epoch: Epoch::new(2),
            seq: 1,
        };
        let arrived = here.followed.arrive(&here.name, other, || Some(1), |_| {});
        assert_eq!(arrived, Arrived::NewLife);
        assert_eq!(here.followed.shown(&here.name), Some(other));
    }

    #[test]
    fn the_last_who_goes_takes_the_stream_along() {
        let mut here = Here::new();
        here.follow();
        here.settle(None, 4);
        here.follow();
        assert_eq!(here.followed.unfollow(&here.name), None);
        assert_eq!(here.comes(5), Arrived::Shown);
        assert_eq!(here.followed.unfollow(&here.name), Some(at(5)));
        assert_eq!(here.comes(6), Arrived::NotFollowed);
        assert_eq!(here.followed.unfollow(&here.name), None);
    }

    #[test]
    fn what_does_not_fit_is_read_from_the_store() {
        let mut here = Here::new();
        here.follow();
        here.settle(None, 0);
        let many = MAX_WAITING as u64 + 10;
        for seq in 2..=many {
            here.comes(seq);
        }
        assert_eq!(here.settle(Some(0), 5), Settled::Behind(at(5)));
        assert_eq!(here.settle(Some(5), many), Settled::UpTo(at(many)));
        assert_eq!(here.shown, (1..=many).collect::<Vec<_>>());
    }

    #[test]
    fn what_was_missed_unseen_is_found_by_looking() {
        let mut here = Here::new();
        here.follow();
        here.settle(None, 4);
        let [standing] = &here.followed.all()[..] else {
            panic!("one stream is followed");
        };
        assert_eq!((&standing.name, standing.shown), (&here.name, Some(at(4))));
        assert!(here.followed.fall_behind(&here.name, at(4)));
        assert!(!here.followed.fall_behind(&here.name, at(4)));
        assert_eq!(here.comes(7), Arrived::Waits);
        assert_eq!(here.settle(Some(4), 6), Settled::UpTo(at(7)));
        assert!(!here.followed.fall_behind(&here.name, at(6)), "it went on");
        assert_eq!(here.shown, [5, 6, 7]);
    }

    /// Two looks that both meet somebody who has just come are no sign that anything went wrong.
    #[test]
    fn who_has_just_come_again_is_looking_himself() {
        let here = Here::new();
        let patience = Duration::from_secs(5);
        let missing = |now| here.followed.all()[0].missing(now, patience);
        let first = Instant::now();
        here.followed.follow(&here.name, first, |_| {});
        assert_eq!(missing(first + patience), Missing::IsAsked);
        here.followed.unfollow(&here.name);
        let again = first + Duration::from_mins(1);
        here.followed.follow(&here.name, again, |_| {});
        assert_eq!(missing(again + patience), Missing::IsAsked);
        let late = again + patience + Duration::from_millis(1);
        assert_eq!(missing(late), Missing::Unknown);
        here.followed.settle(&here.name, None, at(4), |_| {});
        assert_eq!(missing(late), Missing::After(at(4)));
    }

    /// A stream waits to be caught up with; by the time it is looked at, its last follower has left
    /// and has come again.
    #[test]
    fn who_comes_where_those_before_him_had_fallen_behind_has_lost_nothing() {
        let mut here = Here::new();
        let patience = Duration::from_secs(5);
        let first = Instant::now();
        here.followed.follow(&here.name, first, |_| {});
        here.settle(None, 2);
        assert_eq!(here.comes(4), Arrived::Gap);
        let missing = |here: &Here, now| {
            let standing = here.followed.standing(&here.name);
            standing.map(|standing| standing.missing(now, patience))
        };
        let later = first + Duration::from_mins(1);
        assert_eq!(missing(&here, later), Some(Missing::After(at(2))));
        here.followed.unfollow(&here.name);
        assert_eq!(missing(&here, later), None);
        here.followed.follow(&here.name, later, |_| {});
        assert_eq!(missing(&here, later), Some(Missing::IsAsked));
        // What comes before he has his answer is shown after it.
        assert_eq!(here.comes(5), Arrived::Waits);
        assert_eq!(here.settle(None, 4), Settled::UpTo(at(5)));
        assert_eq!(here.shown, [5]);
    }

    /// Whatever is lost, doubled and read late: each event once, in order.
    #[test]
    fn any_losses_are_repaired() {
        let seed = std::env::var("BELLHOP_TEST_SEED").ok();
        let seed: u64 = seed.map_or(20_261_126, |seed| seed.parse().unwrap());
        println!("BELLHOP_TEST_SEED={seed}");
        let mut random = seed;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for _ in 0..200 {
            let mut here = Here::new();
            here.follow();
            let (mut kept, start) = (next(5), next(5));
            kept = kept.max(start);
            here.settle(None, kept);
            let begun = kept;
            for _ in 0..200 {
                match next(4) {
                    // Told, lost, or told again.
                    0 | 1 => {
                        kept += 1;
                        if next(3) > 0 {
                            here.comes(kept);
                        }
                    }
                    2 => drop(here.comes(1 + next(kept.max(1)))),
                    _ => {
                        let shown = here.followed.shown(&here.name).unwrap();
                        if shown.seq < kept {
                            here.followed.fall_behind(&here.name, shown);
                            let read = shown.seq + 1 + next(kept - shown.seq);
                            here.settle(Some(shown.seq), read);
                        }
                    }
                }
            }
            let shown = here.followed.shown(&here.name).unwrap();
            if shown.seq < kept {
                here.followed.fall_behind(&here.name, shown);
                here.settle(Some(shown.seq), kept);
            }
            assert_eq!(here.shown, (begun + 1..=kept).collect::<Vec<_>>());
        }
    }
}
