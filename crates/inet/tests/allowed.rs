//! Allowed IPs behave as the kernel's, compared with a list that is searched from end to end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use inet::Cidr;
use inet::allowed::{AllowedIps, Snapshot};
use proptest::prelude::*;

fn cidr(text: &str) -> Cidr {
    let (addr, len) = text.split_once('/').unwrap();
    Cidr::new(addr.parse().unwrap(), len.parse().unwrap()).unwrap()
}

/// A table of prefixes whose values are their owners.
struct Table(AllowedIps<char, char>);

impl Table {
    fn of(entries: &[(&str, char)]) -> Self {
        let mut table = Self(AllowedIps::new());
        for (prefix, owner) in entries {
            table.0.insert(cidr(prefix), *owner, owner);
        }
        table
    }

    fn find(&self, addr: &str) -> Option<char> {
        self.0.snapshot().lookup(addr.parse().unwrap()).copied()
    }

    fn list(&self, owner: char) -> Vec<String> {
        self.0.of(owner).map(|prefix| prefix.to_string()).collect()
    }
}

#[test]
fn the_longest_prefix_wins() {
    let table = Table::of(&[
        ("10.0.0.0/8", 'a'),
        ("10.1.0.0/16", 'b'),
        ("10.1.2.0/24", 'c'),
        ("10.1.2.3/32", 'd'),
        ("10.1.2.128/25", 'e'),
        ("172.16.0.0/12", 'f'),
        ("fd00::/8", 'g'),
        ("fd12:3456::/32", 'h'),
        ("fd12:3456::1/128", 'i'),
    ]);
    for (addr, owner) in [
        ("10.200.0.1", Some('a')),
        ("10.1.200.1", Some('b')),
        ("10.1.2.4", Some('c')),
        ("10.1.2.3", Some('d')),
        ("10.1.2.127", Some('c')),
        ("10.1.2.128", Some('e')),
        ("10.1.2.255", Some('e')),
        ("10.1.3.0", Some('b')),
        ("11.0.0.0", None),
        ("9.255.255.255", None),
        ("172.15.255.255", None),
        ("172.31.255.255", Some('f')),
        ("172.32.0.0", None),
        ("fd00::1", Some('g')),
        ("fd12:3456::1", Some('i')),
        ("fd12:3456::2", Some('h')),
        ("fd12:3457::1", Some('g')),
        ("fe80::1", None),
        ("::ffff:10.1.2.3", None),
    ] {
        assert_eq!(table.find(addr), owner, "{addr}");
    }
}

#[test]
fn a_default_route_takes_the_rest_of_its_family_only() {
    let table = Table::of(&[("0.0.0.0/0", 'a'), ("64.0.0.0/2", 'b')]);
    assert_eq!(table.find("1.1.1.1"), Some('a'));
    assert_eq!(table.find("127.255.255.255"), Some('b'));
    assert_eq!(table.find("128.0.0.0"), Some('a'));
    assert_eq!(table.find("255.255.255.255"), Some('a'));
    assert_eq!(table.find("::"), None);
    let table = Table::of(&[("::/0", 'a')]);
    assert_eq!(table.find("ffff::"), Some('a'));
    assert_eq!(table.find("0.0.0.0"), None);
}

#[test]
fn two_halves_make_a_whole() {
    let table = Table::of(&[("0.0.0.0/1", 'a'), ("128.0.0.0/1", 'b'), ("::/1", 'c'), ("8000::/1", 'd')]);
    for (addr, owner) in [("0.0.0.0", 'a'), ("127.9.9.9", 'a'), ("128.0.0.0", 'b'), ("7fff::", 'c'), ("8000::", 'd')] {
        assert_eq!(table.find(addr), Some(owner));
    }
}

