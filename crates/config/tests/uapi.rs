//! The configuration protocol: what is written reads back, what is wrong gets the right number, and no bytes do harm.

#![allow(clippy::unwrap_used)] // a test that cannot set itself up fails

mod common;

use std::io::{self, Read};

use common::{Links, change, device, endpoint, show};
use config::device::{AllowedIpChange, DeviceChange};
use config::stats::{Batches, Stats, Taken, Worker};
use config::uapi::*;
use noise::PublicKey;
use proptest::prelude::*;

/// A stream that yields its bytes in pieces of the given size.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.1.max(1).min(out.len());
        self.0.read(&mut out[..n])
    }
}

fn read(request: &str) -> Result<Option<Request>, RequestError> {
    RequestReader::new(request.as_bytes()).read(&Links)
}

fn read_set(request: &str) -> DeviceChange {
    match read(request) {
        Ok(Some(Request::Set(change))) => change,
        Ok(_) => panic!("not a set"),
        Err(error) => panic!("{error}"),
    }
}

fn refusal(lines: &str) -> (i32, bool) {
    match read(&format!("set=1\n{lines}\n\n")) {
        Ok(_) => panic!("not refused: {lines}"),
        Err(error) => (error.errno().number(), error.ends_connection()),
    }
}

const KEY: &str = "b111111111111111111111111111111111111111111111111111111111111111";

proptest! {
    #[test]
    fn a_change_reads_back(change in change(), piece in 1..100_usize) {
        let written = write_set(&change);
        let mut reader = RequestReader::new(Pieces(&written, piece));
        let Ok(Some(Request::Set(read))) = reader.read(&Links) else { panic!("not read") };
        let again = write_set(&read);
        prop_assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&written));
        prop_assert!(read.private_key == change.private_key);
        prop_assert_eq!(read.peers.len(), change.peers.len());
        prop_assert!(matches!(reader.read(&Links), Ok(None)));
    }

    #[test]
    fn a_device_reads_back(device in device(), piece in 1..100_usize) {
        let mut reply = Vec::new();
        write_device(&mut reply, &device);
        device.peers.iter().for_each(|peer| write_peer(&mut reply, peer));
        reply.extend(reply_to_get(Ok(())).into_bytes());
        let read = ReplyReader::new(Pieces(&reply, piece)).get(&Links).unwrap();
        prop_assert_eq!(show(&read), show(&device));
    }

    #[test]
    fn events_are_read_as_they_were_written_however_they_come(events in events(), piece in 1..100_usize) {
        let mut text = reply_to_get(Ok(())).into_bytes();
        events.iter().for_each(|event| write_event(&mut text, event));
        let mut reader = EventReader::new(Dripping { bytes: &text, piece, dry: false });
        let mut read = Vec::new();
        loop {
            match reader.event() {
                Ok(Some(event)) => read.push(event),
                Ok(None) => (),
                Err(ReplyError::CutOff) => break,
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        prop_assert_eq!(read, events);
    }

    #[test]
    fn a_watch_is_read_as_it_was_written(keys in proptest::collection::vec(any::<[u8; 32]>(), 0..20), piece in 1..100_usize) {
        let keys: Vec<PublicKey> = keys.into_iter().map(PublicKey::from_bytes).collect();
        let text = write_watch(&keys);
        let read = RequestReader::new(Pieces(&text, piece)).read(&Links);
        let Ok(Some(Request::Watch(read))) = read else { return Err(TestCaseError::fail("not a watch")) };
        prop_assert_eq!(read, keys);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut reader = RequestReader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.read(&Links) {}
        let mut reader = EventReader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.event() {}
        let _ = ReplyReader::new(&bytes[..]).get(&Links);
        let _ = ReplyReader::new(&bytes[..]).set();
    }

    #[test]
    fn almost_requests_do_no_harm(lines in proptest::collection::vec(line(), 0..20)) {
        let text = format!("set=1\n{}\n\n", lines.join("\n"));
        if let Ok(Some(Request::Set(change))) = read(&text) {
            let written = write_set(&change);
            let mut again = RequestReader::new(&written[..]);
            prop_assert!(matches!(again.read(&Links), Ok(Some(Request::Set(_)))));
        }
        let _ = ReplyReader::new(text.as_bytes()).get(&Links);
    }
}

fn events() -> impl Strategy<Value = Vec<PeerEvent>> {
    use PeerEventKind::{Abandoned, Answered, Failing};
    let event =
        (prop::sample::select(vec![Failing, Abandoned, Answered]), any::<[u8; 32]>(), prop::option::of(endpoint()));
    let event =
        event.prop_map(|(kind, key, endpoint)| PeerEvent { kind, public_key: PublicKey::from_bytes(key), endpoint });
    proptest::collection::vec(event, 0..8)
}

/// A stream that does not block: after each piece there is nothing for now.
struct Dripping<'a> {
    bytes: &'a [u8],
    piece: usize,
    dry: bool,
}

