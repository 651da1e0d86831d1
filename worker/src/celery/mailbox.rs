//! What monitors ask a worker of Celery's through its
//! [mailbox](https://docs.celeryq.dev/en/stable/userguide/workers.html#inspecting-workers), and
//! what we answer. Pure.

use bellhop_common::amqp::CELERY_REPLIES;
use bellhop_common::amqp::Properties;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::record::Record;

/// What does not change while the worker runs.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) kinds: Vec<String>,
    /// Where tasks come from.
    pub(super) queues: Vec<ServedQueue>,
    /// How many tasks run at once, at most.
    pub(super) concurrency: u32,
    pub(super) began: Timestamp,
}

/// A queue as monitors list it.
#[derive(Debug, Clone)]
pub(super) struct ServedQueue {
    pub(super) name: String,
    pub(super) exchange: String,
    pub(super) key: String,
}

/// A message to all workers.
#[derive(Debug, Deserialize)]
pub(super) struct Question {
    pub(super) method: String,
    #[serde(default)]
    arguments: Arguments,
    #[serde(default)]
    destination: Option<Vec<String>>,
    #[serde(default)]
    pattern: Option<String>,
    #[serde(default)]
    ticket: Option<String>,
    #[serde(default)]
    reply_to: Option<ReplyTo>,
}

#[derive(Debug, Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    task_id: Option<TaskIds>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TaskIds {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct ReplyTo {
    exchange: String,
    routing_key: String,
}

/// Where an answer goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) key: String,
    pub(super) ticket: String,
}

impl Question {
    /// Reads a message; `None` if it is none of our business: unreadable, too old, or for others.
    pub(super) fn read(
        body: &[u8],
        properties: &Properties,
        node: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let question: Self = serde_json::from_slice(body).ok()?;
        // Seconds since 1970; 0 is never.
        let expires = properties.json_headers.get("expires");
        let expires = expires.and_then(Value::as_f64).unwrap_or(0.0);
        let too_late = expires > 0.0 && now.as_duration().as_secs_f64() > expires;
        let for_others = match &question.destination {
            Some(nodes) => !nodes.iter().any(|other| other == node),
            // Patterns are rare, and a wrong guess would be an answer too many.
            None => question.pattern.is_some(),
        };
        (!too_late && !for_others).then_some(question)
    }

    /// Where the answer goes, if one is wanted. Only to the exchange that we declared: to publish
    /// to any other that is named here might close the channel.
    pub(super) fn reply_to(&self) -> Option<Address> {
        let reply_to = self.reply_to.as_ref()?;
        (reply_to.exchange == CELERY_REPLIES).then(|| Address {
            key: reply_to.routing_key.clone(),
            ticket: self.ticket.clone().unwrap_or_default(),
        })
    }

    /// The tasks that are to end.
    pub(super) fn revoked(&self) -> &[String] {
        match (self.method.as_str(), &self.arguments.task_id) {
            ("revoke" | "terminate", Some(TaskIds::One(id))) => std::slice::from_ref(id),
            ("revoke" | "terminate", Some(TaskIds::Several(ids))) => ids,
            _ => &[],
        }
    }

    pub(super) fn answer(&self, record: &Record, facts: &Facts, now: Timestamp) -> Value {
        match self.method.as_str() {
            "ping" => json!({"ok": "pong"}),
            "stats" => stats(record, facts, now),
            "active_queues" => facts.queues.iter().map(ServedQueue::described).collect(),
            "registered" | "tasks" => json!(facts.kinds),
            "active" => json!(record.active()),
            // Nothing waits in this worker's memory.
            "scheduled" | "reserved" | "revoked" => json!([]),
            "conf" => json!({}),
            "clock" => json!({"clock": record.clock()}),
            "enable_events" => json!({"ok": "task events already enabled"}),
            "heartbeat" => Value::Null,
            "revoke" | "terminate" => {
                json!({"ok": format!("tasks {} flagged as revoked", self.revoked().join(", "))})
            }
            other => json!({
                "error": format!(
                    "a Bellhop worker does not take `{other}` from here; see docs/CELERY.md"
                )
            }),
        }
    }
}

fn stats(record: &Record, facts: &Facts, now: Timestamp) -> Value {
    json!({
        "total": record.totals(),
        "pid": record.identity().pid,
        "clock": record.clock().to_string(),
        "uptime": now.duration_since(facts.began).as_secs(),
        "pool": {"implementation": "tokio", "max-concurrency": facts.concurrency},
        "prefetch_count": facts.concurrency,
        "broker": {"transport": "amqp"},
        "rusage": "N/A",
    })
}

