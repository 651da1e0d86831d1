//! The browsers of a user that pushes go to, and how pushes to them went. Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::subscription::Subscription;

/// How many a user has at most; one more replaces the oldest.
pub const MAX_DEVICES: usize = 20;

/// After so many refusals without a success between them a device is given up: keys that no longer
/// fit would otherwise be refused for ever.
pub const MAX_REFUSALS: u32 = 5;

/// A success is noted again only after so long: it is for people to look at, and each note is a write.
const NOTED_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// A browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where pushes go.
    pub subscription: Subscription,
    /// When it was first given.
    pub created: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When a push was last taken, give or take an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// How many pushes were refused since.
    #[serde(default)]
    pub refusals: u32,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// What a push says about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Taken,
    /// There is no such browser any more.
    Gone,
    /// It was refused for a reason that may be ours.
    Refused,
    /// Nothing: it may be taken later.
    Unknown,
}

/// What became of a device that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was not there.
    New,
    /// It was there otherwise.
    Changed,
    /// It was there.
    Same,
}

/// The browsers of one user, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Devices(Vec<Device>);

impl Devices {
    /// Those that have not ended.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = &Device> {
        self.0.iter().filter(move |device| !has_ended(device, now))
    }

    /// Adds a device, or puts it in the place of what it was.
    pub fn put(&mut self, device: Device, now: Timestamp) -> Put {
        self.0.retain(|device| !has_ended(device, now));
        let id = device.subscription.id();
        let mut known = self.0.iter_mut();
        let Some(known) = known.find(|device| device.subscription.id() == id) else {
            self.0.push(device);
            let too_many = self.0.len().saturating_sub(MAX_DEVICES);
            self.0.drain(..too_many);
            return Put::New;
        };
        let mut after = Device {
            created: known.created,
            label: device.label.or_else(|| known.label.clone()),
            ..device
        };
        if after.subscription == known.subscription {
            // A page gives itself at every load: that proves nothing about pushes.
            after.last_success = known.last_success;
            after.refusals = known.refusals;
        }
        if after == *known {
            return Put::Same;
        }
        *known = after;
        Put::Changed
    }

    /// Takes the device of a subscription out; whether it was there. The id is made of the endpoint, so
    /// that one which a browser has replaced meanwhile stays.
    pub fn remove(&mut self, id: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|device| device.subscription.id() != id);
        self.0.len() < before
    }

    /// Notes how a push went; whether anything has changed.
    pub fn note(&mut self, subscription: &Subscription, verdict: Verdict, now: Timestamp) -> bool {
        // What was subscribed anew meanwhile, with other keys, has not been tried.
        let Some(device) = self
            .0
            .iter_mut()
            .find(|device| device.subscription == *subscription)
        else {
            return false;
        };
        match verdict {
            Verdict::Taken => {
                let noted = device
                    .last_success
                    .is_some_and(|last| now.duration_since(last) < NOTED_EVERY);
                if noted && device.refusals == 0 {
                    return false;
                }
                device.last_success = Some(now);
                device.refusals = 0;
                true
            }
            Verdict::Refused if device.refusals + 1 < MAX_REFUSALS => {
                device.refusals += 1;
                true
            }
            Verdict::Gone | Verdict::Refused => self.remove(&subscription.id()),
            Verdict::Unknown => false,
        }
    }
}

