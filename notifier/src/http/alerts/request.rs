//! The body of a request for a silence. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;
use warp::http::StatusCode;

use crate::alerts::engine::{Silence, later};
use crate::http::error::ApiError;

/// How many silences there may be.
pub(super) const SILENCES_MAX: usize = 200;

/// The longest silence. Who wants less than that changes the routes.
const LONGEST: Duration = Duration::from_hours(90 * 24);

/// Longest reason, in characters.
const REASON_MAX: usize = 500;

/// How many labels one may have.
const LABELS_MAX: usize = 20;

/// Longest name or pattern of a label, in bytes.
const LABEL_MAX: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    labels: BTreeMap<String, String>,
    until: Timestamp,
    reason: String,
}

/// The silence that a body asks for.
pub(super) fn silence(
    body: &[u8],
    id: Uuid,
    author: String,
    now: Timestamp,
) -> Result<Silence, ApiError> {
    let bad = |code, message| ApiError::new(StatusCode::BAD_REQUEST, code, message);
    let request: Request =
        serde_json::from_slice(body).map_err(|error| bad("bad_json", error.to_string()))?;
    let wrong = |message: String| Err(bad("bad_request", message));
    let labels = &request.labels;
    if !(1..=LABELS_MAX).contains(&labels.len()) {
        return wrong(format!("`labels` must have 1 to {LABELS_MAX} entries"));
    }
    let too_long = |text: &String| text.len() > LABEL_MAX;
    if labels
        .iter()
        .any(|(name, value)| too_long(name) || too_long(value))
    {
        return wrong(format!("a label may have {LABEL_MAX} bytes"));
    }
    if request.until <= now || request.until > later(now, LONGEST) {
        return wrong("`until` must be a time to come, within 90 days".into());
    }
    let reason = request.reason.trim();
    if reason.is_empty() || reason.chars().count() > REASON_MAX {
        return wrong(format!("`reason` must have 1 to {REASON_MAX} characters"));
    }
    Ok(Silence {
        id,
        labels: request.labels.clone(),
        created_at: now,
        until: request.until,
        author,
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &str) -> Result<Silence, ApiError> {
        let now = "2026-01-15T10:30:00Z".parse().unwrap();
        silence(body.as_bytes(), Uuid::nil(), "ann".into(), now)
    }

    #[test]
    fn a_silence_needs_labels_an_end_and_a_reason() {
        let good =
            r#"{"labels":{"kind":"report.*"},"until":"2026-01-15T12:00:00Z","reason":" x "}"#;
        let made = ask(good).unwrap();
        assert_eq!((&*made.author, &*made.reason), ("ann", "x"));
        let long = format!(r#""{}""#, "ä".repeat(501));
        for (from, to, wants) in [
            (
                r#""reason":" x ""#,
                r#""reason":" ""#.to_owned(),
                "`reason`",
            ),
            (r#"" x ""#, long, "`reason`"),
            (r#","reason":" x ""#, String::new(), "reason"),
            ("2026-01-15T12", "2026-01-15T10".into(), "`until`"),
            ("2026-01-15T12", "2026-04-16T12".into(), "90 days"),
            (r#""kind":"report.*""#, String::new(), "`labels`"),
            (r#""kind""#, format!(r#""{}""#, "k".repeat(300)), "256"),
            ("reason", "why".into(), "unknown field"),
        ] {
            let error = ask(&good.replace(from, &to)).unwrap_err();
            assert!(error.message.contains(wants), "{to}: {}", error.message);
        }
    }
}
