//! How packets move: in batches, in order, whole, and in one piece outside.

use std::time::Duration;

use lab::traffic::{Service, UdpPlan, exchange_tcp, exchange_udp, finish_udp, start_udp};
use lab::{End, Engine, Gso, Outer, Process, TunnelSpec, iperf, ping, usage};

use crate::common::{BYTES, LIMIT, check_pings, check_traffic, our_tunnel, spec};
use crate::engines::{both, each_engine, each_engine_and_mixed};

each_engine_and_mixed!(
    tcp_moves_in_super_packets,
    a_udp_super_packet_arrives_as_its_datagrams,
    packets_of_every_size_up_to_the_mtu_cross_without_fragments,
    many_flows_at_once_in_both_directions,
);

each_engine!(
    flows_stay_in_order,
    a_path_smaller_than_the_tunnel_carries_on,
    large_packets_cross_a_large_link,
    memory_stays_small_under_load,
);

/// Far above what any single packet has here.
const SUPER_PACKET: u64 = 8000;

/// An Ethernet frame at the usual MTU.
const FRAME: u64 = 1514;

fn tcp_moves_in_super_packets() {
    const SENT: u64 = 2 * BYTES;
    let [sender, receiver] = both();
    for (gso, outer) in
        [(Gso::Through, Outer::V4), (Gso::Through, Outer::V6), (Gso::Off, Outer::V4), (Gso::Off, Outer::V6)]
    {
        let tunnel = TunnelSpec { gso, outer, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_pings(left, right);
        let _service = Service::start(right.namespace()).unwrap();
        for address in right.inner() {
            let look = || [left.counters(), left.port.counters(), right.counters()].map(Result::unwrap);
            let programs = |end: &End, outcome| end.daemon.programs().unwrap().remove(outcome).unwrap_or_default();
            let count =
                || [(left, "sealed-super"), (left, "left-super"), (right, "opened")].map(|(end, it)| programs(end, it));
            let (before, taken) = (look(), count());
            exchange_tcp(left.namespace(), address, SENT, LIMIT).unwrap();
            let (after, now) = (look(), count());
            let since = |n: usize| after[n].since(before[n]);
            let (into, across, out) = (since(0).mean_sent(), since(1).mean_sent(), since(2).mean_received());
            let [cut, left_whole, opened] = [0, 1, 2].map(|n: usize| now[n] - taken[n]);
            // The stream back brings acknowledgements along, which are small and halve the means at worst.
            let what = format!(
                "{gso:?} {outer:?} {address}: {into} in, {across} across, {out} out; {cut} cut, {left_whole} not, {opened} opened"
            );
            match sender {
                Engine::Userspace => assert!(into > SUPER_PACKET / 2, "{what}"),
                // They come to the program whole, and never to the interface, which would count them.
                Engine::Ebpf => assert!(cut > SENT / 65536 / 2 && left_whole == 0, "{what}"),
            }
            match (gso, sender) {
                (Gso::Through, Engine::Userspace) => assert!(across > SUPER_PACKET / 2, "{what}"),
                // A program sends each datagram by itself.
                _ => assert!(across <= FRAME, "{what}"),
            }
            match receiver {
                // Of what came alone, and that nobody joined before, it joins what it finds waiting.
                Engine::Userspace if sender == Engine::Ebpf && gso == Gso::Through => assert!(out > FRAME, "{what}"),
                Engine::Userspace => assert!(out > SUPER_PACKET / 2, "{what}"),
                // And opens each by itself.
                Engine::Ebpf => assert!(opened > SENT / FRAME, "{what}"),
            }
        }
    }
}

#[test]
fn every_offload_can_be_switched_off() {
    for arguments in [
        vec!["--no-udp-gso"],
        vec!["--no-udp-gro"],
        vec!["--no-tun-offload"],
        vec!["--no-udp-gso", "--no-udp-gro", "--no-tun-offload"],
    ] {
        eprintln!("{arguments:?}");
        let plain_out = arguments.contains(&"--no-udp-gso");
        let plain_in = arguments.contains(&"--no-tun-offload");
        let tunnel = TunnelSpec { arguments, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        check_traffic(left, right);
        let before = (left.counters().unwrap(), left.port.counters().unwrap());
        iperf::tcp(left.namespace(), right.namespace(), right.v4.into(), 1, 1).unwrap();
        let into = left.counters().unwrap().since(before.0).mean_sent();
        let across = left.port.counters().unwrap().since(before.1).mean_sent();
        assert_eq!(across <= FRAME, plain_out, "{across} bytes across the link");
        assert_eq!(into <= FRAME, plain_in, "{into} bytes into the tunnel");
    }
}

#[test]
fn any_number_of_workers_will_do() {
    for workers in ["1", "2", "5"] {
        let arguments = vec!["--workers", workers];
        let tunnel = TunnelSpec { arguments, ..spec() }.build().unwrap();
        check_traffic(&tunnel.left, &tunnel.right);
    }
}

/// Answers each datagram with what it is made of and its length. UDP may lose where more is under way than somebody has room for: so the
/// sender waits for these answers.
const TELL_LENGTHS: &str = r#"
    use Socket;
    socket(my $s, AF_INET6, SOCK_DGRAM, 0) or die "socket: $!";
    bind($s, pack_sockaddr_in6(7008, Socket::inet_pton(AF_INET6, "::"))) or die "bind: $!";
    $| = 1;
    print "ready\n";
    while (defined(my $from = recv($s, my $bytes, 65535, 0))) {
        my $what = $bytes =~ /^(.)\1*$/s ? $1 : "damaged";
        send($s, "$what " . length($bytes), 0, $from);
    }
"#;

/// Sends a hundred super-packets of forty datagrams each, through one UDP socket with UDP_SEGMENT, each when all of the one before have
/// arrived, none of them otherwise than it was cut: 39 of 1000 bytes, and the rest.
const SEND_SEGMENTS: &str = r#"
    use Socket;
    my $inet6 = $ARGV[0] =~ /:/;
    my $family = $inet6 ? AF_INET6 : AF_INET;
    my $to = $inet6 ? pack_sockaddr_in6(7008, Socket::inet_pton(AF_INET6, $ARGV[0]))
                    : pack_sockaddr_in(7008, inet_aton($ARGV[0]));
    socket(my $s, $family, SOCK_DGRAM, 0) or die "socket: $!";
    connect($s, $to) or die "connect: $!";
    setsockopt($s, 17, 103, pack("i", 1000)) or die "UDP_SEGMENT: $!";
    vec(my $readable = "", fileno($s), 1) = 1;
    for my $n (0 .. 99) {
        my $letter = chr(65 + $n % 26);
        defined(send($s, $letter x 39500, 0)) or die "send: $!";
        my %told;
        for my $nth (1 .. 40) {
            select(my $now = $readable, undef, undef, 30) or die "super-packet $n: the answer $nth of 40 is missing";
            defined(recv($s, my $answer, 100, 0)) or die "recv: $!";
            $told{$answer}++;
        }
        $told{"$letter 1000"} == 39 && $told{"$letter 500"} == 1 or die "super-packet $n: " . join ", ", %told;
    }
"#;

fn a_udp_super_packet_arrives_as_its_datagrams() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    check_pings(left, right);
    let mut there = Process::spawn(right.namespace().command("perl").args(["-e", TELL_LENGTHS])).unwrap();
    there.wait_for_output("ready", LIMIT).unwrap();
    for address in right.inner() {
        left.namespace().run("perl", &["-e", SEND_SEGMENTS, &address.to_string()]).unwrap();
    }
    for end in [left, right] {
        let errors = |file, prefix, name| end.namespace().counter(file, prefix, name).unwrap();
        assert_eq!((errors("snmp", "Udp", "InCsumErrors"), errors("snmp6", "", "Udp6InCsumErrors")), (0, 0));
    }
}

fn flows_stay_in_order() {
    // With GRO at the receiver a veth has one queue: the link itself does not reorder, whichever core sends.
    let tunnel = TunnelSpec { gso: Gso::Off, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    // The handshake happens before the flood, which could drown it.
    check_pings(left, right);
    let _there = Service::start(right.namespace()).unwrap();
    let _back = Service::start(left.namespace()).unwrap();
    // Both directions at once and echoes as well, so that the TUN sees each flow from either side and may steer it about.
    let plan = UdpPlan { flows: 8, count: 10_000, size: 400, gap: Duration::from_micros(500), echo: true };
    let one = start_udp(left.namespace(), right.v4.into(), &plan).unwrap();
    let two = start_udp(right.namespace(), left.v6.into(), &plan).unwrap();
    // And something to keep the workers busy meanwhile.
    exchange_tcp(left.namespace(), right.v4.into(), 4 * BYTES, LIMIT).unwrap();
    for process in [one, two] {
        let outcome = finish_udp(process, LIMIT).unwrap();
        let (service, echoes) = (outcome.service, outcome.echoes);
        assert_eq!((service.late, echoes.late), (0, 0), "{outcome:?}");
        assert_eq!((service.corrupt, echoes.corrupt), (0, 0), "{outcome:?}");
        assert!(service.received > outcome.sent / 2, "{outcome:?}");
    }
}

fn packets_of_every_size_up_to_the_mtu_cross_without_fragments() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        // Around the last multiple of 16 below the MTU, 1408, and up to the MTU itself.
        for size in (1405..=1420).chain([28, 29, 100, 576]) {
            for (address, headers) in [(right.inner()[0], 28), (right.inner()[1], 48)] {
                let body = i32::max(size - headers, 0).to_string();
                let options = ["-M", "do", "-s", &body];
                let finished = ping::once(left.namespace(), address, &options).unwrap();
                assert!(finished.status.success(), "{size}: {}", finished.log());
            }
        }
        let _service = Service::start(right.namespace()).unwrap();
        for address in right.inner() {
            exchange_tcp(left.namespace(), address, BYTES, LIMIT).unwrap();
        }
        for end in [left, right] {
            let v4 = end.namespace().counter("snmp", "Ip", "FragCreates");
            let v6 = end.namespace().counter("snmp6", "", "Ip6FragCreates");
            assert_eq!((v4.unwrap(), v6.unwrap()), (0, 0), "{outer:?}");
        }
        // One byte more does not fit, and the sender hears of it.
        let options = ["-M", "do", "-s", "1393"];
        let finished = ping::once(left.namespace(), right.v4.into(), &options).unwrap();
        assert!(!finished.status.success());
    }
}

