//! Who may enter a room or chat: by the patterns in the token, by the backend's word, or everybody.

mod answers;
mod backend;
mod memberships;
pub(crate) mod pattern;

use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use thiserror::Error;
use tokio::time::Instant;

use self::backend::Backend;
pub use self::backend::CallbackError;
use self::memberships::Memberships;
pub(crate) use self::memberships::Moment;
use crate::auth::Identity;
use crate::config::{Access as Mode, AuthMode, RoomsConfig};
use crate::protocol::Place;

/// Decides who may enter.
#[derive(Debug)]
pub(crate) struct Access {
    mode: Mode,
    backend: Option<Backend>,
    memberships: Mutex<Memberships>,
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
            memberships: Mutex::default(),
        })
    }

    /// Whether a user may enter.
    pub(crate) fn may_enter(&self, user: &str, grant: &Grant, place: &Place) -> Verdict {
        match (self.mode, &self.backend) {
            (Mode::Open, _) => Verdict::Yes,
            _ if self.is_granted(user, grant, place) => Verdict::Yes,
            (Mode::Callback, Some(backend)) => match backend.known(user, place, Instant::now()) {
                Some(true) => Verdict::Yes,
                Some(false) => Verdict::No,
                None => Verdict::Ask,
            },
            _ => Verdict::No,
        }
    }

    /// Whether a token says that its user may enter.
    pub(crate) fn is_granted(&self, user: &str, grant: &Grant, place: &Place) -> bool {
        pattern::covers(&grant.patterns, place)
            && !self.memberships().outdate(user, place, grant.issued_at)
    }

    /// A decision that begins now takes into account what was said before.
    pub(crate) fn now(&self) -> Moment {
        self.memberships().now()
    }

    /// Asks the backend, and remembers its answer. One during which the user's membership changed
    /// may have been given just before, so it is asked again.
    ///
    /// # Errors
    /// [`Unavailable`] if it did not answer in time, or not as it should.
    pub(crate) async fn ask(&self, user: &str, place: &Place) -> Result<bool, Unavailable> {
        let Some(backend) = &self.backend else {
            return Ok(false);
        };
        let is_settled = |asked| !self.memberships().changed_since(user, place, asked);
        backend.ask(user, place, || self.now(), is_settled).await
    }

    /// Whether a user was removed after a decision began. To be asked after the user is inside:
    /// either this sees the removal, or the removal sees the user.
    pub(crate) fn removed_since(&self, user: &str, place: &Place, moment: Moment) -> bool {
        self.memberships().removed_since(user, place, moment)
    }

    /// The user is no member any more: neither an earlier answer nor an earlier token holds.
    pub(crate) fn remove_member(&self, user: &str, place: &Place, at: Timestamp) {
        self.memberships().remove(user, place, at);
        self.forget_answer(user, place);
    }

    /// The user is a member (again): an earlier refusal does not hold.
    pub(crate) fn add_member(&self, user: &str, place: &Place) {
        self.memberships().add(user, place);
        self.forget_answer(user, place);
    }

    /// After the change is known, or an answer from before it could be remembered in between.
    fn forget_answer(&self, user: &str, place: &Place) {
        if let Some(backend) = &self.backend {
            backend.forget(user, place);
        }
    }

    fn memberships(&self) -> MutexGuard<'_, Memberships> {
        let memberships = self.memberships.lock();
        memberships.unwrap_or_else(PoisonError::into_inner)
    }
}
