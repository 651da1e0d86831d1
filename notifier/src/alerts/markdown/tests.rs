//! No text, however nasty, does anything in a post.

use super::super::double::reader::{Reading, read, rewrite_attachment};
use super::{ZERO_WIDTH_SPACE, code_block, code_span, line};

/// Each does something when it is posted as it is.
pub(in crate::alerts) const NASTY: &[&str] = &[
    "@channel",
    "@All",
    "hi @here!",
    "@alice: look",
    "a.@bob-",
    "_@carol_",
    "é@dave",
    "\\@channel",
    "&commat;channel",
    "&#64;channel",
    "R&amp;D",
    "C:\\(x)",
    "&#x40;here",
    "<!channel>",
    "<!here>",
    "<@q1w2e3r4t5y6u7i8o9p0a1s2d3>",
    "`unclosed @channel",
    "``` @channel",
    "``a` @channel",
    "`a` @channel `b`",
    "```\n@channel\n```\n@here",
    "x\n```\n@channel",
    "\u{2424}```\u{2424}@channel",
    "~~~\n\n~~~\n@channel",
    "\n\n    ```\n@channel",
    "<https://evil.example|your bank>",
    "<evil\n|multi\nline>",
    "` <a` and `b|c> @channel",
    "[text](https://evil.example)",
    "[text][ref]\n\n[ref]: https://evil.example",
    "![pixel](https://evil.example/p.png)",
    "![a](b \"c\")",
    "https://evil.example/x",
    "HTTP://evil.example",
    "ftp://evil.example",
    "mailto:a@b.example",
    "javascript:alert(1)",
    "www.evil.example",
    "see WWW3.evil.example/x",
    "evil.com/login",
    "sub.evil.co/login",
    "<https://evil.example>",
    "<mail@evil.example>",
    "mail@evil.example",
    "# heading",
    "###### heading",
    "heading\n===",
    "heading\n---",
    "> quote",
    "- item",
    "+ item",
    "* item",
    "12. item",
    "---",
    "* * *",
    "___",
    "a | b\n--|--\nc | d",
    "|a|b|\n|-|-|\n|c|d|",
    "~town-square",
    "~~gone~~",
    ":smile:",
    "ok :+1:",
    "wink ;)",
    "#hashtag",
    "(#hashtag)",
    "*em* and **strong**",
    "_em_ and __strong__",
    "__init__",
    "$x^2$",
    "<b>bold</b>",
    "<script>alert(1)</script>",
    "\u{202e}gnp.exe",
    "\u{2066}isolate\u{2069}",
    "bell\u{7} null\u{0} csi\u{9b}31m",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{200f}right to left",
];

/// Plain parts that the generator mixes with the nasty ones.
const PARTS: &[&str] = &[
    "`", "``", "```", "~~~", "\\", "@", "<", ">", "|", "<!", "<@", "[", "](", ")", "!", "#", "# ",
    "*", "_", "__", "-", "- ", "1. ", "=", "&", ";", "&#", "$", ":", "://", "/", ".", "www", "com",
    "a", "channel", "é", "中", "🙂", " ", "  ", "\n", "\r", "\r\n", "\t", "\u{a0}", "\u{b}",
    "\u{85}", "\u{2028}", "\u{2424}", "\u{200b}", "\u{feff}", "\u{202e}", "\u{0}", "\u{1b}[",
];

/// xorshift64*: small, and good enough to pick parts.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap() % sides
    }

    fn text(&mut self) -> String {
        let mut text = String::new();
        for _ in 0..=self.roll(12) {
            match self.roll(3) {
                0 => text.push_str(NASTY[self.roll(NASTY.len())]),
                1 => text.push_str(PARTS[self.roll(PARTS.len())]),
                _ => text.push(char::from(u8::try_from(0x20 + self.roll(0x5f)).unwrap())),
            }
        }
        text
    }
}

/// Runs a check on every nasty text and on random ones. `BELLHOP_TEST_SEED` repeats a run that failed.
fn for_many_texts(check: impl Fn(&str, &str)) {
    for text in NASTY {
        check(text, &format!("text {text:?}"));
    }
    let seed = match std::env::var("BELLHOP_TEST_SEED") {
        Ok(seed) => seed.parse().expect("BELLHOP_TEST_SEED is a number"),
        Err(_) => 1 | u64::from(uuid::Uuid::new_v4().as_fields().0) << 8,
    };
    let mut dice = Dice(seed);
    for _ in 0..5_000 {
        let text = dice.text();
        check(&text, &format!("BELLHOP_TEST_SEED={seed}, text {text:?}"));
    }
}

fn assert_inert(reading: &Reading, post: &str, context: &str) {
    assert!(
        reading.is_inert(),
        "{context}\nposted as {post:?}\nread as {reading:?}"
    );
}

/// The words of a text as a person sees them, the look-alikes taken for what they stand for.
fn as_seen(text: &str) -> String {
    text.chars()
        .filter_map(|c| match c {
            ZERO_WIDTH_SPACE => None,
            '\u{2223}' => Some('|'),
            '\u{2039}' => Some('<'),
            '\u{203a}' => Some('>'),
            '\u{2217}' => Some('*'),
            '\u{fe69}' => Some('$'),
            '`' => Some('\''),
            c => Some(c),
        })
        .collect()
}

