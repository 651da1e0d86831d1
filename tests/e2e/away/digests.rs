//! A digest stands for everything that is unread, also for what it does not show.

use bellhop_tests::smtp::Smtp;

use super::*;

/// More than one mail names.
const EVENTS: usize = 60;

/// The outcomes in the log of an event.
async fn outcomes(notifier: &Running, event: Uuid) -> Vec<String> {
    let log = log(notifier, event).await;
    let outcomes = log.iter().map(|entry| entry["outcome"].as_str().unwrap());
    outcomes.map(str::to_owned).collect()
}

#[tokio::test]
async fn what_a_digest_does_not_show_is_counted_and_in_the_log() {
    let smtp = Smtp::start().await;
    let scene = Scene::with(|settings| {
        settings.mail.smtp = Some(smtp.url());
        settings.mail.from = Some("noreply@example.org".into());
        let news = &mut settings.escalation.categories[0];
        (news.push_after, news.mail_after) = (None, Some(HumanDuration::from_secs(1)));
    })
    .await;
    let (boss, contact) = (admin_token("boss"), json!({"email": "ann@example.org"}));
    let path = "/api/users/ann/contact";
    let (status, answer) = ask(&scene.notifier, Method::PUT, path, &boss, &contact).await;
    assert_eq!(status, 204, "{answer}");
    // A wish has whole seconds.
    let at = Timestamp::from_second(Timestamp::now().as_second() + 10).unwrap();
    let wishes = json!({"time_zone": "UTC", "digest_at": at.strftime("%H:%M:%S").to_string(),
        "categories": {"news": {"mail": "daily"}}});
    scene.prefer("ann", &wishes).await;
    let mut events = Vec::new();
    for n in 0..EVENTS {
        let title = format!("No. {n:02}");
        let event = scene.publish("ann", "notification.created", &title);
        events.push(event.await);
    }
    let mails = smtp.wait_for(1).await;
    assert!(Timestamp::now() >= at, "a digest before its time");
    let text = &mails[0].text;
    for wants in [
        "Subject: No. 59, and 59 more",
        "60 things happened",
        "and 40 more.",
        "No. 40",
    ] {
        assert!(text.contains(wants), "{wants:?} in {text}");
    }
    assert!(!text.contains("No. 39"), "{text}");
    scene.logged(events[59], &["ordered", "sent"]).await;
    scene.logged(events[10], &["ordered", "sent"]).await;
    for event in &events[..10] {
        // Its own note to look comes with the others, or just after them.
        let outcomes = outcomes(&scene.notifier, *event).await;
        assert_eq!(outcomes[0], "summarised", "{outcomes:?}");
    }
    let newest = log(&scene.notifier, events[59]).await;
    let oldest = log(&scene.notifier, events[0]).await;
    assert_eq!(oldest[0]["order"], newest[0]["order"]);
    assert_eq!(smtp.count(), 1);
    scene.notifier.stop().await;
}
