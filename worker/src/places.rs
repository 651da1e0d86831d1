//! Who runs next: the places that all queues of a worker share.
//!
//! A queue of higher priority goes first; among queues of the same priority each gets places in
//! proportion to its weight (stride scheduling: Waldspurger and Weihl, 1995).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The places.
#[derive(Debug)]
pub(crate) struct Places {
    turns: Mutex<Turns<oneshot::Sender<Place>>>,
}

/// What a queue gets of the places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// How many it may have at once.
    pub(crate) most: usize,
    /// The highest goes first.
    pub(crate) priority: i32,
    /// Its part among the queues of its priority.
    pub(crate) weight: u16,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// Absent once it was passed on.
    places: Option<Arc<Places>>,
    queue: usize,
}

impl Places {
    /// So many places, for queues of these shares.
    pub(crate) fn new(count: usize, shares: impl IntoIterator<Item = Share>) -> Arc<Self> {
        Arc::new(Self {
            turns: Mutex::new(Turns::new(count, shares)),
        })
    }

    /// Waits for the turn of a queue, by its index.
    pub(crate) async fn take(self: &Arc<Self>, queue: usize) -> Place {
        let turn = {
            let mut turns = self.lock();
            if turns.try_take(queue) {
                return self.place(queue);
            }
            let (sender, turn) = oneshot::channel();
            turns.wait(queue, sender);
            turn
        };
        // The sender is only dropped with the places, which outlive their waiters.
        turn.await.unwrap_or(Place {
            places: None,
            queue,
        })
    }

    fn place(self: &Arc<Self>, queue: usize) -> Place {
        Place {
            places: Some(Arc::clone(self)),
            queue,
        }
    }

