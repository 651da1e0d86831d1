//! The system as its users meet it, one file per behaviour. Needs a broker: run with
//! `scripts/with-broker cargo nextest run`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

mod tasks;

mod alerts;
mod broker_away;
mod cancel;
mod command_line;
mod connections;
mod faults;
mod follow_ups;
mod frames;
mod handshake;
mod http_api;
mod job;
mod limits;
mod long_jobs;
mod public_keys;
mod publisher;
mod redelivery;
mod retries;
mod scheduled;
mod tls;
mod worker_gone;
