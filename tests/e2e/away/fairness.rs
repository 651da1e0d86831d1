//! Who never answers holds up nobody else.

use bellhop_tests::push::Answer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// As many devices as a user may have, and more than all places for pushes.
const DEVICES: usize = 20;

/// To the mail server.
const CONNECTIONS: usize = 2;

/// More than the notifier takes at once.
const MAILS: u32 = 20;

/// Whether one of the attempts for an event was waited for until the end.
async fn was_given_up(notifier: &Running, event: Uuid) -> bool {
    let log = log(notifier, event).await;
    let slow = |entry: &Value| entry["took_ms"].as_u64().is_some_and(|took| took >= 5000);
    log.iter().any(slow)
}

#[tokio::test]
async fn endpoints_that_never_answer_do_not_hold_up_another_user() {
    let scene = Scene::begin().await;
    let hung = PushService::start().await;
    hung.answers(Answer::Hangs);
    for _ in 0..DEVICES {
        subscribe(&scene.notifier, &hung, "mallory").await;
    }
    scene.browser("ann").await;
    let slow = scene.publish("mallory", "notification.created", "M").await;
    hung.wait_for_requests(2).await;
    let event = scene.publish("ann", "notification.created", "Paid").await;
    scene.logged(event, &["ordered", "sent"]).await;
    assert_eq!(scene.push.messages()[0].body["title"], "Paid");
    assert!(!was_given_up(&scene.notifier, slow).await);
    assert_eq!(hung.requests(), 2, "mallory has two of the places");
    // The others were put off, and say why.
    let put_off = async {
        loop {
            let log = log(&scene.notifier, slow).await;
            let why = log.iter().filter_map(|entry| entry["detail"].as_str());
            if why.filter(|why| why.contains("this user")).count() >= DEVICES - 2 {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, put_off).await.expect("they are put off");
    scene.notifier.stop().await;
}

#[tokio::test]
async fn many_devices_of_one_user_are_all_served_at_once() {
    let scene = Scene::begin().await;
    for _ in 0..DEVICES {
        scene.browser("ann").await;
    }
    let event = scene.publish("ann", "notification.created", "Paid").await;
    scene.push.wait_for_messages(DEVICES).await;
    let wants = [["ordered"; DEVICES], ["sent"; DEVICES]].concat();
    scene.logged(event, &wants).await;
    scene.notifier.stop().await;
}

/// A mail server that takes connections and says nothing; how many came.
async fn mute_relay() -> (u16, watch::Receiver<usize>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (came, seen) = watch::channel(0);
    let task = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap());
            came.send_replace(held.len());
        }
    });
    (port, seen, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn a_mail_server_that_hangs_does_not_hold_pushes() {
    let (port, mut came, _relay) = mute_relay().await;
    let scene = Scene::with(|settings| {
        settings.mail.smtp = Some(format!("smtp+plain://127.0.0.1:{port}"));
        settings.mail.from = Some("noreply@example.org".into());
        settings.mail.connections = CONNECTIONS;
        settings.escalation.categories[0].mail_after = Some(HumanDuration::from_secs(1));
    })
    .await;
    let users: Vec<_> = (0..MAILS).map(|n| format!("user-{n}")).collect();
    let (http, boss) = (http(), admin_token("boss"));
    for user in &users {
        let contact = json!({"email": format!("{user}@example.org")});
        let url = scene.notifier.url(&format!("/api/users/{user}/contact"));
        let request = http.put(url).bearer_auth(&boss).body(contact.to_string());
        assert_eq!(request.send().await.unwrap().status(), 204);
    }
    scene.browser("ann").await;
    for user in &users {
        scene.publish(user, "notification.created", "Mail").await;
    }
    let waits = came.wait_for(|came| *came >= 2);
    timeout(PATIENCE, waits).await.expect("a mail").unwrap();
    // One goes and one waits for each connection; the others are anybody's.
    let left = MAILS - 2 * u32::try_from(CONNECTIONS).unwrap();
    scene.rabbit.holds("deliver.email", left).await;
    let event = scene.publish("ann", "notification.created", "Push").await;
    scene.push.wait_for_messages(1).await;
    scene.rabbit.settles_at("deliver.email", left).await;
    let log = log(&scene.notifier, event).await;
    assert!(log.iter().any(|entry| entry["channel"] == "push"));
    scene.notifier.stop().await;
}
