//! What an event says to a person. Pure.

use bellhop_common::wire::{Event, Status, TASK_STATUS_CHANGED, TaskStatus};
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::alerts::link::task_link;

/// One thing that a mail tells. Its texts may be hostile: what makes them safe comes later, for each
/// place they stand in.
#[derive(Debug, Clone)]
pub struct Item<'a> {
    /// In a few words.
    pub title: String,
    /// In more; may be empty.
    pub text: String,
    /// Where to see it. Left out of the mail unless it is an `http` or `https` address.
    pub link: Option<String>,
    /// When it happened.
    pub time: Timestamp,
    /// Whether it is good or bad news.
    pub tone: Tone,
    /// What it was made of.
    pub event: &'a Event,
}

/// How something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something went well.
    Good,
    /// Something went wrong.
    Bad,
    /// Neither.
    Neutral,
}

impl Tone {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Bad => "bad",
            Self::Neutral => "neutral",
        }
    }
}

/// What an event says: a task's new state, a notification, or as much as can be seen of any other.
///
/// `link_template` makes a task's link of `{task_id}`.
#[must_use]
pub fn item_of<'a>(event: &'a Event, link_template: Option<&str>) -> Item<'a> {
    let data = event.data.as_deref().map_or("null", RawValue::get);
    let task = (event.kind == TASK_STATUS_CHANGED)
        .then(|| serde_json::from_str::<TaskStatus>(data).ok())
        .flatten();
    if let Some(task) = task {
        return of_task(event, &task, link_template);
    }
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    let field = |names: &[&str]| {
        let found = names.iter().find_map(|name| data.get(name)?.as_str());
        found.map(str::to_owned)
    };
    let own_title = event.extra.get("title");
    let own_title = own_title.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    Item {
        title: field(&["title", "subject"])
            .or(own_title)
            .unwrap_or_else(|| event.kind.clone()),
        text: field(&["body", "message", "text"]).unwrap_or_default(),
        link: field(&["url", "link"]),
        time: event.time,
        tone: Tone::Neutral,
        event,
    }
}

fn of_task<'a>(event: &'a Event, task: &TaskStatus, link_template: Option<&str>) -> Item<'a> {
    let name = task.title.as_deref().unwrap_or(&task.kind);
    let (said, tone) = match task.status {
        Status::Succeeded => ("is done", Tone::Good),
        Status::Failed => ("failed", Tone::Bad),
        Status::Cancelled => ("was cancelled", Tone::Neutral),
        Status::Queued => ("waits for its turn", Tone::Neutral),
        Status::Scheduled => ("waits for its time", Tone::Neutral),
        Status::Running => ("is running", Tone::Neutral),
        Status::Retrying => ("will be tried again", Tone::Neutral),
    };
    let error = task.error.as_ref().map(|error| error.message.clone());
    Item {
        title: format!("{name} {said}"),
        text: error.unwrap_or_default(),
        link: task_link(link_template, &task.task_id),
        time: event.time,
        tone,
        event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use uuid::Uuid;

    fn event(kind: &str, data: &Value) -> Event {
        Event::new(kind, Uuid::nil(), Timestamp::UNIX_EPOCH, data).unwrap()
    }

    fn task(status: &str, error: &Value) -> Event {
        let data = json!({
            "task_id": "a/b 1", "kind": "report.make", "title": "Nightly", "user_id": "ann",
            "status": status, "attempt": 1, "max_attempts": 1, "rev": 1, "error": error,
            "timestamp": "2026-01-15T10:30:00Z",
        });
        event(TASK_STATUS_CHANGED, &data)
    }

    #[test]
    fn a_task_says_how_it_ended_and_why() {
        let error = json!({"code": "timeout", "message": "took too long\nat 3 %"});
        for (status, error, title, text, tone) in [
            ("succeeded", json!(null), "Nightly is done", "", Tone::Good),
            (
                "failed",
                error.clone(),
                "Nightly failed",
                "took too long\nat 3 %",
                Tone::Bad,
            ),
            (
                "cancelled",
                json!(null),
                "Nightly was cancelled",
                "",
                Tone::Neutral,
            ),
        ] {
            let event = task(status, &error);
            let item = item_of(&event, Some("https://a.org/t/{task_id}?x={task_id}"));
            assert_eq!((&*item.title, &*item.text, item.tone), (title, text, tone));
            let link = "https://a.org/t/a%2Fb%201?x=a%2Fb%201";
            assert_eq!(item.link.as_deref(), Some(link), "the id is one word");
            assert_eq!(item_of(&event, None).link, None);
        }
    }

    #[test]
    fn a_notification_has_title_body_and_link() {
        let data = json!({"title": "Paid", "body": "Invoice 7", "url": "https://a.org/7"});
        let event = event("notification.created", &data);
        let item = item_of(&event, None);
        assert_eq!((&*item.title, &*item.text), ("Paid", "Invoice 7"));
        assert_eq!(item.link.as_deref(), Some("https://a.org/7"));
    }

    #[test]
    fn any_other_event_has_a_title_too() {
        let mut order = event(
            "order.shipped",
            &json!({"message": "on its way", "title": 7}),
        );
        assert_eq!(item_of(&order, None).title, "order.shipped");
        assert_eq!(item_of(&order, None).text, "on its way");
        let title = serde_json::value::to_raw_value("Shipped").unwrap();
        order.extra.insert("title".into(), title);
        assert_eq!(item_of(&order, None).title, "Shipped");
        // A state of a task that is none.
        let odd = event(TASK_STATUS_CHANGED, &json!([1]));
        assert_eq!(item_of(&odd, None).title, TASK_STATUS_CHANGED);
    }
}
