//! Who is in which room or chat on the other instances. Pure: messages and time in, notices out.
//!
//! Each instance tells the others what changes, and from time to time all that it has (a *round*).
//! So nobody needs a common store, a lost message heals with the next round, and what a dead
//! instance had ends when it has not been heard of for a while.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::protocol::{Place, PlaceKind};

/// An instance that is silent for so long counts as dead: three times what lies between two signs
/// of life, and a little.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(35);

/// What instances tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "presence", rename_all = "snake_case")]
pub(super) enum Message {
    /// I am new: tell me what you have.
    Hello,
    /// I am still here.
    Alive,
    /// I stop.
    Bye,
    /// Users entered or left.
    Changes {
        /// In their order.
        changes: Vec<Change>,
    },
    /// A part of all that I have.
    Present {
        /// Which round it belongs to.
        round: u64,
        /// Users by room or chat, as `room:lobby`.
        places: HashMap<String, Vec<String>>,
    },
    /// That was all: what was in no part of this round is gone.
    RoundOver {
        /// Which round.
        round: u64,
    },
}

/// A user entered a room or chat with the first connection on an instance, or left it with the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// As `room:lobby`.
    pub(super) place: String,
    /// Who.
    pub(super) user: String,
    /// Entered, not left.
    pub(super) entered: bool,
}

/// Seen over the other instances, a user has come or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) place: Place,
    pub(super) user: String,
    pub(super) entered: bool,
}

/// What follows from a message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) notices: Vec<Notice>,
    /// The sender does not know what we have.
    pub(super) tell_all: bool,
}

/// The other instances and what they have.
#[derive(Debug, Default)]
pub(super) struct Roster {
    peers: HashMap<Uuid, Peer>,
}

#[derive(Debug)]
struct Peer {
    heard_at: Instant,
    /// The number of the last round that was over; 0 until the first is.
    round: u64,
    places: HashMap<Place, HashMap<String, u64>>,
}

impl Roster {
    /// Takes in what another instance says.
    pub(super) fn hear(&mut self, from: Uuid, message: Message, now: Instant) -> Heard {
        if message == Message::Bye {
            return Heard {
                notices: self.forget(from),
                tell_all: false,
            };
        }
        let mut tell_all = message == Message::Hello;
        let peer = self.peers.entry(from).or_insert_with(|| {
            tell_all = true;
            Peer {
                heard_at: now,
                round: 0,
                places: HashMap::new(),
            }
        });
        peer.heard_at = now;
        let changed = match message {
            Message::Hello | Message::Alive | Message::Bye => Vec::new(),
            Message::Changes { changes } => peer.change(changes),
            Message::Present { round, places } => {
                // Who was there before we heard of this instance did not come just now. Later a round
                // tells of somebody new only when the change itself was lost.
                let is_introduced = peer.round > 0;
                let mut found = peer.present(round, places);
                found.retain(|_| is_introduced);
                found
            }
            Message::RoundOver { round } => peer.round_over(round),
        };
        Heard {
            notices: self.only_here(from, changed),
            tell_all,
        }
    }

    /// Forgets the instances that were silent for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Notice> {
        let is_dead = |peer: &Peer| now.duration_since(peer.heard_at) >= DEAD_AFTER;
        let dead: Vec<Uuid> = self
            .peers
            .iter()
            .filter(|(_, peer)| is_dead(peer))
            .map(|(id, _)| *id)
            .collect();
        dead.into_iter().flat_map(|id| self.forget(id)).collect()
    }

    /// While we cannot hear, nobody is silent.
    pub(super) fn excuse_all(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.heard_at = now;
        }
    }

    /// Whether there are other instances at all.
    pub(super) fn has_peers(&self) -> bool {
        !self.peers.is_empty()
    }

    /// Whether a user is in a room on another instance.
    pub(super) fn has(&self, place: &Place, user: &str) -> bool {
        self.peers.values().any(|peer| peer.has(place, user))
    }

    /// The users of other instances in a room.
    pub(super) fn users(&self, place: &Place) -> HashSet<String> {
        let of_peers = self.peers.values();
        let users = of_peers.filter_map(|peer| Some(peer.places.get(place)?.keys()));
        users.flatten().cloned().collect()
    }

    fn forget(&mut self, id: Uuid) -> Vec<Notice> {
        let Some(peer) = self.peers.remove(&id) else {
            return Vec::new();
        };
        let gone = peer.places.into_iter().flat_map(|(place, users)| {
            let gone = move |(user, _)| Notice {
                place: place.clone(),
                user,
                entered: false,
            };
            users.into_iter().map(gone)
        });
        let gone: Vec<_> = gone.collect();
        self.only_here(id, gone)
    }

    /// A user who is on yet another instance has neither come nor gone.
    fn only_here(&self, from: Uuid, mut notices: Vec<Notice>) -> Vec<Notice> {
        notices.retain(|notice| {
            let mut others = self.peers.iter().filter(|(id, _)| **id != from);
            !others.any(|(_, peer)| peer.has(&notice.place, &notice.user))
        });
        notices
    }
}

impl Peer {
    fn has(&self, place: &Place, user: &str) -> bool {
        let users = self.places.get(place);
        users.is_some_and(|users| users.contains_key(user))
    }

