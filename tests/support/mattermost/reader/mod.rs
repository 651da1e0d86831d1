//! What a Mattermost server and its clients make of a text: a small model, stricter than any one of them.
//!
//! It follows the server's rewriting of Slack syntax, its mention parser, its fenced code and code spans, and the web
//! client's rules for links, hashtags, channels and emoji. Where the parsers disagree it takes the reading in which
//! more happens: every `@name` is a user, every `<@id>` a known one, and a backslash protects nothing but a backtick.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test binaries, each of which uses a part"
)]

mod text;

/// What was found in a text.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Names that would be notified, without the `@`.
    pub mentions: Vec<String>,
    /// Link targets, written out or bare.
    pub links: Vec<String>,
    /// Image addresses.
    pub images: Vec<String>,
    /// Everything else that is not plain text: headings, tables, emoji, hidden characters and so on.
    pub markup: Vec<String>,
    /// The contents of code spans and blocks.
    pub code: Vec<String>,
}

impl Reading {
    /// Whether the text outside of code is nothing but text.
    pub fn is_inert(&self) -> bool {
        self.mentions.is_empty()
            && self.links.is_empty()
            && self.images.is_empty()
            && self.markup.is_empty()
    }
}

/// Reads a text as it arrived at the webhook.
pub fn read(text: &str) -> Reading {
    let text = rewrite_attachment(text);
    let mut reading = Reading::default();
    let hidden = |c: &char| (c.is_control() && *c != '\n') || is_bidi(*c);
    for c in text.chars().filter(hidden) {
        reading.markup.push(format!("hidden {c:?}"));
    }
    // The web client normalises these before it parses.
    let text = text
        .replace("\r\n", "\n")
        .replace(['\r', '\u{2424}'], "\n")
        .replace('\u{a0}', " ")
        .replace('\t', "    ");

    let mut paragraph = String::new();
    let mut fence: Option<Fence> = None;
    for line in text.split('\n') {
        if let Some(open) = &mut fence {
            if closes_fence(line, &open.mark) {
                reading.code.push(std::mem::take(&mut open.code));
                fence = None;
            } else {
                open.code.push_str(line);
                open.code.push('\n');
            }
        } else if let Some(mark) = fence_mark(line) {
            inline(&std::mem::take(&mut paragraph), &mut reading);
            fence = Some(Fence {
                mark,
                first_line: line.to_owned(),
                code: String::new(),
            });
        } else if line.trim().is_empty() {
            inline(&std::mem::take(&mut paragraph), &mut reading);
        } else {
            block_markup(line, !paragraph.is_empty(), &mut reading.markup);
            paragraph.push_str(line);
            paragraph.push('\n');
        }
    }
    inline(&paragraph, &mut reading);
    // Code up to the end for the server, no code at all for the web client.
    if let Some(open) = fence {
        inline(&format!("{}\n{}", open.first_line, open.code), &mut reading);
        reading.code.push(open.code);
    }
    reading
}

/// A code block that has begun.
struct Fence {
    mark: String,
    first_line: String,
    code: String,
}

/// What the server makes of Slack's syntax in the text of a post, code included.
pub fn rewrite_text(text: &str) -> String {
    slack_links(&slack_names(text), |url, label| {
        !url.contains(['\n', '>']) && !label.contains(['\n', '|'])
    })
}

/// What the server makes of Slack's syntax in an attachment; its pattern for links takes more than the one for texts.
pub fn rewrite_attachment(text: &str) -> String {
    slack_links(&slack_names(text), |_, _| true)
}

/// `<!channel>` and `<@id>` become names.
pub fn slack_names(text: &str) -> String {
    let mut text = text
        .replace("<!channel>", "@channel")
        .replace("<!here>", "@here")
        .replace("<!all>", "@all");
    while let Some((before, id, after)) = user_id(&text) {
        text = format!("{before}@{id}{after}");
    }
    text
}

/// The first `<@id>`: what is before it, the id, what is after it.
fn user_id(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices("<@").find_map(|(at, _)| {
        let (before, rest) = text.split_at(at);
        let (id, after) = rest.strip_prefix("<@")?.split_once('>')?;
        let is_id = !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric());
        is_id.then_some((before, id, after))
    })
}