impl Read for Dripping<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.dry = !self.dry;
        if self.dry {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Pieces(self.bytes, self.piece).read(out).inspect(|&len| self.bytes = &self.bytes[len..])
    }
}

#[test]
fn what_a_watcher_does_not_know_is_passed_over_and_a_refusal_is_one() {
    let text = format!("errno=0\n\nevent=danced\npublic_key={KEY}\n\nsong=waltz\nevent=answered\npublic_key={KEY}\n\n");
    let mut reader = EventReader::new(text.as_bytes());
    let event = reader.event().unwrap().unwrap();
    assert_eq!((event.kind, event.endpoint), (PeerEventKind::Answered, None));
    assert!(matches!(reader.event(), Err(ReplyError::CutOff)));
    for (text, told) in [
        ("errno=16\n\n", "resource busy"),
        ("errno=-71\n\n", "rotocol"),
        ("event\n\n", "without"),
        ("public_key=1\n\n", "key"),
    ] {
        let told_so = EventReader::new(text.as_bytes()).event().unwrap_err().to_string();
        assert!(told_so.contains(told), "{told_so}");
    }
}

#[test]
fn our_own_requests_take_no_lines_but_a_watch_takes_keys() {
    for text in ["get=peers\nx=1\n\n", "wipe=1\nwipe=1\n\n", "watch=1\nlisten_port=1\n\n", "watch=1\npublic_key=1\n\n"]
    {
        let mut reader = RequestReader::new(text.as_bytes());
        let Err(error) = reader.read(&Links) else { panic!("{text}") };
        assert!(!error.ends_connection(), "{text}");
        assert_eq!(error.errno(), Errno::INVALID);
    }
    assert!(matches!(RequestReader::new(write_wipe()).read(&Links), Ok(Some(Request::Wipe))));
}

/// Lines of which many are right and the others nearly so.
fn line() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "private_key",
        "listen_port",
        "fwmark",
        "replace_peers",
        "public_key",
        "remove",
        "update_only",
        "preshared_key",
        "endpoint",
        "persistent_keepalive_interval",
        "replace_allowed_ips",
        "allowed_ip",
        "protocol_version",
        "errno",
        "rx_bytes",
        "last_handshake_time_sec",
        "last_handshake_time_nsec",
        "",
    ]);
    let value = prop_oneof![
        Just(KEY.to_owned()),
        Just("true".to_owned()),
        "[0-9]{0,12}",
        "-?[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,3})?",
        "\\[[0-9a-f:%]{0,12}\\]:[0-9]{0,6}",
        "-?[0-9a-f:]{0,12}/[0-9]{0,4}",
        "\\PC{0,20}",
    ];
    (name, value).prop_map(|(name, value)| format!("{name}={value}"))
}