#[test]
fn the_model_sees_what_each_nasty_text_would_do() {
    for text in NASTY {
        let reading = read(text);
        assert!(!reading.is_inert(), "{text:?} is read as {reading:?}");
    }
    for harmless in [
        "Nightly report",
        "files.checksum",
        "a_b_c 12:30, 50% (v1.2)",
        "`@channel`",
        "```\n@here\n```",
    ] {
        assert_inert(&read(harmless), harmless, "harmless");
    }
}

#[test]
fn a_line_does_nothing_alone_or_in_a_sentence() {
    for_many_texts(|text, context| {
        for post in [
            line(text, 500),
            line(text, 7),
            format!("Failed: {} (again)", line(text, 500)),
            format!("{} {}", line(text, 500), line(text, 500)),
        ] {
            let reading = read(&post);
            assert_inert(&reading, &post, context);
            assert!(
                reading.code.is_empty() && !post.contains('\n'),
                "{context}\n{post:?}"
            );
        }
    });
}

#[test]
fn a_code_span_is_one_piece_of_code_and_nothing_else() {
    for_many_texts(|text, context| {
        let span = code_span(text, 500);
        let two = format!("{span} of {}", code_span(text, 7));
        assert_eq!(rewrite_attachment(&span), span, "{context}");
        let spans = usize::from(span.starts_with('`'));
        for (post, pieces) in [(&span, spans), (&two, 2 * spans)] {
            let reading = read(post);
            assert_inert(&reading, post, context);
            assert_eq!(
                reading.code.len(),
                pieces,
                "{context}\nposted as {post:?}\nread as {reading:?}"
            );
        }
    });
}

#[test]
fn a_code_block_is_one_piece_of_code_and_nothing_else() {
    for_many_texts(|text, context| {
        for post in [code_block(text, 500), code_block(text, 7)] {
            assert_eq!(rewrite_attachment(&post), post, "{context}");
            let reading = read(&post);
            assert_inert(&reading, &post, context);
            let pieces = usize::from(!post.is_empty());
            assert_eq!(
                reading.code.len(),
                pieces,
                "{context}\nposted as {post:?}\nread as {reading:?}"
            );
        }
    });
}

#[test]
fn what_can_be_seen_stays_the_same() {
    for_many_texts(|text, context| {
        let kept: String = super::visible(text).collect();
        let words: Vec<&str> = kept.split_whitespace().collect();
        let words = as_seen(&words.join(" "));
        assert_eq!(as_seen(&line(text, 9_999)), words, "{context}");
        if !words.is_empty() {
            assert_eq!(
                as_seen(&code_span(text, 9_999)),
                format!("'{words}'"),
                "{context}"
            );
        }
    });
}

#[test]
fn ordinary_text_is_not_touched() {
    for text in [
        "Nightly report",
        "files.checksum",
        "my_task_2",
        "Prüfsumme über 3.5 GB (50 %), Nr. 7!",
        "error: disk full",
        "0198c0de-7b1a-7cc3-9d1f-0123456789ab",
        "v1.2 of /srv/reports/2026 | gzip",
    ] {
        assert_eq!(line(text, 100).trim_start_matches(ZERO_WIDTH_SPACE), text);
        assert_eq!(code_span(text, 100), format!("`{text}`"));
        assert_eq!(code_block(text, 100), format!("```\n{text}\n```"));
    }
}

#[test]
fn a_code_block_keeps_its_lines() {
    let error = "\u{1b}[31merror\u{1b}[0m: `x`\r\n\tat main\u{2028}```quoted```\n\n  end  \n";
    let shown = "```\nerror: `x`\n    at main\n``\u{200b}`quoted``\u{200b}`\n\n  end\n```";
    assert_eq!(code_block(error, 100), shown);
    assert_eq!(code_block(" \n\t\u{202e}\n", 100), "");
}

#[test]
fn white_space_becomes_single_spaces_in_one_line() {
    assert_eq!(line("  a \n\t b\u{2028}c\u{2424}d ", 100), "a b c d");
    assert_eq!(code_span(" a\r\nb ", 100), "`a b`");
    assert_eq!(code_span(" \u{202e}\n", 100), "–");
    assert_eq!(line("", 100), "");
}

#[test]
fn long_text_is_cut_between_characters() {
    assert_eq!(line("äöü🙂x", 5), "äöü🙂x");
    assert_eq!(line("äöü🙂x", 4), "äöü…");
    assert_eq!(code_span("äöü🙂x", 4), "`äöü…`");
    assert_eq!(code_block("äöü🙂x", 4), "```\näöü…\n```");
    assert_eq!(code_block("a\tb", 3), "```\na …\n```");
    for_many_texts(|text, context| {
        let inside = |block: String| block.chars().count().saturating_sub("```\n\n```".len());
        assert!(inside(code_block(text, 9)) <= 9, "{context}");
        assert!(
            code_span(text, 9)
                .chars()
                .filter(|c| *c != ZERO_WIDTH_SPACE)
                .count()
                <= 11,
            "{context}"
        );
        assert!(as_seen(&line(text, 9)).chars().count() <= 9, "{context}");
        assert!(line(text, 9).chars().count() <= 28, "{context}");
    });
}
