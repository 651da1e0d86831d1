//! How many connections there may be, in all and from one address.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

use crate::shards::Shards;

/// Counts the connections. A limit of 0 is none.
#[derive(Debug)]
pub(crate) struct Admission {
    limit: usize,
    limit_per_address: usize,
    connections: AtomicUsize,
    addresses: Shards<IpAddr, usize>,
}

/// The place of one connection, free again when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    admission: Arc<Admission>,
    /// Only where addresses are counted.
    address: Option<IpAddr>,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Full {
    #[error("this instance has as many connections as it may have; try again later")]
    Instance,
    #[error("there are too many connections from your address")]
    Address,
}

impl Admission {
    pub(crate) fn new(limit: usize, limit_per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            limit_per_address,
            connections: AtomicUsize::new(0),
            addresses: Shards::new(),
        })
    }

    /// Takes a place.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Slot, Full> {
        let mut slot = Slot {
            admission: Arc::clone(self),
            address: None,
        };
        // Counted first, or two could take the last place; a refused slot gives it back.
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        if self.limit > 0 && before >= self.limit {
            return Err(Full::Instance);
        }
        if let (Some(address), 1..) = (address, self.limit_per_address) {
            let mut addresses = self.addresses.lock(&address);
            let count = addresses.entry(address).or_default();
            if *count >= self.limit_per_address {
                return Err(Full::Address);
            }
            *count += 1;
            drop(addresses);
            slot.address = Some(address);
        }
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let admission = &self.admission;
        admission.connections.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut addresses = admission.addresses.lock(&address);
        if let Some(count) = addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn a_place_is_free_again_when_the_connection_ends() {
        let admission = Admission::new(2, 0);
        let first = admission.admit(HERE).unwrap();
        let _second = admission.admit(None).unwrap();
        for _ in 0..3 {
            assert_eq!(admission.admit(HERE).unwrap_err(), Full::Instance);
        }
        drop(first);
        assert!(admission.admit(HERE).is_ok());
    }

    #[test]
    fn each_address_has_places_of_its_own() {
        let admission = Admission::new(0, 1);
        let first = admission.admit(HERE).unwrap();
        assert_eq!(admission.admit(HERE).unwrap_err(), Full::Address);
        assert!(admission.admit(Some([10, 0, 0, 1].into())).is_ok());
        drop(first);
        assert!(admission.admit(HERE).is_ok());
        let left: usize = admission.addresses.each().map(|shard| shard.len()).sum();
        assert_eq!(left, 0, "nothing is kept of who left");
        assert_eq!(admission.connections.load(Ordering::Relaxed), 0);
    }
}
