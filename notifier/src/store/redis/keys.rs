//! Which keys there are, and the scripts that work on them.

use std::fmt::Write as _;
use std::sync::LazyLock;

use redis::{Cmd, Script};

use crate::store::StreamName;

/// The keys of one stream, and of its user's tasks. They are in one hash slot: of a key with braces
/// a cluster looks only at what is inside (<https://redis.io/docs/latest/reference/cluster-spec/#hash-tags>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    stem: String,
}

impl Slot {
    /// Of a stream under its [`encoded`] name.
    pub(super) fn new(prefix: &str, encoded: &str) -> Self {
        Self {
            stem: format!("{prefix}{{{encoded}}}"),
        }
    }

    pub(super) fn of(prefix: &str, stream: &StreamName) -> Self {
        Self::new(prefix, &encoded(stream.as_str()))
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.stem)
    }
}

/// The streams that have events or tasks, by when their oldest was stored.
pub(super) fn streams(prefix: &str) -> String {
    format!("{prefix}streams")
}

/// The instances that have connections, by their last sign of life.
pub(super) fn instances(prefix: &str) -> String {
    format!("{prefix}instances")
}

/// A stream's name, percent-encoded, so that no brace is in it and a person can read it.
pub(super) fn encoded(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b':' | b'.' | b'_' | b'-' | b'@' => {
                encoded.push(char::from(byte));
            }
            // Writing to a `String` does not fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// A script, and the keys that it is given.
pub(super) struct Routine {
    script: Script,
    keys: &'static [&'static str],
}

impl Routine {
    fn new(code: &str, keys: &'static [&'static str]) -> Self {
        Self {
            script: Script::new(code),
            keys,
        }
    }

    /// A call; its arguments are still to be added.
    pub(super) fn call(&self, slot: &Slot) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.script.get_hash()).arg(self.keys.len());
        for name in self.keys {
            call.arg(slot.key(name));
        }
        call
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }
}

macro_rules! routines {
    ($($name:ident: $file:literal [$($key:literal)*])*) => {
        $(
            pub(super) static $name: LazyLock<Routine> =
                LazyLock::new(|| Routine::new(include_str!($file), &[$($key),*]));
        )*

        /// What the server must know.
        pub(super) fn routines() -> Vec<&'static Routine> {
            vec![$(&*$name),*]
        }
    };
}

routines! {
    APPEND: "append.lua" ["meta" "events" "ids" "read" "archived"]
    HEAD: "head.lua" ["meta" "events" "ids" "read" "archived"]
    MOVE_CURSOR: "move_cursor.lua" ["meta"]
    INBOX: "inbox.lua" ["meta" "events" "read" "archived"]
    MARK: "mark.lua" ["meta" "ids" "read" "archived"]
    PUT_TASKS: "put_tasks.lua" ["tasks" "ranks" "ages"]
    COUNT_JOBS: "count_jobs.lua" ["groups" "jobs" "group_ages"]
    GROUP: "group.lua" ["groups" "jobs"]
    PUT_DOCUMENT: "put_document.lua" ["document"]
    LOG_ATTEMPT: "log_attempt.lua" ["attempts"]
    TASKS: "tasks.lua" ["tasks" "ranks"]
    SWEEP: "sweep.lua" ["meta" "events" "ids" "read" "archived" "tasks" "ranks" "ages" "groups" "jobs" "group_ages"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_inside_the_only_braces_of_its_keys() {
        for (name, wants) in [
            ("user:ann", "p:{user:ann}:meta"),
            ("user:{a}", "p:{user:%7Ba%7D}:meta"),
            ("user:%7B", "p:{user:%257B}:meta"),
            ("all", "p:{all}:meta"),
            ("room:ü \n", "p:{room:%C3%BC%20%0A}:meta"),
        ] {
            assert_eq!(Slot::new("p:", &encoded(name)).key("meta"), wants);
        }
    }
}
