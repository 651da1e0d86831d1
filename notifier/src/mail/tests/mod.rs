//! What a mail looks like, and that nobody can make another of it.

mod faults;
mod hostile;
mod server;

use bellhop_common::wire::Event;
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::compose::{self, Sender};
use super::templates::{TemplateError, Templates};
use super::{Item, Mail, Mailer, Tone, address, item_of};
use crate::config::MailConfig;

/// The parts of a mail that travels.
struct Seen {
    headers: Vec<(String, String)>,
    raw: String,
}

impl Seen {
    fn of(mail: &Mail<'_>) -> Self {
        let texts = Templates::load(None).unwrap().render(mail).unwrap();
        let to = address::receiver(mail.to).unwrap();
        let sender = Sender {
            from: "Bellhop <bell@example.org>".parse().unwrap(),
            reply_to: Some("ops@example.org".parse().unwrap()),
            domain: "mail.example.org".into(),
        };
        let now = "2026-01-15T10:30:00Z".parse().unwrap();
        let message = compose::message(&sender, &to, mail, texts, now).unwrap();
        let raw = String::from_utf8(message.formatted()).unwrap();
        let (head, _) = raw.split_once("\r\n\r\n").unwrap();
        let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect(line);
            (name.to_owned(), value.to_owned())
        };
        let headers = head.split("\r\n").map(header).collect();
        Self { headers, raw }
    }

    fn names(&self) -> Vec<&str> {
        self.headers.iter().map(|(name, _)| &**name).collect()
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        &found
            .unwrap_or_else(|| panic!("no {name} in {}", self.raw))
            .1
    }
}

fn event(kind: &str, data: &serde_json::Value) -> Event {
    let time: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
    Event::new(kind, Uuid::from_u128(7), time, data).unwrap()
}

