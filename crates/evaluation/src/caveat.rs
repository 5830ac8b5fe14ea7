//! What has to be known of a system before its figures are quoted, and of what was not measured.

use crate::run::{Run, System};
use crate::verdict::list;

/// What the newest wireguard-go is known to have done, by the steps of this project's own benchmark: see `cargo xtask bench`.
const GO: &str = "it is of March 2022, before it had offloads of TUN and UDP (2023); its version of May 2025 carried 5.2 times what boringtun \
    0.7.1 did in one TCP stream over a link that passes super-packets whole, and 4.2 times over one that does not, on another machine (two Zen 5 \
    processors)";
const LIBIPSEC: &str =
    "this is libipsec, a fallback in userspace that is not made for speed; IPsec as it is used is in the kernel (XFRM)";
const OPENVPN: &str = "as installed, with its defaults: no larger socket buffers, no fast-io";

/// Half a sentence about a system: its own, or what is known of one of this name and version; empty where there is nothing to say.
pub fn caveat(slug: &str, system: &System) -> String {
    if !system.caveat.is_empty() {
        return system.caveat.clone();
    }
    let known = if system.version.starts_with("wireguard-go") && system.version.contains("0.0.2022") {
        GO
    } else if slug.contains("libipsec") {
        LIBIPSEC
    } else if system.protocol == "OpenVPN" && system.carrier == "userspace" {
        OPENVPN
    } else {
        ""
    };
    known.to_owned()
}

/// What has to be known of the systems that were measured, each thing once with all that it is about.
pub fn known(run: &Run) -> Vec<String> {
    let mut all: Vec<(String, Vec<&str>)> = Vec::new();
    for slug in run.order() {
        let Some(system) = run.systems.get(slug) else { continue };
        let (said, title) = (caveat(slug, system), if system.title.is_empty() { slug } else { &system.title });
        match all.iter_mut().find(|(known, _)| *known == said) {
            Some((_, titles)) => titles.push(title),
            None if said.is_empty() => {}
            None => all.push((said, vec![title])),
        }
    }
    all.into_iter().map(|(said, titles)| format!("{}: {said}.", list(&titles))).collect()
}

/// What people use and this run does not have, each in a sentence.
pub fn absent(run: &Run) -> Vec<String> {
    let kernel = |protocol: &str| {
        let mut carriers = run.systems.values().filter(|it| it.protocol == protocol).map(|it| it.carrier.as_str());
        carriers.any(|carrier| carrier.contains("kernel"))
    };
    let any = run.systems.values().any(|system| system.protocol != "none");
    let wanted = [
        ("WireGuard", "WireGuard of the kernel was not measured, which is what most people use."),
        ("IPsec", "IPsec of the kernel (XFRM) was not measured, which is how IPsec is used."),
        ("OpenVPN", "OpenVPN with its kernel module (DCO) was not measured, which is its fastest way."),
    ];
    let missing = wanted.into_iter().filter(|(protocol, _)| any && !kernel(protocol));
    missing.map(|(_, said)| said.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Machine;

    fn system(version: &str, protocol: &str, carrier: &str) -> System {
        let [version, protocol, carrier] = [version, protocol, carrier].map(str::to_owned);
        System { version, protocol, carrier, ..System::default() }
    }

    #[test]
    fn an_old_version_and_a_fallback_are_told() {
        let old = system("wireguard-go v0.0.20220316", "WireGuard", "userspace");
        assert!(caveat("wireguard-go", &old).contains("March 2022"));
        assert_eq!(caveat("wireguard-go", &system("wireguard-go v0.0.20250522", "WireGuard", "userspace")), "");
        let library = system("strongSwan 5.9.8", "IPsec", "userspace");
        assert!(caveat("strongswan-libipsec-aes", &library).contains("libipsec"));
        assert_eq!(caveat("strongswan-aes", &system("strongSwan 5.9.8", "IPsec", "built into the kernel")), "");
        assert!(caveat("openvpn-aes", &system("OpenVPN 2.6.14", "OpenVPN", "userspace")).contains("defaults"));
        let own = System { caveat: "this one".to_owned(), ..library };
        assert_eq!(caveat("strongswan-libipsec-aes", &own), "this one");
    }

    #[test]
    fn what_several_share_is_told_once() {
        let mut run = Run::new("r", 0, 1, Machine { processors: 1, ..Machine::default() });
        for slug in ["openvpn-aes", "openvpn-chacha"] {
            run.systems.insert(slug.to_owned(), system("OpenVPN 2.6.14", "OpenVPN", "userspace"));
        }
        run.systems.insert("wireloom".to_owned(), system("wireloom 1", "WireGuard", "userspace"));
        let [said] = &known(&run)[..] else { panic!("{:?}", known(&run)) };
        assert!(said.starts_with("openvpn-aes and openvpn-chacha: as installed"), "{said}");
    }

    #[test]
    fn what_was_not_measured_is_told() {
        let mut run = Run::new("r", 0, 0, Machine { processors: 2, ..Machine::default() });
        assert!(absent(&run).is_empty());
        run.systems.insert("wireloom".to_owned(), system("1", "WireGuard", "userspace"));
        let all = absent(&run);
        assert!(all.len() == 3 && all[0].starts_with("WireGuard") && all[1].contains("XFRM") && all[2].contains("DCO"));
        run.systems.insert("kernel".to_owned(), system("6.1", "WireGuard", "kernel module"));
        run.systems.insert("strongswan-aes".to_owned(), system("6", "IPsec", "built into the kernel"));
        assert!(matches!(&absent(&run)[..], [one] if one.contains("DCO")));
    }
}
