//! What clients send.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// A client's frame. `id` is the client's own and is echoed in the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientFrame {
    /// Answered by `pong`.
    Ping {
        /// The client's id.
        id: Option<Value>,
    },
    /// Log in, or renew the login.
    Auth {
        /// The client's id.
        id: Option<Value>,
        /// A JSON Web Token.
        token: String,
    },
}

/// Why a frame is not understood.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Not JSON, or no object with a `type`.
    #[error("the frame is not a JSON object with a \"type\": {0}")]
    Malformed(serde_json::Error),
    /// A type this version does not know.
    #[error("unknown frame type {kind:?}; known are: ping, auth")]
    UnknownType {
        /// The client's id.
        id: Option<Value>,
        /// The type.
        kind: String,
    },
    /// A field is missing.
    #[error("a frame of type {kind:?} needs the field {field:?}")]
    MissingField {
        /// The client's id.
        id: Option<Value>,
        /// The type.
        kind: &'static str,
        /// What is missing.
        field: &'static str,
    },
}

impl FrameError {
    /// The code in the answering `error` frame.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "bad_frame",
            Self::UnknownType { .. } => "unknown_type",
            Self::MissingField { .. } => "missing_field",
        }
    }

    /// The client's id, as far as it could be read.
    #[must_use]
    pub fn id(&self) -> Option<&Value> {
        match self {
            Self::Malformed(_) => None,
            Self::UnknownType { id, .. } | Self::MissingField { id, .. } => id.as_ref(),
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    r#type: String,
    id: Option<Value>,
    token: Option<String>,
}

impl ClientFrame {
    /// Reads a text frame.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let Raw { r#type, id, token } =
            serde_json::from_str(text).map_err(FrameError::Malformed)?;
        match r#type.as_str() {
            "ping" => Ok(Self::Ping { id }),
            "auth" => match token {
                Some(token) => Ok(Self::Auth { id, token }),
                None => Err(FrameError::MissingField {
                    id,
                    kind: "auth",
                    field: "token",
                }),
            },
            _ => Err(FrameError::UnknownType { id, kind: r#type }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn frames_are_read_and_ids_kept() {
        assert_eq!(
            ClientFrame::parse(r#"{"type":"ping"}"#).unwrap(),
            ClientFrame::Ping { id: None }
        );
        assert_eq!(
            ClientFrame::parse(r#"{"type":"auth","token":"t","id":7}"#).unwrap(),
            ClientFrame::Auth {
                id: Some(json!(7)),
                token: "t".into()
            }
        );
    }

    #[test]
    fn wrong_frames_get_a_code_and_their_id_back() {
        for (text, code, id) in [
            ("hello", "bad_frame", None),
            ("[]", "bad_frame", None),
            ("{}", "bad_frame", None),
            (
                r#"{"type":"dance","id":"a"}"#,
                "unknown_type",
                Some(json!("a")),
            ),
            (r#"{"type":"auth","id":1}"#, "missing_field", Some(json!(1))),
        ] {
            let error = ClientFrame::parse(text).unwrap_err();
            assert_eq!((error.code(), error.id()), (code, id.as_ref()), "{text}");
        }
    }
}
