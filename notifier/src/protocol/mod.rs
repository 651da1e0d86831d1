//! The WebSocket protocol. Pure: frames in, frames out, close codes.

mod client;
pub mod close;
mod frame;
mod place;
mod server;

pub use client::{ClientFrame, Command, FrameError, Problem, Relay};
pub use frame::Frame;
pub use place::{Place, PlaceKind};
pub use server::{
    Welcome, connected, error, event, pong, presence, reconnect, subscribed, token_expiring,
    unsubscribed, user_joined, user_left,
};
