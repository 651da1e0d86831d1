//! The way to the server: a few connections, each for one mail at a time.
//!
//! Over lettre's connection, not its transport: so it is known which command failed, no task runs
//! that nobody joins, and everything is under one deadline.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use lettre::Address;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::verdict::{Failure, REASON_MAX, Step, What};
use super::{MailError, MailSetupError};
use crate::alerts::markdown::one_line;
use crate::config::{Encryption, MailConfig, SmtpServer};

/// Servers close what is idle, some after less than a minute, and firewalls do so without a word.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A server that does not answer QUIT is left without.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// The server, and what is open to it.
pub(super) struct Relay {
    server: SmtpServer,
    hello: ClientId,
    credentials: Option<Credentials>,
    tls: Option<TlsParameters>,
    limit: Duration,
    places: Semaphore,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    connection: AsyncSmtpConnection,
    since: Instant,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({}:{})", self.server.host, self.server.port)
    }
}

impl Relay {
    pub(super) fn new(server: SmtpServer, config: &MailConfig) -> Result<Self, MailSetupError> {
        let password = config.password()?;
        let credentials = server.user.clone().zip(password);
        let tls = match server.encryption {
            Encryption::None => None,
            Encryption::FromTheStart | Encryption::StartTls => {
                let tls = TlsParameters::new(server.host.clone());
                Some(tls.map_err(MailSetupError::Tls)?)
            }
        };
        Ok(Self {
            server,
            hello: ClientId::default(),
            credentials: credentials
                .map(|(user, password)| Credentials::new(user, password.expose().to_owned())),
            tls,
            limit: config.timeout.0,
            places: Semaphore::new(config.connections),
            idle: Mutex::default(),
        })
    }

    /// Gives a mail to the server, and returns what it answered.
    pub(super) async fn submit(
        &self,
        from: &Address,
        to: &Address,
        message: &str,
    ) -> Result<String, MailError> {
        match timeout(self.limit, self.submit_at_leisure(from, to, message)).await {
            Ok(result) => result,
            Err(_) => Err(MailError::Transient {
                code: None,
                reason: format!("the server took longer than {:?}", self.limit),
            }),
        }
    }

    async fn submit_at_leisure(
        &self,
        from: &Address,
        to: &Address,
        message: &str,
    ) -> Result<String, MailError> {
        // Never closed.
        let _place = self.places.acquire().await;
        let idle = self.begun_on_idle(from, to).await?;
        let mut connection = if let Some(connection) = idle {
            connection
        } else {
            let mut connection = self.connect().await?;
            begin(&mut connection, from, to).await?;
            connection
        };
        let answer = connection.command(Text(message)).await;
        let answer = answer.map_err(|error| Failure::new(Step::Content, &error))?;
        self.put_back(connection);
        Ok(spoken(&answer))
    }

    /// A mail begun on a connection that was open already, if there is one that still works.
    ///
    /// The server may have closed it meanwhile. As long as nothing of the text was sent, which comes after this,
    /// it is certain that it did not take the mail, and a fresh connection may be tried at once.
    async fn begun_on_idle(
        &self,
        from: &Address,
        to: &Address,
    ) -> Result<Option<AsyncSmtpConnection>, Failure> {
        let Some(mut connection) = self.take_idle() else {
            return Ok(None);
        };
        // Where something on the way forgot the connection there is no answer at all. That must leave
        // time for another.
        match timeout(self.limit / 4, begin(&mut connection, from, to)).await {
            Ok(Ok(())) => Ok(Some(connection)),
            Ok(Err(failure)) if !failure.is_of_the_connection() => Err(failure),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let failed = |step| move |error| Failure::new(step, &error);
        let address = (&*self.server.host, self.server.port);
        let at_once = match self.server.encryption {
            Encryption::FromTheStart => self.tls.clone(),
            Encryption::StartTls | Encryption::None => None,
        };
        let limit = Some(self.limit);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, limit, &self.hello, at_once, None)
                .await
                .map_err(failed(Step::Connect))?;
        if let (Encryption::StartTls, Some(tls)) = (self.server.encryption, &self.tls) {
            if !connection.can_starttls() {
                return Err(Failure {
                    step: Step::Encrypt,
                    what: What::Lacking("the server offers no STARTTLS".into()),
                });
            }
            connection
                .starttls(tls.clone(), &self.hello)
                .await
                .map_err(failed(Step::Encrypt))?;
        }
        if let Some(credentials) = &self.credentials {
            connection
                .auth(DEFAULT_MECHANISMS, credentials)
                .await
                .map_err(failed(Step::Login))?;
        }
        Ok(connection)
    }

    fn take_idle(&self) -> Option<AsyncSmtpConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| idle.since.elapsed() < IDLE_MAX);
        idle.pop().map(|idle| idle.connection)
    }

    /// Only what a mail went through: what was refused one is dropped, because the server still has its receiver.
    fn put_back(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let since = Instant::now();
        idle.push(Idle { connection, since });
    }

    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        let leave =
            |mut idle: Idle| async move { timeout(LEAVE_MAX, idle.connection.quit()).await };
        join_all(idle.into_iter().map(leave)).await;
    }
}

/// A mail and the dot behind it, in one piece. lettre writes the dot by itself, and then it waits for the server's
/// system to acknowledge what came before (Nagle's algorithm): 40 ms for each mail.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line with a dot of its own gets another (RFC 5321, section 4.5.2).
        f.write_str(&self.0.replace("\r\n.", "\r\n.."))?;
        f.write_str(if self.0.ends_with("\r\n") {
            ".\r\n"
        } else {
            "\r\n.\r\n"
        })
    }
}

/// Everything that comes before the text.
async fn begin(
    connection: &mut AsyncSmtpConnection,
    from: &Address,
    to: &Address,
) -> Result<(), Failure> {
    let answer = connection
        .command(Mail::new(Some(from.clone()), Vec::new()))
        .await;
    expect(Step::Sender, answer, 200..300)?;
    let answer = connection.command(Rcpt::new(to.clone(), Vec::new())).await;
    expect(Step::Receiver, answer, 200..300)?;
    let answer = connection.command(Data).await;
    // With anything else question and answer are out of step, and the text would be taken for commands.
    expect(Step::Data, answer, 354..355)
}

fn expect(
    step: Step,
    answer: Result<Response, Error>,
    codes: std::ops::Range<u16>,
) -> Result<(), Failure> {
    let answer = answer.map_err(|error| Failure::new(step, &error))?;
    let code = answer.code().into();
    if codes.contains(&code) {
        return Ok(());
    }
    let text = spoken(&answer);
    Err(Failure {
        step,
        what: What::Answer { code, text },
    })
}

/// An answer as it was given, in one line.
fn spoken(answer: &Response) -> String {
    let lines: Vec<&str> = answer.message().collect();
    one_line(
        &format!("{} {}", answer.code(), lines.join(" ")),
        REASON_MAX,
    )
}