fn a_path_smaller_than_the_tunnel_carries_on() {
    for outer in [Outer::V4, Outer::V6] {
        let tunnel = TunnelSpec { outer, ..spec() }.build().unwrap();
        let (left, right) = (&tunnel.left, &tunnel.right);
        let _service = Service::start(right.namespace()).unwrap();
        exchange_tcp(left.namespace(), right.v4.into(), BYTES, LIMIT).unwrap();
        for end in [left, right] {
            let interface = &end.port.interface;
            end.namespace().ip(&["link", "set", "dev", interface, "mtu", "1400"]).unwrap();
        }
        for address in right.inner() {
            exchange_tcp(left.namespace(), address, BYTES, LIMIT).unwrap();
        }
    }
}

fn large_packets_cross_a_large_link() {
    let tunnel = TunnelSpec { mtu: 8920, outer: Outer::V6, ..spec() }.build().unwrap();
    let (left, right) = (&tunnel.left, &tunnel.right);
    for end in [left, right] {
        let interface = &end.port.interface;
        end.namespace().ip(&["link", "set", "dev", interface, "mtu", "9000"]).unwrap();
    }
    let options = ["-M", "do", "-s", "8892"];
    let finished = ping::once(left.namespace(), right.v4.into(), &options).unwrap();
    assert!(finished.status.success(), "{}", finished.log());
    check_traffic(left, right);
}

