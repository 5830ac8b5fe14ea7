//! The rules of a tunnel: each is written so that it reads the same, and what is wrong is told with its line.
#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;
use std::time::Duration;

use config::policy::{MAX_RULES, Rule, RuleCount, parse, parse_rule};
use config::uapi::{ReplyReader, Request, RequestReader, reply_to_get, write_policy, write_set_policy};
use inet::Cidr;
use inet::policy::{Action, Direction, Limit, Matching, Ports, Unit, has_ports};
use noise::PublicKey;
use proptest::{option, prelude::*};

const KEY: &str = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";

fn action() -> impl Strategy<Value = Action> {
    let bits = prop_oneof![1..1000u64, (1..1000u64).prop_map(|n| n * 1_000_000), 1..=1_000_000_000_000u64];
    let limit = (bits, any::<bool>(), 1..=10_000u64).prop_map(|(number, bytes, millis)| {
        let (number, unit) = if bytes { (number.div_ceil(8), Unit::Bytes) } else { (number, Unit::Packets) };
        Limit { per_second: NonZeroU64::new(number).unwrap(), unit, burst: Duration::from_millis(millis) }
    });
    prop_oneof![Just(Action::Pass), Just(Action::Drop), limit.prop_map(Action::Limit)]
}

fn prefix(v4: bool) -> impl Strategy<Value = Cidr> {
    let v4_or_v6 = (any::<u128>(), 0..=if v4 { 32u8 } else { 128 });
    v4_or_v6.prop_map(move |(bits, len)| {
        let address = if v4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() };
        Cidr::new(address, len).unwrap()
    })
}

fn ports() -> impl Strategy<Value = Ports> {
    any::<(u16, u16)>().prop_map(|(a, b)| Ports { first: a.min(b), last: a.max(b) })
}

fn rule() -> impl Strategy<Value = Rule> {
    let protocol = option::of(prop_oneof![Just(6u8), Just(17), Just(1), any::<u8>()]);
    let direction = option::of(prop_oneof![Just(Direction::In), Just(Direction::Out)]);
    let prefixes = any::<bool>().prop_flat_map(|v4| (option::of(prefix(v4)), option::of(prefix(v4))));
    let peer = option::of(any::<[u8; 32]>().prop_map(PublicKey::from_bytes));
    let rest = (peer, direction, protocol, prefixes, option::of(ports()), option::of(ports()));
    (action(), rest).prop_map(|(action, (peer, direction, protocol, (source, destination), sports, dports))| {
        let ported = protocol.is_some_and(has_ports);
        let (source_ports, destination_ports) = (sports.filter(|_| ported), dports.filter(|_| ported));
        let matching = Matching { direction, protocol, source, destination, source_ports, destination_ports };
        Rule { peer, matching, action }
    })
}

proptest! {
    #[test]
    fn a_rule_reads_back(rule in rule()) {
        let text = rule.to_string();
        prop_assert_eq!(parse_rule(text.as_bytes()), Ok(rule), "{}", text);
        prop_assert!(text.len() < 400, "a line of the control socket has 512 bytes: {}", text);
    }

    #[test]
    fn rules_cross_the_control_socket(rules in proptest::collection::vec((rule(), any::<[u64; 3]>()), 0..=MAX_RULES)) {
        let (alone, counted): (Vec<_>, Vec<_>) = rules
            .into_iter()
            .map(|(rule, [packets, bytes, dropped])| (rule.clone(), (rule, RuleCount { packets, bytes, dropped })))
            .unzip();
        let request = write_set_policy(&alone);
        let read = RequestReader::new(&request[..]).read(&config::address::NumericZones);
        prop_assert!(matches!(read, Ok(Some(Request::SetPolicy(rules))) if rules == alone));
        let mut reply = Vec::new();
        write_policy(&mut reply, &counted);
        reply.extend(reply_to_get(Ok(())).bytes());
        prop_assert_eq!(ReplyReader::new(&reply[..]).policy().unwrap(), counted);
    }

    #[test]
    fn no_text_does_harm(text in any::<Vec<u8>>(), words in "((pass|drop|limit|in|out|[a-z]{1,5}=|1mbit|/|-|[0-9.:]{1,6}|#)[ \n]?){0,40}") {
        for text in [&text[..], words.as_bytes()] {
            match parse(text) {
                Ok(rules) => {
                    let again: Vec<u8> = rules.iter().flat_map(|rule| format!("{rule}\n").into_bytes()).collect();
                    prop_assert_eq!(parse(&again), Ok(rules));
                }
                Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control), "{}", error),
            }
        }
    }
}

