//! Servers that fail: what it is taken for, and that it never takes longer than it may.

use std::time::{Duration, Instant};

use bellhop_common::config::{HumanDuration, Secret};
use futures_util::future::join_all;
use serde_json::json;

use super::server::{Reply, Server};
use super::{event, item_of, mail};
use crate::config::MailConfig;
use crate::mail::{MailError, Mailer};

const LIMIT: Duration = Duration::from_millis(800);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_millis(1_500);

fn config(scheme: &str, server: &Server) -> MailConfig {
    MailConfig {
        smtp: Some(format!("{scheme}://127.0.0.1:{}", server.port)),
        from: Some("Bellhop <bell@example.org>".into()),
        timeout: HumanDuration(LIMIT),
        ..MailConfig::default()
    }
}

fn mailer(server: &Server) -> Mailer {
    Mailer::new(&config("smtp+plain", server)).unwrap()
}

async fn send(mailer: &Mailer) -> Result<(), MailError> {
    let event = event("x", &json!({"title": "t"}));
    let items = [item_of(&event, None)];
    let began = Instant::now();
    let result = mailer.send(&mail(&items)).await;
    let took = began.elapsed();
    println!("{took:?}: {result:?}");
    assert!(took < LIMIT + SLACK, "{took:?}");
    result
}

fn kind(result: &Result<(), MailError>) -> String {
    match result {
        Ok(()) => "taken".into(),
        Err(MailError::Transient { code: None, .. }) => "later".into(),
        Err(MailError::Transient {
            code: Some(code), ..
        }) => format!("later {code}"),
        Err(MailError::Refused { code, .. }) => format!("refused {code}"),
        Err(MailError::Unsendable { .. }) => "unsendable".into(),
    }
}

#[tokio::test]
async fn a_server_that_hangs_or_closes_or_talks_nonsense_is_tried_again_later() {
    let steps = ["greet", "ehlo", "mail", "rcpt", "data", "text"];
    let faults = [
        Reply::Hang,
        Reply::Close,
        Reply::Say(b"hello there\r\n"),
        Reply::Say(b"\xff\xfe\x00\x80\r\n"),
        Reply::SayAndClose(b"250"),
        Reply::SayAndClose(b"250-first\r\n"),
    ];
    for step in steps {
        for fault in faults {
            let server = Server::failing_at(step, fault).await;
            let result = send(&mailer(&server)).await;
            assert_eq!(kind(&result), "later", "{step} {fault:?}");
            assert_eq!(
                server.count("greet"),
                1,
                "a fresh connection is not tried twice"
            );
        }
    }
}

#[tokio::test]
async fn an_answer_means_what_it_means_at_that_command() {
    for (step, answer, wants) in [
        ("greet", &b"421 4.3.2 too busy\r\n"[..], "later 421"),
        ("greet", b"554 not for you\r\n", "unsendable"),
        ("ehlo", b"421 going down\r\n", "later 421"),
        ("mail", b"450 4.7.1 slow down\r\n", "later 450"),
        ("mail", b"550 5.7.1 not from there\r\n", "unsendable"),
        ("rcpt", b"421 going down\r\n", "later 421"),
        ("rcpt", b"450 4.2.0 greylisted\r\n", "later 450"),
        (
            "rcpt",
            b"451-4.3.0 first\r\n451 4.3.0 second\r\n",
            "later 451",
        ),
        ("rcpt", b"550 5.1.1 no such user\r\n", "refused 550"),
        ("rcpt", b"550-no\r\n550 such user\r\n", "refused 550"),
        ("rcpt", b"552 too many\r\n", "later 552"),
        ("rcpt", b"554 5.7.1 Relay access denied\r\n", "unsendable"),
        ("data", b"451 4.3.0 later\r\n", "later 451"),
        ("data", b"554 no valid recipients\r\n", "unsendable"),
        ("data", b"250 out of step\r\n", "later 250"),
        ("text", b"421 going down\r\n", "later 421"),
        ("text", b"451 4.3.0 later\r\n", "later 451"),
        ("text", b"552 5.3.4 too big\r\n", "unsendable"),
        ("text", b"250 2.0.0 queued\r\n", "taken"),
    ] {
        let server = Server::failing_at(step, Reply::Say(answer)).await;
        let result = send(&mailer(&server)).await;
        assert_eq!(kind(&result), wants, "{step} {answer:?}");
    }
}

#[tokio::test]
async fn nobody_listens() {
    let server = Server::that(|_, _, _| Reply::Usual).await;
    let mailer = mailer(&server);
    drop(server);
    // The port is free when the task has ended.
    tokio::task::yield_now().await;
    assert_eq!(kind(&send(&mailer).await), "later");
}

#[tokio::test]
async fn a_wrong_password_is_ours_to_mend_and_is_not_shown() {
    let server = Server::failing_at("auth", Reply::Say(b"535 5.7.8 no\r\n")).await;
    let with_password = MailConfig {
        smtp: Some(format!("smtp+plain://ann@127.0.0.1:{}", server.port)),
        password: Some(Secret::new("hunter2")),
        ..config("smtp+plain", &server)
    };
    let mailer = Mailer::new(&with_password).unwrap();
    let result = send(&mailer).await;
    assert_eq!(kind(&result), "unsendable");
    let shown = format!("{result:?} {mailer:?}");
    assert!(
        shown.contains("535") && !shown.contains("hunter2"),
        "{shown}"
    );
    assert_eq!(server.count("mail"), 0);
    // And a server that knows no login at all.
    let server = Server::failing_at("ehlo", Reply::Say(b"250 double\r\n")).await;
    let smtp = Some(format!("smtp+plain://ann@127.0.0.1:{}", server.port));
    let mailer = Mailer::new(&MailConfig {
        smtp,
        ..with_password
    })
    .unwrap();
    assert_eq!(kind(&send(&mailer).await), "unsendable");
    assert_eq!(server.count("auth"), 0);
}

