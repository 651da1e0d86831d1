//! Patterns of routing keys, as a topic exchange reads them. Pure.

/// Whether a pattern covers a routing key: `*` stands for one word, `#` for any number of them.
pub(crate) fn covers(pattern: &str, key: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let key: Vec<&str> = key.split('.').collect();
    let (mut p, mut k) = (0, 0);
    // When the rest does not fit, the last `#` takes one word more.
    let mut last_hash = None;
    while let Some(word) = key.get(k) {
        match pattern.get(p) {
            Some(&"#") => {
                last_hash = Some((p, k));
                p += 1;
            }
            Some(wanted) if *wanted == "*" || wanted == word => {
                p += 1;
                k += 1;
            }
            _ => {
                let Some((hash, taken)) = last_hash else {
                    return false;
                };
                last_hash = Some((hash, taken + 1));
                (p, k) = (hash + 1, taken + 1);
            }
        }
    }
    pattern.iter().skip(p).all(|word| *word == "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_reads_as_the_broker_reads_it() {
        let key = "stored.user.ann.task.status_changed.failed";
        for (pattern, wants) in [
            ("#", true),
            ("stored.#", true),
            ("stored.user.*.task.status_changed.failed", true),
            ("stored.*.*.task.status_changed.failed", true),
            ("*.*.*.*.*.*", true),
            ("#.failed", true),
            ("stored.#.task.#.failed", true),
            ("stored.user.ann.task.status_changed.failed.#", true),
            ("#.#.failed", true),
            ("stored.user.*.task.status_changed", false),
            ("*.*.*.*.*", false),
            ("*.*.*.*.*.*.*", false),
            ("live.#", false),
            ("stored.user.a*.#", false),
            ("#.task", false),
            ("", false),
        ] {
            assert_eq!(covers(pattern, key), wants, "{pattern}");
        }
        // The slow case of matchers that try every way.
        let hostile = "#.a.".repeat(60) + "b";
        assert!(!covers(&hostile, &"a.".repeat(120)));
    }
}
