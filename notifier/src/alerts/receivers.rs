//! The receivers: a client for each webhook, and whether it works.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop_common::config::{Secret, SecretError};
use bellhop_common::telemetry::{Component, Health};
use metrics::gauge;
use thiserror::Error;

use super::mattermost::{SetupError, WebhookUrlError};
use super::plan::{Plan, address};
use super::{Mattermost, PostError};
use crate::config::{NotifierConfig, ReceiverConfig, ReceiverKind};
use crate::metric;

/// How long a receiver may take for one post.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there can be no alerts.
#[derive(Debug, Error)]
pub enum AlertsError {
    /// The configuration does not fit together.
    #[error("the alerts do not fit together:\n  - {}", .0.join("\n  - "))]
    Plan(Vec<String>),
    /// A webhook's address.
    #[error("the webhook_url of the receiver {receiver}")]
    Webhook {
        /// Whose.
        receiver: String,
        /// What is wrong.
        source: WebhookUrlError,
    },
    /// The file with a webhook's address.
    #[error("the webhook_url_file of the receiver {receiver}")]
    WebhookFile {
        /// Whose.
        receiver: String,
        /// What is wrong.
        source: SecretError,
    },
    /// The HTTP client.
    #[error(transparent)]
    Client(#[from] SetupError),
}

/// A webhook that posts go to.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) client: Mattermost,
    component: Component,
}

/// Everything that is needed to tell a team something.
#[derive(Debug)]
pub(crate) struct Alerting {
    pub(crate) plan: Plan,
    pub(super) receivers: BTreeMap<String, Receiver>,
}

impl Alerting {
    /// What is configured, if anybody is to be told.
    pub(crate) fn open(
        config: &NotifierConfig,
        health: &Health,
    ) -> Result<Option<Self>, AlertsError> {
        let plan = Plan::new(&config.alerts, &config.mattermost).map_err(AlertsError::Plan)?;
        let Some(plan) = plan else {
            return Ok(None);
        };
        let mut receivers = BTreeMap::new();
        for (name, receiver) in &plan.receivers {
            let client = client(name, receiver)?;
            // Nobody else can post instead: not being able to makes no notifier less ready.
            let component = health.notice(&format!("alerts.{name}"));
            let receiver = Receiver { client, component };
            receiver.works(name, true);
            receivers.insert(name.clone(), receiver);
        }
        Ok(Some(Self { plan, receivers }))
    }

    /// What a receiver is, for the log of deliveries.
    pub(super) fn channel(&self, name: &str) -> &'static str {
        let kind = self.plan.receivers.get(name).map(|receiver| receiver.kind);
        match kind.unwrap_or_default() {
            ReceiverKind::Mattermost => "mattermost",
            ReceiverKind::Slack => "slack",
        }
    }

    /// Notes whether a receiver works.
    pub(super) fn note(&self, name: &str, result: &Result<(), PostError>) {
        if let Some(receiver) = self.receivers.get(name) {
            receiver.works(name, result.is_ok());
        }
    }
}

impl Receiver {
    fn works(&self, name: &str, works: bool) {
        if works {
            self.component.up();
        } else {
            self.component.down();
        }
        let up = gauge!(metric::ALERT_RECEIVER_UP, "receiver" => name.to_owned());
        up.set(if works { 1.0 } else { 0.0 });
    }
}

fn client(name: &str, receiver: &ReceiverConfig) -> Result<Mattermost, AlertsError> {
    let file = |source| AlertsError::WebhookFile {
        receiver: name.to_owned(),
        source,
    };
    let url = match (&receiver.webhook_url, &receiver.webhook_url_file) {
        (Some(url), _) => url.clone(),
        (None, Some(path)) => Secret::from_file(path).map_err(file)?,
        (None, None) => Secret::new(""),
    };
    let webhook = address(receiver.kind, &url).map_err(|source| AlertsError::Webhook {
        receiver: name.to_owned(),
        source,
    })?;
    Ok(Mattermost::new(webhook, POST_TIMEOUT)?)
}
