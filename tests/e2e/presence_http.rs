//! Who is in a room, asked by HTTP.

use bellhop_notifier::Access;
use bellhop_tests::client::Client;
use bellhop_tests::stack::{PATIENCE, Running, Stack, http, room_token, scoped_token, token};
use serde_json::{Value, json};
use tokio::time::timeout;

async fn ask(notifier: &Running, path: &str, token: &str) -> (u16, Value) {
    let request = http().get(notifier.url(path)).bearer_auth(token);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn enter(notifier: &Running, user: &str, place: Value) -> Client {
    let token = room_token(user, &["*"]);
    let mut client = Client::connect(notifier.address, &token).await;
    let mut frame = place;
    frame["type"] = json!("subscribe");
    client.send(&frame.to_string()).await;
    client.next_of("subscribed").await;
    client
}

#[tokio::test]
async fn backends_and_members_see_who_is_there_on_all_instances() {
    let stack = Stack::shared();
    let config = |name: &str| {
        let mut config = stack.shared_config();
        config.instance = Some(name.into());
        config
    };
    let one = stack.notifier(config("one")).await;
    let two = stack.notifier(config("two")).await;
    let _ann = enter(&one, "ann", json!({"room_id": "a/b ü"})).await;
    let _bob = enter(&two, "bob", json!({"room_id": "a/b ü"})).await;
    let _cat = enter(&two, "cat", json!({"chat_id": "a/b ü"})).await;
    let rooms = "/api/rooms/a%2Fb%20%C3%BC/presence";
    let shop = scoped_token("shop", "publish");
    let until_known = async {
        while ask(&one, rooms, &shop).await.1["count"] != 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, until_known)
        .await
        .expect("both are known");
    let wants = json!({"count": 2, "users": ["ann", "bob"], "more": false});
    for token in [
        shop.clone(),
        scoped_token("boss", "admin"),
        room_token("eve", &["room:a*"]),
    ] {
        assert_eq!(ask(&one, rooms, &token).await, (200, wants.clone()));
    }
    let limited = ask(&one, &format!("{rooms}?limit=1"), &shop).await;
    assert_eq!(
        limited,
        (200, json!({"count": 2, "users": ["ann"], "more": true}))
    );
    let chat = ask(&two, "/api/chats/a%2Fb%20%C3%BC/presence", &shop).await;
    assert_eq!(
        chat,
        (200, json!({"count": 1, "users": ["cat"], "more": false}))
    );
    let nobody = ask(&one, "/api/rooms/empty/presence", &shop).await;
    assert_eq!(
        nobody,
        (200, json!({"count": 0, "users": [], "more": false}))
    );
    two.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn who_may_not_enter_may_not_see() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let shop = scoped_token("shop", "publish");
    let rooms = "/api/rooms/r/presence";
    let (long, none) = (format!("/api/rooms/{}/presence", "x".repeat(129)), "");
    for (path, token, status, code) in [
        (rooms, &token("eve"), 403, "forbidden"),
        (rooms, &room_token("eve", &["chat:*"]), 403, "forbidden"),
        (rooms, &none.to_owned(), 401, "no_token"),
        (&format!("{rooms}?limit=0"), &shop, 400, "bad_query"),
        (&format!("{rooms}?limit=1001"), &shop, 400, "bad_query"),
        (&format!("{rooms}?x=1"), &shop, 400, "bad_query"),
        (&long, &shop, 400, "bad_id"),
        ("/api/rooms/%zz/presence", &shop, 400, "bad_id"),
        ("/api/rooms/r", &shop, 404, "not_found"),
    ] {
        let (found, body) = ask(&notifier, path, token).await;
        assert_eq!(
            (found, &body["error"]["code"]),
            (status, &json!(code)),
            "{path}"
        );
    }
    notifier.stop().await;
}

#[tokio::test]
async fn the_backend_is_asked_who_may_see() {
    let stack = Stack::shared();
    let port = bellhop_tests::broker::free_port();
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Callback;
    config.rooms.callback_url = Some(format!("http://127.0.0.1:{port}/may"));
    let notifier = stack.notifier(config).await;
    let path = "/api/rooms/r/presence";
    // Nobody answers there, and that counts as no.
    let (status, body) = ask(&notifier, path, &token("ann")).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (503, &json!("unavailable"))
    );
    let backend = warp::serve(warp::Filter::map(
        warp::Filter::and(warp::post(), warp::body::json()),
        |question: Value| {
            let allowed = question == json!({"user_id": "ann", "room_id": "r"});
            warp::reply::json(&json!({ "allowed": allowed }))
        },
    ));
    let backend = tokio::spawn(backend.run(([127, 0, 0, 1], port)));
    let until_asked = async {
        while ask(&notifier, path, &token("ann")).await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, until_asked).await.expect("ann may see");
    assert_eq!(ask(&notifier, path, &token("bob")).await.0, 403);
    backend.abort();
    notifier.stop().await;
}
