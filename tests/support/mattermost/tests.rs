//! The double answers as the server does; most cases are from the server's own tests.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use reqwest::{Client, Method, redirect};
use serde_json::{Value, json};

use super::{HOME, HOOK_ID, Mattermost, Mode, Settings, mentions, reader};

const SOON: Duration = Duration::from_secs(5);

/// Status, content type and body of an answer.
type Answer = (u16, String, String);

fn client() -> Client {
    // Another test of the process may have been first.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let builder = Client::builder().redirect(redirect::Policy::none());
    builder.build().unwrap()
}

async fn request(method: Method, url: String, content_type: &str, body: String) -> Answer {
    let request = client().request(method, url);
    let request = request.header(CONTENT_TYPE, content_type).body(body);
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let content_type = response.headers()[CONTENT_TYPE]
        .to_str()
        .unwrap()
        .to_owned();
    (status, content_type, response.text().await.unwrap())
}

async fn send(server: &Mattermost, body: Value) -> Answer {
    let body = body.to_string();
    request(Method::POST, server.hook_url(), "application/json", body).await
}

/// Status and error id.
async fn refusal(server: &Mattermost, body: Value) -> (u16, String) {
    let (status, _, body) = send(server, body).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["status_code"], status);
    (status, body["id"].as_str().unwrap().to_owned())
}

async fn with_own_error_ids() -> Mattermost {
    let settings = Settings {
        own_error_ids: true,
        ..Settings::default()
    };
    Mattermost::start_with(settings).await.unwrap()
}

#[tokio::test]
async fn takes_a_text_or_attachments_and_ignores_what_it_does_not_know() {
    let server = Mattermost::start().await.unwrap();
    let ok = (200, "text/plain".to_owned(), "ok".to_owned());
    assert_eq!(
        send(&server, json!({"text": "hi", "silent": true})).await,
        ok
    );
    let attachment = json!({"color": "#aB01ef", "title": "t", "title_link": "https://x/", "fields": [null, {"value": 7, "short": "true"}]});
    assert_eq!(
        send(
            &server,
            json!({"attachments": [null, attachment], "channel": "#ops", "username": "b"})
        )
        .await,
        ok
    );
    // Surprising, but so it is: an empty list is not nothing.
    assert_eq!(
        send(
            &server,
            json!({"attachments": [], "text": null, "channel": "@alice"})
        )
        .await,
        ok
    );

    let posts = server.wait_for_posts(3, SOON).await.unwrap();
    let channels: Vec<_> = posts.iter().map(|post| post.channel.as_str()).collect();
    assert_eq!(channels, [HOME, "ops", "@alice"]);
    assert_eq!(posts[0].text, "hi");
    assert_eq!(posts[1].username.as_deref(), Some("b"));
    assert_eq!(posts[1].attachments.len(), 1);
    assert_eq!(posts[1].attachments[0].color, "#aB01ef");
}

#[tokio::test]
async fn refuses_what_the_server_refuses() {
    let server = with_own_error_ids().await;
    let cases = [
        (json!({}), 400, "web.incoming_webhook.text.app_error"),
        (
            json!({"text": ""}),
            400,
            "web.incoming_webhook.text.app_error",
        ),
        (json!(null), 400, "web.incoming_webhook.parse.app_error"),
        (
            json!({"text": 1}),
            400,
            "model.incoming_hook.parse_data.app_error",
        ),
        (json!([1]), 400, "model.incoming_hook.parse_data.app_error"),
        (
            json!({"text": "x", "channel": "@nobody"}),
            400,
            "web.incoming_webhook.user.app_error",
        ),
        (
            json!({"text": "x", "channel": "nowhere"}),
            404,
            "web.incoming_webhook.channel.app_error",
        ),
    ];
    for (body, status, id) in cases {
        assert_eq!(
            refusal(&server, body.clone()).await,
            (status, id.to_owned()),
            "{body}"
        );
    }
    for attachment in [
        json!({"color": "red"}),
        json!({"color": "#12345g"}),
        json!({"title_link": "https://x/"}),
        json!({"title": "t", "title_link": "javascript:alert(1)"}),
        json!({"title": "t", "title_link": "HTTPS://x/"}),
        json!({"title": "t", "title_link": "https://x/100%"}),
        json!({"author_link": "https://x/"}),
        json!({"image_url": "//x/p.png"}),
        json!({"fields": [{"value": ["x"]}]}),
        json!({"ts": true}),
    ] {
        let answer = refusal(&server, json!({"attachments": [attachment]})).await;
        assert_eq!(
            answer,
            (400, "model.post.is_valid.props.app_error".to_owned()),
            "{attachment}"
        );
    }
    assert_eq!(server.posts(), []);
}

