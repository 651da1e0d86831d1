//! The link in a mail that ends mails of its kind (RFC 8058). Whoever has the mail may follow it, so it
//! says for whom and what for, signed, and never ends.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::DIGEST;
use super::preferences::{MailChoice, Preferences, preferences_document};
use crate::config::EscalationConfig;
use crate::documents;
use crate::store::{SharedStore, StoreError};

/// The document with the key, which the first instance makes.
const KEY: &str = "unsubscribe-key";

/// What a link says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leave {
    /// Who gets no more mails.
    #[serde(rename = "sub")]
    pub(crate) user_id: String,
    /// Of which category; or all that come as a digest.
    #[serde(rename = "cat")]
    pub(crate) category: String,
}

/// The key that links are signed with.
#[derive(Debug, Default)]
pub(crate) struct Unsubscribe(OnceCell<String>);

impl Unsubscribe {
    async fn key(&self, store: &SharedStore) -> Result<&str, StoreError> {
        let key = self.0.get_or_try_init(|| shared_key(store));
        key.await.map(String::as_str)
    }

    /// The last part of a link.
    ///
    /// # Errors
    /// [`StoreError`] if there is no key yet.
    pub(crate) async fn token(
        &self,
        store: &SharedStore,
        leave: &Leave,
    ) -> Result<String, StoreError> {
        let key = EncodingKey::from_secret(self.key(store).await?.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), leave, &key);
        // Two texts can always be signed with a shared key.
        Ok(token.unwrap_or_default())
    }

    /// What a link says; `None` if it is none of ours.
    ///
    /// # Errors
    /// [`StoreError`] if there is no key yet.
    pub(crate) async fn read(
        &self,
        store: &SharedStore,
        token: &str,
    ) -> Result<Option<Leave>, StoreError> {
        let key = DecodingKey::from_secret(self.key(store).await?.as_bytes());
        let mut rules = Validation::new(Algorithm::HS256);
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        let read = jsonwebtoken::decode::<Leave>(token, &key, &rules);
        Ok(read.ok().map(|token| token.claims))
    }
}

/// The key of all instances, made by the first.
async fn shared_key(store: &SharedStore) -> Result<String, StoreError> {
    let mut key = String::new();
    let make = |before: Option<String>| {
        let is_first = before.is_none();
        let fresh = || format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        key = before.unwrap_or_else(fresh);
        is_first.then(|| key.clone())
    };
    documents::change(store, KEY, make).await?;
    Ok(key)
}

/// Ends mails of a category.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn end(
    store: &SharedStore,
    config: &EscalationConfig,
    leave: &Leave,
) -> Result<(), StoreError> {
    let change = |before: Option<Preferences>| {
        let mut wishes = before.unwrap_or_default();
        for category in &config.categories {
            let is_meant = match leave.category.as_str() {
                DIGEST => {
                    let mail = super::decision::mail_choice(category, &wishes);
                    matches!(mail, MailChoice::Hourly | MailChoice::Daily)
                }
                name => name == category.name,
            };
            if is_meant {
                let choice = wishes.categories.entry(category.name.clone());
                choice.or_default().mail = Some(MailChoice::Never);
            }
        }
        Some(wishes)
    };
    let document = preferences_document(&leave.user_id);
    documents::change(store, &document, change).await?;
    Ok(())
}
