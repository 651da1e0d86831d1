//! Makes untrusted text safe inside a Mattermost post.
//!
//! A task's title, owner and error come from whoever sent the job. Mattermost would read them as markdown: they
//! could page a whole channel, hide a link behind a word, or load a remote image. A backslash is no defence, because
//! the server looks for mentions after removing it, and the web, mobile and server parsers disagree on what it
//! escapes. So nothing here relies on backslashes. There are two ways out:
//!
//! - [`code_span`] and [`code_block`] for everything that is rendered as markdown. No parser looks inside code, so
//!   the text stays readable and can be copied; only what would end the code is changed.
//! - [`line()`] for a title, a footer or a fallback, which one client renders and another shows as it is. It changes
//!   as few characters as it can, and plain names such as `files.checksum` not at all.
//!
//! Control characters, invisible ones and those that reorder text are dropped everywhere.

/// Splits a token for every parser and shows as nothing. Mattermost treats it as a character that is in no name.
const ZERO_WIDTH_SPACE: char = '\u{200b}';

/// Looks like `|`, but makes no `<url|text>`.
const BAR: char = '\u{2223}';

/// What stands in a code slot that has nothing to show: Mattermost shows empty code as two backticks.
const NOTHING: &str = "–";

/// Untrusted text for a slot of one line that may or may not be rendered: title, footer, fallback.
///
/// White space and line breaks become single spaces. At most `max_chars` characters of the text are kept (1 or
/// more), the last of them `…` when something was cut; the characters that keep it harmless come on top and make the
/// result at most three times as long.
#[must_use]
pub fn line(text: &str, max_chars: usize) -> String {
    let text = one_line(text, max_chars);
    let mut out = String::with_capacity(text.len());
    if starts_block(&text) {
        out.push(ZERO_WIDTH_SPACE);
    }
    let mut before = None;
    // The part of the current word that was seen, to find what would become a link without a scheme.
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        if c.is_whitespace() {
            word.clear();
        }
        match c {
            '`' => out.push('\''),
            '<' => out.push('\u{2039}'),
            // Alone it does nothing, but it would look odd.
            '>' => out.push('\u{203a}'),
            '*' => out.push('\u{2217}'),
            '$' => out.push('\u{fe69}'),
            '_' if !inside_word(before, next) => {
                out.extend([ZERO_WIDTH_SPACE, '_', ZERO_WIDTH_SPACE]);
            }
            '@' | '#' | ':' | ';' | '~' | ']' | '&' | '\\'
                if !next.is_some_and(char::is_whitespace) =>
            {
                out.extend([c, ZERO_WIDTH_SPACE]);
            }
            '.' if ends_like_www(&word) => out.extend([ZERO_WIDTH_SPACE, '.']),
            '/' if word.contains('.') => out.extend([ZERO_WIDTH_SPACE, '/']),
            _ => out.push(c),
        }
        word.push(c);
        before = Some(c);
    }
    out
}

/// Untrusted text as inline code of one line, for a slot that is rendered as markdown.
///
/// White space and line breaks become single spaces. At most `max_chars` characters of the text are kept (1 or
/// more), the last of them `…` when something was cut.
#[must_use]
pub fn code_span(text: &str, max_chars: usize) -> String {
    let text = one_line(text, max_chars);
    if text.is_empty() {
        return NOTHING.to_owned();
    }
    format!("`{}`", unlike_slack(&text).replace('`', "'"))
}

