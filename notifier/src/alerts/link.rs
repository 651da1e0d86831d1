//! Addresses that may stand in a post. Pure.

use reqwest::Url;

/// Longest link, in bytes. What is longer is left out.
const LINK_MAX: usize = 2_000;

/// The address in its normal form, if it is one that a browser may be sent to and Mattermost takes.
pub(crate) fn web_address(link: &str) -> Option<String> {
    let url = Url::parse(link).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    // A password in the address would be shown to the whole channel.
    let is_public = url.username().is_empty() && url.password().is_none();
    let fits = url.as_str().len() <= LINK_MAX && percent_encoding_is_whole(url.as_str());
    (is_web && is_public && fits).then(|| url.into())
}

/// Whether every `%` starts a code of two hexadecimal digits: the server refuses addresses where one does not.
fn percent_encoding_is_whole(address: &str) -> bool {
    address.split('%').skip(1).all(|part| {
        let mut digits = part.chars().take(2);
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
        is_digit(digits.next()) && is_digit(digits.next())
    })
}

/// A link to a task, where one is configured.
pub(crate) fn task_link(pattern: Option<&str>, task_id: &str) -> Option<String> {
    web_address(&pattern?.replace("{task_id}", &percent_encode(task_id)))
}

/// A task's id may be any text; in an address only RFC 3986's unreserved characters are safe.
fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_any_text_is_safe_in_an_address() {
        let link = |id| task_link(Some("https://b.example/{task_id}"), id).unwrap();
        assert_eq!(link("0197-a_b.c~"), "https://b.example/0197-a_b.c~");
        assert_eq!(
            link("a b/../?#<ü>"),
            "https://b.example/a%20b%2F..%2F%3F%23%3C%C3%BC%3E"
        );
        assert_eq!(task_link(None, "a"), None);
    }

    #[test]
    fn only_links_to_well_formed_web_addresses() {
        let kept = "https://bellhop.example/tasks?id=%41b&x=1";
        assert_eq!(web_address(kept).as_deref(), Some(kept));
        let normal = Some("http://bellhop.example/a%20%3Cb%3E".to_owned());
        assert_eq!(web_address("HTTP://Bellhop.example/a <b>"), normal);
        for refused in [
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://bellhop.example/x",
            "file:///etc/passwd",
            "/tasks/1",
            "bellhop.example/tasks/1",
            "https://",
            "https://user:pw@bellhop.example/",
            "https://bellhop.example/100%",
            "https://bellhop.example/%zz",
            "",
        ] {
            assert_eq!(web_address(refused), None, "{refused}");
        }
        let long = format!("https://bellhop.example/{}", "x".repeat(LINK_MAX));
        assert_eq!(web_address(&long), None);
    }
}