#[test]
fn everything_that_a_set_can_say() {
    let psk = "c".repeat(64);
    let change = read_set(&format!(
        "set=1\nprivate_key={}\nlisten_port=0\nfwmark=4294967295\nreplace_peers=true\npublic_key={KEY}\npreshared_key={psk}\n\
         protocol_version=1\nendpoint=[fe80::1%eth7]:51820\npersistent_keepalive_interval=65535\nreplace_allowed_ips=true\n\
         allowed_ip=10.1.2.3/8\nallowed_ip=-::/0\npublic_key={}\nupdate_only=true\nremove=true\n\n",
        "0".repeat(64),
        KEY.to_uppercase(),
    ));
    assert!(change.private_key == Some(None));
    assert_eq!((change.listen_port, change.fwmark, change.replace_peers), (Some(0), Some(u32::MAX), true));
    let [peer, gone] = &change.peers[..] else { panic!("{} peers", change.peers.len()) };
    assert_eq!(peer.preshared_key.as_ref().map(|psk| *psk.as_bytes()), Some([0xcc; 32]));
    assert_eq!(peer.endpoint, Some("[fe80::1%7]:51820".parse().unwrap()));
    assert_eq!(peer.persistent_keepalive, Some(65535));
    assert!(peer.replace_allowed_ips && !peer.remove && !peer.update_only);
    let networks: Vec<String> = peer
        .allowed_ips
        .iter()
        .map(|change| match change {
            AllowedIpChange::Add(cidr) => format!("+{}/{}", cidr.addr(), cidr.prefix_len()),
            AllowedIpChange::Remove(cidr) => format!("-{}/{}", cidr.addr(), cidr.prefix_len()),
        })
        .collect();
    assert_eq!(networks, ["+10.0.0.0/8", "-::/0"]);
    assert!(gone.remove && gone.update_only && gone.public_key == peer.public_key);
}

#[test]
fn a_mapped_endpoint_is_an_ipv4_one() {
    let change = read_set(&format!("set=1\npublic_key={KEY}\nendpoint=[::ffff:192.0.2.1]:5\n\n"));
    assert_eq!(change.peers[0].endpoint, Some("192.0.2.1:5".parse().unwrap()));
}

#[test]
fn a_private_key_reads_back_clamped() {
    let change = read_set(&format!("set=1\nprivate_key={}\n\n", "f".repeat(64)));
    let private = change.private_key.flatten().unwrap();
    assert_eq!((private.as_bytes()[0], private.as_bytes()[31]), (0xf8, 0x7f));
}

#[test]
fn wrong_lines_get_the_number_that_tells_what_is_wrong() {
    let proto = (71, false);
    let inval = (22, false);
    assert_eq!(refusal("listen_port"), proto);
    assert_eq!(refusal(" "), proto);
    let device_lines = [
        "listen_port=65536",
        "listen_port=-1",
        "listen_port=+1",
        "listen_port=",
        "listen_port= 1",
        "listen_port=1\r",
        "fwmark=4294967296",
        "fwmark=0x1",
        "replace_peers=false",
        "replace_peers=1",
        "private_key=00",
        "foo=1",
        "=1",
        "allowed_ip=10.0.0.0/8",
        "protocol_version=1",
        "Listen_port=1",
        "public_key=zz",
    ];
    for line in device_lines {
        assert_eq!(refusal(line), inval, "{line}");
    }
    let peer_lines = [
        "listen_port=1",
        "replace_peers=true",
        "private_key=00",
        "protocol_version=2",
        "protocol_version=01",
        "remove=false",
        "preshared_key=",
        "endpoint=",
        "endpoint=1.2.3.4",
        "endpoint=1.2.3.4:",
        "endpoint=1.2.3.4:65536",
        "endpoint=::1:5",
        "endpoint=[::1]",
        "endpoint=[::1]5",
        "endpoint=[1.2.3.4]:5",
        "endpoint=host:5",
        "endpoint=[fe80::1%none]:5",
        "endpoint=[2001:db8::1%eth7]:5",
        "persistent_keepalive_interval=65536",
        "persistent_keepalive_interval=off",
        "allowed_ip=10.0.0.0",
        "allowed_ip=10.0.0.0/33",
        "allowed_ip=10.0.0/8",
        "allowed_ip=::/129",
        "allowed_ip=::/",
        "allowed_ip=+::/0",
        "allowed_ip=::/-1",
        "allowed_ip=--::/0",
        "allowed_ip=010.0.0.0/8",
        "allowed_ip=fe80::1%7/64",
        "allowed_ip=\u{e4}/1",
    ];
    for line in peer_lines {
        assert_eq!(refusal(&format!("public_key={KEY}\n{line}")), inval, "{line}");
    }
}

