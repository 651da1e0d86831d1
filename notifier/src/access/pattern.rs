//! Patterns of names: `room:proj-*`, `chat:42`, `*`. In a token's claim `rooms` they are of rooms and
//! chats, in routes and silences of labels. Pure.

use crate::protocol::Place;

/// Whether one of the patterns covers a room or chat. `*` stands for any characters, none included;
/// everything else for itself.
pub(super) fn covers(patterns: &[String], place: &Place) -> bool {
    let name = place.to_string();
    patterns.iter().any(|pattern| matches(pattern, &name))
}

/// Whether a pattern covers a name.
///
/// Without recursion: when the rest does not fit, the last `*` takes one character more.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    let mut last_star = None;
    while let Some(byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, n));
                p += 1;
            }
            Some(wanted) if wanted == byte => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, taken)) = last_star else {
                    return false;
                };
                last_star = Some((star, taken + 1));
                (p, n) = (star + 1, taken + 1);
            }
        }
    }
    let rest = pattern.get(p..).unwrap_or_default();
    rest.iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_the_rest_for_itself() {
        let room = Place::room("proj-7.x");
        for (pattern, wants) in [
            ("*", true),
            ("room:*", true),
            ("room:proj-*", true),
            ("room:proj-7.x", true),
            ("room:proj-7.x*", true),
            ("room:*7*x", true),
            ("room:**", true),
            ("chat:*", false),
            ("room:proj", false),
            ("room:proj-7", false),
            ("room:PROJ-*", false),
            ("room:*y", false),
            ("room:proj-7?x", false),
            ("proj-*", false),
            ("", false),
        ] {
            assert_eq!(covers(&[pattern.into()], &room), wants, "{pattern}");
        }
        assert!(!covers(&[], &room));
        assert!(covers(&["chat:1".into(), "room:p*".into()], &room));
        // The slow case of matchers that try every way.
        let hostile = "room:".to_owned() + &"*a".repeat(200);
        let long = Place::room("a".repeat(127) + "b");
        assert!(!covers(&[hostile], &long));
    }
}
