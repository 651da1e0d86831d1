//! A mail's texts, from templates. Pure but for reading the files.

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error, Output, State, UndefinedBehavior, context, escape_formatter};
use serde_json::value::RawValue;
use thiserror::Error as ThisError;

use super::{Item, Mail};
use crate::alerts::link::web_address;
use crate::alerts::markdown::{one_line, shorten, visible};

/// What comes with the program: name and text. What ends with `.html` is escaped.
const BUILT_IN: [(&str, &str); 3] = [
    (SUBJECT, include_str!("templates/subject.txt")),
    (TEXT, include_str!("templates/text.txt")),
    (HTML, include_str!("templates/html.html")),
];
const SUBJECT: &str = "subject.txt";
const TEXT: &str = "text.txt";
const HTML: &str = "html.html";

/// Lengths in characters: what is longer ends with `…`.
const SUBJECT_MAX: usize = 150;
const TITLE_MAX: usize = 200;
const WORD_MAX: usize = 100;
const TEXT_MAX: usize = 4_000;
const TEXT_MAX_IN_DIGEST: usize = 500;
const LINES_MAX: usize = 100;

/// How many items are shown. With the lengths above the HTML stays under the 102 KB at which Gmail
/// folds a mail, unless links are very long.
const ITEMS_MAX: usize = 20;

/// The three templates, ready to be filled in.
#[derive(Debug)]
pub(super) struct Templates(Environment<'static>);

/// A mail's texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) subject: String,
    pub(super) text: String,
    pub(super) html: String,
}

/// Why a template cannot be used.
#[derive(Debug, ThisError)]
pub enum TemplateError {
    /// The folder has none of the files.
    #[error("{0} has none of subject.txt, text.txt and html.html")]
    Empty(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is no template, or cannot be filled in. The cause names the line.
    #[error("in {folder}: {cause}")]
    Wrong {
        /// Where the template is.
        folder: PathBuf,
        /// What is wrong, with the file's name and the line.
        cause: Error,
    },
}

impl Templates {
    /// Reads the files there are, and fills them in once.
    pub(super) fn load(folder: Option<&Path>) -> Result<Self, TemplateError> {
        let wrong = |cause| TemplateError::Wrong {
            folder: folder.unwrap_or(Path::new("the program")).to_owned(),
            cause,
        };
        let mut environment = Environment::new();
        environment.set_formatter(escape);
        let mut found = 0;
        for (name, built_in) in BUILT_IN {
            let own = folder.map(|folder| read(&folder.join(name))).transpose()?;
            let own = own.flatten();
            found += usize::from(own.is_some());
            let text = own.unwrap_or_else(|| built_in.to_owned());
            environment.add_template_owned(name, text).map_err(wrong)?;
        }
        if let Some(folder) = folder
            && found == 0
        {
            return Err(TemplateError::Empty(folder.to_owned()));
        }
        // A name that does not exist is found now, and does not keep a mail from being sent later.
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let mut templates = Self(environment);
        super::sample::mails(|mail| templates.render(mail).map(drop)).map_err(wrong)?;
        templates
            .0
            .set_undefined_behavior(UndefinedBehavior::Lenient);
        Ok(templates)
    }

    pub(super) fn render(&self, mail: &Mail<'_>) -> Result<Texts, Error> {
        let context = context_of(mail);
        let fill = |name| self.0.get_template(name)?.render(&context);
        let subject = one_line(&fill(SUBJECT)?, SUBJECT_MAX);
        Ok(Texts {
            text: fill(TEXT)?,
            html: self.0.get_template(HTML)?.render(context! {
                subject => &subject,
                ..context.clone()
            })?,
            subject,
        })
    }
}

/// The usual escaping, which would also make `&#x2f;` of each `/`. Links that are written so look to
/// filters as if they had something to hide.
fn escape(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let Some(text) = value.as_str().filter(|_| !value.is_safe()) else {
        return escape_formatter(out, state, value);
    };
    for (index, part) in text.split('/').enumerate() {
        if index > 0 {
            out.write_char('/')?;
        }
        escape_formatter(out, state, &Value::from(part))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<String>, TemplateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplateError::Unreadable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What templates can name. Each text is clean here already; what `<` and `&` mean is left to the
/// escaping, which knows where they stand.
fn context_of(mail: &Mail<'_>) -> Value {
    let text_max = match mail.items.len() {
        0..=1 => TEXT_MAX,
        _ => TEXT_MAX_IN_DIGEST,
    };
    let items: Vec<Value> = mail
        .items
        .iter()
        .take(ITEMS_MAX)
        .map(|item| item_value(item, text_max))
        .collect();
    let name = mail.name.map(|name| one_line(name, WORD_MAX));
    let all = mail.items.len() + mail.more;
    context! {
        count => all,
        more => all - items.len(),
        items => items,
        name => name.filter(|name| !name.is_empty()),
        category => one_line(mail.category, WORD_MAX),
        unsubscribe => mail.unsubscribe.and_then(web_address),
        settings => mail.settings.and_then(web_address),
    }
}

fn item_value(item: &Item<'_>, text_max: usize) -> Value {
    let kind = one_line(&item.event.kind, WORD_MAX);
    let title = Some(one_line(&item.title, TITLE_MAX)).filter(|title| !title.is_empty());
    let text = paragraphs(&item.text, text_max);
    let data = item.event.data.as_deref().map(RawValue::get);
    let data = data.and_then(|data| serde_json::from_str::<serde_json::Value>(data).ok());
    context! {
        title => title.unwrap_or_else(|| kind.clone()),
        lines => text.lines().map(Value::from).collect::<Vec<_>>(),
        text => text,
        link => item.link.as_deref().and_then(web_address),
        time => item.time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        tone => item.tone.as_str(),
        type => kind,
        data => Value::from(Serde(data)),
    }
}

/// Text of several lines, with what shows nothing or changes the order dropped.
fn paragraphs(text: &str, max_chars: usize) -> String {
    let text: String = visible(text.trim())
        .take(max_chars.saturating_add(1))
        .collect();
    let text = shorten(text, max_chars);
    let lines: Vec<&str> = text.lines().map(str::trim_end).take(LINES_MAX).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}
