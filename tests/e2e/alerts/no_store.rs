//! Alerts where nothing is kept: the queue keeps them until they are posted.

use bellhop_notifier::StoreKind;
use bellhop_tests::mattermost::{Mattermost, Mode};
use bellhop_tests::stack::{PATIENCE, Stack, admin_token, http};
use serde_json::Value;

use super::{config, wait_until_told};
use bellhop_tests::alerts::fail;

#[tokio::test]
async fn without_a_store_alerts_stay_in_the_queue_until_they_are_posted() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    double.set_mode(Mode::Status(503));
    let mut config = config(&stack, &double);
    config.store.kind = StoreKind::None;
    let notifier = stack.notifier(config.clone()).await;
    let rabbit = stack.rabbit().await;
    for n in 0..3 {
        fail(&rabbit, "report", &format!("failure {n}")).await;
    }
    double.wait_for_requests(1, PATIENCE).await.unwrap();
    rabbit.fetched("alerts").await;
    notifier.stop().await;
    // None is posted yet.
    rabbit.settles_at("alerts", 3).await;

    let notifier = stack.notifier(config).await;
    rabbit.fetched("alerts").await;
    double.set_mode(Mode::Healthy);
    let posts = wait_until_told(&double, 3).await;
    assert_eq!(posts.len(), 1, "{posts:?}");
    let attachment = &posts[0].attachments[0];
    assert!(attachment.footer.contains("may repeat"), "{attachment:?}");
    // There is nothing to ask.
    for path in ["/api/alerts", "/api/alerts/silences"] {
        let request = http().get(notifier.url(path));
        let answer = request.bearer_auth(admin_token("root")).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 501);
        let error: Value = answer.json().await.unwrap();
        assert_eq!(error["error"]["code"], "no_store");
    }
    fail(&rabbit, "report", "fresh").await;
    let posts = wait_until_told(&double, 4).await;
    let footer = &posts[1].attachments[0].footer;
    assert!(!footer.contains("may repeat"), "{footer}");
    notifier.stop().await;
    assert_eq!(rabbit.ready("alerts").await, 0, "all are posted");
}