fn memory_stays_small_under_load() {
    /// The budget with two workers, in KiB.
    const BUDGET: u64 = 24 * 1024;
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    iperf::tcp(left.namespace(), right.namespace(), right.v4.into(), 8, 4).unwrap();
    iperf::udp(right.namespace(), left.namespace(), left.v6.into(), 64, None, 2).unwrap();
    for end in [left, right] {
        let memory = usage::memory(end.daemon.process.id()).unwrap();
        let kib = memory.resident;
        let workers = std::thread::available_parallelism().unwrap().get() as u64;
        assert!(kib < BUDGET * workers.max(2) / 2, "{kib} KiB");
    }
}

fn many_flows_at_once_in_both_directions() {
    let tunnel = our_tunnel();
    let (left, right) = (&tunnel.left, &tunnel.right);
    let load = iperf::Load::Tcp { streams: 8 };
    let (a, b) = (left.namespace(), right.namespace());
    let there = iperf::Run::start(a, b, right.v4.into(), load, 4, false).unwrap();
    let back = iperf::Run::start(b, a, left.v6.into(), load, 4, false).unwrap();
    let plan = UdpPlan { flows: 4, count: 500, size: 1300, gap: Duration::from_millis(5), echo: true };
    let _service = Service::start(b).unwrap();
    let outcome = exchange_udp(a, right.v6.into(), &plan, LIMIT).unwrap();
    assert_eq!(outcome.service.corrupt + outcome.echoes.corrupt, 0);
    assert!(outcome.echoes.received > 0, "{outcome:?}");
    for run in [there, back] {
        let run = run.tcp().unwrap();
        assert!(run.gigabits() > 0.01, "{run:?}");
    }
}
