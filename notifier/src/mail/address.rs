//! The address that a mail goes to.

use lettre::Address;
use reqwest::Url;

/// RFC 5321, section 4.5.3.1, less the `<` and `>`.
const MAX_BYTES: usize = 254;
const MAX_LOCAL_BYTES: usize = 64;

/// Exactly one address, as providers of mail give them out: no quotes, no comments, no IP address.
///
/// What the grammar allows besides is used by nobody but those who look for a way around a check.
pub(super) fn receiver(text: &str) -> Result<Address, &'static str> {
    let (local, domain) = text.rsplit_once('@').ok_or("the address has no @")?;
    if text.len() > MAX_BYTES || local.len() > MAX_LOCAL_BYTES {
        return Err("the address is too long");
    }
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
    };
    if !local.split('.').all(is_atom) {
        return Err("the address has something before the @ that mails cannot be sent to");
    }
    let domain = ascii_domain(domain).ok_or("the address has no domain behind the @")?;
    Address::new(local, domain).map_err(|_| "it is no mail address")
}

/// A domain as DNS knows it: `münchen.de` is `xn--mnchen-3ya.de`.
fn ascii_domain(domain: &str) -> Option<String> {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.');
    if !domain.chars().all(is_plain) {
        return None;
    }
    let url = Url::parse(&format!("http://{domain}/")).ok()?;
    let domain = url.domain()?;
    (!domain.ends_with('.')).then(|| domain.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plain_address_is_taken() {
        for (text, wants) in [
            ("ann@example.org", "ann@example.org"),
            (
                "a.b+tag=1_x@mail.Example.org",
                "a.b+tag=1_x@mail.example.org",
            ),
            ("ann@münchen.de", "ann@xn--mnchen-3ya.de"),
            ("o'neill@example.org", "o'neill@example.org"),
        ] {
            assert_eq!(receiver(text).unwrap().to_string(), wants);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        let longer = format!("a@{}.org", "b.".repeat(150));
        for text in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann@example.org\r\nRCPT TO:<x@example.org>",
            "ann@example.org\n",
            "ann\r\nDATA@example.org",
            "a@example.org,b@example.org",
            "a@example.org b@example.org",
            "Ann <ann@example.org>",
            "<ann@example.org>",
            "\"a b\"@example.org",
            "\"a\r\nb\"@example.org",
            "a@b@example.org",
            "ann@[127.0.0.1]",
            "ann@127.0.0.1",
            "ann@2130706433",
            "ann@[IPv6:::1]",
            "ann@example.org:25",
            "ann@example.org/x",
            "ann@exa mple.org",
            "ann@example..org",
            "ann@example.org.",
            ".ann@example.org",
            "a..b@example.org",
            "ann(comment)@example.org",
            "änn@example.org",
            "ann\u{202e}@example.org",
            "ann\0@example.org",
            &long,
            &longer,
        ] {
            assert!(receiver(text).is_err(), "{text:?}");
        }
    }
}