/// `<url|text>` becomes `[text](url)`: `<([^<|]+)\|([^>]+)>`, where both parts are also `allowed`.
fn slack_links(text: &str, allowed: impl Fn(&str, &str) -> bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        let (before, tail) = rest.split_at(open);
        out += before;
        let tail = tail.strip_prefix('<').unwrap_or_default();
        let link = tail.split_once('|').and_then(|(url, more)| {
            let (label, after) = more.split_once('>')?;
            let is_link = !url.is_empty() && !url.contains('<') && !label.is_empty();
            (is_link && allowed(url, label)).then_some((url, label, after))
        });
        if let Some((url, label, after)) = link {
            out.extend(["[", label, "](", url, ")"]);
            rest = after;
        } else {
            out.push('<');
            rest = tail;
        }
    }
    out + rest
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The line without the indentation a block may have.
fn unindented(line: &str) -> &str {
    let spaces = line.chars().take_while(|c| *c == ' ').count().min(3);
    line.split_at(spaces).1
}

/// The mark that opens a code block.
fn fence_mark(line: &str) -> Option<String> {
    let line = unindented(line);
    let mark: String = match line.chars().next()? {
        c @ ('`' | '~') => line.chars().take_while(|next| *next == c).collect(),
        _ => return None,
    };
    let info = line.strip_prefix(mark.as_str())?;
    (mark.len() >= 3 && !info.contains('`')).then_some(mark)
}

fn closes_fence(line: &str, mark: &str) -> bool {
    unindented(line)
        .strip_prefix(mark)
        .is_some_and(|rest| rest.trim().chars().all(|c| matches!(c, '`' | '~')))
}

/// What a line starts in the document, whatever its indentation.
fn block_markup(line: &str, continues: bool, found: &mut Vec<String>) {
    let text = line.trim();
    let first_word = text.split(' ').next().unwrap_or_default();
    let all_of = |set: &str| text.chars().all(|c| set.contains(c));
    let number = first_word
        .strip_suffix(['.', ')'])
        .is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    let is_rule = |c: char| text.matches(c).count() >= 3 && all_of(&format!("{c} "));
    let checks = [
        (
            "heading",
            first_word.len() <= 6 && !first_word.is_empty() && first_word.chars().all(|c| c == '#'),
        ),
        ("quote", text.starts_with('>')),
        ("list", matches!(first_word, "*" | "+" | "-") || number),
        ("rule", ['-', '*', '_'].into_iter().any(is_rule)),
        (
            "heading",
            continues && text.len() >= 2 && (all_of("=") || all_of("-")),
        ),
        (
            "table",
            text.starts_with('|') || (all_of("|-: ") && text.contains('-') && text.contains('|')),
        ),
        ("definition", text.starts_with('[') && text.contains("]:")),
    ];
    let hits = checks.into_iter().filter(|(_, hit)| *hit);
    found.extend(hits.map(|(name, _)| name.to_owned()));
}

/// Splits a paragraph into code spans and the rest.
fn inline(paragraph: &str, reading: &mut Reading) {
    let mut plain = String::new();
    let mut rest = paragraph;
    while let Some(c) = rest.chars().next() {
        let after = rest.split_at(c.len_utf8()).1;
        let escaped = after.chars().next().filter(char::is_ascii_punctuation);
        if c == '`' {
            let run: String = rest.chars().take_while(|c| *c == '`').collect();
            let after = rest.split_at(run.len()).1;
            if let Some((code, after)) = code_span(after, &run) {
                text::scan(&std::mem::take(&mut plain), reading);
                reading.code.push(code.to_owned());
                rest = after;
            } else {
                plain.push_str(&run);
                rest = after;
            }
        } else if let ('\\', Some(escaped)) = (c, escaped) {
            reading.markup.push("escape".to_owned());
            plain.push(escaped);
            rest = after.split_at(1).1;
        } else if let Some((decoded, after)) = character_reference(rest) {
            reading.markup.push("character reference".to_owned());
            plain.push(decoded);
            rest = after;
        } else {
            plain.push(c);
            rest = after;
        }
    }
    text::scan(&plain, reading);
}

/// The code up to a run of backticks as long as the one that opened it, and what follows.
fn code_span<'a>(text: &'a str, run: &str) -> Option<(&'a str, &'a str)> {
    text.match_indices(run).find_map(|(at, _)| {
        let (code, rest) = text.split_at(at);
        let after = rest.strip_prefix(run)?;
        let ends = !code.is_empty() && !code.ends_with('`') && !after.starts_with('`');
        ends.then_some((code, after))
    })
}

/// `&#64;`, `&#x40;` and the names of characters that mean something.
fn character_reference(text: &str) -> Option<(char, &str)> {
    let (name, after) = text.strip_prefix('&')?.split_once(';')?;
    let number = name
        .strip_prefix('#')
        .and_then(|digits| match digits.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => digits.parse().ok(),
        });
    let c = match name {
        "commat" => '@',
        "num" => '#',
        "colon" => ':',
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "ast" => '*',
        "lowbar" => '_',
        "lsqb" => '[',
        "rsqb" => ']',
        _ => char::from_u32(number?)?,
    };
    Some((c, after))
}
