//! Texts of those who want to make a mail say something else. Each choice is random, by a seed that is printed.

use std::collections::BTreeSet;

use serde_json::json;
use uuid::Uuid;

use super::{Seen, event, mail};
use crate::alerts::markdown::is_hidden;
use crate::mail::templates::{Templates, Texts};
use crate::mail::{Item, Mail, Tone};
use crate::testing::random;

const ROUNDS: usize = 300;

const FRAGMENTS: [&str; 36] = [
    "\r\nBcc: eve@example.org",
    "\nSubject: other",
    "\r\n\r\n<b>body</b>",
    "\r",
    "\u{85}X: y",
    "\u{2028}X: y",
    "=?utf-8?q?=0D=0ABcc:_x?=",
    "--=_00000000000000000000000000000001",
    "\r\n.\r\n",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\" onmouseover=\"alert(1)",
    "' style='x",
    "<!--",
    "]]>",
    "</td></table>",
    "&lt;b&gt;&amp;",
    "{{ 7 * 7 }}{% for %}",
    "javascript:alert(1)",
    "data:text/html,x",
    "JAVASCRIPT\t:x",
    "https://a.org/\"><b>",
    "https://a.org/<>'`",
    "http://user:pw@a.org/",
    "mailto:eve@example.org",
    "//a.org",
    "\u{202e}gro.live",
    "\u{200b}\u{feff}",
    "\0\u{7}\u{1b}[31m",
    "eve@example.org, ",
    "\"<eve@example.org>",
    "\\\"",
    "é日本語🙂",
    "x",
    " ",
    "",
];

fn texts(random: &mut impl FnMut(u64) -> u64) -> String {
    let mut text = String::new();
    for _ in 0..random(6) {
        let index = usize::try_from(random(FRAGMENTS.len() as u64)).unwrap();
        text.push_str(FRAGMENTS[index]);
        if random(40) == 0 {
            text.push_str(&FRAGMENTS[index].repeat(500));
        }
        if random(4) == 0 {
            text.extend(
                u32::try_from(random(0x11_0000))
                    .ok()
                    .and_then(char::from_u32),
            );
        }
    }
    text
}

/// The tags of a page without what their links lead to, and where those lead.
fn tags(html: &str) -> (BTreeSet<String>, Vec<String>) {
    let (mut tags, mut links) = (BTreeSet::new(), Vec::new());
    let mut rest = html;
    while let Some((_, tail)) = rest.split_once('<') {
        let mut quote = None;
        let end = tail.find(|c| {
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), _) if open == c => quote = None,
                (None, '>') => return true,
                _ => {}
            }
            false
        });
        let (tag, tail) = tail.split_at(end.unwrap_or(tail.len()));
        rest = tail;
        match tag.split_once("href=\"") {
            None => tags.insert(tag.to_owned()),
            Some((before, link)) => {
                let (link, after) = link.split_once('"').unwrap();
                links.push(link.to_owned());
                tags.insert(format!("{before}{after}"))
            }
        };
    }
    (tags, links)
}

/// Whether a list of addresses has one: commas and `@` count outside of quotes and encoded words.
fn is_one_address(list: &str) -> bool {
    let mut in_quotes = false;
    let mut is_escaped = false;
    let outside: String = list
        .chars()
        .filter(|c| match c {
            _ if std::mem::take(&mut is_escaped) => false,
            '\\' if in_quotes => {
                is_escaped = true;
                false
            }
            '"' => {
                in_quotes = !in_quotes;
                false
            }
            _ => !in_quotes,
        })
        .collect();
    !in_quotes && !outside.contains(',') && outside.matches('@').count() == 1
}

fn travels_as_it_should(seen: &Seen, names: &[&str]) {
    assert_eq!(seen.names(), names);
    let raw = &seen.raw;
    assert!(raw.is_ascii() && !raw.replace("\r\n", "").contains(['\r', '\n', '\0']));
    assert!(raw.split("\r\n").all(|line| line.len() <= 998), "{raw}");
    let to = seen.header("To");
    assert!(is_one_address(to) && to.contains("ann@example.org"), "{to}");
    let boundary = format!("--=_{}", Uuid::from_u128(1).simple());
    let ends = raw.split("\r\n").filter(|line| line.starts_with(&boundary));
    assert_eq!(ends.count(), 3, "{raw}");
}

fn says_what_it_should(texts: &Texts, ours: &BTreeSet<String>) {
    let (found, links) = tags(&texts.html);
    let strange: Vec<_> = found.difference(ours).collect();
    assert!(strange.is_empty(), "{strange:?} in {}", texts.html);
    let is_web = |link: &String| link.starts_with("https://") || link.starts_with("http://");
    assert!(links.iter().all(is_web), "{links:?}");
    assert!(
        !texts
            .html
            .to_ascii_lowercase()
            .contains("href=\"javascript")
    );
    for text in [&texts.text, &texts.html, &texts.subject] {
        let strange = text
            .chars()
            .find(|c| is_hidden(*c) && *c != '\n' && *c != '\t');
        assert_eq!(strange, None, "{text:?}");
    }
    assert!(!texts.subject.contains('\n') && texts.subject.chars().count() <= 150);
}

#[test]
fn hostile_texts_add_no_header_no_tag_and_no_other_link() {
    let mut random = random();
    let templates = Templates::load(None).unwrap();
    let event = event("x\r\nX: <b>", &json!({"title": "<b>"}));
    let link = Some("https://a.org/".to_owned());
    let friendly = Item {
        title: "t".into(),
        text: "a\nb".into(),
        link,
        time: event.time,
        tone: Tone::Bad,
        event: &event,
    };
    let tones = [Tone::Bad, Tone::Good, Tone::Neutral];
    let one = |tone| Item {
        tone,
        ..friendly.clone()
    };
    let all: Vec<_> = tones
        .iter()
        .cycle()
        .take(30)
        .map(|tone| one(*tone))
        .collect();
    let names_with: Vec<String> = Seen::of(&mail(&all))
        .names()
        .iter()
        .map(ToString::to_string)
        .collect();
    let (ours, _) = tags(&templates.render(&mail(&all)).unwrap().html);
    for _ in 0..ROUNDS {
        let count = 1 + random(3);
        let items: Vec<Item<'_>> = (0..count)
            .map(|_| Item {
                title: texts(&mut random),
                text: texts(&mut random),
                link: Some(texts(&mut random)),
                ..friendly.clone()
            })
            .collect();
        let (name, category, settings) =
            (texts(&mut random), texts(&mut random), texts(&mut random));
        let hostile = Mail {
            name: Some(&name),
            category: &category,
            settings: Some(&settings),
            thread: Some(&name),
            ..mail(&items)
        };
        let seen = Seen::of(&hostile);
        let names: Vec<&str> = names_with.iter().map(|name| &**name).collect();
        travels_as_it_should(&seen, &names);
        says_what_it_should(&templates.render(&hostile).unwrap(), &ours);
    }
}

#[test]
fn the_checks_above_see_what_they_are_for() {
    let (found, links) = tags("<a href=\"javascript:x\" id='>'>x</a><br>");
    assert_eq!(links, ["javascript:x"]);
    assert!(
        found.contains("a  id='>'") && found.contains("br"),
        "{found:?}"
    );
    assert!(is_one_address("\"a, b@c\" <x@y>") && !is_one_address("a@b, c@d"));
}
