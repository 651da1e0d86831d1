//! The WebSocket protocol. Pure: frames in, frames out, close codes.

mod client;
pub mod close;
mod server;

pub use client::{ClientFrame, FrameError};
pub use server::{Frame, connected, error, event, pong};
