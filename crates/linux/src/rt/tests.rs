//! Against the kernel, in a namespace of one thread's own, and against what `ip` shows of it there.

use std::os::fd::AsFd;
use std::process::Command;

use super::*;
use crate::netns;

/// In a new network namespace.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                netns::unshare().unwrap();
                work()
            })
            .join()
            .unwrap()
    })
}

/// What `ip` shows here: the child is in the namespace of the thread that starts it.
fn shown(words: &str) -> String {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

/// A namespace with a link that is up.
fn with_link() -> (Rt, u32) {
    let mut rt = Rt::open().unwrap();
    rt.add_link("one", "veth").unwrap();
    let link = rt.link("one").unwrap().unwrap();
    rt.set_up(link.index, true).unwrap();
    (rt, link.index)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn links_are_made_changed_moved_and_deleted() {
    apart(|| {
        let (mut rt, index) = with_link();
        rt.set_mtu(index, 1280).unwrap();
        let link = rt.link("one").unwrap().unwrap();
        let expected = Link { index, name: "one".to_owned(), kind: Some("veth".to_owned()), mtu: 1280, up: true };
        assert_eq!(link, expected);
        assert_eq!(rt.link_at(index).unwrap(), Some(expected));
        assert!(rt.links().unwrap().contains(&link));
        assert!(shown("-d link show one").contains("mtu 1280"));

        assert_eq!(rt.link("none").unwrap(), None);
        assert_eq!(rt.link_at(12345).unwrap(), None);
        assert!(rt.add_link("one", "veth").unwrap_err().is_present());
        let error = rt.add_link("two", "no-such-kind").unwrap_err();
        assert_eq!((error.errno(), error.to_string().contains("Unknown device type")), (Some(libc::EOPNOTSUPP), true));

        let there = apart(|| netns::current().unwrap());
        rt.move_link(index, there.as_fd()).unwrap();
        assert_eq!(rt.link("one").unwrap(), None);
        netns::run_in(there.as_fd(), || {
            let mut rt = Rt::open()?;
            let moved = rt.link("one").unwrap().unwrap();
            assert!(!moved.up);
            rt.delete_link(moved.index).unwrap();
            assert_eq!(rt.link("one").unwrap(), None);
            assert!(rt.delete_link(moved.index).unwrap_err().is_absent());
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn addresses_are_as_ip_makes_and_shows_them() {
    apart(|| {
        let (mut rt, index) = with_link();
        for (by_us, by_ip) in
            [("10.0.0.1/24", "10.0.1.1/24"), ("192.0.2.1/32", "192.0.2.2/32"), ("fd00::1/64", "fd01::1/64")]
        {
            let (address, len) = by_us.split_once('/').unwrap();
            let address = Address { index, ip: ip(address), len: len.parse().unwrap() };
            rt.add_address(address).unwrap();
            assert!(rt.addresses(Some(index)).unwrap().contains(&address));
            shown(&format!("address add {by_ip} dev one"));
            assert!(rt.add_address(address).unwrap_err().is_present());
        }
        let ours = shown("-o address show dev one").replace("10.0.0.", "10.0.1.").replace("192.0.2.1", "192.0.2.2");
        let ours = ours.replace("fd00:", "fd01:");
        for line in ours.lines().filter(|line| !line.contains("fe80")) {
            assert_eq!(ours.lines().filter(|other| *other == line).count(), 2, "{ours}");
        }
        for address in rt.addresses(Some(index)).unwrap() {
            rt.delete_address(address).unwrap();
        }
        assert_eq!(rt.addresses(Some(index)).unwrap(), []);
        let lost = Address { index, ip: ip("10.0.0.1"), len: 24 };
        assert!(rt.delete_address(lost).unwrap_err().is_absent());
    });
}

#[test]
fn routes_are_as_ip_makes_and_shows_them() {
    apart(|| {
        let (mut rt, index) = with_link();
        rt.add_address(Address { index, ip: ip("192.0.2.1"), len: 24 }).unwrap();
        let mut expected = Vec::new();
        for (at, (to, len, table)) in [
            ("10.1.0.0", 16, MAIN),
            ("0.0.0.0", 0, 51820),
            ("fd01::", 64, MAIN),
            ("::", 0, 51820),
            ("10.9.9.9", 32, 300),
        ]
        .into_iter()
        .enumerate()
        {
            let route = Route::by(index, ip(to), len, table);
            rt.add_route(&route).unwrap();
            let family = Family::of(ip(to));
            let word = if family == Family::V4 { "-4" } else { "-6" };
            let before = shown(&format!("-d {word} route show table {table}"));
            assert!(rt.add_route(&route).unwrap_err().is_present());
            let found: Vec<Route> = rt.routes(family, Some(table)).unwrap();
            assert!(
                found.iter().any(|found| (found.to, found.len, found.device) == (ip(to), len, Some(index))),
                "{found:?}"
            );
            rt.delete_route(&route).unwrap();
            shown(&format!("{word} route add {to}/{len} dev one table {table}"));
            assert_eq!(before, shown(&format!("-d {word} route show table {table}")));
            expected.push((at, route));
        }
        for (_, route) in expected {
            rt.delete_route(&route).unwrap();
            assert!(rt.delete_route(&route).unwrap_err().is_absent());
        }
        assert_eq!(rt.routes(Family::V4, Some(51820)).unwrap(), []);
        assert_eq!(rt.routes(Family::V6, Some(4711)).unwrap(), []);

        // One by a gateway, with all that there may be, and what `replace` makes of it.
        let mut route = Route {
            gateway: Some(ip("192.0.2.9")),
            source: Some(ip("192.0.2.1")),
            metric: Some(7),
            mtu: Some(1300),
            ..Route::by(index, ip("10.2.0.0"), 16, MAIN)
        };
        rt.replace_route(&route).unwrap();
        assert!(rt.routes(Family::V4, Some(MAIN)).unwrap().contains(&route));
        route.mtu = Some(1299);
        rt.replace_route(&route).unwrap();
        let line = shown("route show 10.2.0.0/16");
        assert!(
            ["via 192.0.2.9 dev one", "src 192.0.2.1", "metric 7", "mtu 1299"].iter().all(|part| line.contains(part)),
            "{line}"
        );
        let path = rt.path_to(ip("10.2.3.4"), 0, None).unwrap();
        assert_eq!((path.mtu, path.route.device, path.route.gateway), (1299, Some(index), route.gateway));
        assert_eq!(rt.path_to(ip("192.0.2.77"), 5, None).unwrap().mtu, 1500);
        rt.add_address(Address { index, ip: ip("fd00::1"), len: 64 }).unwrap();
        let path = rt.path_to(ip("fd00::2"), 0, None).unwrap();
        assert_eq!((path.mtu, path.route.device, path.route.to), (1500, Some(index), ip("fd00::2")));
        let unreachable = rt.path_to(ip("198.51.100.1"), 0, None).unwrap_err();
        assert_eq!(unreachable.errno(), Some(libc::ENETUNREACH));
    });
}

#[test]
fn many_routes_come_and_go_and_the_first_refused_is_told() {
    apart(|| {
        let (mut rt, index) = with_link();
        let routes: Vec<Route> =
            (0..1000u32).map(|n| Route::by(index, IpAddr::V4((0x0a00_0000 + n).into()), 32, MAIN)).collect();
        rt.add_routes(&routes).unwrap();
        assert_eq!(rt.routes(Family::V4, Some(MAIN)).unwrap().len(), 1000);
        rt.delete_routes(&routes[700..]).unwrap();
        // All of a datagram are refused, and their refusals fit.
        let (at, error) = rt.add_routes(routes[690..].iter().chain(&routes)).unwrap_err();
        assert!(at == 0 && error.is_present(), "{at}: {error}");
        rt.delete_routes(&routes[700..]).unwrap_or(());
        let (at, _) = rt.add_routes(routes.iter().rev()).map_or_else(|told| told, |()| (usize::MAX, unreachable()));
        assert!(at < 1000, "{at}");
        // The socket goes on.
        assert_eq!(rt.link_at(index).unwrap().unwrap().name, "one");
        rt.add_routes(&[]).unwrap();
    });
}

fn unreachable() -> RtError {
    RtError::Io(io::ErrorKind::Other.into())
}

#[test]
fn rules_are_as_ip_makes_and_shows_them() {
    apart(|| {
        let mut rt = Rt::open().unwrap();
        for (family, word) in [(Family::V4, "-4"), (Family::V6, "-6")] {
            let empty = shown(&format!("-d {word} rule show"));
            let kept = rt.rules(family).unwrap();
            let rule = Rule {
                family,
                priority: None,
                invert: true,
                mark: Some(51820),
                table: 51820,
                suppress_prefix_length: None,
                more: false,
            };
            let suppress =
                Rule { invert: false, mark: None, table: MAIN, suppress_prefix_length: Some(0), ..rule.clone() };
            rt.add_rule(&rule).unwrap();
            rt.add_rule(&suppress).unwrap();
            let ours = shown(&format!("-d {word} rule show"));
            let listed = rt.rules(family).unwrap();
            assert!(
                listed.iter().any(|listed| listed.same(&rule)) && listed.iter().any(|listed| listed.same(&suppress))
            );
            rt.delete_rule(&rule).unwrap();
            rt.delete_rule(&suppress).unwrap();
            assert!(rt.delete_rule(&rule).unwrap_err().is_absent());
            assert_eq!((shown(&format!("-d {word} rule show")), rt.rules(family).unwrap()), (empty, kept));

            shown(&format!("{word} rule add not fwmark 51820 table 51820"));
            shown(&format!("{word} rule add table main suppress_prefixlength 0"));
            assert_eq!(shown(&format!("-d {word} rule show")), ours);
            assert_eq!(rt.rules(family).unwrap(), listed);
            // Others' rules are others'.
            shown(&format!("{word} rule add fwmark 0x1/0xff iif lo table 51820"));
            assert!(rt.rules(family).unwrap().iter().any(|rule| rule.more && rule.table == 51820));
        }
    });
}
