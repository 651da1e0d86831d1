//! Staying with a program: its streams, its end, and the orders to end it.

use std::pin::{Pin, pin};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::child::{Pipes, ProcessGroup};
use super::tail::Tail;
use crate::task::TaskContext;
use crate::tasks::output::{Output, TooLarge};

/// How long the output of a program that has ended is read on, when another process holds the
/// pipe open.
const DRAIN: Duration = Duration::from_secs(1);

/// Why the program is not attended to any longer.
pub(super) enum Ending {
    Itself,
    Cancelled,
    TooLarge(TooLarge),
}

/// Stays with the program until its end, or until there is a reason to kill it.
pub(super) async fn attend(
    group: &ProcessGroup,
    mut streams: Pin<&mut impl Future<Output = Result<(), TooLarge>>>,
    cancelled: &CancellationToken,
    grace: Duration,
) -> Ending {
    let mut ended = pin!(group.ended());
    let mut streaming = true;
    loop {
        tokio::select! {
            biased;
            // On an error `reap` says more.
            _ = &mut ended => break,
            result = &mut streams, if streaming => match result {
                Ok(()) => streaming = false,
                Err(excess) => return Ending::TooLarge(excess),
            },
            () = cancelled.cancelled() => {
                group.terminate();
                // All who hold the pipes may end in peace, not the leader alone: when a shell is
                // told to end, it does so before the program it waits for.
                let all = async {
                    if streaming {
                        // It is being ended as it is.
                        _ = streams.await;
                    }
                    drop(ended.await);
                };
                drop(timeout(grace, all).await);
                return Ending::Cancelled;
            }
        }
    }
    if streaming && let Ok(Err(excess)) = timeout(DRAIN, streams).await {
        return Ending::TooLarge(excess);
    }
    Ending::Itself
}

/// Moves all three streams at once, so that a full pipe never blocks the program.
pub(super) async fn streams(
    pipes: Pipes,
    args: Value,
    output: &mut Output,
    tail: &mut Tail,
    ctx: &TaskContext,
) -> Result<(), TooLarge> {
    let lines = |bytes: &[u8]| output.push(bytes, |said| said.tell(ctx));
    let errors = |bytes: &[u8]| {
        tail.push(bytes);
        Ok(())
    };
    tokio::try_join!(
        feed(pipes.stdin, args),
        read(pipes.stdout, lines),
        read(pipes.stderr, errors),
    )?;
    Ok(())
}

async fn feed(stdin: Option<ChildStdin>, args: Value) -> Result<(), TooLarge> {
    let Some(mut stdin) = stdin else {
        return Ok(());
    };
    let mut input = args.to_string();
    input.push('\n');
    if let Err(error) = stdin.write_all(input.as_bytes()).await {
        // It need not read them.
        tracing::debug!(%error, "the program did not take its arguments");
    }
    Ok(())
}

async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    mut take: impl FnMut(&[u8]) -> Result<(), TooLarge>,
) -> Result<(), TooLarge> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(count) => take(buffer.get(..count).unwrap_or_default())?,
            Err(error) => {
                tracing::debug!(%error, "the program's output ended early");
                return Ok(());
            }
        }
    }
}
