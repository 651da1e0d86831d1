//! Which web pages may open a socket: a browser sends cookies and reaches networks that the page's
//! author cannot, so a foreign page is refused (RFC 6455, 10.2). Pure.

/// Whether a page may connect. `origin` and `host` are the request's headers.
///
/// No `Origin` means no browser. A page from the host that it connects to is the notifier's own.
#[must_use]
pub fn origin_allowed(origin: Option<&str>, host: Option<&str>, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    let own = origin
        .split_once("://")
        .is_some_and(|(_, rest)| host.is_some_and(|host| rest.eq_ignore_ascii_case(host)));
    own || allowed.iter().any(|pattern| matches(pattern, origin))
}

/// Whether a `Host` header names this machine itself. Where nobody has to log in, a page from
/// elsewhere must not reach us under a name of its own that resolves to 127.0.0.1.
#[must_use]
pub fn is_loopback_host(host: Option<&str>) -> bool {
    let host = host.unwrap_or_default();
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_loopback_ip = |ip: std::net::IpAddr| ip.is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback_ip)
}

fn matches(pattern: &str, origin: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let (Some((scheme, pattern)), Some((origin_scheme, host))) =
        (pattern.split_once("://"), origin.split_once("://"))
    else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case(origin_scheme) {
        return false;
    }
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        // Compared as a whole suffix after a dot, so that `evilexample.org` is not under
        // `*.example.org`.
        Some(parent) => host
            .to_ascii_lowercase()
            .strip_suffix(&parent.to_ascii_lowercase())
            .is_some_and(|sub| sub.len() > 1 && sub.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_this_machine() {
        for (host, wants) in [
            ("localhost:8080", true),
            ("127.0.0.1", true),
            ("127.8.9.1:80", true),
            ("[::1]:8080", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_host(Some(host)), wants, "{host}");
        }
        assert!(!is_loopback_host(None));
    }

    #[test]
    fn only_own_and_listed_pages_may_connect() {
        let allowed = [
            "https://app.example.org".into(),
            "https://*.example.com".into(),
        ];
        for (origin, wants) in [
            (None, true),
            (Some("http://bell.local:8080"), true),
            (Some("https://app.example.org"), true),
            (Some("https://APP.example.org"), true),
            (Some("http://app.example.org"), false),
            (Some("https://app.example.org.evil.net"), false),
            (Some("https://a.example.com"), true),
            (Some("https://a.b.example.com"), true),
            (Some("https://example.com"), false),
            (Some("https://.example.com"), false),
            (Some("https://evilexample.com"), false),
            (Some("null"), false),
            (Some(""), false),
        ] {
            let answer = origin_allowed(origin, Some("bell.local:8080"), &allowed);
            assert_eq!(answer, wants, "{origin:?}");
        }
        assert!(origin_allowed(Some("null"), None, &["*".into()]));
    }
}
