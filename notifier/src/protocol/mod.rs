//! What clients are told and tell. Pure: frames in, frames out, close codes, events of a stream.

mod client;
pub mod close;
pub mod event_stream;
mod frame;
mod place;
mod server;

pub use client::{ClientFrame, Command, FrameError, Problem, Relay};
pub use frame::{At, Frame};
pub use place::{Place, PlaceKind};
pub use server::{
    Kept, Welcome, closed, connected, error, event, marked, not_recovered, pong, presence,
    reconnect, resumed, stream_reset, subscribed, token_expiring, unsubscribed, user_joined,
    user_left,
};
