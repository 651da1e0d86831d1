//! Places for the pushes that are sent at once. Users name the endpoints, and one that never answers
//! holds its place until the push is given up: nobody may have so many of them that the others wait.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How many pushes are sent at once.
const ALL: usize = 16;

/// How many of them may go to push services that have not yet answered, or were slow the last time.
/// Any number of names may lead to one machine that never answers.
const UNPROVEN: usize = 8;

/// How many at once to one of those, and how many for one user.
const EACH: usize = 2;

/// How many more of a user may wait for their turn: as many as he has devices. To a push service any
/// number may wait: it is slow until the first of many has its answer.
const IN_LINE: usize = 20;

/// How long they wait. A push service takes a tenth of that for an answer.
const WAIT: Duration = Duration::from_secs(2);

/// Who answers within this time is quick.
const QUICK: Duration = Duration::from_secs(3);

/// How many quick push services are known. There are a handful, but anybody may name more.
const MAX_QUICK: usize = 1000;

/// Why a push is not sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Busy {
    /// Other pushes of the same user.
    #[error("other pushes to this user are slow, and it does not hold others up meanwhile")]
    User,
    /// Other pushes to the same push service.
    #[error("its push service has not answered others in time, and is not asked by many at once")]
    Service,
    /// All of them.
    #[error("all places are taken")]
    All,
}

/// The places, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Places {
    state: Mutex<State>,
    freed: Notify,
}

/// A push that goes, or waits until it may.
#[derive(Debug)]
pub(super) struct Place<'a> {
    places: &'a Places,
    who: Who,
    /// As what it goes.
    going: Option<Kind>,
    /// How long it took, if it was sent.
    took: Option<Duration>,
}

/// Whose push it is, and the origin it goes to.
#[derive(Debug)]
struct Who {
    user: String,
    service: String,
}

impl Places {
    /// A place, after a moment if need be.
    ///
    /// # Errors
    /// [`Busy`] if others of its kind are to go first: it comes again later.
    pub(super) async fn take(&self, user: &str, service: &str) -> Result<Place<'_>, Busy> {
        let who = Who {
            user: user.to_owned(),
            service: service.to_owned(),
        };
        self.state().enter(&who)?;
        let mut place = Place {
            places: self,
            who,
            going: None,
            took: None,
        };
        let end = Instant::now() + WAIT;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // From here on none that is freed is missed.
            freed.as_mut().enable();
            let found = self.state().begin(&place.who);
            match found {
                Ok(kind) => {
                    place.going = Some(kind);
                    return Ok(place);
                }
                // Each of them is free within seconds.
                Err(Busy::All) => freed.await,
                Err(busy) => timeout_at(end, freed).await.map_err(|_| busy)?,
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// It was sent, and taken or given up after so long. Frees the place.
    pub(super) fn done(mut self, took: Duration) {
        self.took = Some(took);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.places.state();
        if let Some(kind) = self.going {
            state.end(&self.who, kind);
        }
        if let Some(took) = self.took {
            state.judge(&self.who.service, took);
        }
        state.leave(&self.who);
        drop(state);
        self.places.freed.notify_waiters();
    }
}

/// What a push was counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Proven,
    Unproven,
}

/// What goes and waits. Pure.
#[derive(Debug, Default)]
struct State {
    all: usize,
    unproven: usize,
    users: HashMap<String, Share>,
    services: HashMap<String, Share>,
    quick: HashSet<String>,
}

/// Of one user, or to one push service.
#[derive(Debug, Default)]
struct Share {
    here: usize,
    going: usize,
}

impl Share {
    fn is_long(&self) -> bool {
        self.going >= EACH && self.here >= EACH + IN_LINE
    }
}

impl State {
    /// One more is there, unless those of the same user that are fill the line.
    fn enter(&mut self, who: &Who) -> Result<(), Busy> {
        if self.users.get(&who.user).is_some_and(Share::is_long) {
            return Err(Busy::User);
        }
        for share in self.shares(who) {
            share.here += 1;
        }
        Ok(())
    }

    fn begin(&mut self, who: &Who) -> Result<Kind, Busy> {
        let goes = |share: Option<&Share>| share.map_or(0, |share| share.going);
        let kind = if self.quick.contains(&who.service) {
            Kind::Proven
        } else {
            Kind::Unproven
        };
        if goes(self.users.get(&who.user)) >= EACH {
            return Err(Busy::User);
        }
        if kind == Kind::Unproven {
            let service = goes(self.services.get(&who.service));
            if service >= EACH || self.unproven >= UNPROVEN {
                return Err(Busy::Service);
            }
        }
        if self.all >= ALL {
            return Err(Busy::All);
        }
        self.all += 1;
        self.unproven += usize::from(kind == Kind::Unproven);
        for share in self.shares(who) {
            share.going += 1;
        }
        Ok(kind)
    }

    fn end(&mut self, who: &Who, kind: Kind) {
        self.all -= 1;
        self.unproven -= usize::from(kind == Kind::Unproven);
        for share in self.shares(who) {
            share.going -= 1;
        }
    }

