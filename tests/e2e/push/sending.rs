//! One message to one browser.

use std::time::{Duration, Instant};

use bellhop_common::telemetry::with_causes;
use bellhop_common::tls;
use bellhop_common::wire::Event;
use bellhop_notifier::push::{MAX_BODY, PushError, PushNote, Pusher, Topic, Urgency, Verdict};
use bellhop_tests::push::{Answer, Browser, PushService, SECRET_WORD, config};
use bellhop_tests::stack::Folder;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

fn pusher(folder: &Folder) -> Pusher {
    tls::install_provider();
    Pusher::new(&config(&folder.0)).unwrap()
}

/// One that takes no private address.
fn strict(folder: &Folder) -> Pusher {
    tls::install_provider();
    let mut settings = config(&folder.0);
    settings.allow_private = false;
    Pusher::new(&settings).unwrap()
}

fn note(body: &serde_json::Value) -> PushNote {
    let event = Event::new("note", Uuid::now_v7(), Timestamp::now(), body).unwrap();
    PushNote::of_event(&event, Some(7), Duration::from_mins(5))
}

/// The error, as it would be logged.
async fn refused(pusher: &Pusher, browser: &Browser) -> (PushError, String) {
    let (to, said) = (browser.subscription(), note(&json!({"body": "hi"})));
    let sent = pusher.send(&to, &said);
    let error = sent.await.unwrap_err();
    let shown = format!("{} {error:?}", with_causes(&error));
    assert!(!shown.contains("hunter2"), "{shown}");
    (error, shown)
}

#[tokio::test]
async fn a_message_comes_out_as_it_went_in_and_its_sender_is_known() {
    let (folder, service) = (Folder::new(), PushService::start().await);
    let pusher = pusher(&folder);
    let browser = service.subscribe(pusher.public_key());
    let mut sent = note(&json!({"title": "Paid", "body": "7 € 🙂", "url": "/orders/7"}));
    sent.urgency = Urgency::High;
    sent.topic = Some(Topic::of("order:7"));
    pusher.send(&browser.subscription(), &sent).await.unwrap();
    let came = service.wait_for_messages(1).await.remove(0);
    assert_eq!(came.browser, browser.endpoint);
    assert_eq!(
        came.body,
        serde_json::from_slice::<serde_json::Value>(&sent.body).unwrap()
    );
    assert_eq!(
        (&came.body["title"], &came.body["body"]),
        (&json!("Paid"), &json!("7 € 🙂"))
    );
    let topic = Topic::of("order:7");
    let headers = [
        ("ttl", "300"),
        ("urgency", "high"),
        ("topic", topic.as_str()),
    ];
    for (name, wants) in headers {
        assert_eq!(came.headers[name], wants);
    }

    // The largest that there is, and one more.
    let mut largest = note(&json!({"body": "x".repeat(9000)}));
    assert_eq!(largest.body.len(), MAX_BODY);
    largest.topic = None;
    pusher
        .send(&browser.subscription(), &largest)
        .await
        .unwrap();
    let came = service.wait_for_messages(2).await.remove(1);
    assert_eq!(came.headers["topic"], "");
    largest.body = [&largest.body[..], b" "].concat().into();
    let sent = pusher.send(&browser.subscription(), &largest).await;
    assert!(matches!(sent, Err(PushError::TooLarge)), "{sent:?}");
    assert_eq!((service.requests(), service.problems()), (2, vec![]));
}

