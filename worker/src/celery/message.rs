//! From a Celery message to one of ours. Pure.

use bellhop_common::amqp::Properties;
use bellhop_common::wire::{
    CeleryEnvelope, CeleryError, CeleryTask, JobError, header, is_protocol_1,
};

/// A message that is no job, as it came, and why.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) body: Vec<u8>,
    pub(crate) properties: Properties,
    pub(crate) error: CeleryError,
}

/// What Celery's message says, in ours: from here on, through every retry and into the dead
/// letters, it is a job like any other. Other messages stay as they are.
///
/// # Errors
/// [`Unreadable`], for the dead letters.
pub(crate) fn as_native(
    body: Vec<u8>,
    properties: Properties,
    default_user: Option<&str>,
) -> Result<(Vec<u8>, Properties), Box<Unreadable>> {
    if envelope(&properties).is_task() {
        translate(body, properties, default_user)
    } else {
        Ok((body, properties))
    }
}

/// The same for a message that must be Celery's.
pub(super) fn translate(
    body: Vec<u8>,
    properties: Properties,
    default_user: Option<&str>,
) -> Result<(Vec<u8>, Properties), Box<Unreadable>> {
    let parsed = envelope(&properties)
        .parse(&body, default_user)
        .and_then(|task| Ok((serde_json::to_vec(&task.job)?, task)));
    match parsed {
        Ok((native, task)) => Ok((native, own_properties(properties, &task))),
        Err(error) => Err(Box::new(Unreadable {
            body,
            properties,
            error,
        })),
    }
}

/// Why a message that is not Celery's either is no job.
pub(crate) fn why_no_job(body: &[u8], error: &JobError) -> String {
    if is_protocol_1(body) {
        CeleryError::Protocol1.to_string()
    } else {
        error.to_string()
    }
}

fn envelope(properties: &Properties) -> CeleryEnvelope<'_> {
    CeleryEnvelope {
        headers: &properties.headers,
        json_headers: &properties.json_headers,
        content_type: properties.content_type.as_deref(),
        correlation_id: properties.correlation_id.as_deref(),
        priority: properties.priority,
    }
}

/// Without Celery's headers, which would make the message a task again, and without its
/// `reply_to`: a result backend waits there for a form of answer that is not ours.
fn own_properties(mut properties: Properties, task: &CeleryTask) -> Properties {
    properties.headers.retain(|name, _| {
        name.starts_with("x-") || name == header::TRACEPARENT || name == "tracestate"
    });
    // One of ours counts on from where Celery's client was.
    let attempt = properties.headers.entry(header::ATTEMPT.to_owned());
    attempt.or_insert_with(|| task.attempt.to_string());
    Properties {
        message_id: Some(task.job.id.clone()),
        kind: Some(task.job.kind.clone()),
        priority: task.job.priority,
        content_type: Some("application/json".to_owned()),
        headers: properties.headers,
        timestamp: properties.timestamp,
        ..Properties::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellhop_common::wire::{Job, JobProperties};
    use serde_json::json;

    fn properties(headers: &[(&str, &str)]) -> Properties {
        Properties {
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            reply_to: Some("a-result-backend".into()),
            correlation_id: Some("t1".into()),
            priority: Some(0),
            ..Properties::default()
        }
    }

    #[test]
    fn a_task_becomes_a_job_without_a_trace_of_celery() {
        let headers = [
            ("task", "report"),
            ("id", "t1"),
            ("retries", "2"),
            ("user_id", "ann"),
            ("traceparent", "00-ab"),
            ("x-delivery-count", "1"),
        ];
        let body = br#"[[1], {"a": 2}, null]"#.to_vec();
        let (body, properties) = as_native(body, properties(&headers), None).unwrap();
        let job = Job::parse(&body, &JobProperties::default()).unwrap();
        let args = json!({"args": [1], "a": 2});
        assert_eq!(job, Job::new("t1", "report", args, "ann"));
        let kept: Vec<_> = properties.headers.keys().map(String::as_str).collect();
        assert_eq!(
            kept,
            ["traceparent", "x-bellhop-attempt", "x-delivery-count"]
        );
        assert_eq!(properties.headers["x-bellhop-attempt"], "3");
        assert_eq!(properties.message_id.as_deref(), Some("t1"));
        assert_eq!((properties.reply_to, properties.priority), (None, None));
    }

    #[test]
    fn a_job_of_ours_stays_as_it_is() {
        let ours = properties(&[("x-bellhop-attempt", "2")]);
        let (body, kept) = as_native(b"{}".to_vec(), ours.clone(), None).unwrap();
        assert_eq!((body, kept), (b"{}".to_vec(), ours));
    }

    #[test]
    fn an_unreadable_task_comes_back_whole() {
        let came = properties(&[("task", "report")]);
        let unreadable = as_native(b"[]".to_vec(), came.clone(), None).unwrap_err();
        assert_eq!(
            (unreadable.body, unreadable.properties),
            (b"[]".to_vec(), came)
        );
    }
}
