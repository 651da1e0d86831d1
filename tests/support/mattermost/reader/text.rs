//! What happens in text that is not code.

use super::Reading;

/// Finds what would happen in text that is not code.
pub(super) fn scan(plain: &str, reading: &mut Reading) {
    reading.mentions.extend(mentions(plain));
    let text: Vec<char> = plain.chars().collect();
    for at in 0..text.len() {
        let (before, after) = text.split_at(at);
        let Some((c, after)) = after.split_first() else {
            continue;
        };
        let here = Place { before, after };
        match c {
            ']' if after.starts_with(&['(']) && after.contains(&')') => {
                if let Some(open) = before.iter().rposition(|c| *c == '[') {
                    let target = after.iter().skip(1).take_while(|c| **c != ')').collect();
                    match open.checked_sub(1).and_then(|at| before.get(at)) {
                        Some('!') => reading.images.push(target),
                        _ => reading.links.push(target),
                    }
                }
            }
            ':' if here.is_scheme() => reading.links.push(here.word(':')),
            '.' if here.is_www() => reading.links.push(here.word('.')),
            '/' if here.is_domain() => reading.links.push(here.word('/')),
            '@' if here.is_email() => reading.links.push(here.word('@')),
            '<' if here
                .next()
                .is_some_and(|c| c.is_alphabetic() || matches!(c, '/' | '!' | '?')) =>
            {
                reading.markup.push("tag".to_owned());
            }
            ';' if here.next() == Some(')') => reading.markup.push("emoji".to_owned()),
            ':' if here.is_emoji() => reading.markup.push("emoji".to_owned()),
            '#' if !here.follows_word() && here.next().is_some_and(char::is_alphabetic) => {
                reading.markup.push("hashtag".to_owned());
            }
            '~' if !here.follows_word() && here.next().is_some_and(|c| is_name(c) || c == '~') => {
                reading.markup.push("channel".to_owned());
            }
            '*' if here.next().is_some_and(|c| !c.is_whitespace()) && after.contains(&'*') => {
                reading.markup.push("emphasis".to_owned());
            }
            '_' if here.opens_emphasis() => reading.markup.push("emphasis".to_owned()),
            '$' if after.iter().skip(1).any(|c| *c == '$') => {
                reading.markup.push("formula".to_owned());
            }
            _ => {}
        }
    }
}

/// Names that the server would notify or the web client would highlight.
fn mentions(plain: &str) -> Vec<String> {
    let in_word = |c: char| matches!(c, ':' | '.' | '-' | '_' | '@') || c.is_alphanumeric();
    let mut names = Vec::new();
    for word in plain.split(|c| !in_word(c)) {
        let word = word.trim_start_matches([':', '.', '-', '_']);
        let pieces = std::iter::once(word).chain(word.split(['.', '-', ':']));
        names.extend(
            pieces
                .filter_map(|piece| piece.strip_prefix('@'))
                .map(str::to_owned),
        );
    }
    // The client's pattern: `(?:\B|\b_+)@([a-z0-9.\-_]+)`.
    for (at, _) in plain.match_indices('@') {
        let (before, after) = plain.split_at(at);
        if !before.ends_with(|c: char| c.is_ascii_alphanumeric()) {
            names.push(after.chars().skip(1).take_while(|c| is_name(*c)).collect());
        }
    }
    for name in &mut names {
        name.truncate(name.trim_end_matches(['.', '-', ':', '_']).len());
    }
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

/// What a user, channel or group may be called.
fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// A character's neighbours on both sides.
struct Place<'a> {
    before: &'a [char],
    after: &'a [char],
}

impl Place<'_> {
    fn next(&self) -> Option<char> {
        self.after.first().copied()
    }

    fn follows_word(&self) -> bool {
        self.before
            .last()
            .is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_')
    }

    /// The characters right before this one that satisfy a condition, nearest first.
    fn run_before(&self, wanted: impl Fn(char) -> bool) -> Vec<char> {
        self.before
            .iter()
            .rev()
            .copied()
            .take_while(|c| wanted(*c))
            .collect()
    }

    /// The word around this character, to show what would be linked.
    fn word(&self, c: char) -> String {
        let mut word: Vec<char> = self.run_before(|c| !c.is_whitespace());
        word.reverse();
        word.push(c);
        word.extend(self.after.iter().take_while(|c| !c.is_whitespace()));
        word.into_iter().collect()
    }

    /// `https://…`, `mailto:…` and any other scheme a server may have been told to link.
    fn is_scheme(&self) -> bool {
        let scheme = self.run_before(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'));
        scheme.iter().any(char::is_ascii_alphabetic)
            && self
                .next()
                .is_some_and(|c| c == '/' || c == '%' || c.is_alphanumeric())
    }

    /// `www.` and `www2.`.
    fn is_www(&self) -> bool {
        let word = self.run_before(char::is_alphanumeric);
        let letters: Vec<char> = word
            .into_iter()
            .skip_while(char::is_ascii_digit)
            .take(3)
            .collect();
        letters.len() == 3
            && letters.iter().all(|c| c.eq_ignore_ascii_case(&'w'))
            && self.next().is_some_and(|c| !c.is_whitespace())
    }

    /// `evil.com/x`: a slash after a dot and two to four letters, which the web client links without a scheme.
    fn is_domain(&self) -> bool {
        let top_level = self.run_before(char::is_alphabetic).len();
        let mut host = self.before.iter().rev().skip(top_level);
        (2..=4).contains(&top_level)
            && host.next() == Some(&'.')
            && host
                .next()
                .is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '-'))
            && self.next().is_some_and(|c| !c.is_whitespace())
    }

    fn is_email(&self) -> bool {
        let host: String = self
            .after
            .iter()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '.' | '-'))
            .collect();
        self.before.last().is_some_and(|c| !c.is_whitespace())
            && host.split('.').count() > 1
            && !host.starts_with('.')
    }

    fn is_emoji(&self) -> bool {
        let name = |c: &&char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-');
        let len = self.after.iter().take_while(name).count();
        len > 0 && self.after.get(len) == Some(&':')
    }

    /// The web client's rule: no letter before the first `_`, and none after the last.
    fn opens_emphasis(&self) -> bool {
        if self.before.last().is_some_and(char::is_ascii_alphanumeric)
            || self.next().is_none_or(char::is_whitespace)
        {
            return false;
        }
        // One character between two underscores needs no more than that.
        if self.after.get(1) == Some(&'_')
            && self.next() != Some('_')
            && self.after.get(2) != Some(&'_')
        {
            return true;
        }
        self.after.iter().enumerate().skip(1).any(|(at, c)| {
            let ends = self.after.get(at + 1);
            *c == '_'
                && ends.is_none_or(|c| c.is_whitespace() || (c.is_ascii_punctuation() && *c != '_'))
        })
    }
}
