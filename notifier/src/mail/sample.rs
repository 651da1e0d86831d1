//! Mails to try templates with.

use std::collections::BTreeMap;

use bellhop_common::wire::Event;
use jiff::Timestamp;
use serde_json::value::to_raw_value;
use uuid::Uuid;

use super::{Item, Mail, Tone};

const LINK: &str = "https://example.org/";

/// A digest with everything in it, and one event with as little as there may be; ends when one of
/// them fails.
pub(super) fn mails<E>(mut each: impl FnMut(&Mail<'_>) -> Result<(), E>) -> Result<(), E> {
    let event = Event {
        kind: "sample".into(),
        id: Uuid::nil(),
        time: Timestamp::UNIX_EPOCH,
        data: to_raw_value(&serde_json::json!({})).ok(),
        extra: BTreeMap::new(),
    };
    let bare = Item {
        title: "A sample".into(),
        text: String::new(),
        link: None,
        time: event.time,
        tone: Tone::Good,
        event: &event,
    };
    let full = Item {
        text: "Two\nlines".into(),
        link: Some(LINK.into()),
        tone: Tone::Bad,
        ..bare.clone()
    };
    let poor = Mail {
        to: "ann@example.org",
        name: None,
        id: Uuid::nil(),
        thread: None,
        items: std::slice::from_ref(&bare),
        more: 0,
        category: "sample",
        unsubscribe: None,
        settings: None,
    };
    let items = vec![full; 30];
    let rich = Mail {
        name: Some("Ann"),
        thread: Some("sample"),
        items: &items,
        more: 5,
        unsubscribe: Some(LINK),
        settings: Some(LINK),
        ..poor
    };
    each(&poor)?;
    each(&rich)
}