    fn change(&mut self, changes: Vec<Change>) -> Vec<Notice> {
        let mut notices = Vec::new();
        for change in changes {
            let Some(place) = read_place(&change.place) else {
                continue;
            };
            let (user, entered) = (change.user, change.entered);
            let is_new = if entered {
                // Belongs to the round that is next over.
                let users = self.places.entry(place.clone()).or_default();
                users.insert(user.clone(), self.round + 1).is_none()
            } else {
                self.remove(&place, &user)
            };
            if is_new {
                notices.push(Notice {
                    place,
                    user,
                    entered,
                });
            }
        }
        notices
    }

    fn present(&mut self, round: u64, places: HashMap<String, Vec<String>>) -> Vec<Notice> {
        let mut found = Vec::new();
        for (place, users) in places {
            let Some(place) = read_place(&place) else {
                continue;
            };
            let known = self.places.entry(place.clone()).or_default();
            for user in users {
                if known.insert(user.clone(), round).is_none() {
                    found.push(Notice {
                        place: place.clone(),
                        user,
                        entered: true,
                    });
                }
            }
        }
        found
    }

    fn round_over(&mut self, round: u64) -> Vec<Notice> {
        self.round = round;
        let mut gone = Vec::new();
        self.places.retain(|place, users| {
            let leaving = users.extract_if(|_, seen| *seen < round);
            gone.extend(leaving.map(|(user, _)| Notice {
                place: place.clone(),
                user,
                entered: false,
            }));
            !users.is_empty()
        });
        gone
    }

    fn remove(&mut self, place: &Place, user: &str) -> bool {
        let Some(users) = self.places.get_mut(place) else {
            return false;
        };
        let was_there = users.remove(user).is_some();
        if users.is_empty() {
            self.places.remove(place);
        }
        was_there
    }
}

/// The inverse of [`Place`]'s `Display`.
fn read_place(text: &str) -> Option<Place> {
    let (word, id) = text.split_once(':')?;
    [PlaceKind::Room, PlaceKind::Chat]
        .into_iter()
        .find(|kind| kind.word() == word)
        .map(|kind| Place {
            kind,
            id: id.into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn lobby() -> Place {
        Place::room("lobby")
    }

    fn change(user: &str, entered: bool) -> Message {
        let changes = vec![Change {
            place: "room:lobby".into(),
            user: user.into(),
            entered,
        }];
        Message::Changes { changes }
    }

    fn present(round: u64, users: &[&str]) -> Message {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        let places = HashMap::from([("room:lobby".to_owned(), users)]);
        Message::Present { round, places }
    }

    fn notice(user: &str, entered: bool) -> Notice {
        Notice {
            place: lobby(),
            user: user.into(),
            entered,
        }
    }

    #[test]
    fn a_user_comes_with_the_first_and_goes_with_the_last_instance() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let mut hear = |from, message| roster.hear(from, message, now).notices;
        assert_eq!(hear(A, change("ann", true)), [notice("ann", true)]);
        assert_eq!(hear(A, change("ann", true)), [], "told twice");
        assert_eq!(hear(B, change("ann", true)), [], "on a second instance");
        assert_eq!(hear(A, change("ann", false)), [], "still on the other");
        assert_eq!(hear(B, change("ann", false)), [notice("ann", false)]);
        assert_eq!(hear(B, change("ann", false)), [], "told twice");
        assert!(!roster.has(&lobby(), "ann"));
    }

    #[test]
    fn a_newcomer_is_told_all_and_nobody_seems_to_have_come() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        assert!(
            roster.hear(A, Message::Alive, now).tell_all,
            "not known yet"
        );
        assert!(!roster.hear(A, Message::Alive, now).tell_all);
        assert!(
            roster.hear(A, Message::Hello, now).tell_all,
            "has restarted"
        );
        let heard = roster.hear(A, present(1, &["ann", "bob"]), now);
        assert_eq!(heard, Heard::default());
        assert_eq!(roster.users(&lobby()).len(), 2);
    }

    #[test]
    fn what_was_lost_heals_with_the_next_round() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        let mut hear = |message| roster.hear(A, message, now).notices;
        hear(change("ann", true));
        hear(change("bob", true));
        hear(present(1, &["ann", "bob"]));
        assert_eq!(hear(Message::RoundOver { round: 1 }), []);
        // Ann's leaving was lost, and so was Ida's coming. Eve came while the round was told, after her
        // room's part of it.
        assert_eq!(hear(present(2, &["bob", "ida"])), [notice("ida", true)]);
        hear(change("eve", true));
        let over = hear(Message::RoundOver { round: 2 });
        assert_eq!(over, [notice("ann", false)]);
        assert!(roster.has(&lobby(), "eve") && roster.has(&lobby(), "bob"));
    }

    #[test]
    fn what_a_dead_or_stopped_instance_had_is_gone() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        roster.hear(A, change("ann", true), now);
        roster.hear(B, change("bob", true), now + DEAD_AFTER / 2);
        assert_eq!(roster.expire(now + DEAD_AFTER / 2), []);
        assert_eq!(roster.expire(now + DEAD_AFTER), [notice("ann", false)]);
        roster.excuse_all(now + 2 * DEAD_AFTER);
        assert_eq!(roster.expire(now + 2 * DEAD_AFTER), []);
        let bye = roster.hear(B, Message::Bye, now + 2 * DEAD_AFTER);
        assert_eq!(bye.notices, [notice("bob", false)]);
        assert!(!roster.has_peers());
    }

    #[test]
    fn odd_ids_survive_the_way() {
        for place in [Place::room("a:b.c#*"), Place::chat("ü %")] {
            assert_eq!(read_place(&place.to_string()), Some(place));
        }
        assert_eq!(read_place("user:x"), None);
        assert_eq!(read_place("lobby"), None);
    }
}
