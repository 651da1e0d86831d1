//! `worker`: the service and its small tools.

use std::process::ExitCode;

use bellhop_worker::Registry;

#[tokio::main]
async fn main() -> ExitCode {
    bellhop_worker::main(Registry::new()).await
}
