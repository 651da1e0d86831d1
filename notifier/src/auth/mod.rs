//! Who may connect: tokens, where they are carried, and which pages may open a socket.
//!
//! [`Verifier`] checks tokens: with `keys` from the configuration and from the issuer's key set
//! (`jwks`, which `issuer` fetches), what they claim (`claims`), and whether they were revoked
//! ([`Revocations`]).

mod claims;
mod configured;
mod credentials;
mod issuer;
mod jwks;
mod keys;
mod mint;
mod origin;
mod revocations;
mod token;

pub use claims::{Identity, TokenError};
pub use configured::KeyError;
pub use credentials::{Carrier, Credentials, SUBPROTOCOL};
pub(crate) use issuer::Issuer;
pub use issuer::IssuerError;
pub use jwks::JwksError;
pub(crate) use jwks::MAX_KEYS;
pub use mint::{Draft, mint};
pub use origin::{is_loopback_host, origin_allowed};
pub use revocations::Revocations;
pub use token::Verifier;
