//! Web Push: messages to browsers of people who are away (RFC 8030, 8188, 8291, 8292).
//!
//! - [`subscription`]: what a browser gives. [`devices`]: a user's browsers, kept in the store
//!   ([`kept`]).
//! - [`endpoint`], `resolver`: which addresses are taken, because strangers name them.
//! - [`note`]: what is said. [`vapid`]: who says it.
//! - [`sender`]: says it, once; the caller tries again.

mod answer;
pub mod devices;
pub mod endpoint;
pub mod kept;
pub mod note;
mod resolver;
pub mod sender;
pub mod subscription;
pub mod vapid;

pub use devices::{Device, Devices, Put, Verdict};
pub use endpoint::{Endpoint, EndpointError, HostPattern, Policy};
pub use note::{MAX_BODY, PushNote, Topic, Urgency};
pub use sender::{PushError, Pusher, PusherError};
pub use subscription::{Given, Subscription, SubscriptionError};
pub use vapid::{VapidError, VapidKey};
