//! Who is told. Pure.

use std::collections::BTreeMap;

use bellhop_common::config::Secret;

use crate::alerts::WebhookUrl;
use crate::alerts::mattermost::WebhookUrlError;
use crate::config::{AlertsConfig, MattermostConfig, ReceiverConfig, ReceiverKind};

/// The receiver that `[mattermost]` defines.
const MATTERMOST: &str = "mattermost";

pub(super) fn receivers(
    alerts: &AlertsConfig,
    mattermost: &MattermostConfig,
    problems: &mut Vec<String>,
) -> BTreeMap<String, ReceiverConfig> {
    let mut receivers = alerts.receivers.clone();
    for (name, receiver) in &receivers {
        let place = format!("alerts.receivers.{name}");
        check_address(&place, receiver, problems);
        if receiver.webhook_url.is_none() && receiver.webhook_url_file.is_none() {
            problems.push(format!("{place} needs webhook_url or webhook_url_file"));
        }
    }
    let own = ReceiverConfig {
        webhook_url: mattermost.webhook_url.clone(),
        webhook_url_file: mattermost.webhook_url_file.clone(),
        channel: mattermost.channel.clone(),
        ..ReceiverConfig::default()
    };
    check_address(MATTERMOST, &own, problems);
    if own.webhook_url.is_some() || own.webhook_url_file.is_some() {
        if receivers.contains_key(MATTERMOST) {
            problems.push(
                "[mattermost] and [alerts.receivers.mattermost] are the same receiver: keep one"
                    .into(),
            );
        }
        receivers.insert(MATTERMOST.into(), own);
    }
    receivers
}

fn check_address(place: &str, receiver: &ReceiverConfig, problems: &mut Vec<String>) {
    if receiver.webhook_url.is_some() && receiver.webhook_url_file.is_some() {
        problems.push(format!(
            "{place}.webhook_url and {place}.webhook_url_file are both set: keep one"
        ));
    }
    if let Some(url) = &receiver.webhook_url
        && let Err(error) = address(receiver.kind, url)
    {
        problems.push(format!("{place}.webhook_url: {error}"));
    }
}

/// The address of a receiver's webhook.
pub(in crate::alerts) fn address(
    kind: ReceiverKind,
    url: &Secret,
) -> Result<WebhookUrl, WebhookUrlError> {
    match kind {
        ReceiverKind::Mattermost => url.expose().parse(),
        ReceiverKind::Slack => WebhookUrl::of_slack(url.expose()),
    }
}

pub(super) fn default_receiver(
    alerts: &AlertsConfig,
    receivers: &BTreeMap<String, ReceiverConfig>,
    problems: &mut Vec<String>,
) -> Option<String> {
    let names: Vec<&str> = receivers.keys().map(String::as_str).collect();
    if let Some(named) = &alerts.receiver {
        if !receivers.contains_key(named) {
            problems.push(unknown_receiver("alerts.receiver", named, &names));
        }
        return Some(named.clone());
    }
    match names[..] {
        [] if !alerts.routes.is_empty() => {
            problems.push(
                "alerts.routes: there is nobody to tell; set mattermost.webhook_url or \
                 alerts.receivers.<name>"
                    .into(),
            );
            None
        }
        [] => None,
        [only] => Some(only.to_owned()),
        _ if receivers.contains_key(MATTERMOST) => Some(MATTERMOST.into()),
        [..] => {
            let names = names.join(", ");
            problems.push(format!("alerts.receiver must name one of {names}"));
            None
        }
    }
}

pub(super) fn unknown_receiver(place: &str, name: &str, known: &[&str]) -> String {
    let known = known.join(", ");
    format!("{place}: there is no receiver {name:?}; there are: {known}")
}
