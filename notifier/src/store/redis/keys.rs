//! Which keys there are, and the scripts that work on them.

use std::fmt::Write as _;
use std::sync::LazyLock;

use redis::{Arg, Cmd, Script};

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

/// The key of a command: of several, the first, since they are in one slot.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut arguments = arguments(command);
    let name = arguments.next()?;
    // The hash and the number of keys stand before them.
    let before = if name == CALL { 2 } else { 0 };
    arguments.nth(before)
}

/// Whether a command is about [`streams`] or [`instances`]: what lists others has no hash tag.
pub(super) fn is_list(command: &Cmd) -> bool {
    key_of(command).is_some_and(|key| !key.contains(&b'{'))
}

/// A call of a script with its text, for a server that does not know it; it does then.
pub(super) fn in_full(call: &Cmd) -> Option<Cmd> {
    let mut arguments = arguments(call);
    arguments.next().filter(|name| *name == CALL)?;
    let hash = arguments.next()?;
    let known = routines().into_iter();
    let mut known = known.filter(|routine| routine.script.get_hash().as_bytes() == hash);
    let mut in_full = redis::cmd("EVAL");
    in_full.arg(known.next()?.code);
    for argument in arguments {
        in_full.arg(argument);
    }
    Some(in_full)
}

fn arguments(command: &Cmd) -> impl Iterator<Item = &[u8]> {
    command.args_iter().filter_map(|argument| match argument {
        Arg::Simple(argument) => Some(argument),
        _ => None,
    })
}

/// What calls a script by its hash.
const CALL: &[u8] = b"EVALSHA";

/// A script, and the keys that it is given.
pub(super) struct Routine {
    code: &'static str,
    script: Script,
    keys: &'static [&'static str],
}

impl Routine {
    fn new(code: &'static str, keys: &'static [&'static str]) -> Self {
        Self {
            code,
            script: Script::new(code),
            keys,
        }
    }

    /// A call; its arguments are still to be added.
    pub(super) fn call(&self, slot: &Slot) -> Cmd {
        self.call_for(std::slice::from_ref(slot))
    }

    /// A call about several, which a cluster would refuse.
    pub(super) fn call_for(&self, slots: &[Slot]) -> Cmd {
        let mut call = Cmd::new();
        call.arg(CALL)
            .arg(self.script.get_hash())
            .arg(self.keys.len() * slots.len());
        for slot in slots {
            for name in self.keys {
                call.arg(slot.key(name));
            }
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
    READ: "read.lua" ["events"]
    MOVE_CURSOR: "move_cursor.lua" ["meta"]
    INBOX: "inbox.lua" ["meta" "events" "read" "archived"]
    MARK: "mark.lua" ["meta" "ids" "read" "archived"]
    PUT_TASKS: "put_tasks.lua" ["tasks" "ages" "open"]
    COUNT_JOBS: "count_jobs.lua" ["groups" "jobs" "group_ages"]
    GROUP: "group.lua" ["groups" "jobs"]
    PUT_DOCUMENT: "put_document.lua" ["document"]
    LOG_ATTEMPT: "log_attempt.lua" ["attempts"]
    TASKS: "tasks.lua" ["tasks" "ages" "open" "ranks"]
    SWEEP: "sweep.lua" ["meta" "events" "ids" "read" "archived" "tasks" "ranks" "ages" "groups" "jobs" "group_ages" "open"]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use redis::cluster_routing::Slot as HashSlot;

    use super::*;

    #[test]
    fn a_slot_is_one_whatever_is_in_its_name() {
        for (prefix, name) in [("p:", "user:ann"), ("p:", "room:{a}b}{%"), ("{p}:", "all")] {
            let slot = Slot::new(prefix, &encoded(name));
            let keys = routines().into_iter().flat_map(|routine| routine.keys);
            let slots = keys.map(|key| HashSlot::for_key(slot.key(key)));
            let slots: HashSet<_> = slots.collect();
            assert_eq!(slots.len(), 1, "{prefix} {name}");
        }
    }

    #[test]
    fn a_command_is_known_by_its_first_key() {
        let slot = Slot::new("p:", "user:ann");
        let mut call = HEAD.call(&slot);
        call.arg(7).arg(&b"\xff"[..]);
        let mut get = redis::cmd("HGET");
        get.arg(slot.key("tasks")).arg("t");
        let mut note = redis::cmd("ZADD");
        note.arg(streams("p:")).arg("NX").arg(1).arg("user:ann");
        assert_eq!(key_of(&call), Some(&b"p:{user:ann}:meta"[..]));
        assert_eq!(key_of(&get), Some(&b"p:{user:ann}:tasks"[..]));
        assert_eq!(key_of(&redis::cmd("PING")), None);
        assert!(is_list(&note) && !is_list(&call) && !is_list(&get));

        let in_full = in_full(&call).unwrap();
        let mut wanted = redis::cmd("EVAL");
        wanted.arg(include_str!("head.lua")).arg(5);
        for key in HEAD.keys {
            wanted.arg(slot.key(key));
        }
        wanted.arg(7).arg(&b"\xff"[..]);
        assert_eq!(in_full.get_packed_command(), wanted.get_packed_command());
        assert!(super::in_full(&get).is_none());
    }

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
