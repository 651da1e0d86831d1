//! Orders as mails.

use bellhop_common::wire::{Event, TASK_STATUS_CHANGED};
use jiff::Timestamp;
use serde::Deserialize;
use tracing::warn;

use super::{Order, Outcome};
use crate::away::contacts;
use crate::away::unsubscribe::Leave;
use crate::gateway::Gateway;
use crate::mail::{Mail, MailError, Mailer, item_of};
use crate::store::{SharedStore, StoreError};

/// Where a user gets mail, if he does.
pub(super) async fn address(
    store: &SharedStore,
    user_id: &str,
) -> Result<Option<String>, StoreError> {
    let contact = contacts::contact(store, user_id).await?;
    Ok(contact.and_then(|contact| contact.usable(Timestamp::now())))
}

/// Sends an order.
pub(super) async fn send(
    gateway: &Gateway,
    store: &SharedStore,
    order: &Order,
    events: &[Event],
) -> Outcome {
    let Some(mailer) = &gateway.mailer else {
        return super::not_here("[mail]");
    };
    let links = links(gateway, store, order).await;
    let contact = contacts::contact(store, &order.user_id).await;
    let ((unsubscribe, settings), contact) = match (links, contact) {
        (Ok(links), Ok(contact)) => (links, contact),
        (Err(error), _) | (_, Err(error)) => return super::store_away(&error),
    };
    let name = contact.as_ref().and_then(|contact| contact.name.clone());
    let Some(to) = contact.and_then(|contact| contact.usable(Timestamp::now())) else {
        return Outcome::Gone("the user has no address any more".to_owned());
    };
    let template = gateway.config.mail.task_url.as_deref();
    let newest_first = events.iter().rev();
    let items: Vec<_> = newest_first.map(|event| item_of(event, template)).collect();
    let thread = thread(events);
    let mail = Mail {
        to: &to,
        name: name.as_deref(),
        id: order.id,
        thread: thread.as_deref(),
        items: &items,
        more: order.more as usize,
        category: &order.category,
        unsubscribe: unsubscribe.as_deref(),
        settings: settings.as_deref(),
    };
    post(mailer, &mail, store, order).await
}

async fn post(mailer: &Mailer, mail: &Mail<'_>, store: &SharedStore, order: &Order) -> Outcome {
    match mailer.send(mail).await {
        Ok(()) => Outcome::Sent,
        Err(MailError::Transient { code, reason }) => Outcome::Again {
            after: None,
            reason: said(code, &without(&reason, mail.to)),
        },
        Err(MailError::Refused { code, reason }) => {
            let reason = said(Some(code), &without(&reason, mail.to));
            let suppressed =
                contacts::suppress(store, &order.user_id, mail.to, &reason, Timestamp::now());
            if let Err(error) = suppressed.await {
                warn!(%error, "an address that is no good will be tried again");
            }
            Outcome::Gone(reason)
        }
        Err(MailError::Unsendable { reason }) => Outcome::Refused(without(&reason, mail.to)),
    }
}

/// Servers like to repeat whom they do not know. The log is not the place for people's addresses.
fn without(reason: &str, address: &str) -> String {
    let (lower, address) = (reason.to_ascii_lowercase(), address.to_ascii_lowercase());
    let mut rest = 0;
    let mut clean = String::with_capacity(reason.len());
    // Lower case changes no byte's place.
    for (at, found) in lower.match_indices(&address) {
        clean.push_str(reason.get(rest..at).unwrap_or_default());
        clean.push_str("<address>");
        rest = at + found.len();
    }
    clean.push_str(reason.get(rest..).unwrap_or_default());
    clean
}

fn said(code: Option<u16>, reason: &str) -> String {
    match code {
        Some(code) => format!("the mail server answered {code}: {reason}"),
        None => reason.to_owned(),
    }
}

/// The links at the end of a mail: to have no more of them, and to the preferences.
async fn links(
    gateway: &Gateway,
    store: &SharedStore,
    order: &Order,
) -> Result<(Option<String>, Option<String>), StoreError> {
    let Some(url) = &gateway.config.escalation.public_url else {
        return Ok((None, None));
    };
    let url = url.trim_end_matches('/');
    let leave = Leave {
        user_id: order.user_id.clone(),
        category: order.category.clone(),
    };
    let token = gateway.unsubscribe.token(store, &leave).await?;
    Ok((
        Some(format!("{url}/unsubscribe/{token}")),
        Some(format!("{url}/")),
    ))
}

/// What all events are about, if that is one task: its mails are shown together.
fn thread(events: &[Event]) -> Option<String> {
    #[derive(Deserialize)]
    struct State {
        task_id: String,
    }
    let task_of = |event: &Event| {
        let data = event
            .data
            .as_deref()
            .filter(|_| event.kind == TASK_STATUS_CHANGED)?;
        serde_json::from_str::<State>(data.get()).ok()
    };
    let first = task_of(events.first()?)?.task_id;
    let same = |event| task_of(event).is_some_and(|state| state.task_id == first);
    events.iter().all(same).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_repeated() {
        for (reason, wants) in [
            (
                "5.1.1 <Ann@example.org>: unknown",
                "5.1.1 <<address>>: unknown",
            ),
            ("ann@example.org ann@EXAMPLE.org", "<address> <address>"),
            ("Größe ann@example.org ü", "Größe <address> ü"),
            ("no", "no"),
        ] {
            assert_eq!(without(reason, "Ann@Example.org"), wants);
        }
    }
}
