//! Numbers, endpoints and networks as people and programs write them: whatever is read is written so that it reads the same.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use config::address::{CidrText, EndpointText, NumericZones, parse_cidr, parse_endpoint};
use config::device::AllowedIpChange;
use config::value::{self, NoServices};
use inet::Cidr;
use proptest::prelude::*;

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<Ipv4Addr>().prop_map(IpAddr::from),
        any::<Ipv6Addr>().prop_map(IpAddr::from),
        // Those that are written in a way of their own: mapped, compatible, link-local.
        (0u128..1 << 48).prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        any::<u64>().prop_map(|low| Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(low)).into()),
    ]
}

proptest! {
    #[test]
    fn an_endpoint_reads_back(ip in ip(), port: u16, scope: u32) {
        let address = match ip {
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, scope).into(),
            ip => SocketAddr::new(ip, port),
        };
        let text = EndpointText(address, &NumericZones).to_string();
        prop_assert_eq!(parse_endpoint(&text, &NumericZones), Some(address), "{}", text);
    }

    #[test]
    fn a_network_reads_back(ip in ip(), len in 0u8..=128) {
        let Some(cidr) = Cidr::new(ip, len) else {
            prop_assert!(ip.is_ipv4() && len > 32);
            return Ok(());
        };
        let text = CidrText(cidr).to_string();
        prop_assert_eq!(parse_cidr(&text).map(|(cidr, _)| cidr), Some(cidr), "{}", &text);
        let list = value::allowed_ips(&format!("{text},+{text},-{text}")).unwrap();
        let expected = [AllowedIpChange::Add(cidr), AllowedIpChange::Add(cidr), AllowedIpChange::Remove(cidr)];
        prop_assert_eq!((list.changes, list.replace), (expected.to_vec(), false));
    }

    #[test]
    fn any_text_does_no_harm_and_errors_are_one_line(text in prop_oneof![".{0,40}", "[]\\[0-9a-fx:./,+%o-]{0,40}"]) {
        let one_line = |error: value::ValueError| !error.to_string().chars().any(char::is_control);
        prop_assert!(value::listen_port(&text, &NoServices).map_err(one_line).err().unwrap_or(true));
        prop_assert!(value::fwmark(&text).map_err(one_line).err().unwrap_or(true));
        prop_assert!(value::persistent_keepalive(&text).map_err(one_line).err().unwrap_or(true));
        prop_assert!(value::endpoint(&text, &NoServices).map_err(one_line).err().unwrap_or(true));
        prop_assert!(value::allowed_ips(&text).map_err(one_line).err().unwrap_or(true));
        parse_endpoint(&text, &NumericZones);
        parse_cidr(&text);
    }
}

#[test]
fn a_host_that_a_file_cannot_hold_is_none() {
    for host in
        ["a b", "a\tb", "[\u{b}2001:db8::1]", "\u{b}192.0.2.1", "a#b", "a\u{1b}[1m", "a\u{a0}b", "a\0b", "[a[b]"]
    {
        let said = value::endpoint(&format!("{host}:1"), &NoServices).unwrap_err();
        assert!(said.to_string().contains("has no host"), "{host:?}: {said}");
    }
    for host in ["example.org", "bücher.example", "fe80::1%eth0", "_a-b.c"] {
        let read = value::endpoint(&format!("[{host}]:1"), &NoServices).unwrap();
        assert_eq!(read.host, host);
    }
}
