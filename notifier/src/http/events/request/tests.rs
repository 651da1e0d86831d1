//! Bodies that can be published, and what is said of those that cannot.

use super::*;

fn read(body: &str) -> Result<Vec<Prepared>, RequestError> {
    let id = |index: usize| Uuid::from_u128(index as u128);
    prepare(body.as_bytes(), Timestamp::UNIX_EPOCH, id)
}

#[test]
fn one_event_or_a_list_becomes_keys_and_bodies() {
    let one = read(r#" {"to":"all","type":"notice","data":{"n": 1.50}}"#).unwrap();
    assert_eq!(one[0].key, "live.all.all.notice");
    let wants = r#"{"type":"notice","id":"00000000-0000-0000-0000-000000000000","time":"1970-01-01T00:00:00Z","data":{"n": 1.50}}"#;
    assert_eq!(String::from_utf8_lossy(&one[0].body), wants);
    let list = read(
        r#"[{"to":{"user":"a.b"},"type":"x.y","data":null,"stored":true,"topic":"red.1"},
            {"to":{"chat":"c"},"type":"z","data":[],"id":"0197f0a0-0000-7000-8000-000000000001",
             "time":"2026-01-15T10:30:00Z"},
            {"to":{"room":"r"},"type":"z","data":0}]"#,
    )
    .unwrap();
    let keys: Vec<_> = list.iter().map(|event| event.key.as_str()).collect();
    let wants = [
        "stored.user.a%2Eb.x.y.red.1",
        "live.chat.c.z",
        "live.room.r.z",
    ];
    assert_eq!(keys, wants);
    assert!(list[0].stored && !list[1].stored);
    assert_eq!(list[0].kind, "x.y");
    assert_eq!(
        list[1].id,
        "0197f0a0-0000-7000-8000-000000000001"
            .parse::<Uuid>()
            .unwrap()
    );
    assert_eq!(list[2].id, Uuid::from_u128(2));
    let body = String::from_utf8_lossy(&list[1].body);
    assert!(body.contains("2026-01-15T10:30:00Z"), "{body}");
}

/// Bodies, and what is said of each.
const WRONG: &[(&str, &str)] = &[
    ("", "EOF"),
    ("{", "EOF"),
    ("[]", "1 to 100 events, this one has 0"),
    ("[1]", "event 0: `event`: must be an object"),
    ("7", "`event`: must be an object"),
    (r#"{"type":"x","data":1}"#, "`to`: is missing"),
    (r#"{"to":"all","data":1}"#, "`type`: is missing"),
    (r#"{"to":"all","type":"x"}"#, "`data`: is missing"),
    (r#"{"to":"some","type":"x","data":1}"#, "`to`: must be"),
    (r#"{"to":{},"type":"x","data":1}"#, "`to`: must be"),
    (
        r#"{"to":{"user":"a","room":"b"},"type":"x","data":1}"#,
        "`to`: must be",
    ),
    (r#"{"to":{"user":7},"type":"x","data":1}"#, "`to`: must be"),
    (
        r#"{"to":{"user":""},"type":"x","data":1}"#,
        "`to.user`: the id",
    ),
    (
        r#"{"to":{"team":"t"},"type":"x","data":1}"#,
        "`to.team`: an event goes",
    ),
    (
        r#"{"to":"all","type":"a..b","data":1}"#,
        "`type`: must be words",
    ),
    (
        r##"{"to":"all","type":"#","data":1}"##,
        "`type`: must be words",
    ),
    (
        r#"{"to":"all","type":"a","topic":"*","data":1}"#,
        "`topic`: must be words",
    ),
    (r#"{"to":"all","type":5,"data":1}"#, "`type`: invalid type"),
    (r#"{"to":"all","type":"a","data":1,"id":"x"}"#, "`id`: "),
    (
        r#"{"to":"all","type":"a","data":1,"time":"now"}"#,
        "`time`: ",
    ),
    (
        r#"{"to":"all","type":"a","data":1,"stored":"yes"}"#,
        "`stored`: ",
    ),
    (
        r#"{"to":"all","type":"a","data":1,"too":1}"#,
        "`too`: there are only to, type",
    ),
    (
        r#"[{"to":"all","type":"a","data":1},{"to":"all","type":"","data":1}]"#,
        "event 1: `type`: must be words",
    ),
];

#[test]
fn what_is_wrong_is_named() {
    let long = "x".repeat(129);
    let long_id = format!(r#"{{"to":{{"user":"{long}"}},"type":"x","data":1}}"#);
    let long_type = format!(r#"{{"to":"all","type":"{}","data":1}}"#, "x".repeat(250));
    let long = [
        (
            long_id.as_str(),
            "`to.user`: the id must have 1 to 128 bytes",
        ),
        (long_type.as_str(), "make no routing key"),
    ];
    for &(body, wants) in WRONG.iter().chain(&long) {
        let error = read(body).unwrap_err().to_string();
        assert!(error.contains(wants), "{body}: {error}");
    }
    let many = vec![r#"{"to":"all","type":"a","data":1}"#; 101];
    let error = read(&format!("[{}]", many.join(","))).unwrap_err();
    assert!(matches!(error, RequestError::Count(101)));
}
