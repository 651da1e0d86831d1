use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll, Waker};

use super::*;
use crate::outbox::Next;

fn connection(n: u128) -> Arc<Outbox> {
    Outbox::new(Uuid::from_u128(n), 1 << 20)
}

/// What has been delivered since the last time, as texts.
fn got(outbox: &Outbox) -> Vec<String> {
    match outbox.poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Next::Write(frames)) => {
            frames.iter().map(|frame| frame.text().to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn what_entering_and_leaving_change_is_said() {
    let (rooms, lobby, ann) = (Rooms::new(), Place::room("lobby"), Arc::from("ann"));
    let (phone, desk) = (connection(1), connection(2));
    assert_eq!(rooms.enter(&lobby, &ann, &phone), Entered::First);
    assert_eq!(rooms.enter(&lobby, &ann, &phone), Entered::Already);
    assert_eq!(rooms.enter(&lobby, &ann, &desk), Entered::Another);
    assert_eq!(
        rooms.enter(&Place::chat("lobby"), &ann, &desk),
        Entered::First
    );
    assert_eq!((rooms.count(&lobby), rooms.len()), (1, 2));
    assert_eq!(rooms.leave(&lobby, phone.id), Left::OneOfSeveral);
    assert_eq!(rooms.leave(&lobby, phone.id), Left::Absent);
    assert_eq!(rooms.leave(&lobby, desk.id), Left::Last);
    assert!(!rooms.is_here(&lobby) && rooms.len() == 1);
}

#[test]
fn an_evicted_user_is_out_with_every_connection() {
    let (rooms, lobby) = (Rooms::new(), Place::room("lobby"));
    let (ann, bob) = (Arc::from("ann"), Arc::from("bob"));
    for n in 1..4 {
        rooms.enter(&lobby, &ann, &connection(n));
    }
    let other = connection(9);
    rooms.enter(&lobby, &bob, &other);
    assert_eq!(rooms.evict(&lobby, "ann").len(), 3);
    assert_eq!(rooms.evict(&lobby, "ann").len(), 0);
    assert_eq!(rooms.send(&lobby, &Frame::new("x")), 1);
    assert_eq!(got(&other), ["x"]);
    assert_eq!(rooms.evict(&lobby, "bob").len(), 1);
    assert!(rooms.is_empty());
}

/// The simplest thing that could be right.
#[derive(Default)]
struct Model {
    /// Who is where: connection by user and room.
    members: BTreeSet<(usize, usize, u128)>,
    expected: BTreeMap<u128, Vec<String>>,
}

impl Model {
    fn of_user(&self, room: usize, user: usize) -> usize {
        let members = self.members.iter();
        members.filter(|(r, u, _)| (*r, *u) == (room, user)).count()
    }
}

/// Random entries, departures, evictions and sends against the model.
#[test]
fn deliveries_are_those_of_the_model() {
    let mut random = crate::testing::random();
    let mut draw = |below: usize| usize::try_from(random(below as u64)).unwrap();
    let rooms = Rooms::new();
    let places: Vec<Place> = (0..4).map(|n| Place::room(n.to_string())).collect();
    let users: Vec<Arc<str>> = (0..5).map(|n| Arc::from(format!("u{n}"))).collect();
    let connections: Vec<_> = (0..15).map(connection).collect();
    let mut model = Model::default();
    for step in 0..20_000 {
        let (room, c) = (draw(4), draw(15));
        let (user, id) = (c % 5, c as u128);
        let place = &places[room];
        match draw(8) {
            0..=2 => {
                let before = model.of_user(room, user);
                let wants = match (model.members.insert((room, user, id)), before) {
                    (false, _) => Entered::Already,
                    (true, 0) => Entered::First,
                    (true, _) => Entered::Another,
                };
                let entered = rooms.enter(place, &users[user], &connections[c]);
                assert_eq!(entered, wants, "step {step}");
            }
            3..=4 => {
                let was_there = model.members.remove(&(room, user, id));
                let wants = match (was_there, model.of_user(room, user)) {
                    (false, _) => Left::Absent,
                    (true, 0) => Left::Last,
                    (true, _) => Left::OneOfSeveral,
                };
                assert_eq!(rooms.leave(place, connections[c].id), wants, "step {step}");
            }
            5 => {
                let count = model.of_user(room, user);
                model.members.retain(|(r, u, _)| (*r, *u) != (room, user));
                assert_eq!(rooms.evict(place, &users[user]).len(), count, "step {step}");
            }
            6 => {
                let text = step.to_string();
                let to = model.members.iter().filter(|(r, _, _)| *r == room);
                let to: Vec<u128> = to.map(|(_, _, id)| *id).collect();
                assert_eq!(rooms.send(place, &Frame::new(&text)), to.len());
                for id in to {
                    model.expected.entry(id).or_default().push(text.clone());
                }
            }
            _ => {
                let wants = model.expected.remove(&id).unwrap_or_default();
                assert_eq!(got(&connections[c]), wants, "step {step}");
            }
        }
        let here = model.members.iter().any(|(r, _, _)| *r == room);
        assert_eq!(rooms.is_here(place), here, "step {step}");
        assert_eq!(
            rooms.has_user(place, &users[user]),
            model.of_user(room, user) > 0
        );
    }
}

/// Threads that enter, leave, evict and send at once: whoever is in the room all the time gets
/// everything in order, and in the end nobody is left.
#[test]
fn threads_do_not_disturb_who_stays() {
    const SENDS: usize = 2_000;
    let (rooms, lobby) = (Rooms::new(), Place::room("lobby"));
    let stays = Outbox::new(Uuid::from_u128(1), usize::MAX);
    rooms.enter(&lobby, &Arc::from("stays"), &stays);
    let start = std::sync::Barrier::new(5);
    std::thread::scope(|scope| {
        for thread in 0..4_u128 {
            let (rooms, lobby, start) = (&rooms, &lobby, &start);
            scope.spawn(move || {
                let user: Arc<str> = format!("u{}", thread % 2).into();
                start.wait();
                for n in 0..SENDS as u128 {
                    let mine = connection(10 + (n * 4 + thread));
                    rooms.enter(lobby, &user, &mine);
                    if n % 3 == 0 {
                        drop(rooms.evict(lobby, &user));
                    }
                    rooms.leave(lobby, mine.id);
                    assert!(!rooms.has(lobby, mine.id));
                }
            });
        }
        start.wait();
        for n in 0..SENDS {
            assert!(rooms.send(&lobby, &Frame::new(&n.to_string())) >= 1);
        }
    });
    let wants: Vec<String> = (0..SENDS).map(|n| n.to_string()).collect();
    assert_eq!(got(&stays), wants);
    assert_eq!(rooms.count(&lobby), 1);
    assert_eq!(rooms.leave(&lobby, stays.id), Left::Last);
    assert!(rooms.is_empty());
}
