//! What people write in files and on the command line, and what the control socket says: numbers, endpoints, networks.

#![no_main]

use config::{
    address::{CidrText, EndpointText, NumericZones, parse_cidr, parse_endpoint},
    device::AllowedIpChange,
    value::{self, NoServices},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let shown = |error: value::ValueError| {
        let text = error.to_string();
        assert!(!text.chars().any(char::is_control), "an error is one line: {text:?}");
    };
    if let Ok(port) = value::listen_port(input, &NoServices) {
        assert_eq!(value::listen_port(&port.to_string(), &NoServices).ok(), Some(port));
    }
    if let Ok(mark) = value::fwmark(input) {
        assert_eq!(value::fwmark(&format!("0x{mark:x}")).ok(), Some(mark));
    }
    if let Ok(seconds) = value::persistent_keepalive(input) {
        assert_eq!(value::persistent_keepalive(&seconds.to_string()).ok(), Some(seconds));
    }
    match value::endpoint(input, &NoServices) {
        // A name may hold anything, which is for the resolver to refuse; an address is written as it is read.
        Ok(endpoint) if endpoint.host.parse::<std::net::IpAddr>().is_ok() => {
            assert_eq!(value::endpoint(&endpoint.to_string(), &NoServices).ok(), Some(endpoint));
        }
        Ok(_) => (),
        Err(error) => shown(error),
    }
    match value::allowed_ips(input) {
        Ok(list) => {
            for AllowedIpChange::Add(cidr) | AllowedIpChange::Remove(cidr) in list.changes {
                let text = CidrText(cidr).to_string();
                assert_eq!(parse_cidr(&text).map(|(cidr, _)| cidr), Some(cidr), "{text}");
            }
        }
        Err(error) => shown(error),
    }
    if let Some(address) = parse_endpoint(input, &NumericZones) {
        let text = EndpointText(address, &NumericZones).to_string();
        assert_eq!(parse_endpoint(&text, &NumericZones), Some(address), "{text}");
    }
    if let Some((cidr, _)) = parse_cidr(input) {
        assert!(cidr.contains(cidr.addr()));
        assert_eq!(parse_cidr(&CidrText(cidr).to_string()).map(|(cidr, _)| cidr), Some(cidr));
    }
});
