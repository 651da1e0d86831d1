//! A post of what the engine wants told: every text of a stranger made harmless. Pure.

mod words;

use jiff::Timestamp;

use self::words::{caption, filled, lasting};
use super::engine::{Kind, Notice, Severity, Shown, Tally};
use super::link::{task_link, web_address};
use super::markdown::{code_block, code_span, line};
use super::plan::{Look, Mention, Plan};
use super::post::{Attachment, Field, Post, Priority};
use crate::config::{ReceiverConfig, ReceiverKind};

/// Longest name, title or code that is shown, in characters.
const SHORT_MAX: usize = 200;

/// Longest text of a single alert, in characters. Mattermost folds it away after about ten lines.
const TEXT_MAX: usize = 4_000;

/// Longest text of one of many alerts, in characters.
const ROW_MAX: usize = 150;

/// How times are shown.
const TIME: &str = "%Y-%m-%d %H:%M:%S %Z";

/// The post that tells a notice.
#[must_use]
pub(crate) fn compose(notice: &Notice, plan: &Plan) -> Post {
    let receiver = plan.receivers.get(&notice.receiver);
    let standard = ReceiverConfig::default();
    let receiver = receiver.unwrap_or(&standard);
    let usual = Look::default();
    let look = plan.looks.get(&notice.group.route).unwrap_or(&usual);
    let writer = Writer { notice, plan, look };
    let (mut attachment, kind) = (writer.attachment(), receiver.kind);
    if kind == ReceiverKind::Slack {
        for_slack(&mut attachment);
    }
    // Ours, and so as it is.
    attachment.fields.extend(writer.links());
    let severity = notice.group.severity;
    let is_mattermost = kind == ReceiverKind::Mattermost;
    let is_urgent = is_mattermost && severity == Severity::Critical && writer.is_wrong();
    Post {
        channel: receiver.channel.clone(),
        username: receiver.username.clone(),
        text: writer.mention(kind),
        priority: is_urgent.then_some(Priority { priority: "urgent" }),
        silent: is_mattermost && severity == Severity::Info,
        attachments: vec![attachment],
    }
}

/// Slack reads these three characters as its own syntax, also inside code.
fn for_slack(attachment: &mut Attachment) {
    let escape = |text: &mut String| {
        *text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
    };
    escape(&mut attachment.fallback);
    escape(&mut attachment.title);
    escape(&mut attachment.text);
    escape(&mut attachment.footer);
    for field in &mut attachment.fields {
        escape(&mut field.value);
    }
    attachment.mrkdwn_in = &["text", "fields"];
}

struct Writer<'a> {
    notice: &'a Notice,
    plan: &'a Plan,
    look: &'a Look,
}

