//! The client against a double of the server, and the parts that need no server.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::super::compose::{
    compose,
    tests::{failure as failed, notice, plan},
};
use super::super::double::Mattermost as Server;
use super::super::double::{HOOK_ID, Mode, Settings, mentions, reader};
use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);

fn client_for(url: &str, timeout: Duration) -> Mattermost {
    // Another test of the process may have been first.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    Mattermost::new(url.parse().unwrap(), timeout).unwrap()
}

fn post(message: &str) -> Post {
    let plan = plan("");
    let key = "stored.user.ann.task.status_changed.failed";
    let post = compose(&notice(&plan, key, &[failed(message)]), &plan);
    Post {
        username: Some("bellhop".into()),
        ..post
    }
}

/// Everything a person or a log could get to see of an error.
fn all_of(error: &PostError) -> String {
    let mut texts = vec![format!("{error:?} {error}")];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        texts.push(format!("{cause:?} {cause}"));
        source = cause.source();
    }
    texts.join(" ")
}

async fn failure(mode: Mode) -> PostError {
    let server = Server::start().await.unwrap();
    server.set_mode(mode);
    let client = client_for(&server.hook_url(), TIMEOUT);
    let error = client.post(&post("x")).await.unwrap_err();
    assert_eq!(server.requests(), 1);
    assert!(!all_of(&error).contains(HOOK_ID), "{error:?}");
    error
}

#[tokio::test]
async fn a_post_arrives_and_mentions_nobody() {
    let server = Server::start().await.unwrap();
    let client = client_for(&server.hook_url(), TIMEOUT);
    let nasty = "<!channel> @here <https://evil.example|x> `@all` ```\n@all\n``` ![](https://evil.example/p.png)";
    client.post(&post(nasty)).await.unwrap();

    let posts = server.wait_for_posts(1, TIMEOUT).await.unwrap();
    assert_eq!(posts[0].username.as_deref(), Some("bellhop"));
    assert_eq!(mentions(&posts[0]), Vec::<String>::new());
    let attachment = &posts[0].attachments[0];
    assert!(
        attachment
            .title_link
            .starts_with("https://bellhop.example/tasks/%3C")
    );
    let fields = attachment.fields.iter().flatten().flatten();
    let values = fields.map(|field| field.value.as_str().unwrap());
    let slots = [
        &attachment.title,
        &attachment.text,
        &attachment.fallback,
        &attachment.footer,
    ];
    for text in slots.into_iter().map(String::as_str).chain(values) {
        let reading = reader::read(text);
        assert!(reading.is_inert(), "{text:?} is read as {reading:?}");
    }
}