#[tokio::test]
async fn without_encryption_nothing_is_said() {
    // STARTTLS is not offered, or somebody on the way took it out.
    let server = Server::that(|_, _, _| Reply::Usual).await;
    let stripped = MailConfig {
        smtp: Some(format!("smtp://ann@127.0.0.1:{}", server.port)),
        password: Some(Secret::new("hunter2")),
        ..config("smtp", &server)
    };
    let result = send(&Mailer::new(&stripped).unwrap()).await;
    assert_eq!(kind(&result), "later");
    assert!(result.unwrap_err().to_string().contains("no STARTTLS"));
    let seen: Vec<String> = server
        .seen()
        .into_iter()
        .map(|(_, command)| command)
        .collect();
    assert_eq!(seen, ["greet", "ehlo"]);
    for fault in [
        Reply::Hang,
        Reply::Close,
        Reply::Say(b"454 4.7.0 not now\r\n"),
        // A second answer in the clear, to be taken for the first that is encrypted.
        Reply::Say(b"220 go on\r\n250 AUTH PLAIN\r\n"),
    ] {
        let server = Server::that(move |_, command, _| match command {
            "ehlo" => Reply::Say(b"250-double\r\n250 STARTTLS\r\n"),
            "starttls" => fault,
            _ => Reply::Usual,
        })
        .await;
        let smtp = Some(format!("smtp://ann@127.0.0.1:{}", server.port));
        let mailer = Mailer::new(&MailConfig {
            smtp,
            ..stripped.clone()
        })
        .unwrap();
        let wants = if matches!(fault, Reply::Say(answer) if answer.starts_with(b"454")) {
            "later 454"
        } else {
            "later"
        };
        assert_eq!(kind(&send(&mailer).await), wants, "{fault:?}");
        assert_eq!(server.count("mail") + server.count("auth"), 0);
    }
    // One that speaks no TLS where TLS comes first.
    let server = Server::that(|_, _, _| Reply::Usual).await;
    let mailer = Mailer::new(&config("smtps", &server)).unwrap();
    assert_eq!(kind(&send(&mailer).await), "later");
}

#[tokio::test]
async fn a_connection_serves_one_mail_after_the_other_and_ends_with_leave() {
    let server = Server::that(|_, _, _| Reply::Usual).await;
    let mailer = mailer(&server);
    for _ in 0..3 {
        send(&mailer).await.unwrap();
    }
    mailer.close().await;
    assert_eq!(
        (
            server.count("greet"),
            server.count("text"),
            server.count("quit")
        ),
        (1, 3, 1)
    );
    send(&mailer).await.unwrap();
    assert_eq!(server.count("greet"), 2);
}

#[tokio::test]
async fn a_connection_that_died_meanwhile_costs_no_mail() {
    for (step, fault) in [
        ("mail", Reply::Close),
        ("mail", Reply::SayAndClose(b"421 4.4.2 idle too long\r\n")),
        ("rcpt", Reply::Close),
        ("data", Reply::SayAndClose(b"421 going down\r\n")),
        // Something on the way forgot it.
        ("mail", Reply::Hang),
    ] {
        let server = Server::that(move |connection, command, before| {
            let is_second = connection == 0 && before == 1;
            if is_second && command == step {
                fault
            } else {
                Reply::Usual
            }
        })
        .await;
        let mailer = mailer(&server);
        send(&mailer).await.unwrap();
        send(&mailer).await.unwrap();
        assert_eq!(
            (server.count("greet"), server.count("text")),
            (2, 2),
            "{step} {fault:?}"
        );
    }
    // Closed right behind the first mail.
    let server = Server::failing_at("text", Reply::SayAndClose(b"250 fine\r\n")).await;
    let mailer = mailer(&server);
    for _ in 0..3 {
        send(&mailer).await.unwrap();
    }
    assert_eq!((server.count("greet"), server.count("text")), (3, 3));
}

#[tokio::test]
async fn what_may_have_been_taken_is_not_sent_twice_in_one_attempt() {
    let server = Server::that(|_, command, before| match (command, before) {
        ("text", 1) => Reply::Close,
        _ => Reply::Usual,
    })
    .await;
    let mailer = mailer(&server);
    send(&mailer).await.unwrap();
    assert_eq!(kind(&send(&mailer).await), "later");
    assert_eq!((server.count("greet"), server.count("text")), (1, 2));
}

#[tokio::test]
async fn a_refused_receiver_does_not_spoil_the_next_mail() {
    let server = Server::that(|_, command, before| match (command, before) {
        ("rcpt", 1) => Reply::Say(b"550 5.1.1 no\r\n"),
        _ => Reply::Usual,
    })
    .await;
    let mailer = mailer(&server);
    send(&mailer).await.unwrap();
    assert_eq!(kind(&send(&mailer).await), "refused 550");
    send(&mailer).await.unwrap();
    assert_eq!((server.count("greet"), server.count("text")), (2, 2));
}

#[tokio::test]
async fn there_are_no_more_connections_than_allowed() {
    let server = Server::that(|_, _, _| Reply::Usual).await;
    let few = MailConfig {
        connections: 2,
        timeout: HumanDuration::from_secs(30),
        ..config("smtp+plain", &server)
    };
    let mailer = Mailer::new(&few).unwrap();
    let event = event("x", &json!(null));
    let items = [item_of(&event, None)];
    let mail = mail(&items);
    let results = join_all((0..20).map(|_| mailer.send(&mail))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(server.count("text"), 20);
    assert!(server.count("greet") <= 2, "{}", server.count("greet"));
}
