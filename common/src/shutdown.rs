//! Stopping: signal → stop intake → drain → deadline → warn.

use tokio_util::sync::CancellationToken;
use tracing::info;

/// A token that fires on SIGINT or SIGTERM. A second signal ends the process at once, for the
/// person who does not want to wait for the drain.
///
/// # Errors
/// The operating system refuses a signal handler.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let fired = token.clone();
    // Lives as long as the process: there is always a second signal to wait for.
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            if first {
                info!(signal = name, "stopping; a second signal ends at once");
                fired.cancel();
            } else {
                info!(signal = name, "second signal: ending at once");
                std::process::exit(130);
            }
        }
    });
    Ok(token)
}
