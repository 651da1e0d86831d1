//! What breaks RFC 6455 or RFC 9112, byte by byte, and the exact answer to each.

use std::time::{Duration, Instant};

use bellhop_common::config::HumanDuration;
use bellhop_tests::client::{Raw, masked, metric_becomes};
use bellhop_tests::stack::{PATIENCE, Running, Stack, token};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{CONNECTIONS, LIMIT, notifier};

const PING: &[u8] = br#"{"type":"ping"}"#;

/// The first of these that comes.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Text(&'static str),
    Pong(&'static str),
    Close(u16, &'static str),
}

use Answer::{Close, Pong, Text};

const PROTOCOL_ERROR: Answer = Close(1002, "protocol_error");
const TOO_BIG: Answer = Close(1009, "message_too_big");
const NOT_UTF8: Answer = Close(1007, "not_utf8");
/// The library's own answer to a close frame that is wrong itself.
const BAD_CLOSE: Answer = Close(1002, "Protocol violation");

/// A frame with a head of one's own: length field and mask are as given.
fn frame(head: &[u8], content: &[u8]) -> Vec<u8> {
    [head, &[0; 4], content].concat()
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(0x88, &[&code.to_be_bytes(), reason].concat())
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn frames() -> Vec<(&'static str, Vec<u8>, Answer)> {
    let unmasked = [b"\x81\x0f", PING].concat();
    let mut cases = vec![
        ("no mask", unmasked, PROTOCOL_ERROR),
        ("RSV1", masked(0xc1, PING), PROTOCOL_ERROR),
        ("RSV2", masked(0xa1, PING), PROTOCOL_ERROR),
        ("RSV3", masked(0x91, PING), PROTOCOL_ERROR),
        ("RSV1 of a ping", masked(0xc9, b""), PROTOCOL_ERROR),
        ("a ping in fragments", masked(0x09, b"hi"), PROTOCOL_ERROR),
        ("a close in fragments", masked(0x08, b""), PROTOCOL_ERROR),
        ("a ping of 125 bytes", masked(0x89, LONG), Pong(LONG_TEXT)),
        (
            "a ping of 126 bytes",
            masked(0x89, &[b'x'; 126]),
            PROTOCOL_ERROR,
        ),
        (
            "a close of 126 bytes",
            masked(0x88, &[b'x'; 126]),
            PROTOCOL_ERROR,
        ),
        ("the end of nothing", masked(0x80, PING), PROTOCOL_ERROR),
        ("the middle of nothing", masked(0x00, PING), PROTOCOL_ERROR),
        (
            "a text within a text",
            [masked(0x01, b"{"), masked(0x81, PING)].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "a binary within a text",
            [masked(0x01, b"{"), masked(0x02, b"}")].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "a ping within a text, which may be",
            [masked(0x01, b"{"), masked(0x89, b"hi")].concat(),
            Pong("hi"),
        ),
        (
            "empty fragments, which may be",
            [masked(0x01, PING), masked(0x00, b""), masked(0x80, b"")].concat(),
            Text(r#"{"type":"pong"}"#),
        ),
        ("binary", masked(0x82, PING), Close(1003, "text_only")),
        (
            "binary in fragments",
            [masked(0x02, b"{"), masked(0x80, b"}")].concat(),
            Close(1003, "text_only"),
        ),
        // Not told apart by the library; what they mean is clear.
        (
            "16 bits of length for 15 bytes",
            frame(&[0x81, 0xfe, 0, 15], PING),
            Text(r#"{"type":"pong"}"#),
        ),
        (
            "64 bits of length for 15 bytes",
            frame(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 15], PING),
            Text(r#"{"type":"pong"}"#),
        ),
        (
            "the highest bit of a 64-bit length",
            frame(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 15], PING),
            TOO_BIG,
        ),
        (
            "the largest length",
            frame(&[0x81, 0xff, 255, 255, 255, 255, 255, 255, 255, 255], b""),
            TOO_BIG,
        ),
        (
            "one byte too many",
            masked(0x81, &vec![b'x'; LIMIT + 1]),
            TOO_BIG,
        ),
        (
            "one byte too many in fragments",
            [masked(0x01, &vec![b'x'; LIMIT]), masked(0x80, b"x")].concat(),
            TOO_BIG,
        ),
        ("not UTF-8", masked(0x81, b"\"\xff\xfe\""), NOT_UTF8),
        ("a surrogate", masked(0x81, b"\"\xed\xa0\x80\""), NOT_UTF8),
        ("overlong UTF-8", masked(0x81, b"\"\xc0\xaf\""), NOT_UTF8),
        ("cut UTF-8", masked(0x81, b"\"\xe2\x82"), NOT_UTF8),
        (
            "not UTF-8 in the first fragment, without the end",
            masked(0x01, b"\"\xff"),
            NOT_UTF8,
        ),
        (
            "not UTF-8 over two fragments",
            [masked(0x01, b"\"\xe2\x82"), masked(0x80, b"\x28\"")].concat(),
            NOT_UTF8,
        ),
        (
            "a character over two fragments, which may be",
            [
                masked(0x01, b"{\"type\":\"ping\",\"x\":\"\xe2\x82"),
                masked(0x80, b"\xac\"}"),
            ]
            .concat(),
            Text(r#"{"type":"pong"}"#),
        ),
        ("a close without a code", masked(0x88, b""), Close(0, "")),
        ("a close of one byte", masked(0x88, b"\x03"), PROTOCOL_ERROR),
        (
            "a reason that is not UTF-8",
            close_frame(1000, b"\xff\xfe"),
            NOT_UTF8,
        ),
        (
            "a good close",
            close_frame(1000, b"done"),
            Close(1000, "done"),
        ),
        (
            "a close of a program",
            close_frame(4999, b""),
            Close(4999, ""),
        ),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push((
            "a reserved opcode",
            masked(0x80 | opcode, b""),
            PROTOCOL_ERROR,
        ));
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2999, 5000, 65_535,
    ] {
        cases.push(("a code nobody may send", close_frame(code, b""), BAD_CLOSE));
    }
    cases
}

const LONG: &[u8] = LONG_TEXT.as_bytes();
const LONG_TEXT: &str = "0123456789012345678901234567890123456789012345678901234567890123456789\
                         0123456789012345678901234567890123456789012345678901234";

#[tokio::test]
async fn every_malformed_frame_has_its_answer() {
    let (_stack, notifier) = notifier().await;
    let mut wrong = Vec::new();
    for (what, bytes, wants) in frames() {
        let mut ann = Raw::connect(notifier.address, &token("ann")).await;
        ann.send(&bytes).await;
        let got = match ann.frame().await {
            None => "the end".to_owned(),
            Some((8, content)) if content.is_empty() => format!("{:?}", Close(0, "")),
            Some((8, content)) => {
                let code = u16::from_be_bytes([content[0], content[1]]);
                format!(
                    "Close({code}, {:?})",
                    String::from_utf8_lossy(&content[2..])
                )
            }
            Some((1, content)) => format!("Text({:?})", String::from_utf8_lossy(&content)),
            Some((10, content)) => format!("Pong({:?})", String::from_utf8_lossy(&content)),
            other => format!("{other:?}"),
        };
        if got != format!("{wants:?}") {
            wrong.push(format!("{what}: {got} instead of {wants:?}"));
        }
        // Whatever it was: after a close comes the end of the socket, and nothing else.
        if got.starts_with("Close") && ann.frame().await.is_some() {
            wrong.push(format!("{what}: more after the close"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    metric_becomes(&notifier, CONNECTIONS, 0).await;
    notifier.stop().await;
}

#[tokio::test]
async fn half_a_frame_and_then_silence_is_no_sign_of_life() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.ping_interval = HumanDuration(Duration::from_millis(300));
    config.websocket.pong_wait = HumanDuration::from_secs(1);
    let notifier = stack.notifier(config).await;
    for half in [&[0x81][..], &masked(0x81, PING)[..10], &masked(0x01, b"{")] {
        let mut ann = Raw::connect(notifier.address, &token("ann")).await;
        ann.send(half).await;
        let began = Instant::now();
        assert_eq!(ann.closed().await, Some((4001, "pong_timeout".into())));
        assert!(began.elapsed() < PATIENCE / 2, "{half:?}");
    }
    notifier.stop().await;
}

/// Sends bytes, and reads the answer's first line and all there is behind.
async fn ask(notifier: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(notifier.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let mut part = vec![0; 4096];
    // Up to the end of the connection, or of an answer that leaves it open.
    while let Ok(Ok(1..)) = timeout(PATIENCE, stream.readable())
        .await
        .map(|it| it.map(|()| 1))
    {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(&part[..read]),
        }
        let text = String::from_utf8_lossy(&answer);
        if text.starts_with("HTTP/1.1 101")
            || text.ends_with('}')
            || text.ends_with("length: 0\r\n\r\n")
        {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A handshake in which lines were taken out, or others put in.
fn handshake(line: &str, without: &str, more: &str) -> Vec<u8> {
    let headers = [
        "Host: localhost",
        "Connection: keep-alive, Upgrade",
        "Upgrade: WebSocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let kept = headers
        .iter()
        .filter(|header| without.is_empty() || !header.starts_with(without));
    let kept: Vec<_> = kept.copied().chain(more.lines()).collect();
    format!("{line}\r\n{}\r\n\r\n", kept.join("\r\n")).into_bytes()
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn every_malformed_handshake_has_its_answer() {
    let (_stack, notifier) = notifier().await;
    let get = "GET /ws HTTP/1.1";
    let key = "Sec-WebSocket-Key";
    let version = "Sec-WebSocket-Version";
    let large = format!("X-Large: {}", "x".repeat(20_000));
    let many = "X-Many: 1\n".repeat(200);
    let mut wrong = Vec::new();
    for (what, bytes, status, code) in [
        ("a good one", handshake(get, "", ""), 101, ""),
        (
            "other letters",
            handshake(get, "Upgrade", "upgrade: WEBSOCKET"),
            101,
            "",
        ),
        (
            "a token that is no text",
            handshake(get, "", "Authorization: Bearer \u{e9}"),
            101,
            "",
        ),
        (
            "no Upgrade",
            handshake(get, "Upgrade", ""),
            426,
            "not_a_websocket",
        ),
        (
            "no Connection",
            handshake(get, "Connection", ""),
            426,
            "not_a_websocket",
        ),
        (
            "no version",
            handshake(get, version, ""),
            426,
            "not_a_websocket",
        ),
        (
            "version 8",
            handshake(get, version, "Sec-WebSocket-Version: 8"),
            426,
            "not_a_websocket",
        ),
        (
            "version 0013",
            handshake(get, version, "Sec-WebSocket-Version: 0013"),
            426,
            "not_a_websocket",
        ),
        ("no key", handshake(get, key, ""), 426, "not_a_websocket"),
        (
            "a short key",
            handshake(get, key, "Sec-WebSocket-Key: c2hvcnQ="),
            426,
            "not_a_websocket",
        ),
        (
            "a key of 24 letters",
            handshake(get, key, "Sec-WebSocket-Key: abcdefghijklmnopqrstuvwx"),
            426,
            "not_a_websocket",
        ),
        (
            "a key that is no base64",
            handshake(get, key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ!=="),
            426,
            "not_a_websocket",
        ),
        (
            "POST",
            handshake("POST /ws HTTP/1.1", "", "Content-Length: 0"),
            405,
            "method_not_allowed",
        ),
        (
            "another path",
            handshake("GET /wsx HTTP/1.1", "", ""),
            404,
            "not_found",
        ),
        (
            "a longer path",
            handshake("GET /ws/x HTTP/1.1", "", ""),
            404,
            "not_found",
        ),
        (
            "HTTP/1.0",
            handshake("GET /ws HTTP/1.0", "", ""),
            426,
            "not_a_websocket",
        ),
        (
            "two tokens",
            handshake("GET /ws?token=a&token=b HTTP/1.1", "", ""),
            400,
            "bad_query",
        ),
        (
            "an empty room",
            handshake("GET /ws?room_id= HTTP/1.1", "", ""),
            400,
            "bad_query",
        ),
        (
            "a page from elsewhere",
            handshake(get, "", "Origin: https://evil.example"),
            403,
            "wrong_origin",
        ),
        (
            "an Origin that is none",
            handshake(get, "", "Origin: \u{e9}"),
            101,
            "",
        ),
        (
            "a bad token",
            handshake(get, "", "Authorization: Bearer x"),
            401,
            "invalid_token",
        ),
        ("no words", b"\r\n\r\n\r\nhello\r\n\r\n".to_vec(), 400, ""),
        ("a frame", masked(0x81, PING), 400, ""),
        ("no version of HTTP", b"GET /ws\r\n\r\n".to_vec(), 400, ""),
        (
            "HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            0,
            "",
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            400,
            "",
        ),
        (
            "a header without a name",
            handshake(get, "", ": x"),
            400,
            "",
        ),
        (
            "a header with a line break",
            handshake(get, "", "X: a\rb"),
            400,
            "",
        ),
        ("a large header", handshake(get, "", &large), 431, ""),
        ("many headers", handshake(get, "", &many), 431, ""),
    ] {
        let answer = ask(&notifier, &bytes).await;
        let head = answer.lines().next().unwrap_or_default();
        // 0: the connection ends without a word.
        let is_status = match status {
            0 => answer.is_empty(),
            status => head.split(' ').nth(1) == Some(&status.to_string()),
        };
        let is_code = code.is_empty() || answer.contains(&format!(r#""code":"{code}""#));
        if !(is_status && is_code) {
            wrong.push(format!("{what}: {answer:?} instead of {status} {code}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // It still serves.
    let answer = ask(&notifier, &handshake(get, "", "")).await;
    let accepted = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
    assert!(answer.to_lowercase().contains(accepted), "{answer}");
    notifier.stop().await;
}