#[test]
fn a_prefix_moves_to_who_took_it_last() {
    let mut table = Table::of(&[("10.0.0.0/8", 'a')]);
    assert_eq!(table.0.insert(cidr("10.0.0.0/8"), 'b', &'b'), Some('a'));
    assert_eq!(table.find("10.1.1.1"), Some('b'));
    assert!(table.list('a').is_empty());
    assert_eq!(table.list('b'), ["10.0.0.0/8"]);
    assert_eq!(table.0.insert(cidr("10.0.0.0/8"), 'b', &'c'), Some('b'));
    assert_eq!(table.find("10.1.1.1"), Some('c'), "the value is the new one");
    assert_eq!(table.0.insert(cidr("10.0.0.0/9"), 'a', &'a'), None, "another length is another prefix");
    assert_eq!(table.0.len(), 2);
}

#[test]
fn prefixes_are_listed_in_the_order_in_which_they_were_taken() {
    let mut table = Table::of(&[
        ("10.3.0.0/16", 'a'),
        ("fd00::/8", 'a'),
        ("10.1.0.0/16", 'a'),
        ("10.9.0.0/16", 'b'),
        ("::/0", 'a'),
    ]);
    assert_eq!(table.list('a'), ["10.3.0.0/16", "fd00::/8", "10.1.0.0/16", "::/0"]);
    table.0.insert(cidr("fd00::/8"), 'a', &'a');
    assert_eq!(table.list('a'), ["10.3.0.0/16", "10.1.0.0/16", "::/0", "fd00::/8"]);
    table.0.insert(cidr("10.9.0.0/16"), 'a', &'a');
    assert_eq!(table.list('a'), ["10.3.0.0/16", "10.1.0.0/16", "::/0", "fd00::/8", "10.9.0.0/16"]);
    assert!(table.list('b').is_empty());
}

#[test]
fn only_its_owner_can_lose_a_prefix() {
    let mut table = Table::of(&[("192.168.4.0/24", 'a'), ("192.168.4.4/32", 'b'), ("2607:5300::/32", 'a')]);
    assert!(!table.0.remove(cidr("192.168.4.4/32"), 'a'));
    assert!(!table.0.remove(cidr("192.168.4.0/25"), 'a'), "a prefix that is not there");
    assert!(!table.0.remove(cidr("192.168.0.0/16"), 'a'));
    assert!(!table.0.remove(cidr("2607:5300::/32"), 'b'));
    assert_eq!((table.find("192.168.4.4"), table.find("2607:5300::1")), (Some('b'), Some('a')));

    assert!(table.0.remove(cidr("192.168.4.4/32"), 'b'));
    assert_eq!(table.find("192.168.4.4"), Some('a'), "what lies above shows again");
    assert!(!table.0.remove(cidr("192.168.4.4/32"), 'b'), "only once");
    assert!(table.0.remove(cidr("192.168.4.0/24"), 'a'));
    assert!(table.0.remove(cidr("2607:5300::/32"), 'a'));
    assert_eq!((table.find("192.168.4.4"), table.find("2607:5300::1")), (None, None));
    assert!(table.0.is_empty());
}

#[test]
fn an_owner_loses_all_and_the_others_nothing() {
    let mut table = Table::of(&[
        ("1.0.0.0/32", 'a'),
        ("64.0.0.0/32", 'a'),
        ("128.0.0.0/32", 'a'),
        ("192.0.0.0/32", 'a'),
        ("255.0.0.0/32", 'a'),
        ("::1/128", 'a'),
        ("192.0.0.0/8", 'b'),
    ]);
    assert_eq!(table.0.remove_owner('a'), 6);
    assert_eq!(table.0.remove_owner('a'), 0);
    for addr in ["1.0.0.0", "64.0.0.0", "128.0.0.0", "255.0.0.0", "::1"] {
        assert_eq!(table.find(addr), None);
    }
    assert_eq!(table.find("192.0.0.0"), Some('b'));
    assert_eq!(table.0.len(), 1);
}

