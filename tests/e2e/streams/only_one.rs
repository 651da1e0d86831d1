//! A file has one notifier, and beside it there is none that keeps events elsewhere or nowhere.

use std::time::Duration;

use bellhop_notifier::{NotifierConfig, RunError, StoreKind};
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::stack::{PATIENCE, Running, Stack};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{notes, publish};

/// It waits a while for one that ends, and then says why it does not start.
async fn is_refused(config: NotifierConfig) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let running = bellhop_notifier::run(listener, config, CancellationToken::new());
    let refused = timeout(Duration::from_mins(1), running).await.unwrap();
    let error = refused.unwrap_err();
    assert!(matches!(error, RunError::OnlyOne { .. }), "{error:?}");
    let text = error.to_string();
    for word in ["store.lock", "store.kind", "store.url", "amqp.prefix"] {
        assert!(text.contains(word), "{text}");
    }
}

fn other_file(stack: &Stack) -> NotifierConfig {
    let mut config = stack.notifier_config();
    config.store.path = stack.folder.0.join("other.db");
    config
}

fn nowhere(stack: &Stack) -> NotifierConfig {
    let mut config = stack.notifier_config();
    config.store.kind = StoreKind::None;
    config
}

async fn starts(stack: &Stack, config: NotifierConfig) -> Running {
    timeout(PATIENCE, stack.notifier(config)).await.unwrap()
}

#[tokio::test]
async fn a_second_notifier_is_refused_where_one_keeps_events_in_a_file() {
    let stack = Stack::shared();
    let first = stack.notifier(stack.notifier_config()).await;
    tokio::join!(
        is_refused(other_file(&stack)),
        is_refused(stack.shared_config()),
        is_refused(nowhere(&stack)),
    );
    // Its place is free as soon as it has gone.
    let stop = first.stop();
    let second = stack.start_notifier(other_file(&stack)).await;
    stop.await;
    second.wait_ready(true).await;
    second.stop().await;
    starts(&stack, stack.shared_config()).await.stop().await;
}

#[tokio::test]
async fn a_notifier_with_a_file_is_refused_while_others_share_a_redis() {
    let stack = Stack::shared();
    let first = stack.notifier(stack.shared_config()).await;
    let second = starts(&stack, stack.shared_config()).await;
    // Also where one of them leaves meanwhile, and another comes.
    let third = async {
        first.stop().await;
        starts(&stack, stack.shared_config()).await
    };
    let (third, ()) = tokio::join!(third, is_refused(stack.notifier_config()));
    second.stop().await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&third, "ann").await;
    publish(&rabbit, "stored.user.ann.note", 1..=3).await;
    assert_eq!(
        notes(&mut ann, 3).await,
        [1, 2, 3],
        "the third has them all"
    );
    // From Redis to a file: the last leaves, and the file has its place at once.
    let stop = third.stop();
    let alone = stack.start_notifier(stack.notifier_config()).await;
    stop.await;
    alone.wait_ready(true).await;
    alone.stop().await;
}

#[tokio::test]
async fn a_notifier_with_a_file_is_refused_while_another_keeps_nothing() {
    let stack = Stack::shared();
    let first = stack.notifier(nowhere(&stack)).await;
    is_refused(stack.notifier_config()).await;
    first.stop().await;
}

/// It died before it consumed, or the broker did while it was away.
#[tokio::test]
async fn what_one_of_several_has_left_behind_keeps_nobody_out() {
    let (stack, expires) = (Stack::shared(), 5000);
    let gone = stack.notifier(stack.shared_config()).await;
    let rabbit = stack.rabbit().await;
    // The broker would refuse another than the notifier's.
    rabbit.declare_passing("store.lock", expires).await;
    gone.stop().await;
    assert!(!rabbit.exists("store.lock").await, "it goes with the last");
    rabbit.declare_passing("store.lock", expires).await;
    starts(&stack, stack.notifier_config()).await.stop().await;
}

#[tokio::test]
async fn a_restart_of_own_broker_does_not_part_who_shares() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let pair = [
        stack.notifier(stack.shared_config()).await,
        stack.notifier(stack.shared_config()).await,
    ];
    broker.stop().await;
    broker.start().await;
    for notifier in &pair {
        notifier.wait_ready(true).await;
    }
    assert_eq!(stack.rabbit().await.consumers("store.lock").await, 2);
    for notifier in pair {
        notifier.stop().await;
    }
}