#[tokio::test]
async fn a_locked_webhook_only_posts_to_its_own_channel() {
    let settings = Settings {
        channel_locked: true,
        own_error_ids: true,
        ..Settings::default()
    };
    let server = Mattermost::start_with(settings).await.unwrap();
    let locked = (
        403,
        "web.incoming_webhook.channel_locked.app_error".to_owned(),
    );
    assert_eq!(
        refusal(&server, json!({"text": "x", "channel": "ops"})).await,
        locked
    );
    assert_eq!(
        send(&server, json!({"text": "x", "channel": HOME})).await.0,
        200
    );
}

#[tokio::test]
async fn newer_servers_hide_the_error_and_show_the_hook() {
    let server = Mattermost::start().await.unwrap();
    let (status, _, body) = send(&server, json!({"text": ""})).await;
    assert_eq!(status, 400);
    assert!(
        body.contains("web.incoming_webhook.general.app_error"),
        "{body}"
    );
    assert!(body.contains(HOOK_ID), "{body}");

    let unknown = server.url("/hooks/abc");
    let (status, _, body) = request(
        Method::POST,
        unknown,
        "application/json",
        r#"{"text":"x"}"#.into(),
    )
    .await;
    assert_eq!(status, 400);
    assert!(body.contains("incoming webhook abc"), "{body}");
    assert_eq!(server.posts(), []);
}

#[tokio::test]
async fn only_a_post_to_a_hook_is_a_webhook() {
    let server = Mattermost::start().await.unwrap();
    let body = json!({"text": "x"}).to_string();
    let cases = [
        (Method::GET, "/hooks/anything", 200),
        (Method::PUT, "/hooks/xk7f9qd3cjn8mfz1tw5hy6rb2e", 404),
        (Method::POST, "/hooks/", 404),
        (Method::POST, "/hooks/a-b", 404),
        (Method::POST, "/elsewhere", 404),
    ];
    for (method, path, status) in cases {
        let answer = request(
            method.clone(),
            server.url(path),
            "application/json",
            body.clone(),
        )
        .await;
        assert_eq!(answer.0, status, "{method} {path}");
        assert_ne!(answer.2, "ok", "{method} {path}");
    }
    assert_eq!((server.posts(), server.requests()), (vec![], 5));
}

