//! A double of a mail server that takes everything and keeps it.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// A mail as it came.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Its receiver's address.
    pub to: String,
    /// Headers and parts, with the soft line breaks of quoted-printable taken out.
    pub text: String,
}

/// A running double. Ends when dropped.
pub struct Smtp {
    pub address: SocketAddr,
    mails: watch::Sender<Vec<Mail>>,
    _server: AbortOnDropHandle<()>,
}

impl Smtp {
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mails = watch::Sender::default();
        let taken = mails.clone();
        let server = tokio::spawn(async move {
            // Aborted with this task.
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                connections.spawn(serve(socket, taken.clone()));
            }
        });
        Self {
            address,
            mails,
            _server: AbortOnDropHandle::new(server),
        }
    }

    /// What `mail.smtp` has to be.
    pub fn url(&self) -> String {
        format!("smtp+plain://{}", self.address)
    }

    pub fn mails(&self) -> Vec<Mail> {
        self.mails.borrow().clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.mails.borrow().len()
    }

    /// Waits until so many have come.
    pub async fn wait_for(&self, count: usize) -> Vec<Mail> {
        let mut mails = self.mails.subscribe();
        let wait = mails.wait_for(|mails| mails.len() >= count);
        let wait = tokio::time::timeout(crate::stack::PATIENCE, wait).await;
        wait.expect("mails in time").unwrap().clone()
    }
}

/// Until the client has enough; what is wrong with a connection is for the client to see.
async fn serve(socket: TcpStream, mails: watch::Sender<Vec<Mail>>) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    socket.write_all(b"220 double ESMTP\r\n").await?;
    let (mut line, mut to) = (String::new(), String::new());
    while read_line(&mut socket, &mut line).await? {
        let answer: &[u8] = match line.get(..4).unwrap_or_default() {
            "EHLO" => b"250-double\r\n250 8BITMIME\r\n",
            "RCPT" => {
                let address = line.split(['<', '>']).nth(1);
                to = address.unwrap_or_default().to_owned();
                b"250 2.1.5 fine\r\n"
            }
            "DATA" => {
                socket.write_all(b"354 go on\r\n").await?;
                let mut text = String::new();
                while read_line(&mut socket, &mut line).await? && line != ".\r\n" {
                    text.push_str(&line);
                }
                let text = text.replace("=\r\n", "");
                let mail = Mail {
                    to: to.clone(),
                    text,
                };
                mails.send_modify(|mails| mails.push(mail));
                b"250 2.0.0 taken\r\n"
            }
            "QUIT" => return socket.write_all(b"221 bye\r\n").await,
            _ => b"250 2.0.0 fine\r\n",
        };
        socket.write_all(answer).await?;
    }
    Ok(())
}

/// Whether there was one more.
async fn read_line(socket: &mut BufReader<TcpStream>, line: &mut String) -> std::io::Result<bool> {
    line.clear();
    Ok(socket.read_line(line).await? > 0)
}