fn has_ended(device: &Device, now: Timestamp) -> bool {
    device.expires.is_some_and(|expires| expires <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minute).unwrap()
    }

    fn subscription(name: &str) -> Subscription {
        Subscription {
            endpoint: format!("https://push.example/{name}"),
            p256dh: "p".into(),
            auth: "a".into(),
            key: "k".into(),
        }
    }

    fn device(name: &str, minute: i64) -> Device {
        Device {
            subscription: subscription(name),
            created: at(minute),
            expires: None,
            last_success: None,
            refusals: 0,
            label: None,
        }
    }

    fn names(devices: &Devices, minute: i64) -> Vec<String> {
        let name = |device: &Device| {
            device
                .subscription
                .endpoint
                .rsplit_once('/')
                .unwrap()
                .1
                .to_owned()
        };
        devices.iter(at(minute)).map(name).collect()
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_and_the_same_again_is_one() {
        let mut devices = Devices::default();
        for n in 0..25 {
            assert_eq!(devices.put(device(&n.to_string(), n), at(n)), Put::New);
        }
        let wants: Vec<_> = (5..25).map(|n| n.to_string()).collect();
        assert_eq!(names(&devices, 25), wants);
        let mut again = device("7", 99);
        again.subscription.auth = "b".into();
        assert_eq!(devices.put(again, at(99)), Put::Changed);
        assert_eq!(names(&devices, 99), wants);
        let kept = devices.iter(at(99)).nth(2).unwrap();
        assert_eq!((kept.created, &*kept.subscription.auth), (at(7), "b"));
        let read: Devices =
            serde_json::from_str(&serde_json::to_string(&devices).unwrap()).unwrap();
        assert_eq!(read, devices);
    }

    #[test]
    fn what_has_ended_is_not_there() {
        let mut devices = Devices::default();
        let mut short = device("a", 0);
        short.expires = Some(at(5));
        devices.put(short, at(0));
        assert_eq!(names(&devices, 4), ["a"]);
        assert_eq!(names(&devices, 5), [""; 0]);
        devices.put(device("b", 6), at(6));
        assert_eq!(names(&devices, 0), ["b"]);
    }

    #[test]
    fn a_device_goes_at_once_when_it_is_gone_and_after_refusals_in_a_row() {
        let mut devices = Devices::default();
        for name in ["a", "b"] {
            devices.put(device(name, 0), at(0));
        }
        let (a, b) = (subscription("a"), subscription("b"));
        assert!(devices.note(&a, Verdict::Gone, at(1)));
        assert_eq!(names(&devices, 1), ["b"]);
        assert!(!devices.note(&a, Verdict::Gone, at(1)));
        for _ in 0..3 {
            for _ in 1..MAX_REFUSALS {
                assert!(devices.note(&b, Verdict::Refused, at(2)));
            }
            assert!(!devices.note(&b, Verdict::Unknown, at(2)));
            assert!(
                devices.note(&b, Verdict::Taken, at(2)),
                "forgets the refusals"
            );
        }
        for n in 1..=MAX_REFUSALS {
            assert_eq!(names(&devices, 3).len(), 1, "{n}");
            devices.note(&b, Verdict::Refused, at(3));
        }
        assert_eq!(names(&devices, 3), [""; 0]);
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let mut devices = Devices::default();
        let mut named = device("a", 0);
        named.label = Some("Laptop".into());
        devices.put(named, at(0));
        devices.note(&subscription("a"), Verdict::Taken, at(1));
        devices.note(&subscription("a"), Verdict::Refused, at(2));
        let before = devices.clone();
        assert_eq!(devices.put(device("a", 3), at(3)), Put::Same);
        assert_eq!(devices, before);
        let mut renamed = device("a", 3);
        renamed.label = Some("Phone".into());
        assert_eq!(devices.put(renamed, at(3)), Put::Changed);
        let kept = devices.iter(at(3)).next().unwrap();
        assert_eq!((kept.label.as_deref(), kept.refusals), (Some("Phone"), 1));
    }

    #[test]
    fn what_was_subscribed_anew_is_not_judged_by_what_was_before() {
        let mut devices = Devices::default();
        devices.put(device("a", 0), at(0));
        let mut old = subscription("a");
        old.key = "another".into();
        assert!(!devices.note(&old, Verdict::Gone, at(1)));
        assert_eq!(names(&devices, 1), ["a"]);
    }

    #[test]
    fn a_success_is_noted_once_an_hour() {
        let mut devices = Devices::default();
        devices.put(device("a", 0), at(0));
        let a = subscription("a");
        let noted: Vec<_> = [0, 1, 59, 60, 61]
            .map(|minute| devices.note(&a, Verdict::Taken, at(minute)))
            .into();
        assert_eq!(noted, [true, false, false, true, false]);
    }
}
