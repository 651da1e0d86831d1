//! The double itself.

use serde_json::{Value, json};

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn client() -> reqwest::Client {
    bellhop_common::tls::install_provider();
    reqwest::Client::new()
}

async fn send(url: String, body: &Value) -> (u16, String) {
    let answer = client().post(url).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_message_is_taken_and_what_is_wrong_has_slacks_words() {
    let slack = Slack::with_burst(100).await;
    let boxed = |attachment: Value| json!({"attachments": [attachment]});
    for (body, status, word) in [
        (json!({"text": "hello"}), 200, "ok"),
        (json!({"text": "hello", "channel": "#ops"}), 200, "ok"),
        (
            boxed(
                json!({"title": "t", "color": "#2389d7", "mrkdwn_in": ["text", "fields"],
                "title_link": "https://x", "fields": [{"title": "a", "value": "b", "short": true}]}),
            ),
            200,
            "ok",
        ),
        (json!({}), 400, "no_text"),
        (json!({"text": ""}), 400, "no_text"),
        (boxed(json!({"fallback": "only"})), 400, "no_text"),
        (json!(["text"]), 400, "invalid_payload"),
        // Mattermost's.
        (
            json!({"text": "x", "priority": {"priority": "urgent"}}),
            400,
            "invalid_payload",
        ),
        (json!({"text": "x", "silent": true}), 400, "invalid_payload"),
        (
            boxed(json!({"text": "x", "color": "red"})),
            400,
            "invalid_payload",
        ),
        (
            boxed(json!({"text": "x", "title_link": "ftp://x"})),
            400,
            "invalid_payload",
        ),
        (
            boxed(json!({"text": "x", "fields": [{"title": "a"}]})),
            400,
            "invalid_payload",
        ),
        (
            json!({"attachments": vec![json!({"text": "x"}); 101]}),
            400,
            "too_many_attachments",
        ),
        (
            json!({"text": "x", "channel": "nowhere"}),
            404,
            "channel_not_found",
        ),
        (
            json!({"text": "x", "channel": "@nobody"}),
            400,
            "user_not_found",
        ),
    ] {
        let answer = send(slack.hook_url(), &body).await;
        assert_eq!(answer, (status, word.to_owned()), "{body}");
    }
    assert_eq!(slack.messages().len(), 3);
}

#[tokio::test]
async fn only_a_json_post_to_the_webhook_is_a_message() {
    let slack = Slack::start().await;
    let text = json!({"text": "x"});
    let other = slack.url("/services/T0BELLHOP/B0ALERTS/other");
    assert_eq!(send(other, &text).await, (404, "no_service".into()));
    let (status, page) = send(slack.url("/elsewhere"), &text).await;
    assert_eq!((status, page.starts_with('<')), (404, true));
    let get = client().get(slack.hook_url()).send().await.unwrap();
    assert_eq!(get.status(), 405);
    for (media_type, body) in [
        ("text/plain", r#"{"text": "x"}"#),
        (
            "application/x-www-form-urlencoded",
            "payload=%7B%22text%22%3A%22x%22%7D",
        ),
        ("application/json", r#"{"text": "#),
    ] {
        let request = client().post(slack.hook_url()).body(body);
        let answer = request
            .header(CONTENT_TYPE, media_type)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 400, "{media_type}");
        assert_eq!(answer.text().await.unwrap(), "invalid_payload");
    }
    assert_eq!(slack.wait_for_requests(6, SOON).await, Ok(6));
    assert_eq!(
        slack.wait_for_messages(1, Duration::ZERO).await,
        Err(vec![])
    );
}

#[tokio::test]
async fn more_than_one_a_second_is_too_much_after_a_burst() {
    let slack = Slack::with_burst(2).await;
    let text = json!({"text": "x"});
    for wants in [200, 200, 429] {
        let answer = client()
            .post(slack.hook_url())
            .json(&text)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), wants);
        let asks = answer
            .headers()
            .get(RETRY_AFTER)
            .map(|value| value.to_str().unwrap());
        assert_eq!(asks, (wants == 429).then_some("1"));
    }
}

#[tokio::test]
async fn has_the_troubles_it_is_told_to_have() {
    let slack = Slack::start().await;
    let text = json!({"text": "x"});
    for (status, word) in [
        (403, "action_prohibited"),
        (410, "channel_is_archived"),
        (500, "rollup_error"),
    ] {
        slack.set_trouble(Some((status, word)));
        assert_eq!(
            send(slack.hook_url(), &text).await,
            (status, word.to_owned())
        );
    }
    slack.set_trouble(None);
    assert_eq!(send(slack.hook_url(), &text).await.0, 200);
}

#[test]
fn knows_who_is_called() {
    let message: Message = serde_json::from_value(json!({
        "text": "<!here> and <@U123> and &lt;!channel&gt; and <https://x|y>",
        "attachments": [{"text": "`<!channel>` < a > b", "fields":
            [{"title": "<!no>", "value": "<!subteam^S1|ops>", "short": true}]}],
    }))
    .unwrap();
    assert_eq!(
        mentions(&message),
        ["here", "U123", "channel", "subteam^S1"]
    );
}
