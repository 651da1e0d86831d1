//! From the name of a push service to its addresses, when a connection is made.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error as ThisError;

use super::endpoint::Policy;

/// A name means only addresses that pushes may not go to.
#[derive(Debug, ThisError)]
#[error("the host is not on the public internet")]
pub(super) struct ForbiddenAddress;

/// What addresses a name has.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// A resolver that knows no addresses but those which pushes may go to. It stands between a name and
/// every connection, so that a name cannot mean another machine after it was checked.
#[derive(Clone)]
pub(super) struct Guarded {
    policy: Policy,
    lookup: Lookup,
}

impl Guarded {
    /// Asks the system.
    pub(super) fn new(policy: Policy) -> Self {
        let lookup: Lookup = Arc::new(|name| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
        });
        Self { policy, lookup }
    }

    async fn addresses(
        self,
        name: String,
    ) -> Result<Vec<SocketAddr>, Box<dyn Error + Send + Sync>> {
        let mut found = (self.lookup)(name).await?;
        let any = !found.is_empty();
        found.retain(|address| self.policy.allows(address.ip()));
        if any && found.is_empty() {
            return Err(Box::new(ForbiddenAddress));
        }
        Ok(found)
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let guarded = self.clone();
        Box::pin(async move {
            let found = guarded.addresses(name.as_str().to_owned()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guarded").field(&self.policy).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::PushConfig;

    #[tokio::test]
    async fn a_name_means_only_addresses_of_the_public_internet() {
        let resolves = async |addresses: &'static [&'static str]| {
            let lookup: Lookup = Arc::new(|_| {
                let addresses = addresses
                    .iter()
                    .map(|it| (it.parse::<IpAddr>().unwrap(), 0).into());
                let addresses = addresses.collect();
                Box::pin(async { Ok(addresses) })
            });
            let policy = Policy::new(&PushConfig::default());
            let found = Guarded { policy, lookup }
                .resolve("x.example".parse().unwrap())
                .await;
            let found: Vec<_> = found
                .map_err(|error| error.downcast_ref::<ForbiddenAddress>().is_some())?
                .map(|address| address.ip().to_string())
                .collect();
            Ok::<_, bool>(found)
        };
        for inside in [
            &["127.0.0.1"][..],
            &["169.254.169.254"],
            &["::ffff:10.0.0.1"],
            &["10.0.0.1", "fd00::1"],
        ] {
            assert_eq!(resolves(inside).await, Err(true), "{inside:?}");
        }
        let mixed = resolves(&["10.0.0.1", "8.8.8.8", "::1"]).await;
        assert_eq!(mixed, Ok(vec!["8.8.8.8".to_owned()]));
    }
}
