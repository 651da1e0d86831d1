//! Whether an address is one of the public internet. For what users may have us connect to: nothing
//! that only this machine or its networks can reach. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 that is not for everybody (IANA's special-purpose registry), with the length of the prefix.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 15] = [
    // This network.
    (Ipv4Addr::UNSPECIFIED, 8),
    // Private.
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Shared by the customers of a carrier.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link-local, and where clouds keep the secrets of a machine.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // Documentation, with the two below.
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    // 6to4 relays.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Measurements.
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved, broadcast.
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The only part of IPv6 that is given to anybody; the rest is local, multicast, or nobody's.
const GIVEN_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What of it is not for everybody.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    // For protocols: Teredo, which holds an IPv4 address, and others.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation, with the last.
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    // 6to4, which holds an IPv4 address.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// By which a network without IPv4 reaches it (RFC 6052): the last four bytes are an IPv4 address.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether everybody on the internet means the same machine by it.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !NOT_PUBLIC_V4.iter().any(|&(prefix, length)| {
        let others = 32 - length;
        u32::from(address) >> others == u32::from(prefix) >> others
    })
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    if is_in(address, NAT64) {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    is_in(address, GIVEN_V6) && !NOT_PUBLIC_V6.iter().any(|&range| is_in(address, range))
}

fn is_in(address: Ipv6Addr, (prefix, length): (Ipv6Addr, u32)) -> bool {
    let others = 128 - length;
    u128::from(address) >> others == u128::from(prefix) >> others
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    const PUBLIC: [&str; 19] = [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450:4001::1",
        "2001:4860:4860::8888",
        "2001:200::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ];

    const NOT_PUBLIC: [&str; 40] = [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.255",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "3fff:fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];

    #[test]
    fn what_is_not_for_everybody_is_known() {
        for (addresses, wants) in [(&PUBLIC[..], true), (&NOT_PUBLIC, false)] {
            for address in addresses {
                assert_eq!(is_public(address.parse().unwrap()), wants, "{address}");
            }
        }
    }

    #[test]
    fn whole_ranges_are_known_in_every_form_of_ipv6() {
        let mut random = random();
        let mut any = move || u32::try_from(random(1 << 32)).unwrap();
        for (prefix, length) in NOT_PUBLIC_V4 {
            let others = u32::MAX >> length;
            for _ in 0..100 {
                let address = Ipv4Addr::from(u32::from(prefix) | any() & others);
                assert!(!is_public(address.into()), "{address}");
            }
        }
        for _ in 0..10_000 {
            let address = Ipv4Addr::from(any());
            let wants = is_public(address.into());
            let nat64 = Ipv6Addr::from(u128::from(NAT64.0) | u128::from(u32::from(address)));
            for form in [address.to_ipv6_mapped(), nat64] {
                assert_eq!(is_public(form.into()), wants, "{form}");
            }
            let [a, b, c, d] = address.octets().map(u16::from);
            let six_to_four = Ipv6Addr::new(0x2002, a << 8 | b, c << 8 | d, 0, 0, 0, 0, 1);
            assert!(!is_public(six_to_four.into()), "{six_to_four}");
        }
    }

    #[test]
    fn of_ipv6_only_what_is_given_to_somebody_is_public() {
        let mut random = random();
        let mut half = move || u128::from(random(u64::MAX));
        let mut seen = (0, 0);
        for _ in 0..10_000 {
            let address = Ipv6Addr::from(half() << 64 | half());
            let first = address.segments()[0];
            if is_public(address.into()) {
                assert!((0x2000..0x4000).contains(&first), "{address}");
                seen.0 += 1;
            } else {
                seen.1 += 1;
            }
        }
        assert!(seen.0 > 100 && seen.1 > 100, "{seen:?}");
    }
}
