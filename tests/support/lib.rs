//! What the end-to-end tests stand on: a real broker, the two services in this process or as
//! programs, a WebSocket client, and doubles of Mattermost and Slack.
#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "this is test code: a panic is how it reports"
)]

pub mod alerts;
pub mod backend;
pub mod balancer;
pub mod broker;
pub mod chaos;
pub mod client;
pub mod crowd;
pub mod disk;
pub mod event_stream;
pub mod faked_time;
pub mod issuer;
pub mod keys;
#[path = "mattermost/mod.rs"]
pub mod mattermost;
pub mod netns;
pub mod program;
pub mod push;
pub mod rabbit;
pub mod random;
pub mod redis;
pub mod redis_cluster;
pub mod relay;
pub mod slack;
pub mod smtp;
pub mod stack;
pub mod store_plan;
pub mod watch;