#[test]
fn a_refused_set_is_skipped_to_its_end_and_the_connection_goes_on() {
    let mut reader = RequestReader::new(&b"set=1\nbad\nlisten_port=7\n\nget=1\nx\n\nget=1\n\nset=1\n\n"[..]);
    assert!(matches!(reader.read(&Links), Err(RequestError::Set(SetError::NotALine))));
    assert!(
        matches!(reader.read(&Links), Err(error @ RequestError::Get) if error.errno() == Errno::INVALID && !error.ends_connection())
    );
    assert!(matches!(reader.read(&Links), Ok(Some(Request::Get))));
    assert!(
        matches!(reader.read(&Links), Ok(Some(Request::Set(change))) if change.peers.is_empty() && change.listen_port.is_none())
    );
    assert!(matches!(reader.read(&Links), Ok(None)));
}

#[test]
fn what_makes_the_next_request_unclear_ends_the_connection() {
    for text in ["set=1\nlisten_port=7\n", "set=1\nlisten_port=7", "set=1", "get=1\n", "hello\n\n", "\n", "set=2\n\n"] {
        let error = read(text).err().unwrap();
        assert!(error.ends_connection() && error.errno() == Errno::PROTOCOL, "{text:?}: {error}");
    }
    let long = format!("set=1\nendpoint={}\n\n", "1".repeat(600));
    assert!(matches!(read(&long), Err(error @ RequestError::LineTooLong) if error.ends_connection()));
}

#[test]
fn a_request_without_end_is_refused() {
    struct Endless(bool);
    impl Read for Endless {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let text: &[u8] = if std::mem::take(&mut self.0) {
                b"set=1\n"
            } else {
                b"fwmark=0000000000000000000000000000000000000000000000000000000000\n"
            };
            (&mut &text[..]).read(out)
        }
    }
    assert!(matches!(RequestReader::new(Endless(true)).read(&Links), Err(RequestError::TooLong)));
}

#[test]
fn many_allowed_ips_on_one_peer_and_many_peers() {
    let mut text = format!("set=1\npublic_key={KEY}\n");
    for net in 0..130_560_u32 {
        text += &format!("allowed_ip={}/32\n", std::net::Ipv4Addr::from(net));
    }
    assert_eq!(read_set(&(text + "\n")).peers[0].allowed_ips.len(), 130_560);
    let mut text = "set=1\n".to_owned();
    for peer in 0..100_000 {
        text += &format!("public_key={peer:064x}\nallowed_ip={}/32\n", std::net::Ipv4Addr::from(peer));
    }
    assert_eq!(read_set(&(text + "\n")).peers.len(), 100_000);
}

#[test]
fn the_sign_of_a_refusal_is_the_one_that_wg_understands() {
    assert_eq!(reply_to_set(Ok(())), "errno=0\n\n");
    assert_eq!(reply_to_get(Ok(())), "errno=0\n\n");
    assert_eq!(reply_to_set(Err(Errno::ADDRESS_IN_USE)), "errno=-98\n\n");
    assert_eq!(reply_to_get(Err(Errno::IO)), "errno=5\n\n");
    for text in ["errno=98\n\n", "errno=-98\n\n"] {
        assert!(matches!(ReplyReader::new(text.as_bytes()).set(), Err(ReplyError::Refused(Errno::ADDRESS_IN_USE))));
        assert!(matches!(
            ReplyReader::new(text.as_bytes()).get(&Links),
            Err(ReplyError::Refused(Errno::ADDRESS_IN_USE))
        ));
    }
    assert_eq!(Errno::ADDRESS_IN_USE.to_string(), "Address already in use");
    assert_eq!(Errno::new(i32::MIN).map(Errno::number), Some(i32::MAX));
}