impl ServedQueue {
    fn described(&self) -> Value {
        let exchange = json!({
            "name": self.exchange, "type": "direct", "durable": true, "auto_delete": false,
            "arguments": null, "delivery_mode": 2, "passive": false,
        });
        json!({
            "name": self.name, "exchange": exchange, "routing_key": self.key,
            "durable": true, "exclusive": false, "auto_delete": false, "no_ack": false,
            "alias": null, "bindings": [], "queue_arguments": null, "binding_arguments": null,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::celery::record::Identity;

    const AT: &str = "2026-01-15T10:30:00Z";

    fn read(body: &Value, expires: f64) -> Option<Question> {
        let properties = Properties {
            json_headers: [("expires".to_owned(), json!(expires))].into(),
            ..Properties::default()
        };
        let now = AT.parse().unwrap();
        Question::read(body.to_string().as_bytes(), &properties, "bellhop@h", now)
    }

    fn question(method: &str) -> Value {
        json!({
            "method": method, "arguments": {}, "destination": null, "pattern": null,
            "matcher": null, "ticket": "tick",
            "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "oid"}
        })
    }

    fn answer(method: &str) -> Value {
        let record = Record::new(Identity {
            node: "bellhop@h".into(),
            pid: 7,
            system: "Linux".into(),
        });
        let facts = Facts {
            kinds: vec!["report".into()],
            queues: vec![ServedQueue {
                name: "bellhop.jobs.default".into(),
                exchange: "bellhop.jobs".into(),
                key: "default".into(),
            }],
            concurrency: 4,
            began: "2026-01-15T10:29:30Z".parse().unwrap(),
        };
        let question = read(&question(method), 0.0).unwrap();
        question.answer(&record, &facts, AT.parse().unwrap())
    }

    #[test]
    fn questions_for_others_and_old_ones_are_left_alone() {
        let mut asked = question("ping");
        assert!(read(&asked, 0.0).is_some());
        assert!(read(&asked, 1_768_473_001.0).is_some());
        assert!(read(&asked, 1_768_472_999.0).is_none(), "too old");
        asked["destination"] = json!(["celery@h"]);
        assert!(read(&asked, 0.0).is_none());
        asked["destination"] = json!(["celery@h", "bellhop@h"]);
        assert!(read(&asked, 0.0).is_some());
        asked["destination"] = json!(null);
        asked["pattern"] = json!("b*");
        assert!(read(&asked, 0.0).is_none());
        assert!(read(&json!([1]), 0.0).is_none());
    }

    #[test]
    fn answers_go_nowhere_but_to_celerys_exchange() {
        let mut asked = question("ping");
        let address = Address {
            key: "oid".into(),
            ticket: "tick".into(),
        };
        assert_eq!(read(&asked, 0.0).unwrap().reply_to(), Some(address));
        asked["reply_to"]["exchange"] = json!("bellhop.jobs");
        assert_eq!(read(&asked, 0.0).unwrap().reply_to(), None);
        asked["reply_to"] = json!(null);
        assert_eq!(read(&asked, 0.0).unwrap().reply_to(), None);
    }

    #[test]
    fn one_task_or_several_are_revoked() {
        let mut asked = question("revoke");
        for (task_id, ids) in [(json!("a"), vec!["a"]), (json!(["a", "b"]), vec!["a", "b"])] {
            asked["arguments"] = json!({"task_id": task_id, "terminate": true, "signal": null});
            assert_eq!(read(&asked, 0.0).unwrap().revoked(), ids);
        }
        asked["method"] = json!("rate_limit");
        assert!(read(&asked, 0.0).unwrap().revoked().is_empty());
    }

    /// What Flower's page of a worker reads without asking whether it is there.
    #[test]
    fn a_monitor_finds_what_it_needs() {
        assert_eq!(answer("ping"), json!({"ok": "pong"}));
        let stats = answer("stats");
        assert!(stats["broker"].is_object() && stats["total"].is_object());
        assert_eq!(
            (&stats["pool"]["max-concurrency"], &stats["uptime"]),
            (&json!(4), &json!(30))
        );
        let queue = &answer("active_queues")[0];
        for key in [
            "name",
            "exclusive",
            "durable",
            "routing_key",
            "no_ack",
            "alias",
        ] {
            assert!(!queue[key].is_null() || key == "alias", "{key}");
        }
        assert_eq!(answer("registered"), json!(["report"]));
        for nothing in ["active", "scheduled", "reserved", "revoked"] {
            assert_eq!(answer(nothing), json!([]));
        }
        assert!(
            answer("pool_grow")["error"]
                .as_str()
                .unwrap()
                .contains("pool_grow")
        );
    }
}
