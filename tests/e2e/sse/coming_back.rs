//! Streams that are cut, wherever that is: who gives the last id back is shown everything once.

use std::time::Duration;

use bellhop_common::config::{HumanDuration, Secret};
use bellhop_notifier::{Access, NotifierConfig};
use bellhop_tests::backend::{Backend, YES};
use bellhop_tests::client::{Client, metric_becomes};
use bellhop_tests::event_stream::{Event, EventStream, listen};
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::redis::OwnRedis;
use bellhop_tests::stack::{Running, Stack, room_token, token};
use serde_json::{Value, json};

use super::{STREAMS, event};

/// What a client of a room has been shown, over all of its connections.
#[derive(Debug, Default, Clone)]
struct Shown {
    user: Vec<u64>,
    all: Vec<u64>,
    room: Vec<u64>,
    last_id: Option<String>,
    /// What was said of what it missed.
    recovered: Vec<Value>,
    frames: usize,
}

impl Shown {
    fn after(id: &str) -> Self {
        Self {
            last_id: Some(id.to_owned()),
            ..Self::default()
        }
    }

    fn take(&mut self, event: Event) -> Value {
        let frame = event.json();
        self.frames += 1;
        self.last_id = event.id.or(self.last_id.take());
        self.recovered.extend(frame.get("recovered").cloned());
        if frame["type"] == "note" {
            let stream = match frame["audience"].as_str() {
                Some("user") => &mut self.user,
                Some("all") => &mut self.all,
                _ => &mut self.room,
            };
            stream.push(frame["data"].as_u64().unwrap());
        }
        frame
    }

    /// Comes (back), reads so many frames, and is cut off.
    async fn read(&mut self, notifier: &Running, token: &str, frames: usize) {
        let mut stream = self.come(notifier, token).await;
        for _ in 0..frames {
            let event = stream.next_event().await.unwrap();
            self.take(event);
        }
    }

    /// Comes (back), and reads until it has entered the room and what is behind that.
    async fn read_all(&mut self, scene: &Scene, token: &str) {
        let mut stream = self.come(&scene.notifier, token).await;
        self.until(&mut stream, "subscribed").await;
        scene.publish("live.room.r.end", 0..=0).await;
        self.until(&mut stream, "end").await;
    }

    async fn until(&mut self, stream: &mut EventStream, kind: &str) {
        loop {
            let event = stream.next_event().await.unwrap();
            if self.take(event)["type"] == kind {
                return;
            }
        }
    }

    async fn come(&self, notifier: &Running, token: &str) -> EventStream {
        let mut request = listen(notifier, "?room_id=r").bearer_auth(token);
        if let Some(id) = &self.last_id {
            request = request.header("last-event-id", id);
        }
        EventStream::open(request).await
    }
}

/// A notifier, and a watcher of the room, who sees what is kept.
struct Scene {
    notifier: Running,
    rabbit: Rabbit,
    watcher: Client,
}