fn mail<'a>(items: &'a [Item<'a>]) -> Mail<'a> {
    Mail {
        to: "ann@example.org",
        name: Some("Ann"),
        id: Uuid::from_u128(1),
        thread: Some("task-1"),
        items,
        more: 0,
        category: "tasks",
        unsubscribe: Some("https://a.org/u?t=x"),
        settings: Some("https://a.org/settings"),
    }
}

#[test]
fn headers_say_who_to_whom_which_and_that_no_machine_should_answer() {
    let event = event("notification.created", &json!({"title": "Grüße"}));
    let items = [item_of(&event, None)];
    let seen = Seen::of(&mail(&items));
    let wanted = "From To Subject Date Message-ID Auto-Submitted Precedence X-Auto-Response-Suppress Reply-To \
                  In-Reply-To References List-Unsubscribe List-Unsubscribe-Post MIME-Version Content-Type";
    let mut names = seen.names();
    let mut wanted: Vec<&str> = wanted.split_whitespace().collect();
    names.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    for (name, wants) in [
        ("From", "Bellhop <bell@example.org>"),
        ("To", "Ann <ann@example.org>"),
        ("Reply-To", "ops@example.org"),
        ("Subject", "=?utf-8?b?R3LDvMOfZQ==?="),
        (
            "Message-ID",
            "<00000000000000000000000000000001@mail.example.org>",
        ),
        ("Auto-Submitted", "auto-generated"),
        ("List-Unsubscribe", "<https://a.org/u?t=x>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("References", seen.header("In-Reply-To")),
    ] {
        assert_eq!(seen.header(name), wants, "{name}");
    }
    assert!(seen.header("Date").starts_with("Thu, 15 Jan 2026 10:30:00"));
    assert!(
        seen.header("Content-Type")
            .starts_with("multipart/alternative;")
    );
    let plain = seen.raw.find("text/plain; charset=utf-8").unwrap();
    assert!(plain < seen.raw.find("text/html; charset=utf-8").unwrap());
}

#[test]
fn every_attempt_is_the_same_mail_and_a_thread_has_one_root() {
    let event = event("x", &json!(null));
    let items = [item_of(&event, None)];
    let first = mail(&items);
    assert_eq!(Seen::of(&first).raw, Seen::of(&first).raw);
    let id = Uuid::from_u128(2);
    let second = Seen::of(&Mail { id, ..first });
    let first = Seen::of(&first);
    assert_ne!(first.header("Message-ID"), second.header("Message-ID"));
    assert_eq!(first.header("References"), second.header("References"));
    assert_ne!(first.header("References"), first.header("Message-ID"));
}

#[test]
fn only_https_addresses_end_mails_with_one_request() {
    let event = event("x", &json!(null));
    let items = [item_of(&event, None)];
    let long = format!("https://a.org/{}", "x".repeat(1000));
    for url in [
        "http://a.org/u",
        "javascript:x",
        "https://a.org/\r\nBcc: x",
        &long,
    ] {
        let seen = Seen::of(&Mail {
            unsubscribe: Some(url),
            ..mail(&items)
        });
        let has = seen.names().contains(&"List-Unsubscribe");
        // A parser of addresses drops line breaks.
        let is_taken = url.contains("Bcc");
        assert_eq!(has, is_taken, "{url}");
        if has {
            let header = seen.header("List-Unsubscribe");
            assert_eq!(header, "<https://a.org/Bcc:%20x>");
        }
    }
}

#[test]
fn a_digest_tells_the_newest_and_how_many_more() {
    let event = event("x", &json!(null));
    let item = Item {
        title: "Report failed".into(),
        text: "é".repeat(5_000),
        link: Some("https://a.org/1".into()),
        time: event.time,
        tone: Tone::Bad,
        event: &event,
    };
    let items = vec![item; 30];
    let texts = Templates::load(None)
        .unwrap()
        .render(&mail(&items))
        .unwrap();
    assert_eq!(texts.subject, "Report failed, and 29 more");
    assert_eq!(texts.text.matches("Report failed").count(), 20);
    assert!(texts.text.contains("... and 10 more."), "{}", texts.text);
    assert!(texts.html.contains("30 things happened"));
    assert!(texts.html.len() < 102 * 1024, "{} bytes", texts.html.len());
    let more = Mail {
        more: 12,
        ..mail(&items)
    };
    let texts = Templates::load(None).unwrap().render(&more).unwrap();
    assert_eq!(texts.subject, "Report failed, and 41 more");
    assert!(texts.text.contains("... and 22 more."), "{}", texts.text);
    let one = Templates::load(None)
        .unwrap()
        .render(&mail(&items[..1]))
        .unwrap();
    assert_eq!(one.subject, "Report failed");
    assert_eq!(one.text.matches('é').count(), 3_999, "{}", one.text);
}

/// A folder of templates, gone when dropped.
struct Folder(std::path::PathBuf);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("bellhop-mail-{}", Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            std::fs::write(folder.join(name), text).unwrap();
        }
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn templates_of_ones_own_replace_ours_one_by_one() {
    let folder = Folder::with(&[
        ("subject.txt", "[{{ category }}] {{ items[0].title }}\n\n"),
        (
            "html.html",
            "{{ items[0].title }}|{{ items[0].type }}|{{ items[0].data.amount }}",
        ),
    ]);
    // Where the sample has no such field it must be said what to show instead.
    let error = Templates::load(Some(&folder.0)).unwrap_err();
    assert!(error.to_string().contains("html.html:1"), "{error}");
    let fixed = "{{ items[0].title }}|{{ items[0].data.amount | default('-') }}";
    std::fs::write(folder.0.join("html.html"), fixed).unwrap();
    let templates = Templates::load(Some(&folder.0)).unwrap();
    let event = event("invoice.paid", &json!({"title": "a <b>", "amount": "<7>"}));
    let items = [item_of(&event, None)];
    let texts = templates.render(&mail(&items)).unwrap();
    assert_eq!(texts.subject, "[tasks] a <b>");
    assert_eq!(texts.html, "a &lt;b&gt;|&lt;7&gt;");
    assert!(texts.text.contains("You get this because"));
}

#[test]
fn a_mistake_in_a_template_is_found_at_the_start_with_file_and_line() {
    for (files, wants) in [
        (&[("text.txt", "fine\n{% if %}")][..], "text.txt:2"),
        (&[("subject.txt", "{{ titel }}")], "subject.txt:1"),
        (&[("html.html", "\n\n{{ items[0].titel }}")], "html.html:3"),
        (
            &[("html.html", "{{ items | nosuchfilter }}")],
            "html.html:1",
        ),
        (&[("other.html", "")], "has none of"),
    ] {
        let folder = Folder::with(files);
        let error = Templates::load(Some(&folder.0)).unwrap_err().to_string();
        assert!(error.contains(wants), "{error}");
        assert!(error.contains(&*folder.0.to_string_lossy()), "{error}");
    }
    let error = Templates::load(Some("/nonexistent/folder".as_ref())).unwrap_err();
    assert!(matches!(error, TemplateError::Empty(_)), "{error}");
}

#[test]
fn a_mailer_names_what_it_lacks_and_shows_no_password() {
    let config = MailConfig::default();
    let error = Mailer::new(&config).unwrap_err();
    assert_eq!(error.to_string(), "mail.smtp is not set");
    let config: MailConfig = toml::from_str(
        "smtp = \"smtps://u@127.0.0.1:1\"\nfrom = \"a@b.org\"\npassword = \"hunter2\"",
    )
    .unwrap();
    let mailer = Mailer::new(&config).unwrap();
    assert!(!format!("{mailer:?}").contains("hunter2"));
    let config = MailConfig {
        password_file: Some("/nonexistent/password".into()),
        ..config
    };
    let error = anyhow::Error::from(Mailer::new(&config).unwrap_err());
    let error = format!("{error:#}");
    assert!(error.contains("mail.password_file: cannot read"), "{error}");
}
