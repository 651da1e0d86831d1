//! A client's text frame.
#![no_main]

use bellhop_common::wire::{EventClass, EventKey, MAX_ID_BYTES};
use bellhop_notifier::protocol::{self, ClientFrame, Command, Place};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const CODES: &[&str] = &[
    "bad_frame",
    "missing_field",
    "bad_field",
    "reserved_type",
    "bad_type",
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match ClientFrame::parse(text) {
        Ok(frame) => accepted(text, &frame),
        Err(error) => {
            let code = error.problem.code();
            assert!(CODES.contains(&code), "{code}");
            let answer = protocol::error(code, &error.to_string(), error.id.as_ref());
            let answer: Value = serde_json::from_str(answer.text()).expect("the answer is JSON");
            if error.id.as_ref().is_none_or(is_exact) {
                assert_eq!(answer.get("id"), error.id.as_ref());
            }
        }
    }
});

/// A number with a fraction or of more than 64 bits is read as the nearest `f64`, or one beside it.
fn is_exact(id: &Value) -> bool {
    match id {
        Value::Number(number) => !number.is_f64(),
        Value::Array(list) => list.iter().all(is_exact),
        Value::Object(fields) => fields.values().all(is_exact),
        _ => true,
    }
}

fn accepted(text: &str, frame: &ClientFrame) {
    let whole: Value = serde_json::from_str(text).expect("an accepted frame is JSON");
    let kind = whole["type"].as_str().expect("with a type");
    let pong = protocol::pong(frame.id.as_ref());
    serde_json::from_str::<Value>(pong.text()).expect("an id can be echoed");
    match &frame.command {
        Command::Ping => assert_eq!(kind, "ping"),
        Command::Resume(_) => assert_eq!(kind, "resume"),
        Command::Ack(seq) => assert_eq!((kind, &whole["seq"]), ("ack", &Value::from(*seq))),
        Command::Read(_) => assert_eq!(kind, "read"),
        Command::Auth { token, .. } => assert_eq!(whole["token"], **token),
        Command::Subscribe { place, .. }
        | Command::Unsubscribe(place)
        | Command::Presence(place) => named(&whole, place),
        Command::Relay(relay) => {
            assert_eq!(relay.kind, kind);
            if let Some(place) = &relay.place {
                named(&whole, place);
                let (class, audience) = (EventClass::Live, place.audience());
                let topic = relay.kind.clone();
                let key = EventKey {
                    class,
                    audience,
                    topic,
                };
                if let Ok(written) = key.encode() {
                    assert_eq!(EventKey::parse(&written), Ok(key));
                }
            }
            for content in [&relay.payload, &relay.data].into_iter().flatten() {
                assert!(text.contains(content.get()), "passed on as it was");
            }
        }
    }
}

fn named(whole: &Value, place: &Place) {
    assert!((1..=MAX_ID_BYTES).contains(&place.id.len()));
    assert_eq!(whole[place.kind.field()], *place.id);
}
