//! Whether a server can be the store.

use redis::InfoDict;

use crate::store::StoreError;

/// The first version with all that we use.
const OLDEST: (u32, u32) = (6, 2);

/// What a server does that must not throw keys away.
const KEEPS_ALL: &str = "noeviction";

/// Refuses a server that cannot be the store, and warns of one that may lose what it holds.
pub(super) fn check(info: &InfoDict, place: &str) -> Result<(), StoreError> {
    let version = text(info, "redis_version");
    if !is_new_enough(&version) {
        let (major, minor) = OLDEST;
        let what =
            format!("{place} has version {version}, and {major}.{minor} is the oldest that can be");
        return Err(StoreError::Unfit(what));
    }
    let policy = text(info, "maxmemory_policy");
    if policy != KEEPS_ALL {
        tracing::warn!(
            server = place,
            policy,
            "Redis may throw events away when its memory is full; set its maxmemory-policy to {KEEPS_ALL}"
        );
    }
    Ok(())
}

/// Whether it is a member of a cluster, of one or of many.
pub(super) fn is_in_cluster(info: &InfoDict) -> bool {
    text(info, "cluster_enabled") == "1"
}

fn text(info: &InfoDict, name: &str) -> String {
    info.get(name).unwrap_or_default()
}

/// A version that is not understood is none that was released.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_told_by_their_version() {
        for version in ["6.2.0", "6.10.1", "7.0.15", "7.2.4", "8.0-rc1.1", "10.0.0"] {
            assert!(
                is_new_enough(version) || version.contains("rc"),
                "{version}"
            );
        }
        for version in ["", "6", "6.0.9", "5.9.9", "redis"] {
            assert!(!is_new_enough(version), "{version}");
        }
    }

    #[test]
    fn the_server_that_is_refused_is_named() {
        let info = InfoDict::new("redis_version:6.0.9\r\nmaxmemory_policy:noeviction\r\n");
        let error = check(&info, "10.0.0.3:7002").unwrap_err();
        assert!(error.to_string().contains("10.0.0.3:7002"), "{error}");
        assert!(error.to_string().contains("6.0.9"), "{error}");
    }
}
