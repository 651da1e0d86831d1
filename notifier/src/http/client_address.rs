//! Where a request came from, behind proxies. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Addresses that begin with the same bits, such as `10.0.0.0/8`, or a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text is no network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct NetworkError(String);

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        let (same, whole) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                (differ.leading_zeros(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = own.to_bits() ^ other.to_bits();
                (differ.leading_zeros(), 128)
            }
            _ => return false,
        };
        same.min(whole) >= u32::from(self.bits)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => most,
        };
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The address of the client. Each proxy adds the one it saw to the end of `X-Forwarded-For`, so
/// that only what trusted ones added can be believed: the last address that is not one of theirs.
/// Public for the fuzz tests.
#[doc(hidden)]
#[must_use]
pub fn client_address(peer: IpAddr, forwarded: &str, proxies: &[Network]) -> IpAddr {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
    let mut address = peer.to_canonical();
    for earlier in forwarded.rsplit(',') {
        if !is_proxy(address) {
            break;
        }
        let Some(earlier) = read(earlier.trim()) else {
            break;
        };
        address = earlier.to_canonical();
    }
    address
}

/// Some proxies add the port: `1.2.3.4:5678`, `[2001:db8::5]:5678`.
fn read(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    text.parse().or_else(|_| with_port()).ok()
}

/// By what connections are counted: one client of IPv6 has 2^64 addresses, a /64.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_what_trusted_proxies_say_is_believed() {
        let proxies = networks(&["10.0.0.0/8", "::1"]);
        for (peer, forwarded, wants) in [
            ("8.8.8.8", "", "8.8.8.8"),
            ("8.8.8.8", "1.1.1.1", "8.8.8.8"),
            ("10.1.2.3", "1.1.1.1", "1.1.1.1"),
            ("10.1.2.3", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
            ("10.1.2.3", "6.6.6.6, 1.1.1.1, 10.9.9.9", "1.1.1.1"),
            ("10.1.2.3", "", "10.1.2.3"),
            ("10.1.2.3", "garbage", "10.1.2.3"),
            ("10.1.2.3", "10.0.0.1,10.0.0.2", "10.0.0.1"),
            ("::1", "2001:db8::5", "2001:db8::5"),
            ("10.1.2.3", "1.1.1.1:5678", "1.1.1.1"),
            ("10.1.2.3", "[2001:db8::5]:5678", "2001:db8::5"),
            ("::ffff:10.1.2.3", "::ffff:1.1.1.1", "1.1.1.1"),
        ] {
            let address = client_address(peer.parse().unwrap(), forwarded, &proxies);
            assert_eq!(address.to_string(), wants, "{peer} {forwarded}");
        }
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        let counted = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("1.2.3.4"), "1.2.3.4");
    }

    #[test]
    fn networks_are_read_and_compared_by_their_bits() {
        let contains = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(contains("192.168.4.0/22", "192.168.7.255"));
        assert!(!contains("192.168.4.0/22", "192.168.8.0"));
        assert!(contains("0.0.0.0/0", "1.2.3.4"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fdff::1"));
        assert!(contains("1.2.3.4", "1.2.3.4") && !contains("1.2.3.4", "1.2.3.5"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "host", "1.2.3.4/x"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
