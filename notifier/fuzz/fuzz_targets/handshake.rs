//! What a handshake says: query, credentials, origin, addresses.
#![no_main]

use std::net::IpAddr;

use bellhop_common::wire::MAX_ID_BYTES;
use bellhop_notifier::auth::{Credentials, is_loopback_host, origin_allowed};
use bellhop_notifier::{Network, client_address, places_of_query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut parts = text.splitn(6, '\n');
    let mut next = || parts.next().unwrap_or_default();
    let (query, authorization, protocols) = (next(), next(), next());
    let (origin, host, forwarded) = (next(), next(), next());
    if let Some(places) = places_of_query(query) {
        assert!(places.len() <= 20);
        let fits = |id: &str| (1..=MAX_ID_BYTES).contains(&id.len());
        assert!(places.iter().all(|place| fits(&place.id)));
    }
    credentials(authorization, protocols, query);
    origins(origin, host);
    addresses(host, forwarded);
});

fn credentials(authorization: &str, protocols: &str, query: &str) {
    let read = Credentials::read(Some(authorization), Some(protocols), Some(query));
    let (carrier, _) = read.token.as_ref().expect("the query's, if no other");
    let subprotocol = read.subprotocol;
    let wants = format!("Credentials {{ carrier: Some({carrier:?}), subprotocol: {subprotocol} }}");
    assert_eq!(format!("{read:?}"), wants, "the token is not printed");
    let none = Credentials::read(None, Some(protocols), None);
    assert_eq!(none.subprotocol, read.subprotocol);
    assert!(
        none.token
            .is_none_or(|(_, token)| protocols.contains(&format!("bearer.{token}")))
    );
}

fn origins(origin: &str, host: &str) {
    let allowed = ["https://*.example.org".to_owned()];
    if origin_allowed(Some(origin), Some(host), &allowed) {
        let (_, rest) = origin.split_once("://").expect("an origin has a scheme");
        let is_own = rest.eq_ignore_ascii_case(host);
        let is_listed = rest.to_ascii_lowercase().ends_with(".example.org");
        assert!(is_own || is_listed, "{origin:?} at {host:?}");
    }
    if is_loopback_host(Some(host)) {
        // A name in a domain of somebody's own would be the way in.
        let name = host.to_ascii_lowercase();
        let is_address =
            name.starts_with(['[', ':']) || name.starts_with(|c: char| c.is_ascii_digit());
        let is_local = name == "localhost" || name.starts_with("localhost:");
        assert!(is_address || is_local, "{host:?}");
    }
}

fn addresses(network: &str, forwarded: &str) {
    let peer = IpAddr::from([10, 0, 0, 1]);
    assert_eq!(
        client_address(peer, forwarded, &[]),
        peer,
        "nobody is believed"
    );
    let mut proxies: Vec<Network> = vec!["10.0.0.0/8".parse().expect("a network")];
    if let Ok(network) = network.parse::<Network>() {
        let written = String::from(network);
        assert_eq!(written.parse::<Network>(), Ok(network));
        proxies.push(network);
    }
    let found = client_address(peer, forwarded, &proxies);
    assert!(
        found == peer
            || forwarded.split(',').any(|it| it
                .trim()
                .parse::<IpAddr>()
                .is_ok_and(|it| it.to_canonical() == found))
    );
}
