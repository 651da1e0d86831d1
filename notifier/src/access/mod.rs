//! Who may enter a room or chat: by the patterns in the token, by the backend's word, or everybody.

mod answers;
mod backend;
mod pattern;
mod removals;

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use thiserror::Error;
use tokio::time::Instant;

use self::backend::Backend;
pub use self::backend::CallbackError;
use self::removals::Removals;
use crate::auth::Identity;
use crate::config::{Access as Mode, AuthMode, RoomsConfig};
use crate::protocol::Place;

/// Decides who may enter.
#[derive(Debug)]
pub(crate) struct Access {
    mode: Mode,
    backend: Option<Backend>,
    removals: Mutex<Removals>,
}

/// What a connection's token says of rooms. Kept for as long as the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grant {
    pub(crate) patterns: Box<[String]>,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) token_id: Option<Box<str>>,
}

impl Grant {
    pub(crate) fn of(identity: &Identity) -> Self {
        Self {
            patterns: identity.rooms.clone().into(),
            issued_at: identity.issued_at,
            token_id: identity.token_id.as_deref().map(Into::into),
        }
    }
}

/// The answer, as far as it is known at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Yes,
    No,
    /// The backend has to be asked, see [`Access::ask`].
    Ask,
}

/// Nobody could say whether somebody may enter. It counts as no.
#[derive(Debug, Error)]
#[error("the backend that knows who may enter does not answer; try again later")]
pub(crate) struct Unavailable;

impl Access {
    /// # Errors
    /// [`CallbackError`] if the HTTP client cannot be set up.
    pub(crate) fn new(config: &RoomsConfig, auth: AuthMode) -> Result<Self, CallbackError> {
        // Where nobody has to log in there are no claims either.
        let mode = match (config.access, auth) {
            (Mode::Claims, AuthMode::None) => Mode::Open,
            (mode, _) => mode,
        };
        let backend = match (&config.callback_url, mode) {
            (Some(url), Mode::Callback) => Some(Backend::new(url, config)?),
            _ => None,
        };
        Ok(Self {
            mode,
            backend,
            removals: Mutex::default(),
        })
    }

    /// Whether a user may enter.
    pub(crate) fn may_enter(&self, user: &str, grant: &Grant, place: &Place) -> Verdict {
        match (self.mode, &self.backend) {
            (Mode::Open, _) => Verdict::Yes,
            _ if pattern::covers(&grant.patterns, place)
                && !self.removals().cover(user, place, grant.issued_at) =>
            {
                Verdict::Yes
            }
            (Mode::Callback, Some(backend)) => match backend.known(user, place, Instant::now()) {
                Some(true) => Verdict::Yes,
                Some(false) => Verdict::No,
                None => Verdict::Ask,
            },
            _ => Verdict::No,
        }
    }

    /// Asks the backend, and remembers its answer.
    ///
    /// # Errors
    /// [`Unavailable`] if it did not answer in time, or not as it should.
    pub(crate) async fn ask(&self, user: &str, place: &Place) -> Result<bool, Unavailable> {
        match &self.backend {
            Some(backend) => backend.ask(user, place).await,
            None => Ok(false),
        }
    }

    /// The user is no member any more: neither an earlier answer nor an earlier token holds.
    pub(crate) fn remove_member(&self, user: &str, place: &Place, at: Timestamp) {
        if let Some(backend) = &self.backend {
            backend.forget(user, place);
        }
        self.removals().put(user, place, at);
    }

    /// The user is a member (again): an earlier refusal does not hold.
    pub(crate) fn add_member(&self, user: &str, place: &Place) {
        if let Some(backend) = &self.backend {
            backend.forget(user, place);
        }
        self.removals().lift(user, place);
    }

    fn removals(&self) -> MutexGuard<'_, Removals> {
        self.removals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
