//! What the two programs do alike on the command line.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the service may take to answer a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// Writes a line to standard output; a reader that left is no error of ours.
pub fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// Writes an error to standard error.
pub fn complain(program: &str, error: &(dyn std::fmt::Display + Send + Sync)) {
    drop(writeln!(std::io::stderr(), "{program}: {error}"));
}

/// Why a service is not healthy.
#[derive(Debug, Error)]
pub enum HealthCheckError {
    /// Nothing answers there.
    #[error("{listen} does not answer")]
    Unreachable {
        /// Where we asked.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It answers that it is not ready.
    #[error("{listen} is not ready: {answer}")]
    NotReady {
        /// Where we asked.
        listen: SocketAddr,
        /// What it said.
        answer: String,
    },
}

/// Asks a service on this machine for `/readyz`; for a container's health check, whose image has
/// no HTTP client.
///
/// # Errors
/// [`HealthCheckError`].
pub async fn health_check(mut listen: SocketAddr) -> Result<(), HealthCheckError> {
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let asking = async {
        let mut stream = TcpStream::connect(listen).await?;
        let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream.take(4096).read_to_end(&mut answer).await?;
        Ok(answer)
    };
    let answer: Result<Vec<u8>, std::io::Error> = timeout(HEALTH_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let answer = answer.map_err(|source| HealthCheckError::Unreachable { listen, source })?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    Err(HealthCheckError::NotReady {
        listen,
        answer: body.to_owned(),
    })
}
