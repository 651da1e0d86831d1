//! The store hangs while it is to keep what is to be told.

use bellhop_common::config::Secret;
use bellhop_notifier::StoreKind;
use bellhop_tests::alerts::{count, fail};
use bellhop_tests::mattermost::Mattermost;
use bellhop_tests::redis::{LossyWay, OwnRedis};
use bellhop_tests::stack::Stack;

use super::{config, wait_until_told};

#[tokio::test]
async fn alerts_that_a_store_keeps_without_an_answer_are_told_once() {
    let redis = OwnRedis::started().await;
    let (way, stack) = (LossyWay::to(&redis).await, Stack::shared());
    let double = Mattermost::start().await.unwrap();
    let mut config = config(&stack, &double);
    config.store.kind = StoreKind::Redis;
    config.store.url = Some(Secret::new(format!("redis://{}", way.address)));
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    fail(&rabbit, "report", "before").await;
    wait_until_told(&double, 1).await;
    // Who waited for them would wait for ever.
    way.lose_answers();
    fail(&rabbit, "report", "meanwhile").await;
    wait_until_told(&double, 2).await;
    fail(&rabbit, "report", "after").await;
    let posts = wait_until_told(&double, 3).await;
    assert_eq!(posts.iter().map(count).sum::<u64>(), 3, "{posts:?}");
    notifier.stop().await;
    assert_eq!(rabbit.ready("alerts").await, 0);
}
