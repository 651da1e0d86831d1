//! `notifier store`: while a notifier runs, and about files that are none.

use bellhop_tests::stack::Stack;
use serde_json::json;
use uuid::Uuid;

use super::run_at;

#[tokio::test]
async fn the_file_is_checked_and_copied_while_it_is_used() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let body = json!({"type": "note", "id": Uuid::now_v7(), "time": "2026-01-15T10:30:00Z"});
    let rabbit = stack.rabbit().await;
    rabbit
        .publish("events", "stored.user.ann.note", body.to_string())
        .await;
    ann.next_of("note").await;

    let checked = run_at(&stack, "notifier", &["store", "check"], &[]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    assert!(checked.out.contains("store.db: sound"), "{}", checked.out);
    let copy = stack.folder.0.join("copy.db");
    let backup = ["store", "backup", copy.to_str().unwrap()];
    let copied = run_at(&stack, "notifier", &backup, &[]).await;
    assert_eq!(copied.code, Some(0), "{}", copied.err);
    let again = run_at(&stack, "notifier", &backup, &[]).await;
    assert_eq!(again.code, Some(1), "nothing is overwritten: {}", again.out);
    notifier.stop().await;
    let vacuumed = run_at(&stack, "notifier", &["store", "vacuum"], &[]).await;
    assert_eq!(vacuumed.code, Some(0), "{}", vacuumed.err);

    std::fs::write(&copy, "no database ".repeat(1000)).unwrap();
    let path = format!("store.path={}", copy.display());
    let checked = run_at(&stack, "notifier", &["store", "check", "--set", &path], &[]).await;
    assert_eq!(checked.code, Some(1), "{}", checked.out);
    assert!(checked.err.contains("no SQLite file"), "{}", checked.err);
    let none = ["store", "check", "--set", "store.kind=none"];
    let checked = run_at(&stack, "notifier", &none, &[]).await;
    assert_eq!(checked.code, Some(1));
    assert!(checked.err.contains("store.kind"), "{}", checked.err);
}
