//! The same over HTTP, for administrators.

use bellhop_tests::stack::{Running, Stack, admin_token, http, token};
use reqwest::Method;
use serde_json::{Value, json};

use super::{bury, four_letters};

struct Admin {
    notifier: Running,
    token: String,
}

impl Admin {
    async fn of(stack: &Stack) -> Self {
        Self {
            notifier: stack.notifier(stack.notifier_config()).await,
            token: admin_token("root"),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        ask(&self.notifier, Some(&self.token), method, path, body).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }
}

async fn ask(
    notifier: &Running,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let mut request = http().request(method, notifier.url(path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn ids(answer: &Value) -> Vec<&str> {
    let letters = answer["letters"].as_array().unwrap();
    letters
        .iter()
        .map(|letter| letter["id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn only_an_administrator_is_let_in() {
    let (stack, rabbit) = four_letters().await;
    let mut config = stack.notifier_config();
    config.auth.administrators = vec!["boss".into()];
    let notifier = stack.notifier(config).await;
    for (method, path) in [
        (Method::GET, "/api/dead"),
        (Method::GET, "/api/dead/a"),
        (Method::POST, "/api/dead/replay"),
        (Method::POST, "/api/dead/drop"),
    ] {
        let body = (method == Method::POST).then(|| json!({"all": true}));
        let nobody = ask(&notifier, None, method.clone(), path, body.clone()).await;
        assert_eq!(nobody.0, 401, "{path}: {}", nobody.1);
        let (status, answer) = ask(&notifier, Some(&token("ann")), method, path, body).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (403, &json!("not_admin")),
            "{path}"
        );
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("`scope`") && message.contains("`admin`"),
            "{message}"
        );
    }
    rabbit.settles_at("dead", 4).await;
    for admin in [token("boss"), admin_token("ann")] {
        let (status, answer) = ask(&notifier, Some(&admin), Method::GET, "/api/dead", None).await;
        assert_eq!((status, ids(&answer).len()), (200, 4));
    }
    notifier.stop().await;
}

#[tokio::test]
async fn an_administrator_lists_reads_replays_and_drops() {
    let (stack, rabbit) = four_letters().await;
    bury(&rabbit, "x/y z", "mail", "exit_1", 50).await;
    let admin = Admin::of(&stack).await;
    for (query, wants) in [
        ("?kind=sums", &["c", "d"][..]),
        ("?reason=timeout&reason=panic", &["b", "c", "d"]),
        ("?older_than=1h&newer_than=1d", &["b"]),
        ("?id=a", &["a"]),
    ] {
        let (_, answer) = admin.get(&format!("/api/dead{query}")).await;
        assert_eq!(ids(&answer), wants, "{query}: {answer}");
        assert_eq!(
            (&answer["more"], &answer["complete"]),
            (&json!(false), &json!(true))
        );
    }
    let (_, answer) = admin.get("/api/dead?limit=2").await;
    assert_eq!(
        (ids(&answer), &answer["more"]),
        (vec!["a", "b"], &json!(true))
    );

    let (_, answer) = admin.get("/api/dead/x%2Fy%20z").await;
    assert_eq!(answer["letters"][0]["body"]["args"]["n"], 1);

    let order = json!({"ids": ["x/y z", "a", "nobody"]});
    let (status, answer) = admin.post("/api/dead/replay", order).await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(2)), "{answer}");
    assert_eq!(answer["missing"], json!(["nobody"]));
    let back = rabbit.take("jobs.default").await;
    assert_eq!(back.headers["x-bellhop-replays"], "1");
    let (_, answer) = admin
        .post("/api/dead/drop", json!({"reasons": ["timeout"]}))
        .await;
    assert_eq!(answer["dropped"], 2);
    let order = json!({"kinds": ["sums"], "queue": "gone"});
    let (_, answer) = admin.post("/api/dead/replay", order).await;
    assert_eq!(
        (&answer["replayed"], &answer["failed"]),
        (&json!(0), &json!(1))
    );
    assert!(
        answer["problem"].as_str().unwrap().contains("`gone`"),
        "{answer}"
    );
    assert_eq!(ids(&admin.get("/api/dead").await.1), ["d"]);
    admin.notifier.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_told() {
    let (stack, _rabbit) = four_letters().await;
    let admin = Admin::of(&stack).await;
    for (path, body, status, code) in [
        ("/api/dead?limit=0", None, 400, "bad_query"),
        ("/api/dead?kinds=x", None, 400, "bad_query"),
        ("/api/dead/nobody", None, 404, "not_found"),
        ("/api/dead/replay", Some(json!({})), 400, "bad_request"),
        (
            "/api/dead/drop",
            Some(json!({"all": true, "queue": "q"})),
            400,
            "bad_request",
        ),
        (
            "/api/dead/drop",
            Some(json!({"everything": true})),
            400,
            "bad_json",
        ),
        (
            "/api/dead/drop",
            Some(json!({"ids": ["nobody"]})),
            404,
            "not_found",
        ),
    ] {
        let method = if body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let (found, answer) = admin.ask(method, path, body).await;
        assert_eq!(
            (found, &answer["error"]["code"]),
            (status, &json!(code)),
            "{path}"
        );
    }
    admin.notifier.stop().await;
}

#[tokio::test]
async fn a_request_does_not_wait_for_ever_for_its_turn() {
    let (stack, rabbit) = four_letters().await;
    let admin = Admin::of(&stack).await;
    rabbit.hold("dead.lock").await;
    let (status, answer) = admin.get("/api/dead").await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (409, &json!("busy")),
        "{answer}"
    );
    admin.notifier.stop().await;
}