impl Scene {
    async fn begin(stack: &Stack, config: NotifierConfig) -> Self {
        let notifier = stack.notifier(config).await;
        let watching = room_token("watcher", &["room:r"]);
        let mut watcher = Client::connect(notifier.address, &watching).await;
        watcher.send(r#"{"type":"join_room","room_id":"r"}"#).await;
        watcher.next_of("subscribed").await;
        Self {
            rabbit: stack.rabbit().await,
            notifier,
            watcher,
        }
    }

    async fn publish(&self, key: &str, numbers: std::ops::RangeInclusive<u64>) {
        let kind = key.rsplit('.').next().unwrap();
        for n in numbers {
            let (_, body) = event(kind, &json!(n));
            self.rabbit.publish("events", key, body).await;
        }
    }

    /// The same to the room, and waits until all that was published is kept.
    async fn publish_to_room(&mut self, numbers: std::ops::RangeInclusive<u64>) {
        let last = *numbers.end();
        self.publish("stored.room.r.note", numbers).await;
        while self.watcher.next_of("note").await["data"] != last {}
    }
}

/// Who may enter is known at once, or only once a backend has said so.
async fn cut_at_every_frame(configure: impl FnOnce(&mut NotifierConfig)) {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    configure(&mut config);
    let mut scene = Scene::begin(&stack, config).await;
    let ann = room_token("ann", &["room:r"]);
    let mut start = Shown::default();
    start.read(&scene.notifier, &ann, 2).await;
    let start = start.last_id.unwrap();
    scene.publish("stored.user.ann.note", 1..=3).await;
    scene.publish("stored.all.all.note", 4..=5).await;
    scene.publish_to_room(6..=7).await;
    let mut whole = Shown::after(&start);
    whole.read_all(&scene, &ann).await;
    // `connected`, three and two, `resumed`, `subscribed`, two; and one that is not kept.
    assert_eq!(whole.frames, 11, "{whole:?}");
    for cut in 1..whole.frames {
        let mut shown = Shown::after(&start);
        shown.read(&scene.notifier, &ann, cut).await;
        let cut_at = shown.clone();
        shown.read_all(&scene, &ann).await;
        let context = format!("cut after {cut} frames: {cut_at:?} {shown:?}");
        assert_eq!(shown.user, [1, 2, 3], "{context}");
        assert_eq!(shown.all, [4, 5], "{context}");
        assert_eq!(shown.room, [6, 7], "{context}");
        let all_is_there = shown.recovered.iter().all(|recovered| recovered == true);
        assert!(all_is_there, "{context}");
    }
    scene.notifier.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_cut_at_any_frame_goes_on_where_it_was() {
    cut_at_every_frame(|_| {}).await;
}

#[tokio::test]
async fn a_stream_that_is_cut_before_the_backend_has_answered_knows_the_room_all_the_same() {
    let backend = Backend::start(YES).await;
    cut_at_every_frame(|config| {
        config.rooms.access = Access::Callback;
        config.rooms.callback_url = Some(backend.url());
    })
    .await;
}

/// Without any event before it is cut there is nothing but the first frames that could say where it is.
#[tokio::test]
async fn a_first_visit_that_is_cut_goes_on_where_it_was() {
    let stack = Stack::shared();
    let backend = Backend::start(YES).await;
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Callback;
    config.rooms.callback_url = Some(backend.url());
    let mut scene = Scene::begin(&stack, config).await;
    for cut in 1..=4 {
        let user = format!("user{cut}");
        let token = token(&user);
        let own = format!("stored.user.{user}.note");
        let base = 10 * cut;
        scene.publish(&own, base + 1..=base + 2).await;
        scene.publish_to_room(base + 3..=base + 3).await;
        let mut shown = Shown::default();
        // `connected`, two, `subscribed`.
        let frames = usize::try_from(cut).unwrap();
        shown.read(&scene.notifier, &token, frames).await;
        let cut_at = shown.clone();
        scene.publish(&own, base + 4..=base + 4).await;
        scene
            .publish("stored.all.all.note", base + 5..=base + 5)
            .await;
        scene.publish_to_room(base + 6..=base + 6).await;
        shown.read_all(&scene, &token).await;
        let context = format!("cut after {cut} frames: {cut_at:?} {shown:?}");
        assert_eq!(shown.user, [base + 1, base + 2, base + 4], "{context}");
        assert_eq!(shown.all, [base + 5], "{context}");
        // Before `subscribed` it was told of no room.
        if cut == 4 {
            assert_eq!(shown.room, [base + 6], "{context}");
        }
    }
    scene.notifier.stop().await;
}

#[tokio::test]
async fn what_is_lost_is_told_again_to_who_was_cut_before_it_was_told() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.store.keep_events = 3;
    let mut scene = Scene::begin(&stack, config).await;
    let ann = room_token("ann", &["room:r"]);
    let mut start = Shown::default();
    start.read(&scene.notifier, &ann, 2).await;
    let start = start.last_id.unwrap();
    scene.publish("stored.user.ann.note", 1..=6).await;
    scene.publish_to_room(1..=6).await;
    for cut in 1..=3 {
        // `connected`, `resumed`, `subscribed`.
        let mut shown = Shown::after(&start);
        shown.read(&scene.notifier, &ann, cut).await;
        let told = shown.recovered.len();
        shown.read(&scene.notifier, &ann, 3).await;
        let context = format!("cut after {cut} frames: {shown:?}");
        assert_eq!(shown.recovered.len(), told + 2, "{context}");
        let (before, after) = shown.recovered.split_at(told);
        assert!(
            before.iter().all(|recovered| recovered == false),
            "{context}"
        );
        // What was told counts as seen, and nothing else does.
        assert_eq!(after[0], told >= 1, "{context}");
        assert_eq!(after[1], told == 2, "{context}");
        assert!(shown.user.is_empty() && shown.room.is_empty(), "{context}");
    }
    scene.notifier.stop().await;
}

/// It would grow with every room that a page goes to, until it is too long to be given back.
#[tokio::test]
async fn an_id_names_no_room_that_the_address_does_not_name() {
    let stack = Stack::shared();
    let scene = Scene::begin(&stack, stack.notifier_config()).await;
    let ann = room_token("ann", &["room:*"]);
    let mut shown = Shown::default();
    shown.read(&scene.notifier, &ann, 2).await;
    let id = shown.last_id.unwrap();
    assert!(id.contains("room.r."), "{id}");
    let elsewhere = id.replace("room.r.", "room.other.");
    let mut shown = Shown::after(&format!("{id},{elsewhere}"));
    for frames in 1..=3 {
        shown.read(&scene.notifier, &ann, frames).await;
        assert_eq!(shown.last_id.as_ref(), Some(&id), "after {frames} frames");
    }
    scene.notifier.stop().await;
}

/// What a stream without an id is shown of `ann`'s.
async fn notes_without_an_id(scene: &Scene) -> Vec<Value> {
    let mut stream = EventStream::of(&scene.notifier, &token("ann"), "").await;
    scene.publish("live.user.ann.end", 0..=0).await;
    let mut notes = Vec::new();
    loop {
        let mut frame = stream.next().await;
        match frame["type"].as_str() {
            Some("note") => notes.push(frame["data"].take()),
            Some("end") => return notes,
            _ => {}
        }
    }
}

#[tokio::test]
async fn only_an_id_that_comes_back_proves_that_something_has_arrived() {
    let stack = Stack::shared();
    let settings = || {
        let mut config = stack.notifier_config();
        config.websocket.ping_interval = HumanDuration(Duration::from_millis(100));
        config
    };
    let scene = Scene::begin(&stack, settings()).await;
    let ann = token("ann");
    let mut stream = EventStream::of(&scene.notifier, &ann, "").await;
    scene.publish("stored.user.ann.note", 1..=1).await;
    let note = stream.next_event().await.unwrap();
    assert_eq!(note.json()["data"], 1);
    let id = note.id.unwrap();
    // They may be in a buffer of the system or of a proxy, and so may what was written before.
    for _ in 0..3 {
        stream.comment().await;
    }
    drop(stream);
    metric_becomes(&scene.notifier, STREAMS, 0).await;
    assert_eq!(notes_without_an_id(&scene).await, [1]);
    // Nor does the end of the notifier.
    let mut stream = EventStream::of(&scene.notifier, &ann, "").await;
    assert_eq!(stream.next().await["data"], 1);
    drop(scene.watcher);
    scene.notifier.stop().await;
    assert_eq!(stream.next_of("closed").await["reason"], "restart");
    let scene = Scene::begin(&stack, settings()).await;
    assert_eq!(notes_without_an_id(&scene).await, [1]);

    let back = listen(&scene.notifier, "").header("last-event-id", id);
    let mut stream = EventStream::open(back.bearer_auth(&ann)).await;
    assert_eq!(stream.next_of("resumed").await["recovered"], true);
    drop(stream);
    metric_becomes(&scene.notifier, STREAMS, 0).await;
    assert_eq!(notes_without_an_id(&scene).await, [0; 0]);
    scene.notifier.stop().await;
}

#[tokio::test]
async fn an_id_of_one_life_of_a_stream_proves_nothing_of_the_next() {
    let mut redis = OwnRedis::started().await;
    let stack = Stack::shared();
    let mut config = stack.shared_config();
    config.store.url = Some(Secret::new(redis.url()));
    let scene = Scene::begin(&stack, config).await;
    let ann = token("ann");
    let mut stream = EventStream::of(&scene.notifier, &ann, "").await;
    scene.publish("stored.user.ann.note", 1..=3).await;
    let mut id = None;
    for _ in 0..3 {
        id = stream.next_event().await.unwrap().id;
    }
    drop(stream);
    let back = listen(&scene.notifier, "").header("last-event-id", id.unwrap());
    let mut stream = EventStream::open(back.bearer_auth(&ann)).await;
    assert_eq!(stream.next_of("resumed").await["recovered"], true);
    // It comes back with nothing.
    redis.kill();
    redis = OwnRedis::started_instead_of(redis).await;
    scene.publish("stored.user.ann.note", 4..=4).await;
    assert_eq!(stream.next_of("note").await["seq"], 1);
    drop(stream);
    metric_becomes(&scene.notifier, STREAMS, 0).await;
    scene.publish("stored.user.ann.note", 5..=5).await;
    let mut again = EventStream::of(&scene.notifier, &ann, "").await;
    for n in 4..=5 {
        assert_eq!(again.next_of("note").await["data"], n);
    }
    drop(again);
    scene.notifier.stop().await;
    drop(redis);
}