#[tokio::test]
async fn each_answer_means_something_for_the_device_and_for_the_message() {
    let (folder, service) = (Folder::new(), PushService::start().await);
    let pusher = pusher(&folder);
    let browser = service.subscribe(pusher.public_key());
    let after = |seconds: &str| vec![("retry-after", seconds.to_owned())];
    for (status, headers, verdict, may_pass, retry_after) in [
        (400, vec![], Verdict::Refused, false, None),
        (401, vec![], Verdict::Refused, false, None),
        (403, vec![], Verdict::Refused, false, None),
        (404, vec![], Verdict::Gone, false, None),
        (410, vec![], Verdict::Gone, false, None),
        (413, vec![], Verdict::Unknown, false, None),
        (429, vec![], Verdict::Unknown, true, None),
        (429, after("120"), Verdict::Unknown, true, Some(120)),
        (429, after("999999"), Verdict::Unknown, true, Some(3600)),
        (408, vec![], Verdict::Unknown, true, None),
        (500, vec![], Verdict::Unknown, true, None),
        (503, after("7"), Verdict::Unknown, true, Some(7)),
    ] {
        service.answers(Answer::Says(status, headers));
        let (error, shown) = refused(&pusher, &browser).await;
        assert_eq!(error.verdict(), verdict, "{status}");
        assert_eq!(error.may_pass(), may_pass, "{status}");
        assert_eq!(
            error.retry_after(),
            retry_after.map(Duration::from_secs),
            "{status}"
        );
        let says_why = !matches!(status, 404 | 410 | 413 | 429);
        assert_eq!(shown.contains("BadJwtToken"), says_why, "{status}: {shown}");
        assert_eq!(says_why, shown.contains(&status.to_string()), "{shown}");
    }
    assert_eq!(service.problems(), [""; 0]);
    service.unsubscribe(&browser);
    assert!(matches!(
        refused(&pusher, &browser).await.0,
        PushError::Gone
    ));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (folder, service) = (Folder::new(), PushService::start().await);
    let pusher = pusher(&folder);
    let browser = service.subscribe(pusher.public_key());
    let elsewhere = service.subscribe(pusher.public_key()).endpoint;
    for status in [301, 302, 307, 308] {
        service.answers(Answer::Says(status, vec![("location", elsewhere.clone())]));
        let (error, shown) = refused(&pusher, &browser).await;
        assert_eq!(error.verdict(), Verdict::Refused);
        assert!(shown.contains("redirects are not followed"), "{shown}");
    }
    assert_eq!(service.requests(), 4);
}

#[tokio::test]
async fn who_does_not_answer_is_not_waited_for_and_what_is_taken_is_taken() {
    let (folder, service) = (Folder::new(), PushService::start().await);
    let pusher = pusher(&folder);
    let browser = service.subscribe(pusher.public_key());
    service.answers(Answer::TakesSlowly);
    let begun = Instant::now();
    let (to, said) = (browser.subscription(), note(&json!({"body": "hi"})));
    let sent = pusher.send(&to, &said);
    sent.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "its endless answer was read"
    );
    service.answers(Answer::Hangs);
    let begun = Instant::now();
    let (error, shown) = refused(&pusher, &browser).await;
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(
        error.may_pass() && shown.contains("no answer within"),
        "{shown}"
    );
    let nobody = service.subscribe(pusher.public_key());
    drop(service);
    let (error, _) = refused(&pusher, &nobody).await;
    assert!(error.may_pass() && error.verdict() == Verdict::Unknown);
}

#[tokio::test]
async fn nothing_is_sent_to_where_only_we_can_reach() {
    let (folder, service) = (Folder::new(), PushService::start().await);
    let pusher = strict(&folder);
    let mut browser = service.subscribe(pusher.public_key());
    let port = browser.endpoint.rsplit_once(':').unwrap().1.to_owned();
    let (port, path) = port.split_once('/').unwrap();
    for host in [
        "https://localhost",
        "https://127.0.0.1",
        "https://[::1]",
        "https://[::ffff:10.0.0.1]",
        "https://169.254.169.254",
        "https://0x7f000001",
        "https://hunter2:hunter2@push.example",
        "http://push.example",
        &format!("https://localhost:{port}"),
        &format!("http://127.0.0.1:{port}"),
    ] {
        browser.endpoint = format!("{host}/{path}");
        let (error, shown) = refused(&pusher, &browser).await;
        assert_eq!(error.verdict(), Verdict::Refused, "{host}: {shown}");
        let by_name = matches!(error, PushError::ForbiddenAddress { .. });
        assert_eq!(by_name, host == "https://localhost", "{host}: {shown}");
        assert!(!error.may_pass());
    }
    assert_eq!(service.requests(), 0);
}

#[tokio::test]
async fn a_subscription_for_another_key_of_ours_is_not_tried() {
    let (folder, service) = (Folder::new(), PushService::start().await);
    let before = pusher(&folder).public_key().to_owned();
    let browser = service.subscribe(&before);
    assert!(browser.endpoint.contains(SECRET_WORD));
    let pusher = pusher(&folder);
    assert_ne!(pusher.public_key(), before);
    let (error, _) = refused(&pusher, &browser).await;
    assert!(matches!(error, PushError::OtherKey));
    assert_eq!((error.verdict(), service.requests()), (Verdict::Refused, 0));
}