#[test]
fn the_deepest_trie_there_is() {
    let mut table = AllowedIps::new();
    let addr = Ipv6Addr::from_bits(u128::MAX);
    for len in 0..=128 {
        table.insert(Cidr::new(addr.into(), len).unwrap(), 'a', &len);
    }
    let snapshot = table.snapshot();
    for len in 0..128 {
        // The first bit that differs is the one at `len`.
        let other = Ipv6Addr::from_bits(u128::MAX ^ (1 << (127 - len)));
        assert_eq!(snapshot.lookup(other.into()), Some(&(len as u8)));
    }
    assert_eq!(snapshot.lookup(addr.into()), Some(&128));
    assert_eq!(table.of('a').count(), 129);
    assert_eq!(table.remove_owner('a'), 129);
    assert_eq!(table.snapshot().lookup(addr.into()), None);
    assert_eq!(snapshot.lookup(addr.into()), Some(&128));
}

#[test]
fn as_many_prefixes_as_anybody_asks_for() {
    let mut table = AllowedIps::new();
    let host = |i: u32| Cidr::host(Ipv4Addr::from_bits(0x0a00_0000 + i).into());
    for i in 0..130_560 {
        table.insert(host(i), 'a', &i);
    }
    let snapshot = table.snapshot();
    assert!((0..130_560).all(|i| snapshot.lookup(host(i).addr()) == Some(&i)));
    assert!(table.of('a').eq((0..130_560).map(host)));
    assert_eq!(table.remove_owner('a'), 130_560);
    assert!(table.is_empty());
}

#[test]
fn snapshots_travel_between_threads() {
    fn travels<T: Clone + Send + Sync + 'static>(_: &T) {}
    travels(&AllowedIps::<u32, u32>::new().snapshot());
    assert_eq!(Snapshot::<u32>::empty().lookup(IpAddr::V4(Ipv4Addr::LOCALHOST)), None);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Cidr, u8),
    Remove(Cidr, u8),
    RemoveOwner(u8),
    Snapshot,
}

/// Few addresses, so that prefixes meet, at both ends of both families.
fn any_addr() -> impl Strategy<Value = IpAddr> {
    (0u8..4, any::<u8>()).prop_map(|(kind, low)| match kind {
        0 => Ipv4Addr::from_bits(0x0a00_0000 | u32::from(low & 0x1f)).into(),
        1 => Ipv4Addr::from_bits(u32::from(low) << 24).into(),
        2 => Ipv6Addr::from_bits(0xfd << 120 | u128::from(low & 0x1f)).into(),
        _ => Ipv6Addr::from_bits(u128::from(low) << 120).into(),
    })
}

