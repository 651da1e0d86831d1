//! Notes to look later whether an event was seen. Many are one message, because RabbitMQ's work is
//! for each message, and on each rung of the ladder anew.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop_common::amqp::{Message, PublishError, ladder};
use serde::{Deserialize, Serialize};
use tracing::warn;
use uuid::Uuid;

use super::Channel;
use super::preferences::MailChoice;
use crate::config::EscalationConfig;
use crate::delay::later;
use crate::gateway::Gateway;
use crate::store::{Epoch, Position};

/// How many looks are one message.
const TOGETHER: usize = 500;

/// Events to look after at one time, for one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checks {
    /// How they are sent if nobody has seen them.
    pub(crate) channel: Channel,
    /// They belong into a digest, whose time has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<MailChoice>,
    /// Which events.
    pub(crate) events: Vec<Check>,
}

/// An event that nobody may have seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// Whose it is.
    #[serde(rename = "user")]
    pub(crate) user_id: String,
    /// The life of his stream.
    pub(crate) epoch: Epoch,
    /// Its number there.
    pub(crate) seq: u64,
    /// Its id.
    #[serde(rename = "event")]
    pub(crate) event_id: Uuid,
    /// Its category.
    pub(crate) category: String,
}

/// Checks that are to be made, by how and in how long.
#[derive(Debug, Default)]
pub(crate) struct Planned(BTreeMap<(Channel, Duration), Vec<Check>>);

impl Planned {
    /// Plans the checks of an event of a user, if it has a category.
    pub(crate) fn add(
        &mut self,
        config: &EscalationConfig,
        user_id: &str,
        topic: &str,
        event_id: Uuid,
        at: Position,
    ) {
        let Some(category) = config.of(topic) else {
            return;
        };
        let planned = [
            (Channel::Push, category.push_after),
            (Channel::Email, category.mail_after),
        ];
        for (channel, after) in planned {
            let Some(after) = after else { continue };
            let check = Check {
                user_id: user_id.to_owned(),
                epoch: at.epoch,
                seq: at.seq,
                event_id,
                category: category.name.clone(),
            };
            self.0.entry((channel, after.0)).or_default().push(check);
        }
    }

    /// Puts them on the ladder.
    ///
    /// # Errors
    /// [`PublishError`]; some may be there then, and are there twice if all are put there again.
    /// That does no harm: an event is ordered once for each recipient.
    pub(crate) async fn place(&self, gateway: &Gateway) -> Result<(), PublishError> {
        for ((channel, after), checks) in &self.0 {
            place(gateway, (*channel, None), checks, *after).await?;
        }
        Ok(())
    }
}

/// Puts checks on the ladder.
///
/// # Errors
/// [`PublishError`]; some may be there then.
pub(super) async fn place(
    gateway: &Gateway,
    (channel, digest): (Channel, Option<MailChoice>),
    checks: &[Check],
    after: Duration,
) -> Result<(), PublishError> {
    for part in checks.chunks(TOGETHER) {
        let checks = Checks {
            channel,
            digest,
            events: part.to_vec(),
        };
        let message = Message {
            // Texts and numbers can always be written.
            body: serde_json::to_vec(&checks).unwrap_or_default(),
            persistent: true,
            ..Message::default()
        };
        match later(gateway, &message, after, ladder::ESCALATION).await {
            // Nobody else is to wait for what never goes.
            Err(error) if error.is_permanent() => {
                warn!(%error, "users will not be reached about what they miss");
            }
            placed => placed?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        [[categories]]
        name = "failures"
        events = ["task.status_changed.failed"]
        push_after = "10s"
        mail_after = "10m"
        [[categories]]
        name = "tasks"
        events = ["task.#"]
        push_after = "10s"
    "#;

    #[test]
    fn the_first_category_that_covers_an_event_says_when() {
        let config: EscalationConfig = toml::from_str(CONFIG).unwrap();
        let mut planned = Planned::default();
        let at = Position {
            epoch: Epoch::new(7),
            seq: 3,
        };
        for topic in [
            "task.status_changed.failed",
            "task.status_changed.succeeded",
            "message.sent",
        ] {
            planned.add(&config, "ann", topic, Uuid::nil(), at);
        }
        let summary: Vec<_> = planned
            .0
            .iter()
            .map(|((channel, after), checks)| {
                let names: Vec<_> = checks.iter().map(|check| check.category.as_str()).collect();
                (*channel, after.as_secs(), names.join(" "))
            })
            .collect();
        assert_eq!(
            summary,
            [
                (Channel::Push, 10, "failures tasks".to_owned()),
                (Channel::Email, 600, "failures".to_owned())
            ]
        );
        let checks = Checks {
            channel: Channel::Push,
            digest: None,
            events: planned.0.into_values().flatten().collect(),
        };
        let text = serde_json::to_vec(&checks).unwrap();
        assert_eq!(serde_json::from_slice::<Checks>(&text).unwrap(), checks);
    }
}