#[test]
fn rules_are_read_as_they_are_meant() {
    let text = format!(
        "# mail\n\n pass\tout peer={KEY} proto=tcp dport=25 # the relay\ndrop proto=tcp dport=20-25 dst=2001:db8::1\nlimit 1mbit in proto=icmp\r\n\
         limit 500pps burst=20ms src=198.51.100.7/24 proto=17 sport=53\ndrop"
    );
    let rules = parse(text.as_bytes()).unwrap();
    let written: Vec<String> = rules.iter().map(Rule::to_string).collect();
    let expected = [
        &format!("pass out peer={KEY} proto=tcp dport=25"),
        "drop proto=tcp dst=2001:db8::1/128 dport=20-25",
        "limit 1mbit in proto=icmp",
        "limit 500pps burst=20ms proto=udp src=198.51.100.0/24 sport=53",
        "drop",
    ];
    assert_eq!(written, expected);
    let mbit = Limit { per_second: NonZeroU64::new(125_000).unwrap(), unit: Unit::Bytes, burst: Limit::BURST };
    assert_eq!(rules[2].action, Action::Limit(mbit));
    assert_eq!(parse(b"\n# nothing\n"), Ok(Vec::new()));
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_what_would_be_right() {
    let of = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
    for (text, line, wrong, right) in [
        ("allow out", 1, "'allow'", "expected pass, drop or limit RATE"),
        ("\n#x\nlimit", 3, "limit has no rate", "such as 1mbit or 500pps"),
        ("limit in", 1, "rate 'in'", "1mbit or 500pps"),
        ("limit 0mbit", 1, "rate '0mbit'", "expected"),
        ("limit 1MB", 1, "'1MB'", "expected"),
        ("limit 1001gbit", 1, "'1001gbit'", "up to 1000"),
        ("drop outwards", 1, "'outwards'", "expected in, out, peer="),
        ("drop port=25", 1, "'port=25'", "dport="),
        ("drop in out", 1, "direction is said twice", "once"),
        ("drop peer=abc", 1, "peer", "44 characters of base64"),
        ("drop proto=smtp", 1, "'smtp'", "tcp, udp"),
        ("drop proto=256", 1, "'256'", "0 to 255"),
        ("drop src=10.0.0.0/33", 1, "'10.0.0.0/33'", "192.0.2.0/24"),
        ("drop dst=host", 1, "'host'", "192.0.2.0/24"),
        ("drop proto=tcp dport=9-5", 1, "'9-5'", "1024-65535"),
        ("drop proto=tcp dport=65536", 1, "'65536'", "0 to 65535"),
        ("pass\ndrop dport=25", 2, "sport and dport", "proto=tcp"),
        ("drop proto=icmp dport=25", 1, "sport and dport", "proto=tcp"),
        ("drop burst=10ms", 1, "burst", "limit RATE"),
        ("limit 1pps burst=0ms", 1, "'0ms'", "1ms"),
        ("drop src=10.0.0.1 dst=::1", 1, "two address families", "both"),
        (&"drop\n".repeat(MAX_RULES + 1), MAX_RULES + 1, "more than 64", "fewer"),
    ] {
        let told = of(text);
        assert!(told.starts_with(&format!("{line}: ")), "{told}");
        assert!(told.contains(wrong) && told.contains(right), "{told}");
        assert!(!told.contains('\n'));
    }
    assert!(parse("drop\n".repeat(MAX_RULES).as_bytes()).is_ok());
    assert!(!of("drop peer=aSecretThatWasPastedHere").contains("aSecret"), "it may be a secret with a typing error");
}
