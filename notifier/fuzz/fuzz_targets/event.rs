//! The routing key and the body of an event.
#![no_main]

use bellhop_common::wire::{Event, EventKey, KeyError, decode_word, encode_word};
use bellhop_notifier::protocol::{self, Place};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let mut halves = bytes.splitn(2, |byte| *byte == b'\n');
    let (key, body) = (
        halves.next().unwrap_or_default(),
        halves.next().unwrap_or_default(),
    );
    let key = std::str::from_utf8(key).ok().and_then(read_key);
    let Ok(event) = Event::parse(body) else {
        return;
    };
    let written = event.to_bytes().expect("what was read can be written");
    let again = Event::parse(&written).expect("and read again");
    assert_eq!(again.to_bytes().expect("again"), written);
    assert_eq!(
        (&event.kind, event.id, event.time),
        (&again.kind, again.id, again.time)
    );
    let raw = |event: &Event| event.data.as_ref().map(|data| data.get().to_owned());
    assert_eq!(raw(&event), raw(&again));
    if let Some(key) = key {
        as_frame(&key, event);
    }
});

fn read_key(text: &str) -> Option<EventKey> {
    assert_eq!(decode_word(&encode_word(text)).as_deref(), Some(text));
    let key = EventKey::parse(text).ok()?;
    match key.encode() {
        Ok(written) => assert_eq!(EventKey::parse(&written).as_ref(), Ok(&key)),
        Err(error) => assert!(matches!(error, KeyError::TooLong { .. }), "{error}"),
    }
    Some(key)
}

fn as_frame(key: &EventKey, event: Event) {
    let id = event.id;
    let Some(frame) = protocol::event(key, event, None) else {
        return;
    };
    let told: Value = serde_json::from_str(frame.text()).expect("a frame is JSON");
    assert_eq!(told["id"], id.to_string());
    if let Some(place) = Place::of(&key.audience) {
        assert_eq!(told[place.kind.field()], *place.id, "the key says where");
    }
    let (wire, text) = (frame.wire(), frame.text());
    assert_eq!(wire[0], 0x81);
    let head = match wire[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    assert_eq!(&wire[head..], text.as_bytes());
}
