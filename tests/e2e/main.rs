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

mod admission;
mod alerts;
mod away;
mod balancers;
mod board;
mod broker_away;
mod cancel;
mod celery;
mod clock;
mod command_line;
mod connected;
mod connections;
mod cron;
mod crowds;
mod cut_off;
mod dead_letters;
mod devices;
mod drain;
mod faults;
mod follow_ups;
mod frames;
mod groups;
mod handed_back;
mod handshake;
mod http_api;
mod inbox;
mod job;
mod key_sets;
mod limits;
mod long_jobs;
mod metrics;
mod permissions;
mod presence_http;
mod progress;
mod public_keys;
mod publish;
mod publisher;
mod push;
mod redelivery;
mod retries;
mod revocations;
mod rooms;
mod scheduled;
mod sse;
mod status;
mod streams;
mod tls;
mod unique;
mod worker_gone;