#[tokio::test]
async fn reads_json_and_forms() {
    let server = Mattermost::start().await.unwrap();
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let cases = [
        ("application/json; charset=utf-8", r#"{"text":"json"}"#, 200),
        ("text/plain", r#"{"text":"text"} and more"#, 200),
        (form, "a=b&payload=%7B%22text%22%3A%22a+form%22%7D", 200),
        (form, r#"{"text":"x"}"#, 400),
        ("multipart/form-data", r#"{"text":"x"}"#, 400),
        ("json", r#"{"text":"x"}"#, 400),
        ("application/json", r#"{"text":"#, 400),
    ];
    for (content_type, body, status) in cases {
        let answer = request(Method::POST, server.hook_url(), content_type, body.into()).await;
        assert_eq!(answer.0, status, "{content_type} {body}: {}", answer.2);
    }
    let texts: Vec<_> = server.posts().into_iter().map(|post| post.text).collect();
    assert_eq!(texts, ["json", "text", "a form"]);
}

#[tokio::test]
async fn long_text_becomes_two_posts_and_a_long_body_an_error() {
    let server = Mattermost::start().await.unwrap();
    let text = "ä".repeat(16_383 + 10);
    send(
        &server,
        json!({"text": text, "attachments": [{"text": "x"}]}),
    )
    .await;
    let posts = server.posts();
    let lengths: Vec<_> = posts
        .iter()
        .map(|post| (post.text.chars().count(), post.attachments.len()))
        .collect();
    assert_eq!(lengths, [(16_383, 0), (10, 1)]);

    let of_size = |bytes: usize| json!({"attachments": [{"text": "x".repeat(bytes - 29)}]});
    assert_eq!(of_size(1000).to_string().len(), 1000);
    assert_eq!(send(&server, of_size(128 * 1024)).await.0, 200);
    let (status, id) = refusal(&server, of_size(128 * 1024 + 2)).await;
    assert_eq!(
        (status, id.as_str()),
        (400, "web.incoming_webhook.decode.app_error")
    );
}

#[tokio::test]
async fn fails_as_it_is_told_to() {
    let server = Mattermost::start().await.unwrap();
    let post = json!({"text": "x"});
    server.set_mode(Mode::RateLimited(Some(7)));
    let limited = client()
        .post(server.hook_url())
        .body(post.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()[RETRY_AFTER]),
        (429, &"7".parse().unwrap())
    );
    assert_eq!(limited.text().await.unwrap(), "limit exceeded\n");

    server.set_mode(Mode::Status(503));
    let (status, content_type, _) = send(&server, post.clone()).await;
    assert_eq!((status, content_type.as_str()), (503, "application/json"));

    server.set_mode(Mode::WebPage);
    let (status, content_type, body) = send(&server, post.clone()).await;
    assert_eq!(
        (status, content_type.as_str()),
        (200, "text/html; charset=utf-8")
    );
    assert_ne!(body, "ok");

    server.set_mode(Mode::Redirect);
    let away = client()
        .post(server.hook_url())
        .body(post.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(
        (away.status().as_u16(), &away.headers()[LOCATION]),
        (302, &"/login".parse().unwrap())
    );

    assert_eq!(
        server.wait_for_posts(1, Duration::from_millis(20)).await,
        Err(vec![])
    );
    server.set_mode(Mode::Slow(Duration::from_millis(30)));
    assert_eq!(send(&server, post).await.0, 200);
    assert_eq!(server.wait_for_requests(5, SOON).await, Ok(5));
    assert_eq!(server.posts().len(), 1);
}

#[tokio::test]
async fn knows_who_is_mentioned_and_where() {
    let server = Mattermost::start().await.unwrap();
    let body = json!({
        "text": "<!here> and `@code`",
        "attachments": [{
            "fallback": "@fallback", "title": "@title", "footer": "@footer", "author_name": "@author",
            "pretext": "@pre", "text": "```\n@block\n```\n<@u1>",
            "fields": [{"title": "@caption", "value": "x.@value."}],
        }],
    });
    send(&server, body).await;
    assert_eq!(mentions(&server.posts()[0]), ["here", "pre", "u1", "value"]);
}

#[test]
fn rewrites_what_slack_would_write() {
    for (text, stored) in [
        ("see <https://x|the page>.", "see [the page](https://x)."),
        ("`if(a < b || c >= d)`", "`if(a < b || c >= d)`"),
        ("<a\n|b>", "<a\n|b>"),
        ("<a<b|c>", "<a[c](b)"),
        ("<no bar> | <|> <x|>", "<no bar> | <|> <x|>"),
        (
            "<!channel> <!here> <!all> <!else>",
            "@channel @here @all <!else>",
        ),
        ("<@u1> <@> <@u-1>", "@u1 <@> <@u-1>"),
    ] {
        assert_eq!(reader::rewrite_text(text), stored);
    }
    assert_eq!(reader::rewrite_attachment("<a\n|b\n|c>"), "[b\n|c](a\n)");
}

#[test]
fn finds_names_as_the_server_does() {
    for (text, names) in [
        ("@Alice, @bob! (@carol)", vec!["Alice", "bob", "carol"]),
        (":.-_@dave.-:_", vec!["dave"]),
        ("mail@channel", vec![]),
        ("x.@erin", vec!["erin"]),
        ("\\@frank &#64;grace", vec!["frank", "grace"]),
        ("@\u{200b}here `@ivan` @ all", vec![]),
        ("`unclosed @judy", vec!["judy"]),
    ] {
        assert_eq!(reader::read(text).mentions, names, "{text}");
    }
}