#[tokio::test]
async fn the_longest_post_is_taken_in_one_piece() {
    let server = Server::start().await.unwrap();
    let client = client_for(&server.hook_url(), TIMEOUT);
    client.post(&post(&"_\"🙂`".repeat(100_000))).await.unwrap();
    assert_eq!(server.posts().len(), 1);
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back() {
    for (asked, seconds) in [
        (Some(7), Some(7)),
        (Some(0), Some(0)),
        (None, None),
        (Some(86_400), Some(3600)),
    ] {
        let error = failure(Mode::RateLimited(asked)).await;
        let PostError::RateLimited { retry_after } = error else {
            panic!("{error:?}");
        };
        assert_eq!(retry_after, seconds.map(Duration::from_secs));
    }
}

#[tokio::test]
async fn an_outage_is_worth_another_attempt() {
    let proxys = [400, 401, 403, 404, 405, 413, 502].map(Mode::Proxy);
    for mode in [500, 501, 502, 503, 504, 408]
        .map(Mode::Status)
        .into_iter()
        .chain(proxys)
        .chain([Mode::WebPage])
    {
        let error = failure(mode.clone()).await;
        let outage = matches!(
            &error,
            PostError::Unavailable {
                outage: Outage::Answer { .. },
                ..
            }
        );
        assert!(outage, "{mode:?}: {error:?}");
    }
    let (status, reason) = match failure(Mode::WebPage).await {
        PostError::Unavailable {
            outage: Outage::Answer { status, reason },
            ..
        } => (status, reason),
        error => panic!("{error:?}"),
    };
    assert_eq!(
        (status, reason.as_str()),
        (200, "<!doctype html><title>Mattermost</title>")
    );
}

#[tokio::test]
async fn a_refusal_is_final_and_says_why_without_the_secret() {
    for status in [400, 401, 403, 404, 413, 422] {
        let error = failure(Mode::Status(status)).await;
        let PostError::Refused {
            status: got,
            reason,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(*got, status);
        assert!(reason.contains("incoming webhook <redacted>"), "{reason}");
    }
    let server = Server::start_with(Settings {
        own_error_ids: true,
        ..Settings::default()
    })
    .await
    .unwrap();
    let client = client_for(&server.url("/hooks/gone"), TIMEOUT);
    let error = client.post(&post("x")).await.unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.starts_with("the webhook refused the post with status 400: "),
        "{shown}"
    );
    assert!(
        shown.contains("web.incoming_webhook.invalid.app_error"),
        "{shown}"
    );
}

#[tokio::test]
async fn of_slack_every_4xx_is_final() {
    let server = Server::start().await.unwrap();
    server.set_mode(Mode::Proxy(404));
    let mut client = client_for(&server.hook_url(), TIMEOUT);
    client.webhook = WebhookUrl::of_slack(&server.hook_url()).unwrap();
    let error = client.post(&post("x")).await.unwrap_err();
    let refused = matches!(error, PostError::Refused { status: 404, .. });
    assert!(refused, "{error:?}");
}

#[test]
fn only_mattermost_itself_refuses_a_post() {
    let refuses = |status: u16, body: &str| {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            location: None,
            body: body.as_bytes(),
        };
        let url: WebhookUrl = "https://chat.example.com/hooks/abc123".parse().unwrap();
        matches!(answer.verdict(&url), Err(PostError::Refused { .. }))
    };
    let general = r#"{"id":"web.incoming_webhook.general.app_error","status_code":404}"#;
    for (status, body, wants) in [
        (404, general, true),
        (
            403,
            r#"{"id":"web.incoming_webhook.channel_locked.app_error"}"#,
            true,
        ),
        (404, "404 page not found\n", false),
        (403, "<html>Forbidden</html>", false),
        (403, "", false),
        (404, r#"{"error":"no healthy upstream"}"#, false),
        (403, r#"{"id":"waf.blocked"}"#, false),
        (403, r#"{"id":7}"#, false),
        (408, general, false),
        (429, general, false),
        (500, general, false),
        (302, "", true),
    ] {
        assert_eq!(refuses(status, body), wants, "{status} {body}");
    }
}

#[tokio::test]
async fn a_post_that_the_server_cannot_store_is_not_tried_for_ever() {
    let error = failure(Mode::NotCreated).await;
    assert!(matches!(error, PostError::Unavailable { .. }), "{error:?}");
    let error = error.after(NOT_STORED_TRIES - 2);
    assert!(matches!(error, PostError::Unavailable { .. }), "{error:?}");
    let error = error.after(NOT_STORED_TRIES - 1);
    let refused = matches!(&error, PostError::Refused { status: 500, reason }
        if reason.contains("create_webhook_post"));
    assert!(refused, "{error:?}");
    // What may be an outage is.
    let error = failure(Mode::Status(500)).await.after(u32::MAX);
    assert!(matches!(error, PostError::Unavailable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    // Whether it was followed shows in the number of requests.
    let error = failure(Mode::Redirect).await;
    let PostError::Refused { status, reason } = error else {
        panic!("{error:?}");
    };
    assert_eq!(status, 302);
    assert!(
        reason.contains("final address") && reason.ends_with("/login"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_slow_server_is_given_up_on() {
    let server = Server::start().await.unwrap();
    server.set_mode(Mode::Slow(Duration::from_mins(1)));
    let client = client_for(&server.hook_url(), Duration::from_millis(100));
    let start = Instant::now();
    let error = client.post(&post("x")).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(10));
    let timeout = matches!(
        &error,
        PostError::Unavailable {
            outage: Outage::Timeout(_),
            ..
        }
    );
    assert!(timeout && !all_of(&error).contains(HOOK_ID), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_gone_is_an_outage_and_no_leak() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/{HOOK_ID}", listener.local_addr().unwrap());
    drop(listener);
    let error = client_for(&url, TIMEOUT)
        .post(&post("x"))
        .await
        .unwrap_err();
    let shown = all_of(&error);
    assert!(
        matches!(
            &error,
            PostError::Unavailable {
                outage: Outage::Network(_),
                ..
            }
        ),
        "{shown}"
    );
    assert!(shown.contains("refused"), "the cause is kept: {shown}");
    assert!(!shown.contains(HOOK_ID), "{shown}");
}

#[test]
fn an_address_is_checked_and_never_shown() {
    for good in [
        "https://chat.example.com/hooks/abc123",
        "http://127.0.0.1:8065/hooks/abc123",
        " https://chat.example.com/team/chat/hooks/abc123\n",
        "https://user:abc123@chat.example.com/hooks/abc123",
    ] {
        let url: WebhookUrl = good.parse().unwrap();
        let shown = format!("{url} {url:?}");
        assert!(
            !shown.contains("abc123") && !shown.contains("hooks"),
            "{shown}"
        );
        assert!(shown.contains(url.url.host_str().unwrap()), "{shown}");
    }
    for bad in [
        "",
        "abc123",
        "ftp://chat.example.com/hooks/abc123",
        "https://chat.example.com",
        "https://chat.example.com/hooks/",
        "https://chat.example.com/hooks/abc123/",
        "https://chat.example.com/hooks/abc-123",
        "https://chat.example.com/abc123",
        "https://chat.example.com/hooks/abc123?x=1",
        "https://chat.example.com/hooks/abc123#x",
    ] {
        let error = bad.parse::<WebhookUrl>().unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("abc"), "{shown}");
        assert!(shown.contains("Incoming Webhooks"), "{shown}");
    }
}

#[test]
fn the_client_does_not_show_the_address() {
    let client = client_for("https://chat.example.com/hooks/abc123", TIMEOUT);
    assert!(!format!("{client:?}").contains("abc123"));
}

#[test]
fn a_strangers_text_is_made_presentable() {
    let shown = |text: &str| presentable(text, "abc123");
    assert_eq!(
        shown("  hook abc123\r\n\tand abc123. "),
        "hook <redacted>   and <redacted>."
    );
    // The id is found even when something invisible splits it.
    assert_eq!(
        shown("abc\u{0}1\u{200b}23 \u{1b}[31mred\u{202e}"),
        "<redacted> [31mred"
    );
    let long = shown(&format!("{}abc123", "ä".repeat(126)));
    assert_eq!(long, format!("{}<red", "ä".repeat(126)));
    assert!(shown(&"🙂".repeat(100)).len() <= 256);
}

#[test]
fn pauses_grow_with_the_failures_and_respect_the_server() {
    let limited = |seconds| PostError::RateLimited {
        retry_after: Some(Duration::from_secs(seconds)),
    };
    let unasked = PostError::RateLimited { retry_after: None };
    let pause =
        |error: &PostError, failures, jitter| retry_pause(error, failures, jitter).as_secs_f64();
    let close = |a: f64, b: f64| (a - b).abs() < 1e-6;

    assert!(close(pause(&unasked, 1, 0.0), 1.0));
    assert!(close(pause(&unasked, 1, 1.0), 2.0));
    assert!(close(pause(&unasked, 3, 0.5), 4.5));
    assert!(close(pause(&unasked, 100, 1.0), 300.0));
    assert!(close(pause(&limited(7), 1, 1.0), 7.0));
    assert!(close(pause(&limited(7), 100, 1.0), 300.0));
    assert!(close(pause(&limited(3600), 100, 0.0), 3600.0));
    for failures in [0, 1, 2, 9, u32::MAX] {
        for jitter in [0.0, 0.3, 1.0, -1.0, 2.0, f64::NAN, f64::INFINITY] {
            let pause = retry_pause(&unasked, failures, jitter);
            assert!(
                (PAUSE_MIN..=PAUSE_MAX).contains(&pause),
                "{failures} {jitter}: {pause:?}"
            );
        }
    }
}