/// Untrusted text of several lines as a code block, for a slot that is rendered as markdown and holds nothing else.
///
/// Line breaks of any kind stay line breaks, tabs become four spaces, white space at both ends goes. The block holds
/// at most `max_chars` characters (1 or more), the last of them `…` when something was cut. Text with nothing to show
/// gives an empty string.
#[must_use]
pub fn code_block(text: &str, max_chars: usize) -> String {
    let mut body = String::new();
    for c in visible(text.trim()).take(max_chars.saturating_add(1)) {
        match c {
            '\t' => body.push_str("    "),
            // Three in a row could close the block.
            '`' if body.ends_with("``") => body.extend([ZERO_WIDTH_SPACE, '`']),
            _ => body.push(c),
        }
    }
    let body = shorten(unlike_slack(&body), max_chars);
    let body = body.trim_matches('\n').trim_end();
    if body.is_empty() {
        return String::new();
    }
    format!("```\n{body}\n```")
}

/// The beginning of a text without what does not show, for whoever keeps it; not safe to post. It has
/// at most `max_bytes` bytes, and `…` when something was cut.
pub(crate) fn excerpt(text: &str, max_bytes: usize) -> String {
    let mut kept = String::new();
    for c in visible(text) {
        if kept.len() + c.len_utf8() > max_bytes {
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    kept
}

/// The server replaces `<!channel>`, `<@id>` and `<url|text>` before it knows what is code; there it would notify
/// nobody, but show something else than was sent.
fn unlike_slack(text: &str) -> String {
    if !text.contains('<') {
        return text.to_owned();
    }
    text.replace("<!", "<\u{200b}!")
        .replace("<@", "<\u{200b}@")
        .replace('|', BAR.encode_utf8(&mut [0; 4]))
}

/// Whether the text could be a list, heading, quote, table, rule or fence, all of which have to start the line.
fn starts_block(text: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    let first_word = text.split(' ').next().unwrap_or_default();
    let is_numbered = |number: &str| number.chars().all(|c| c.is_ascii_digit());
    !first_word.starts_with(char::is_alphanumeric)
        || first_word.strip_suffix(['.', ')']).is_some_and(is_numbered)
}

/// Whether a `_` between these two is part of a name, which no parser takes for emphasis.
fn inside_word(before: Option<char>, next: Option<char>) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    is_word(before) && is_word(next)
}

/// Whether a dot after `word` would make it a link: `www.` or `www2.`.
fn ends_like_www(word: &str) -> bool {
    word.trim_end_matches(|c: char| c.is_ascii_digit())
        .to_ascii_lowercase()
        .ends_with("www")
}

/// The visible characters with every run of white space as one space, cut to `max_chars`.
pub(crate) fn one_line(text: &str, max_chars: usize) -> String {
    let mut out = String::new();
    let mut kept = 0_usize;
    let mut gap = false;
    for c in visible(text) {
        if c.is_whitespace() {
            gap = kept > 0;
            continue;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
            kept += 1;
        }
        out.push(c);
        kept += 1;
        if kept > max_chars {
            break;
        }
    }
    shorten(out, max_chars)
}

/// A text of more than `max_chars` characters loses its end to a `…`.
pub(crate) fn shorten(mut text: String, max_chars: usize) -> String {
    if text.chars().nth(max_chars).is_some()
        && let Some((end, _)) = text.char_indices().nth(max_chars.saturating_sub(1))
    {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The characters that show, line breaks of every kind as `\n`, without terminal colours.
///
/// U+2424 is a line break too: the web client turns it into one before parsing.
pub(crate) fn visible(text: &str) -> impl Iterator<Item = char> {
    let mut chars = text.chars().peekable();
    std::iter::from_fn(move || {
        loop {
            match chars.next()? {
                '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                    while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
                    chars.next_if(|c| matches!(c, '@'..='~'));
                }
                '\r' => {
                    chars.next_if_eq(&'\n');
                    return Some('\n');
                }
                '\n' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{2424}' => {
                    return Some('\n');
                }
                '\t' => return Some('\t'),
                c if is_hidden(c) => {}
                c => return Some(c),
            }
        }
    })
}

/// Control characters, and those that show nothing or change the order in which text is shown.
///
/// The joiners U+200C and U+200D stay: Persian, Indic scripts and emoji need them.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
pub(super) mod tests;
