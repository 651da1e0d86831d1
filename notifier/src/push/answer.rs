//! What a push service says about a message, for a log: without what of the endpoint it repeats. Pure.

use super::endpoint::Endpoint;
use crate::stranger::line;
use bellhop_common::wire::cut;

/// How much of an answer is read, in bytes.
pub(super) const ANSWER_MAX: usize = 4096;

/// How much of an answer is shown, in bytes.
const REASON_MAX: usize = 256;

/// The shortest piece of an endpoint that may be a secret; `fcm` and `send` are none.
const SECRET_MIN: usize = 8;

/// A stranger's text as one line.
pub(super) fn presentable(body: &[u8], endpoint: &Endpoint) -> String {
    // As a line first, or a secret could come back together when what split it is dropped.
    let line = line(&String::from_utf8_lossy(body));
    let mut text = line.as_str();
    if body.len() >= ANSWER_MAX {
        // It may end amid a secret.
        text = text.trim_end_matches(is_of_secret);
    }
    let mut text = text.to_owned();
    // By its pieces, because the whole may be written in several ways.
    for piece in pieces(endpoint) {
        text = text.replace(piece, "<redacted>");
    }
    if text.is_empty() {
        return "no reason given".into();
    }
    cut(&text, REASON_MAX).to_owned()
}

/// The longest first: one may be the beginning of another.
fn pieces(endpoint: &Endpoint) -> Vec<&str> {
    let url = endpoint.url();
    let parts = [Some(url.path()), url.query(), url.fragment()];
    let pieces = parts.into_iter().flatten();
    let pieces = pieces.flat_map(|part| part.split(|c| !is_of_secret(c)));
    let mut pieces: Vec<_> = pieces.filter(|piece| piece.len() >= SECRET_MIN).collect();
    pieces.sort_by_key(|piece| std::cmp::Reverse(piece.len()));
    pieces
}

fn is_of_secret(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '%')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PushConfig;
    use crate::push::Policy;

    #[test]
    fn nothing_of_the_endpoint_is_shown_however_it_is_written() {
        let endpoint = "https://push.example/fcm/send/hunter2-abc_def:APA91hunter2?token=hunter2hunter2#hunter2end";
        let endpoint = Policy::new(&PushConfig::default()).check(endpoint).unwrap();
        for (body, wants) in [
            (
                " push subscription\r\nhas  unsubscribed ",
                "push subscription  has  unsubscribed",
            ),
            ("", "no reason given"),
            ("\u{202e}\0", "no reason given"),
            (
                endpoint.url().as_str(),
                "https://push.example/fcm/send/<redacted>:<redacted>?token=<redacted>#<redacted>",
            ),
            (
                r"no /fcm\/send\/hunter2-abc_def%3AAPA91hunter2",
                r"no /fcm\/send\/<redacted>%3A<redacted>",
            ),
            ("hunter2-\u{200b}abc_def", "<redacted>"),
            ("hunter2-a\0bc_def", "<redacted>"),
        ] {
            assert_eq!(presentable(body.as_bytes(), &endpoint), wants, "{body:?}");
        }
        let cut_off = format!("{}hunter2-abc_d", "x ".repeat(100));
        let long = format!("{}{cut_off}", " ".repeat(ANSWER_MAX - cut_off.len()));
        assert!(!presentable(long.as_bytes(), &endpoint).contains("hunter2"));
        let long = presentable("é".repeat(3000).as_bytes(), &endpoint);
        assert_eq!(long, "é".repeat(128));
    }
}
