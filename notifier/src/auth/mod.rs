//! Who may connect: tokens, where they are carried, and which pages may open a socket.

mod credentials;
mod origin;
mod token;

pub use credentials::{Carrier, Credentials, SUBPROTOCOL};
pub use origin::{is_loopback_host, origin_allowed};
pub use token::{Identity, KeyError, TokenError, Verifier, mint, mint_with_scope};
