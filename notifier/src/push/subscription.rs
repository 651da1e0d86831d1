//! What a browser gives: where pushes to it go, and what they are encrypted with. Pure.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode::Indifferent;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use web_push_native::Auth;
use web_push_native::p256::PublicKey;

use super::endpoint::{self, EndpointError, Policy};

/// Base64url, which browsers write without padding, and some libraries with.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(Indifferent),
);

/// The longest name of a device, in bytes.
const MAX_LABEL_BYTES: usize = 128;

/// `PushSubscription.toJSON()`, and a name for the device. Other fields are passed over: browsers may
/// add some.
#[derive(Clone, Deserialize)]
pub struct Given {
    endpoint: String,
    /// Milliseconds since 1970.
    #[serde(rename = "expirationTime")]
    expires: Option<f64>,
    keys: Keys,
    label: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Keys {
    p256dh: String,
    auth: String,
}

/// Why a subscription is not taken. Never holds the endpoint or a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubscriptionError {
    /// The endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The browser's key.
    #[error("keys.p256dh must be a point of the curve P-256, 65 bytes in base64url")]
    P256dh,
    /// The browser's secret.
    #[error("keys.auth must be 16 bytes in base64url")]
    Auth,
    /// The name.
    #[error("the label has more than {MAX_LABEL_BYTES} bytes")]
    Label,
    /// It is over.
    #[error("the subscription has expired")]
    Expired,
}

/// Where pushes to a browser go, and what they are encrypted with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The address at the push service: a secret.
    pub endpoint: String,
    /// The browser's public key, in base64url.
    pub p256dh: String,
    /// A secret of the browser's, in base64url.
    pub auth: String,
    /// The `applicationServerKey` that it was made for: the push service takes nothing signed with
    /// another.
    pub key: String,
}

impl Given {
    /// The subscription, its name and its end, if we can send there. `key` is the public key that
    /// browsers are told now.
    ///
    /// # Errors
    /// [`SubscriptionError`] says what is wrong.
    pub fn check(
        self,
        policy: &Policy,
        key: &str,
        now: Timestamp,
    ) -> Result<(Subscription, Option<String>, Option<Timestamp>), SubscriptionError> {
        let label = self.label.filter(|label| !label.is_empty());
        if label
            .as_ref()
            .is_some_and(|label| label.len() > MAX_LABEL_BYTES)
        {
            return Err(SubscriptionError::Label);
        }
        let expires = self.expires.map(of_millis);
        if expires.is_some_and(|expires| expires <= now) {
            return Err(SubscriptionError::Expired);
        }
        policy.check(&self.endpoint)?;
        let subscription = Subscription {
            endpoint: self.endpoint,
            p256dh: self.keys.p256dh,
            auth: self.keys.auth,
            key: key.to_owned(),
        };
        subscription.keys()?;
        Ok((subscription, label, expires))
    }
}

fn of_millis(millis: f64) -> Timestamp {
    let far = if millis > 0.0 {
        Timestamp::MAX
    } else {
        Timestamp::MIN
    };
    jiff::SignedDuration::try_from_secs_f64(millis / 1000.0)
        .ok()
        .and_then(|since| Timestamp::from_duration(since).ok())
        .unwrap_or(far)
}

impl Subscription {
    /// By what it is called.
    #[must_use]
    pub fn id(&self) -> String {
        endpoint::id_of(&self.endpoint)
    }

    /// What to encrypt with.
    ///
    /// # Errors
    /// [`SubscriptionError`] if a key is none.
    pub fn keys(&self) -> Result<(PublicKey, Auth), SubscriptionError> {
        let point = BASE64.decode(&self.p256dh).ok();
        let point = point.filter(|point| point.len() == 65);
        let key = point.and_then(|point| PublicKey::from_sec1_bytes(&point).ok());
        let auth = BASE64.decode(&self.auth).ok();
        let auth = auth.and_then(|auth| <[u8; 16]>::try_from(auth).ok());
        let auth = auth.ok_or(SubscriptionError::Auth)?;
        Ok((key.ok_or(SubscriptionError::P256dh)?, Auth::from(auth)))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscription").field(&self.id()).finish()
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = endpoint::id_of(&self.endpoint);
        f.debug_tuple("Given").field(&id).finish()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Of RFC 8291, 5.
    pub(in crate::push) const P256DH: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    pub(in crate::push) const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";

    fn given() -> Value {
        json!({"endpoint": "https://push.example/hunter2", "expirationTime": null,
            "keys": {"p256dh": P256DH, "auth": AUTH}})
    }

    fn check(
        given: Value,
    ) -> Result<(Subscription, Option<String>, Option<Timestamp>), SubscriptionError> {
        let given: Given = serde_json::from_value(given).unwrap();
        assert!(!format!("{given:?}").contains("hunter2"));
        let policy = Policy::new(&crate::PushConfig::default());
        given.check(&policy, "key", "2026-01-15T10:30:00Z".parse().unwrap())
    }

    #[test]
    fn what_a_browser_gives_is_taken() {
        let (subscription, label, expires) = check(given()).unwrap();
        assert_eq!((label, expires), (None, None));
        assert_eq!(subscription.key, "key");
        assert!(!format!("{subscription:?}").contains("hunter2"));
        let mut more = given();
        more["expirationTime"] = json!(1_800_000_000_000_u64);
        more["keys"]["p256dh"] = json!(format!("{P256DH}="));
        more["keys"]["auth"] = json!(format!("{AUTH}=="));
        more["label"] = json!("Laptop");
        more["later"] = json!([1]);
        let (padded, label, expires) = check(more).unwrap();
        assert_eq!(label.as_deref(), Some("Laptop"));
        assert_eq!(expires, Some("2027-01-15T08:00:00Z".parse().unwrap()));
        assert_eq!(padded.keys().unwrap().0, subscription.keys().unwrap().0);
        assert_eq!(padded.id(), subscription.id());
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused() {
        use SubscriptionError::{Auth, Expired, Label, P256dh};
        for (pointer, value, wants) in [
            (
                "/endpoint",
                json!("https://127.0.0.1/"),
                SubscriptionError::Endpoint(EndpointError::NotPublic),
            ),
            ("/keys/p256dh", json!(""), P256dh),
            ("/keys/p256dh", json!(AUTH), P256dh),
            ("/keys/p256dh", json!(P256DH.replace("iw4", "iw8")), P256dh),
            ("/keys/p256dh", json!("+".repeat(87)), P256dh),
            ("/keys/auth", json!("BTBZ"), Auth),
            ("/keys/auth", json!(P256DH), Auth),
            ("/expirationTime", json!(1_000_000_000_000_u64), Expired),
            ("/expirationTime", json!(-1e300), Expired),
            ("/label", json!("x".repeat(129)), Label),
        ] {
            let mut given = given();
            given["label"] = Value::Null;
            *given.pointer_mut(pointer).unwrap() = value.clone();
            assert_eq!(check(given).unwrap_err(), wants, "{pointer} {value}");
        }
        let mut endless = given();
        endless["expirationTime"] = json!(1e300);
        assert_eq!(check(endless).unwrap().2, Some(Timestamp::MAX));
    }
}
