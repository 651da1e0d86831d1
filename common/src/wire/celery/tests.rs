use super::*;
use serde_json::json;

/// What `send_task("report.render", kwargs={"pages": 3})` sends, and what differs from it.
struct Message {
    headers: BTreeMap<String, String>,
    json_headers: BTreeMap<String, Value>,
    content_type: &'static str,
    priority: u8,
    body: Value,
}

impl Message {
    fn new() -> Self {
        let headers = [("task", "report.render"), ("id", "t1"), ("retries", "0")];
        let headers = headers.into_iter().chain([("user_id", "ann")]);
        Self {
            headers: headers
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            json_headers: [("timelimit".to_owned(), json!([null, null]))].into(),
            content_type: "application/json",
            priority: 0,
            body: json!([
                [],
                {"pages": 3},
                {"callbacks": null, "errbacks": null, "chain": null, "chord": null}
            ]),
        }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    fn json(mut self, name: &str, value: Value) -> Self {
        self.json_headers.insert(name.into(), value);
        self
    }

    fn body(mut self, body: Value) -> Self {
        self.body = body;
        self
    }

    fn parse_for(&self, default_user: Option<&str>) -> Result<CeleryTask, CeleryError> {
        let envelope = CeleryEnvelope {
            headers: &self.headers,
            json_headers: &self.json_headers,
            content_type: Some(self.content_type),
            correlation_id: Some("correlated"),
            priority: Some(self.priority),
        };
        envelope.parse(self.body.to_string().as_bytes(), default_user)
    }

    fn job(&self) -> Job {
        self.parse_for(None).unwrap().job
    }
}

#[test]
fn a_task_is_a_job() {
    let task = Message::new().parse_for(None).unwrap();
    let job = Job::new("t1", "report.render", json!({"pages": 3}), "ann");
    assert_eq!(task, CeleryTask { job, attempt: 1 });
}

#[test]
fn every_header_has_its_field() {
    let mut message = Message::new()
        .header("eta", "2026-01-15T11:30:00.5+01:00")
        .header("expires", "2026-01-16T00:00:00")
        .header("retries", "2")
        .header("shadow", "Yearly report")
        .header("room_id", "r1")
        .without("id");
    message.priority = 7;
    let task = message.parse_for(None).unwrap();
    assert_eq!(task.attempt, 3);
    let job = task.job;
    assert_eq!(job.id, "correlated");
    assert_eq!(job.run_at.unwrap().to_string(), "2026-01-15T10:30:00.5Z");
    assert_eq!(job.expires_at.unwrap().to_string(), "2026-01-16T00:00:00Z");
    assert_eq!(job.title.as_deref(), Some("Yearly report"));
    assert_eq!(job.room_id.as_deref(), Some("r1"));
    assert_eq!(job.priority, Some(7));
}

#[test]
fn positional_arguments_stand_beside_the_others() {
    let message = |body| Message::new().body(body);
    for (body, args) in [
        (json!([[], {}, null]), json!({})),
        (json!([[1, "a"], {}, {}]), json!({"args": [1, "a"]})),
        (json!([[1], {"b": 2}, {}]), json!({"args": [1], "b": 2})),
        (json!([[], {"args": 5}, {}]), json!({"args": 5})),
    ] {
        assert_eq!(message(body).job().args, args);
    }
}

/// Celery's documentation has them the other way round; its code does not.
#[test]
fn the_soft_limit_comes_second_and_wins() {
    for (timelimit, timeout_s) in [
        (json!([60, 45]), Some(45)),
        (json!([60, null]), Some(60)),
        (json!([null, 0.2]), Some(1)),
        (json!([0, 0]), None),
        (json!([1e300, null]), Some(u64::MAX)),
    ] {
        let job = Message::new().json("timelimit", timelimit.clone()).job();
        assert_eq!(job.timeout_s, timeout_s, "{timelimit}");
    }
}

#[test]
fn the_user_is_named_by_header_argument_or_configuration() {
    let keywords = |user: Value| {
        Message::new()
            .without("user_id")
            .body(json!([[], {"user_id": user}, {}]))
    };
    let user = |message: &Message, default| message.parse_for(default).map(|task| task.job.user_id);
    let by_argument = keywords(json!(42));
    assert_eq!(user(&by_argument, Some("batch")).unwrap(), "42");
    assert_eq!(by_argument.job().args, json!({"user_id": 42}), "it stays");
    assert_eq!(user(&keywords(json!("bob")), None).unwrap(), "bob");
    let by_header = keywords(json!(42)).header("user_id", "ann");
    assert_eq!(user(&by_header, None).unwrap(), "ann");
    assert_eq!(
        user(&keywords(json!(null)), Some("batch")).unwrap(),
        "batch"
    );
}

#[test]
fn what_cannot_be_taken_is_told_with_the_way_out() {
    let embed = |embed: Value| Message::new().body(json!([[], {}, embed]));
    let mut pickled = Message::new();
    pickled.content_type = "application/x-python-serialize";
    let v1 = json!({"task": "t", "id": "1", "args": [], "kwargs": {}, "retries": 0});
    for (message, wants) in [
        (Message::new().without("user_id"), "celery.user_id"),
        (pickled, "task_serializer"),
        (
            Message::new().header("compression", "application/x-gzip"),
            "task_compression",
        ),
        (Message::new().without("task").body(v1), "task_protocol = 2"),
        (Message::new().without("task"), "no header `task`"),
        (embed(json!({"callbacks": [{"task": "t"}]})), "`link`"),
        (embed(json!({"errbacks": [{"task": "t"}]})), "`link_error`"),
        (embed(json!({"chain": [{"task": "t"}]})), "`chain`"),
        (embed(json!({"chord": {"task": "t"}})), "`chord`"),
        (Message::new().header("eta", "tomorrow"), "ISO 8601"),
        (Message::new().header("expires", "1768473000"), "ISO 8601"),
        (Message::new().json("expires", json!(60.0)), "ISO 8601"),
        (
            Message::new().json("timelimit", json!([1])),
            "[hard, soft] in seconds",
        ),
        (Message::new().header("retries", "-1"), "from 0"),
        (
            Message::new().body(json!([[1], {"args": 2}, {}])),
            "rename the keyword",
        ),
        (
            Message::new().body(json!({"a": 1})),
            "[args, kwargs, embed]",
        ),
        (Message::new().header("task", ""), "1 to 128 bytes"),
    ] {
        let error = message.parse_for(None).unwrap_err().to_string();
        assert!(error.contains(wants), "{wants} in {error}");
    }
}

#[test]
fn an_empty_workflow_is_none() {
    let embed = json!({"callbacks": [], "errbacks": [], "chain": [], "chord": null});
    let message = Message::new().body(json!([[], {}, embed]));
    assert_eq!(message.job().args, json!({}));
}
