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
mod celery;
mod command_line;
mod connections;
mod frames;
mod handshake;
mod http_api;
mod job;
mod public_keys;
mod publisher;
mod tls;
mod worker_gone;