#[test]
fn a_reply_that_is_none_is_an_error() {
    let bad = [
        "",
        "errno=0\n",
        "\n",
        "listen_port=1\n\n",
        "errno=x\n\n",
        "errno=--1\n\n",
        "errno=+1\n\n",
        "errno\n\n",
        "listen_port=x\nerrno=0\n\n",
        "private_key=1\nerrno=0\n\n",
        "public_key=1\nerrno=0\n\n",
    ];
    for text in bad {
        assert!(ReplyReader::new(text.as_bytes()).get(&Links).is_err(), "{text:?}");
    }
    let unknown = format!("shiny=new\nerrno=0\npublic_key={KEY}\nshiny=new\n\n");
    assert_eq!(ReplyReader::new(unknown.as_bytes()).get(&Links).unwrap().peers.len(), 1);
}

#[test]
fn a_reply_tells_what_wireguard_go_tells() {
    // As wireguard-go of 2022 wrote it.
    let text = "private_key=a8aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa6a\nlisten_port=52010\n\
        public_key=b111111111111111111111111111111111111111111111111111111111111111\n\
        preshared_key=0000000000000000000000000000000000000000000000000000000000000000\nprotocol_version=1\n\
        endpoint=[fe80::1%eth7]:51820\nlast_handshake_time_sec=12\nlast_handshake_time_nsec=5\ntx_bytes=1\nrx_bytes=2\n\
        persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=::102:304/128\nallowed_ip=::/0\nerrno=0\n\n";
    let device = ReplyReader::new(text.as_bytes()).get(&Links).unwrap();
    let mut written = Vec::new();
    write_device(&mut written, &device);
    write_peer(&mut written, &device.peers[0]);
    written.extend(reply_to_get(Ok(())).into_bytes());
    // We spell the zone as a number, and the IPv4-compatible address as the C library does.
    let expected = text.replace("%eth7", "%7").replace("::102:304/", "::1.2.3.4/");
    assert_eq!(String::from_utf8(written).unwrap(), expected);
}

#[test]
fn a_handshake_at_a_full_second_is_not_told_as_never() {
    let mut device = config::device::Device::default();
    let mut peer = config::device::Peer::new(noise::PublicKey::from_bytes([1; 32]));
    peer.last_handshake = Some(std::time::Duration::from_secs(1_700_000_000));
    device.peers.push(peer);
    let mut out = Vec::new();
    write_peer(&mut out, &device.peers[0]);
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("last_handshake_time_sec=1700000000\nlast_handshake_time_nsec=1\n"), "{text}");
}

