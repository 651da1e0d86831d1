//! Orders that are with us. The broker may have one twice: its confirm got lost, and it was placed
//! again. The second must not be looked at before the first is in the log.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// Which orders are with us.
#[derive(Debug, Default)]
pub(super) struct InHand {
    ids: Mutex<HashSet<Uuid>>,
    left: Notify,
}

/// An order that no other copy of is dealt with meanwhile.
#[derive(Debug)]
pub(super) struct Held<'a> {
    in_hand: &'a InHand,
    id: Uuid,
}

impl InHand {
    /// Takes an order in hand, when no copy of it is any more.
    pub(super) async fn take(&self, id: Uuid) -> Held<'_> {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // From here on none that leaves is missed.
            left.as_mut().enable();
            if self.ids().insert(id) {
                return Held { in_hand: self, id };
            }
            left.await;
        }
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.in_hand.ids().remove(&self.id);
        self.in_hand.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_copy_waits_for_the_first_and_others_do_not() {
        let (in_hand, id) = (InHand::default(), Uuid::from_u128(1));
        let first = in_hand.take(id).await;
        let mut copy = Box::pin(in_hand.take(id));
        assert!(copy.as_mut().now_or_never().is_none());
        drop(in_hand.take(Uuid::from_u128(2)).await);
        assert!(copy.as_mut().now_or_never().is_none());
        drop(first);
        drop(copy.await);
        assert!(in_hand.ids().is_empty());
    }
}
