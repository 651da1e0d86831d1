//! What a request asks for. Pure.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_common::dead_letters::Filter;
use serde::Deserialize;
use warp::http::StatusCode;

use crate::http::error::ApiError;

/// How many letters a listing holds, unless it says.
const LIMIT: usize = 100;

/// How many it may hold: the answer is made in memory.
const MAX_LIMIT: usize = 1000;

/// The query of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) filter: Filter,
    pub(super) limit: usize,
}

/// The body of a replay or a drop.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) filter: Filter,
    /// Where to, if not where it came from.
    pub(super) queue: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    ids: Option<Vec<String>>,
    kinds: Option<Vec<String>>,
    reasons: Option<Vec<String>>,
    older_than: Option<HumanDuration>,
    newer_than: Option<HumanDuration>,
    #[serde(default)]
    all: bool,
    queue: Option<String>,
}

impl Query {
    /// Reads the pairs of a query; `id`, `kind` and `reason` may come several times.
    pub(super) fn read(pairs: Vec<(String, String)>) -> Result<Self, ApiError> {
        let mut query = Self {
            filter: Filter::default(),
            limit: LIMIT,
        };
        for (name, value) in pairs {
            let filter = &mut query.filter;
            match name.as_str() {
                "id" => filter.ids.push(value),
                "kind" => filter.kinds.push(value),
                "reason" => filter.reasons.push(value),
                "older_than" => filter.older_than = Some(duration(&name, &value)?),
                "newer_than" => filter.newer_than = Some(duration(&name, &value)?),
                "limit" => match value.parse() {
                    Ok(limit @ 1..=MAX_LIMIT) => query.limit = limit,
                    _ => {
                        return Err(bad_query(format!(
                            "limit must be 1 to {MAX_LIMIT}, not {value:?}"
                        )));
                    }
                },
                _ => {
                    return Err(bad_query(format!(
                        "there is no parameter {name:?}; there are id, kind, reason, older_than, \
                         newer_than and limit"
                    )));
                }
            }
        }
        Ok(query)
    }
}

impl Order {
    /// Reads a body. Nothing asked for is not everything.
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        let bad = |code, message: String| ApiError::new(StatusCode::BAD_REQUEST, code, message);
        let body: Body =
            serde_json::from_slice(body).map_err(|error| bad("bad_json", error.to_string()))?;
        // A list that came out empty in the caller's program must not mean "any".
        let lists = [
            ("ids", &body.ids),
            ("kinds", &body.kinds),
            ("reasons", &body.reasons),
        ];
        for (name, list) in lists {
            if list.as_ref().is_some_and(Vec::is_empty) {
                return Err(bad(
                    "bad_request",
                    format!("`{name}` is empty: leave it out for any"),
                ));
            }
        }
        let filter = Filter {
            ids: body.ids.unwrap_or_default(),
            kinds: body.kinds.unwrap_or_default(),
            reasons: body.reasons.unwrap_or_default(),
            older_than: body.older_than.map(Duration::from),
            newer_than: body.newer_than.map(Duration::from),
        };
        match (filter.is_empty(), body.all) {
            (true, false) => Err(bad(
                "bad_request",
                "which ones? Give ids, kinds, reasons, older_than, newer_than, or \"all\": true"
                    .into(),
            )),
            (false, true) => Err(bad(
                "bad_request",
                "\"all\" goes with no ids and no filters: leave one out".into(),
            )),
            _ => Ok(Self {
                filter,
                queue: body.queue,
            }),
        }
    }
}

/// A part of a path as it was meant; warp leaves it percent-encoded.
pub(super) fn decoded(part: &str) -> Result<String, ApiError> {
    let bad = || bad_query("the id in the path is not percent-encoded UTF-8".to_owned());
    let mut bytes = Vec::new();
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(bad());
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

fn duration(name: &str, value: &str) -> Result<Duration, ApiError> {
    let duration = value.parse::<HumanDuration>();
    let duration = duration.map_err(|error| bad_query(format!("{name}: {error}")))?;
    Ok(duration.into())
}

fn bad_query(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_query", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Result<Query, String> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        Query::read(pairs.collect()).map_err(|error| error.message)
    }

    #[test]
    fn a_query_names_filters_and_every_mistake_is_told() {
        let read = query(&[
            ("kind", "a"),
            ("kind", "b"),
            ("older_than", "1d"),
            ("limit", "7"),
        ]);
        let read = read.unwrap();
        assert_eq!((read.filter.kinds.len(), read.limit), (2, 7));
        assert_eq!(read.filter.older_than, Some(Duration::from_hours(24)));
        assert_eq!(query(&[]).unwrap().limit, LIMIT);
        for (name, value, wants) in [
            ("limit", "0", "1 to 1000"),
            ("limit", "1001", "1 to 1000"),
            ("older_than", "soon", "older_than"),
            ("reasons", "x", "there is no parameter \"reasons\""),
        ] {
            let error = query(&[(name, value)]).unwrap_err();
            assert!(error.contains(wants), "{error}");
        }
    }

    #[test]
    fn an_order_for_everything_must_say_so() {
        for (body, wants) in [
            ("{}", "which ones"),
            (r#"{"queue":"q"}"#, "which ones"),
            (r#"{"ids":[]}"#, "`ids` is empty"),
            (r#"{"ids":["a"],"all":true}"#, "leave one out"),
            (r#"{"id":["a"]}"#, "unknown field"),
            (r#"{"older_than":"x"}"#, "duration"),
        ] {
            let error = Order::read(body.as_bytes()).unwrap_err().message;
            assert!(error.contains(wants), "{body}: {error}");
        }
        assert!(Order::read(br#"{"all":true}"#).unwrap().filter.is_empty());
        let order = Order::read(br#"{"ids":["a"],"newer_than":"2h","queue":"q"}"#).unwrap();
        assert_eq!(order.queue.as_deref(), Some("q"));
    }

    #[test]
    fn an_id_in_a_path_may_be_any_text() {
        assert_eq!(decoded("a%2Fb%20%C3%BC-c").unwrap(), "a/b ü-c");
        for wrong in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert!(decoded(wrong).is_err(), "{wrong}");
        }
    }
}