    /// Whatever was answered, how long it took is what others have to wait.
    fn judge(&mut self, service: &str, took: Duration) {
        if took >= QUICK {
            self.quick.remove(service);
        } else if !self.quick.contains(service) {
            if self.quick.len() >= MAX_QUICK {
                // Those that are still used are quick again in a moment.
                self.quick.clear();
            }
            self.quick.insert(service.to_owned());
        }
    }

    fn leave(&mut self, who: &Who) {
        for share in self.shares(who) {
            share.here -= 1;
        }
        let is_gone = |share: &Share| share.here == 0;
        if self.users.get(&who.user).is_some_and(is_gone) {
            self.users.remove(&who.user);
        }
        if self.services.get(&who.service).is_some_and(is_gone) {
            self.services.remove(&who.service);
        }
    }

    fn shares(&mut self, who: &Who) -> [&mut Share; 2] {
        [
            self.users.entry(who.user.clone()).or_default(),
            self.services.entry(who.service.clone()).or_default(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(10);
    const FAST: Duration = Duration::from_millis(100);

    fn who(user: &str, service: &str) -> Who {
        Who {
            user: user.to_owned(),
            service: service.to_owned(),
        }
    }

    /// One enters and begins.
    fn go(state: &mut State, user: &str, service: &str) -> Result<Kind, Busy> {
        state.enter(&who(user, service))?;
        let begun = state.begin(&who(user, service));
        if begun.is_err() {
            state.leave(&who(user, service));
        }
        begun
    }

    fn done(state: &mut State, user: &str, service: &str, kind: Kind, took: Duration) {
        state.end(&who(user, service), kind);
        state.judge(service, took);
        state.leave(&who(user, service));
    }

    /// A push service that has answered.
    fn proven(state: &mut State, service: &str) {
        let kind = go(state, "first", service).unwrap();
        done(state, "first", service, kind, FAST);
    }

    #[test]
    fn nobody_has_more_than_two_places() {
        let mut state = State::default();
        proven(&mut state, "good");
        for _ in 0..EACH {
            assert_eq!(go(&mut state, "mallory", "good"), Ok(Kind::Proven));
        }
        assert_eq!(go(&mut state, "mallory", "good"), Err(Busy::User));
        assert_eq!(go(&mut state, "mallory", "other"), Err(Busy::User));
        assert_eq!(go(&mut state, "ann", "good"), Ok(Kind::Proven));
    }

    #[test]
    fn who_has_not_answered_leaves_half_of_the_places_to_who_has() {
        let mut state = State::default();
        proven(&mut state, "good");
        let names: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        let begun = names.iter().map(|name| go(&mut state, name, name));
        let begun = begun.flatten().count();
        assert_eq!(begun, UNPROVEN);
        for name in &names[..ALL - UNPROVEN] {
            let other = format!("other-{name}");
            assert_eq!(go(&mut state, &other, "good"), Ok(Kind::Proven));
        }
        assert_eq!(go(&mut state, "ann", "good"), Err(Busy::All));
    }

    #[test]
    fn who_was_slow_must_answer_quickly_again() {
        let mut state = State::default();
        proven(&mut state, "s");
        let kinds = ["a", "b", "c"].map(|user| go(&mut state, user, "s").unwrap());
        assert_eq!(kinds, [Kind::Proven; 3]);
        done(&mut state, "a", "s", kinds[0], SLOW);
        assert_eq!(go(&mut state, "d", "s"), Err(Busy::Service), "two still go");
        done(&mut state, "b", "s", kinds[1], FAST);
        assert_eq!(go(&mut state, "d", "s"), Ok(Kind::Proven));
        assert_eq!(state.unproven, 0);
    }

    #[test]
    fn a_line_is_only_so_long_and_nothing_is_left_behind() {
        let mut state = State::default();
        let mallory = who("mallory", "s");
        let entered = (0..100).map(|_| {
            let entered = state.enter(&mallory);
            let begun = entered.and_then(|()| state.begin(&mallory));
            (entered, begun)
        });
        let entered: Vec<_> = entered.collect();
        let here = entered.iter().map(|(entered, _)| entered);
        assert_eq!(here.flatten().count(), EACH + IN_LINE);
        assert_eq!(entered[99].0, Err(Busy::User));
        for (_, begun) in entered.iter().filter(|(entered, _)| entered.is_ok()) {
            if let Ok(kind) = begun {
                state.end(&mallory, *kind);
            }
            state.leave(&mallory);
        }
        assert_eq!((state.all, state.unproven), (0, 0));
        assert!(state.users.is_empty() && state.services.is_empty());
    }

    #[test]
    fn only_so_many_push_services_are_remembered() {
        let mut state = State::default();
        for n in 0..3 * MAX_QUICK {
            proven(&mut state, &n.to_string());
            assert!(state.quick.len() <= MAX_QUICK);
        }
    }

    #[tokio::test]
    async fn who_waits_goes_when_a_place_is_free() {
        let places = Places::default();
        let first = places.take("ann", "s").await.unwrap();
        let second = places.take("ann", "s").await.unwrap();
        let third = places.take("ann", "s");
        let freed = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        let (third, ()) = tokio::join!(third, freed);
        drop((second, third.unwrap()));
        assert!(places.state().users.is_empty());
    }
}