#[test]
fn drops_are_asked_for_and_told() {
    let mut reader = RequestReader::new(&b"get=drops\n\nget=drops\nx\n\nget=drop\n\n"[..]);
    assert!(matches!(reader.read(&Links), Ok(Some(Request::Drops))));
    assert!(matches!(reader.read(&Links), Err(RequestError::Get)));
    assert!(matches!(reader.read(&Links), Err(RequestError::UnknownOperation)));
    let drops = [("no-route", 0), ("replayed", u64::MAX)];
    let mut text = Vec::new();
    write_drops(&mut text, &drops);
    assert_eq!(text, b"drop_no-route=0\ndrop_replayed=18446744073709551615\n");
    text.extend(reply_to_get(Ok(())).bytes());
    let read = ReplyReader::new(&text[..]).drops().unwrap();
    assert!(read.iter().map(|(reason, count)| (reason.as_str(), *count)).eq(drops));
    for bad in ["drop_x=-1\nerrno=0\n\n", "drop_x=1\n", "errno=22\n\n"] {
        assert!(ReplyReader::new(bad.as_bytes()).drops().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn stats_are_read_as_they_are_told(
        counts in proptest::collection::vec(any::<u64>(), 5 + 2 * 23),
        workers in 0_usize..3,
    ) {
        let time = |n: u64| std::time::Duration::from_nanos(n);
        let batches = |it: &[u64]| Batches { packets: it[0], bytes: it[1], sizes: it[2..10].try_into().unwrap() };
        let worker = |it: &[u64]| Worker {
            busy: time(it[0]),
            wakeups: it[1],
            helped: it[2],
            sent: batches(&it[3..]),
            received: batches(&it[13..]),
        };
        let stats = Stats {
            version: "1.2.3".to_owned(),
            process: counts[0] as u32,
            uptime: time(counts[1]),
            drops: vec![("no-route".to_owned(), counts[2]), ("replayed".to_owned(), counts[3])],
            programs: vec![("left-index".to_owned(), counts[3])],
            handshakes: vec![("cookies_sent".to_owned(), counts[4])],
            taken: (workers > 0).then_some(Taken { sent: counts[5], received: counts[6] }),
            workers: counts[5..].chunks(23).map(worker).take(workers).collect(),
        };
        let mut text = Vec::new();
        write_stats(&mut text, &stats);
        text.extend(reply_to_get(Ok(())).bytes());
        prop_assert_eq!(ReplyReader::new(&text[..]).stats().unwrap(), stats);
        prop_assert!(text.split(|b| *b == b'\n').all(|line| line.len() < 512 && line.iter().filter(|b| **b == b'=').count() <= 1));
    }

    #[test]
    fn stats_of_any_bytes_are_read_or_refused(bytes: Vec<u8>, lines in "((worker|tx_batches|drop_x|busy_nanos)=[0-9,]{0,20}\n){0,9}errno=0\n\n") {
        let _ = ReplyReader::new(&bytes[..]).stats();
        if let Ok(stats) = ReplyReader::new(lines.as_bytes()).stats() {
            prop_assert_eq!(stats.workers.len(), lines.matches("worker=").count());
        }
    }
}

#[test]
fn stats_are_asked_for_and_nonsense_is_refused() {
    let mut reader = RequestReader::new(&b"get=stats\n\nget=stats\nx\n\n"[..]);
    assert!(matches!(reader.read(&Links), Ok(Some(Request::Stats))));
    assert!(matches!(reader.read(&Links), Err(RequestError::Get)));
    for bad in [
        "worker=1\n",
        "worker=0\nworker=0\n",
        "worker=0\nbusy_nanos=-1\n",
        "worker=0\ntx_batches=1,2,3,4,5,6,7\n",
        "worker=0\nrx_batches=1,2,3,4,5,6,7,8,9\n",
        "handshake_x=y\n",
        "uptime_nanos=\n",
    ] {
        assert!(ReplyReader::new(format!("{bad}errno=0\n\n").as_bytes()).stats().is_err(), "{bad}");
    }
    // What a later version tells beyond that is passed over.
    let later = "colour=red\nworker=0\nmood=5\ntx_mood=7\nwakeups=3\nerrno=0\n\n";
    assert_eq!(ReplyReader::new(later.as_bytes()).stats().unwrap().workers[0].wakeups, 3);
}

#[test]
fn who_asks_for_peers_gets_no_secrets() {
    let mut reader = RequestReader::new(&b"get=peers\n\nget=peers\nx\n\n"[..]);
    assert!(matches!(reader.read(&Links), Ok(Some(Request::Peers))));
    assert!(matches!(reader.read(&Links), Err(RequestError::Get)));
    let mut peer = config::device::Peer::new(noise::PublicKey::from_bytes([1; 32]));
    peer.preshared_key = Some(Box::new(noise::PresharedKey::from_bytes([7; 32])));
    peer.reception = Some(noise::Reception { arrived: 90, sent: 100 });
    let public = noise::PublicKey::from_bytes([2; 32]);
    let device = config::device::Device { public_key: Some(public), ..config::device::Device::default() };
    let mut text = Vec::new();
    write_device(&mut text, &device);
    write_peer_openly(&mut text, &peer);
    let told = String::from_utf8(text.clone()).unwrap();
    assert!(
        told.contains(&"02".repeat(32)) && !told.contains(&"07".repeat(32)) && !told.contains("preshared"),
        "{told}"
    );
    text.extend(reply_to_get(Ok(())).bytes());
    let read = ReplyReader::new(&text[..]).get(&Links).unwrap();
    assert_eq!((read.public_key(), read.peers[0].reception), (Some(public), peer.reception));
    assert!(read.private_key.is_none() && read.peers[0].preshared_key.is_none());
}