impl Writer<'_> {
    fn tally(&self) -> Option<&Tally> {
        self.notice.posting.tally.as_ref()
    }

    /// The alert, if it is only one.
    fn single(&self) -> Option<&Shown> {
        let tally = self.tally().filter(|tally| tally.count == 1)?;
        tally.shown.first()
    }

    /// Whether it says that something is wrong.
    fn is_wrong(&self) -> bool {
        self.notice.posting.firing
    }

    fn attachment(&self) -> Attachment {
        let title = self.headline();
        let single = self.single();
        let text = single.and_then(|shown| shown.text.as_deref());
        let whose = single.and_then(|shown| shown.user_id.as_deref());
        let whose = whose.map(|whose| format!(" ({})", line(whose, SHORT_MAX)));
        let text = text.map(|text| format!(": {}", line(text, SHORT_MAX)));
        let parts = [Some(title.clone()), whose, text];
        Attachment {
            fallback: parts.into_iter().flatten().collect(),
            color: self.color(),
            title_link: self.title_link(),
            title,
            text: self.text(),
            fields: self.fields(),
            footer: self.footer(),
            mrkdwn_in: &[],
        }
    }

    fn color(&self) -> &'static str {
        match self.notice.group.severity {
            _ if !self.is_wrong() => "good",
            Severity::Info => "#2389d7",
            Severity::Warning => "warning",
            Severity::Error | Severity::Critical => "danger",
        }
    }

    fn headline(&self) -> String {
        let group = &self.notice.group;
        let is_task = self
            .tally()
            .and_then(|tally| tally.shown.first())
            .is_some_and(|shown| shown.task_id.is_some());
        let before = match self.notice.posting.kind {
            Kind::Firing if is_task && self.look.title.is_none() => "Failed: ",
            Kind::Firing => "",
            Kind::Still => "Still open: ",
            Kind::Resolved => "Resolved: ",
            Kind::Faded => "No more: ",
            Kind::Flapping => "Flapping: ",
            Kind::Settled => "Quiet again: ",
        };
        let title = self.single().and_then(|shown| shown.title.as_deref());
        let title = title.filter(|title| !title.trim().is_empty());
        let name = match (&self.look.title, title) {
            (Some(template), _) => filled(template, &group.labels),
            (None, Some(title)) => title.to_owned(),
            (None, None) => self.name(),
        };
        let count = self.tally().map_or(0, |tally| tally.count);
        let times = match count {
            0 | 1 => String::new(),
            many => format!(" ×{many}"),
        };
        format!("{before}{}{times}", line(&name, SHORT_MAX))
    }

    /// What the group is called.
    fn name(&self) -> String {
        let group = &self.notice.group;
        let labels = group.labels.iter().map(|(_, value)| value.as_str());
        let values: Vec<&str> = labels.filter(|value| !value.is_empty()).collect();
        match values[..] {
            [] => group.route.clone(),
            [..] => values.join(", "),
        }
    }

    fn title_link(&self) -> Option<String> {
        let single = self.single();
        let pattern = self.plan.task_url.as_deref();
        single
            .and_then(|shown| task_link(pattern, shown.task_id.as_deref()?))
            .or_else(|| web_address(single?.link.as_deref()?))
            .or_else(|| web_address(self.look.runbook.as_deref()?))
    }

    fn text(&self) -> String {
        let mut parts: Vec<String> = self.summary().into_iter().collect();
        if let Some(shown) = self.single() {
            let text = shown.text.as_deref().unwrap_or_default();
            parts.push(code_block(text, TEXT_MAX));
        } else if let Some(tally) = self.tally() {
            parts.extend(tally.shown.iter().map(|shown| self.row(shown)));
            let more = tally.count.saturating_sub(tally.shown.len() as u64);
            if more > 0 {
                parts.push(format!("+{more} more"));
            }
        }
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    /// One of many alerts.
    fn row(&self, shown: &Shown) -> String {
        let zone = &self.plan.rules.zone;
        let time = shown.time.to_zoned(zone.clone()).strftime("%H:%M:%S");
        let texts = [&shown.title, &shown.user_id, &shown.code, &shown.text];
        let texts = texts
            .into_iter()
            .flatten()
            .filter(|text| !text.trim().is_empty());
        let spans: Vec<String> = texts.map(|text| code_span(text, ROW_MAX)).collect();
        format!("• `{time}` {}", spans.join(" "))
    }

    /// What there is to say of the whole group.
    fn summary(&self) -> Option<String> {
        let group = &self.notice.group;
        let total = match group.total {
            1 => "1 alert".to_owned(),
            many => format!("{many} alerts"),
        };
        let lasted = |end: Timestamp| lasting(end.duration_since(group.opened));
        let flapping = group.flapping.map(|flapping| {
            let since = self.time(flapping.since);
            format!("changed {} times since `{since}`", flapping.changes)
        });
        Some(match self.notice.posting.kind {
            Kind::Firing if self.tally()?.count == group.total => return None,
            Kind::Firing => format!("{total} since `{}`.", self.time(group.opened)),
            Kind::Still => format!(
                "Open since `{}`, {total}, nothing new.",
                self.time(group.opened)
            ),
            Kind::Resolved => format!("Resolved after {}, {total}.", lasted(group.resolved?)),
            Kind::Faded => format!("No more since `{}`, {total}.", self.time(group.last)),
            Kind::Flapping => format!("It {}; told again when it is quiet.", flapping?),
            Kind::Settled => {
                let now = if group.resolved.is_some() {
                    "over"
                } else {
                    "open"
                };
                format!("It {}, and is {now} now.", flapping?)
            }
        })
    }

    fn time(&self, time: Timestamp) -> String {
        let zone = self.plan.rules.zone.clone();
        time.to_zoned(zone).strftime(TIME).to_string()
    }

    fn fields(&self) -> Vec<Field> {
        let group = &self.notice.group;
        let mut fields = Vec::new();
        for (name, value) in &group.labels {
            fields.push(Field::short(&caption(name), code_span(value, SHORT_MAX)));
        }
        if let Some(shown) = self.single() {
            let has = |name: &str| group.labels.iter().any(|(label, _)| label == name);
            for (name, value) in [("user_id", &shown.user_id), ("error_code", &shown.code)] {
                if let Some(value) = value
                    && !has(name)
                {
                    fields.push(Field::short(&caption(name), code_span(value, SHORT_MAX)));
                }
            }
            if let Some((attempt, max)) = shown.attempt {
                let attempt = match max {
                    0 => attempt.to_string(),
                    max => format!("{attempt} of {max}"),
                };
                fields.push(Field::short("Attempt", attempt));
            }
        } else if let Some(tally) = self.tally() {
            fields.push(Field::short("Count", tally.count.to_string()));
            for (caption, time) in [("First", tally.first), ("Last", tally.last)] {
                fields.push(Field::short(
                    caption,
                    code_span(&self.time(time), SHORT_MAX),
                ));
            }
        }
        fields
    }

    /// Links of the configuration, as both servers read them.
    fn links(&self) -> Vec<Field> {
        let runbook = self.look.runbook.as_deref().and_then(web_address);
        let console = self.plan.console_url.as_ref().and_then(|console| {
            let separator = if console.contains('?') { '&' } else { '?' };
            web_address(&format!("{console}{separator}group={}", self.notice.key))
        });
        let link = |caption: &str, words: &str, address: Option<String>| {
            let value = format!("<{}|{words}>", address?);
            Some(Field::short(caption, value))
        };
        let runbook = link("Runbook", "what to do", runbook);
        let console = link("Alert", "look at it, or silence it", console);
        [runbook, console].into_iter().flatten().collect()
    }

    fn footer(&self) -> String {
        let Notice { key, posting, .. } = self.notice;
        let single = self.single();
        let task_id = single.and_then(|shown| shown.task_id.as_deref());
        let at = self.tally().map_or(posting.at, |tally| tally.last);
        let mut parts = Vec::new();
        parts.extend(task_id.map(|task_id| line(task_id, SHORT_MAX)));
        parts.push(line(&self.time(at), SHORT_MAX));
        parts.push(format!("{key}-{}", posting.number));
        if posting.may_repeat {
            parts.push("may repeat an earlier post".to_owned());
        }
        parts.join(" · ")
    }

    fn mention(&self, kind: ReceiverKind) -> Option<String> {
        let (mention, from) = self.look.mention.as_ref()?;
        if self.notice.posting.kind != Kind::Firing || self.notice.group.severity < *from {
            return None;
        }
        Some(match (mention, kind) {
            (Mention::Here, ReceiverKind::Mattermost) => "@here".to_owned(),
            (Mention::Channel, ReceiverKind::Mattermost) => "@channel".to_owned(),
            (Mention::User(name), ReceiverKind::Mattermost) => format!("@{name}"),
            (Mention::Here, ReceiverKind::Slack) => "<!here>".to_owned(),
            (Mention::Channel, ReceiverKind::Slack) => "<!channel>".to_owned(),
            (Mention::User(id), ReceiverKind::Slack) => format!("<@{id}>"),
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