fn any_prefix() -> impl Strategy<Value = Cidr> {
    (any_addr(), any::<bool>(), 0u8..10).prop_map(|(addr, short, len)| {
        let bits = if addr.is_ipv4() { 32 } else { 128 };
        Cidr::new(addr, if short { len } else { bits - len }).unwrap()
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (any_prefix(), 0u8..4).prop_map(|(prefix, owner)| Step::Insert(prefix, owner)),
        6 => (any_prefix(), 0u8..4).prop_map(|(prefix, owner)| Step::Remove(prefix, owner)),
        1 => (0u8..4).prop_map(Step::RemoveOwner),
        2 => Just(Step::Snapshot),
    ]
}

/// Prefix, owner, value; in the order in which they were taken.
type Naive = Vec<(Cidr, u8, u32)>;

fn naive_lookup(table: &Naive, addr: IpAddr) -> Option<u32> {
    table
        .iter()
        .filter(|(prefix, ..)| prefix.contains(addr))
        .max_by_key(|(prefix, ..)| prefix.prefix_len())
        .map(|e| e.2)
}

proptest! {
    #[test]
    fn agrees_with_a_list(
        steps in prop::collection::vec(any_step(), 0..80),
        queries in prop::collection::vec(any_addr(), 40),
    ) {
        let mut table = AllowedIps::new();
        let mut naive: Naive = Vec::new();
        let mut snapshots = Vec::new();
        for (step, value) in steps.into_iter().zip(0u32..) {
            match step {
                Step::Insert(prefix, owner) => {
                    let former = naive.iter().position(|entry| entry.0 == prefix).map(|at| naive.remove(at).1);
                    naive.push((prefix, owner, value));
                    prop_assert_eq!(table.insert(prefix, owner, &value), former);
                }
                Step::Remove(prefix, owner) => {
                    let at = naive.iter().position(|entry| entry.0 == prefix && entry.1 == owner);
                    prop_assert_eq!(table.remove(prefix, owner), at.is_some());
                    at.map(|at| naive.remove(at));
                }
                Step::RemoveOwner(owner) => {
                    let before = naive.len();
                    naive.retain(|entry| entry.1 != owner);
                    prop_assert_eq!(table.remove_owner(owner), before - naive.len());
                }
                Step::Snapshot => snapshots.push((table.snapshot(), naive.clone())),
            }
            prop_assert_eq!(table.len(), naive.len());
        }
        snapshots.push((table.snapshot(), naive.clone()));
        // Each snapshot still answers as the table did when it was taken.
        for (snapshot, naive) in &snapshots {
            let all = naive.iter().map(|entry| entry.0.addr()).chain(queries.iter().copied());
            for addr in all {
                prop_assert_eq!(snapshot.lookup(addr).copied(), naive_lookup(naive, addr), "{}", addr);
            }
        }
        for owner in 0..4 {
            let expected = naive.iter().filter(|entry| entry.1 == owner).map(|entry| entry.0);
            prop_assert!(table.of(owner).eq(expected));
        }
    }
}

/// Random prefixes of every length, each with neighbours that differ in a few bits, as the kernel's self-test makes them: lookups
/// agree with a list, also after some were taken over, some removed, and some owners with all they had.
#[test]
fn random_prefixes_and_their_neighbours_agree_with_a_list() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut table = AllowedIps::new();
    let mut naive: Naive = Vec::new();
    let mut addresses = Vec::new();
    for v6 in [false, true] {
        let bits = if v6 { 128 } else { 32 };
        let address = |value: u128| match v6 {
            true => IpAddr::from(Ipv6Addr::from_bits(value)),
            false => IpAddr::from(Ipv4Addr::from_bits(value as u32)),
        };
        for _ in 0..200 {
            let value = u128::from(random()) << 64 | u128::from(random());
            let len = 1 + (random() % bits) as u8;
            for neighbour in 0..3 {
                // The neighbours differ from the first in bits behind a random place.
                let mask = if neighbour == 0 {
                    0
                } else {
                    (u128::from(random()) << 64 | u128::from(random())) >> (random() % 128)
                };
                let len = if neighbour == 0 { len } else { 1 + (random() % bits) as u8 };
                let (address, owner) = (address(value ^ mask), (random() % 20) as u8);
                let prefix = Cidr::new(address, len).unwrap();
                let number = random() as u32;
                let former = naive.iter().position(|entry| entry.0 == prefix).map(|at| naive.remove(at).1);
                naive.push((prefix, owner, number));
                assert_eq!(table.insert(prefix, owner, &number), former);
                addresses.push(address);
            }
        }
    }
    for round in 0..4u8 {
        let snapshot = table.snapshot();
        for base in &addresses {
            for bits in [0, random() % 256, random()] {
                let address = match base {
                    IpAddr::V4(address) => IpAddr::from(Ipv4Addr::from_bits(address.to_bits() ^ bits as u32)),
                    IpAddr::V6(address) => {
                        IpAddr::from(Ipv6Addr::from_bits(address.to_bits() ^ u128::from(bits) << (bits % 64)))
                    }
                };
                assert_eq!(snapshot.lookup(address).copied(), naive_lookup(&naive, address), "{address}");
            }
        }
        for _ in 0..naive.len() / 4 {
            let (prefix, owner, _) = naive.remove(random() as usize % naive.len());
            assert!(!table.remove(prefix, owner + 100), "it is somebody else's");
            assert!(table.remove(prefix, owner));
        }
        let before = naive.len();
        naive.retain(|entry| entry.1 != round);
        assert_eq!(table.remove_owner(round), before - naive.len());
        assert_eq!(table.len(), naive.len());
    }
    for owner in 0..20 {
        table.remove_owner(owner);
    }
    assert!(table.is_empty());
    assert!(addresses.iter().all(|address| table.snapshot().lookup(*address).is_none()));
}