    fn give_back(self: &Arc<Self>, queue: usize) {
        self.lock().leave(queue);
        // One who waits no longer does not take it; the next one does.
        loop {
            let next = self.lock().next();
            let Some((queue, waiting)) = next else { return };
            match waiting.send(self.place(queue)) {
                Ok(()) => return,
                Err(mut place) => {
                    place.places = None;
                    self.lock().leave(queue);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Turns<oneshot::Sender<Place>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            places.give_back(self.queue);
        }
    }
}

/// Whose turn it is. Pure.
#[derive(Debug)]
struct Turns<T> {
    free: usize,
    queues: Vec<Line<T>>,
    /// How far the queues of each priority are: where the farthest was whose turn it was.
    now: BTreeMap<i32, u64>,
}

#[derive(Debug)]
struct Line<T> {
    share: Share,
    taken: usize,
    /// How far a turn moves the queue on: the less, the more turns.
    stride: u64,
    at: u64,
    waiting: VecDeque<T>,
}

impl<T> Line<T> {
    fn may_take(&self) -> bool {
        self.taken < self.share.most
    }
}

impl<T> Turns<T> {
    fn new(free: usize, shares: impl IntoIterator<Item = Share>) -> Self {
        let line = |share: Share| Line {
            stride: 1_000_000 / u64::from(share.weight.max(1)),
            share,
            taken: 0,
            at: 0,
            waiting: VecDeque::new(),
        };
        Self {
            free,
            queues: shares.into_iter().map(line).collect(),
            now: BTreeMap::new(),
        }
    }

    /// Takes a free place.
    fn try_take(&mut self, queue: usize) -> bool {
        let may = self.queues.get(queue).is_some_and(Line::may_take);
        if self.free == 0 || !may {
            return false;
        }
        self.catch_up(queue);
        self.moved(queue);
        true
    }

    fn wait(&mut self, queue: usize, who: T) {
        self.catch_up(queue);
        if let Some(line) = self.queues.get_mut(queue) {
            line.waiting.push_back(who);
        }
    }

    /// A queue that was empty for long must not make up for the turns that it did not need.
    fn catch_up(&mut self, queue: usize) {
        if let Some(line) = self.queues.get_mut(queue)
            && line.waiting.is_empty()
        {
            let now = self.now.get(&line.share.priority);
            line.at = line.at.max(now.copied().unwrap_or(0));
        }
    }

    fn leave(&mut self, queue: usize) {
        self.free += 1;
        if let Some(line) = self.queues.get_mut(queue) {
            line.taken -= 1;
        }
    }

    /// Who takes a free place, if anybody waits who may.
    fn next(&mut self) -> Option<(usize, T)> {
        if self.free == 0 {
            return None;
        }
        let waiting = self.queues.iter().enumerate();
        let (queue, _) = waiting
            .filter(|(_, line)| !line.waiting.is_empty() && line.may_take())
            .min_by_key(|(index, line)| (-i64::from(line.share.priority), line.at, *index))?;
        self.moved(queue);
        let who = self.queues.get_mut(queue)?.waiting.pop_front()?;
        Some((queue, who))
    }

    fn moved(&mut self, queue: usize) {
        self.free -= 1;
        if let Some(line) = self.queues.get_mut(queue) {
            line.taken += 1;
            let now = self.now.entry(line.share.priority).or_default();
            *now = (*now).max(line.at);
            line.at += line.stride;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(most: usize, priority: i32, weight: u16) -> Share {
        Share {
            most,
            priority,
            weight,
        }
    }

    /// Lets one job at a time run and answers whose.
    fn order(turns: &mut Turns<char>, count: usize) -> String {
        let one = |_| {
            let (queue, who) = turns.next()?;
            turns.leave(queue);
            Some(who)
        };
        (0..count).filter_map(one).collect()
    }

    #[test]
    fn the_higher_priority_goes_first() {
        let mut turns = Turns::new(1, [share(9, 0, 1), share(9, 5, 1)]);
        assert!(turns.try_take(0) && !turns.try_take(1));
        for _ in 0..3 {
            turns.wait(0, 'l');
            turns.wait(1, 'h');
        }
        turns.leave(0);
        assert_eq!(order(&mut turns, 7), "hhhlll");
        assert_eq!(turns.free, 1);
    }

    #[test]
    fn weights_share_the_places() {
        let mut turns = Turns::new(1, [share(9, 0, 3), share(9, 0, 1)]);
        for _ in 0..8 {
            turns.wait(0, 'a');
            turns.wait(1, 'b');
        }
        let first = order(&mut turns, 8);
        let count = |who| first.chars().filter(|c| *c == who).count();
        assert_eq!((count('a'), count('b')), (6, 2), "{first}");
    }

    #[test]
    fn a_queue_that_was_idle_does_not_take_all() {
        let mut turns = Turns::new(1, [share(9, 0, 1), share(9, 0, 1)]);
        for _ in 0..100 {
            turns.wait(0, 'a');
        }
        assert_eq!(order(&mut turns, 50).len(), 50);
        for _ in 0..10 {
            turns.wait(1, 'b');
        }
        let next = order(&mut turns, 10);
        let count = next.chars().filter(|c| *c == 'b').count();
        assert!((4..=6).contains(&count), "{next}");
    }

    #[test]
    fn a_queue_that_ran_alone_for_long_does_not_pay_for_it() {
        let mut turns = Turns::new(1, [share(9, 0, 1), share(9, 0, 1)]);
        for _ in 0..1000 {
            assert!(turns.try_take(0));
            turns.leave(0);
        }
        for _ in 0..50 {
            turns.wait(1, 'b');
            turns.wait(0, 'a');
        }
        let next = order(&mut turns, 20);
        let count = next.chars().filter(|c| *c == 'a').count();
        assert!((9..=11).contains(&count), "{next}");
    }

    #[test]
    fn what_a_higher_queue_took_says_nothing_of_the_lower_ones() {
        let shares = [share(9, 0, 1), share(9, 0, 1), share(9, 5, 1)];
        let mut turns = Turns::new(1, shares);
        for _ in 0..1000 {
            assert!(turns.try_take(2));
            turns.leave(2);
        }
        turns.wait(1, 'b');
        for _ in 0..20 {
            turns.wait(0, 'a');
        }
        let next = order(&mut turns, 3);
        assert!(next.contains('b'), "{next}");
        for _ in 0..20 {
            turns.wait(1, 'b');
        }
        let next = order(&mut turns, 10);
        let count = next.chars().filter(|c| *c == 'a').count();
        assert!((4..=6).contains(&count), "{next}");
    }

    #[test]
    fn no_queue_takes_more_than_its_own() {
        let mut turns = Turns::new(3, [share(1, 9, 1), share(9, 0, 1)]);
        assert!(turns.try_take(0) && !turns.try_take(0));
        turns.wait(0, 'a');
        turns.wait(1, 'b');
        assert_eq!(turns.next(), Some((1, 'b')));
        assert_eq!(turns.next(), None);
        turns.leave(0);
        assert_eq!(turns.next(), Some((0, 'a')));
    }

    #[tokio::test]
    async fn a_place_goes_on_to_who_waits_and_back() {
        let places = Places::new(1, [share(1, 0, 1)]);
        let first = places.take(0).await;
        let given_up = {
            let places = Arc::clone(&places);
            tokio::spawn(async move { places.take(0).await })
        };
        while places.lock().queues[0].waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        let second = {
            let places = Arc::clone(&places);
            tokio::spawn(async move { places.take(0).await })
        };
        while places.lock().queues[0].waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(places.lock().free, 0);
        drop(second);
        assert_eq!(places.lock().free, 1);
    }
}
