//! Stopping: signal → stop intake → drain → deadline → warn.

use std::io;
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// The exit code of a process that was ended by its second signal, as shells have it for Ctrl-C.
const ENDED_AT_ONCE: i32 = 130;

/// A token that fires on SIGINT or SIGTERM. A second signal ends the process at once, for the
/// person who does not want to wait for the drain: `last` is done before, and must not wait for
/// anything that may hang.
///
/// # Errors
/// The operating system refuses a signal handler or a thread.
pub fn on_signal(last: impl FnOnce() + Send + 'static) -> io::Result<CancellationToken> {
    // A thread and a runtime of its own: the second signal is for a process that hangs, and its
    // threads with it. For that reason it writes no log either, which may block.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (interrupt, terminate) = {
        let _inside = runtime.enter();
        let interrupt = signal(SignalKind::interrupt())?;
        (interrupt, signal(SignalKind::terminate())?)
    };
    let (token, (sender, first)) = (CancellationToken::new(), oneshot::channel());
    let fired = token.clone();
    let waiting = async move {
        let (mut interrupt, mut terminate) = (interrupt, terminate);
        let name = next(&mut interrupt, &mut terminate).await;
        fired.cancel();
        // Nobody may be there to log it any more.
        sender.send(name).ok();
        next(&mut interrupt, &mut terminate).await;
        last();
        std::process::exit(ENDED_AT_ONCE);
    };
    // Lives as long as the process: there is always a second signal to wait for.
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || runtime.block_on(waiting))?;
    tokio::spawn(async move {
        if let Ok(signal) = first.await {
            info!(signal, "stopping; a second signal ends at once");
        }
    });
    Ok(token)
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    /// Not a test: the process that the next one ends. Every thread of its runtime hangs.
    #[test]
    #[ignore = "run by a_second_signal_ends_a_process_whose_threads_hang"]
    #[expect(clippy::disallowed_methods, reason = "threads that hang")]
    fn hang() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let say = |word: &str| {
            println!("{word}");
            std::io::stdout().flush().unwrap();
        };
        runtime.block_on(async move {
            let stop = on_signal(move || say("last words")).unwrap();
            tokio::spawn(async { thread::sleep(Duration::from_mins(5)) });
            tokio::task::spawn_blocking(|| thread::sleep(Duration::from_mins(5)));
            say("ready");
            stop.cancelled().await;
            say("stopping");
            thread::sleep(Duration::from_mins(5));
        });
    }

    struct Killed(Child);

    impl Drop for Killed {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    #[test]
    fn a_second_signal_ends_a_process_whose_threads_hang() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::hang"])
            .args(["--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut child = Killed(child);
        let mut until = |word: &str| {
            let found = lines.any(|line| line.unwrap().ends_with(word));
            assert!(found, "it never said {word}");
        };
        let terminate = |pid: u32| {
            let mut kill = Command::new("kill");
            assert!(
                kill.args(["-TERM", &pid.to_string()])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        until("ready");
        terminate(child.0.id());
        until("stopping");
        terminate(child.0.id());
        let began = Instant::now();
        until("last words");
        assert_eq!(child.0.wait().unwrap().code(), Some(ENDED_AT_ONCE));
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
