//! A run that nobody measured, with something of every experiment: for how a report looks, never for what it says.

use std::time::Duration;

use evaluation::{Distribution, Growth, GuestKernel, Machine, Record, Run, System};

/// Numbers that look drawn, the same every time: 0 to 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        // Knuth's multiplier for 64 bits.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn around(&mut self, value: f64) -> f64 {
        value * (0.96 + 0.08 * self.next())
    }
}

/// Slug, protocol, carrier, bits per second of one stream, and microseconds there and back.
const SYSTEMS: [(&str, &str, &str, f64, f64); 11] = [
    ("wireloom", "WireGuard", "userspace", 9e9, 85.0),
    ("wireloom-ebpf", "WireGuard", "eBPF", 6e9, 20.0),
    ("wireloom-aes-256-gcm-helping-workers", "WireGuard", "userspace", 1.1e10, 88.0),
    ("kernel-wireguard", "WireGuard", "kernel module", 5e9, 40.0),
    ("wireguard-go", "WireGuard", "userspace", 4e9, 120.0),
    ("boringtun", "WireGuard", "userspace", 1.2e9, 95.0),
    ("gotatun", "WireGuard", "userspace", 1.25e9, 97.0),
    ("openvpn", "OpenVPN", "userspace", 6e8, 140.0),
    ("openvpn-dco", "OpenVPN", "kernel module", 3e9, 60.0),
    ("strongswan-xfrm", "IPsec", "built into the kernel", 4.5e9, 45.0),
    ("no-tunnel", "none", "none", 4.2e10, 8.0),
];

/// With so many rounds.
pub fn made_up(rounds: u32) -> Run {
    let machine = Machine {
        cpu: "Made-up processor".to_owned(),
        processors: 8,
        features: vec!["avx2".to_owned(), "aes".to_owned()],
        kernel: "6.12.0".to_owned(),
        memory: 16 << 30,
        arch: "x86_64".to_owned(),
        ..Machine::default()
    };
    let mut run = Run::new("made up, not measured", 1_795_310_000, 7, machine);
    run.missing.insert("gotatun <newest>".to_owned(), "cargo install gotatun-cli && true".to_owned());
    for (slug, protocol, carrier, ..) in SYSTEMS {
        let title = slug.replace('-', " ");
        let (protocol, carrier) = (protocol.to_owned(), carrier.to_owned());
        let ours = slug.starts_with("wireloom");
        let version = "version <1> & \"2\"".to_owned();
        let system = System {
            title,
            version,
            protocol,
            carrier,
            ours,
            configuration_lines: Some(12),
            steps: Some(4),
            ..System::default()
        };
        run.systems.insert(slug.to_owned(), system);
    }
    let module = GuestKernel {
        release: "6.12.1+made-up".to_owned(),
        place: "kernel module".to_owned(),
        carried: 200_000,
        file: Some(269_623),
        memory: Some(118_784),
        memory_with_needed: Some(339_968),
        needed: 8,
        loads: vec![0.030, 0.010, 0.020],
        interfaces_survive: Some(false),
        emulated: true,
        when: 1_795_310_000,
        ..GuestKernel::default()
    };
    let built_in = GuestKernel {
        place: "built into the kernel".to_owned(),
        file: None,
        memory: None,
        memory_with_needed: None,
        needed: 0,
        loads: Vec::new(),
        growth: Some(Growth { image: 70_000, text: 150_000, data: 6_000, bss: 400 }),
        interfaces_survive: None,
        ..module.clone()
    };
    run.kernels = [("6.12".to_owned(), module), ("built-in-6.12".to_owned(), built_in)].into();
    let mut noise = Noise(1);
    for round in 1..=rounds {
        for (number, (slug, _, _, bits, micros)) in SYSTEMS.into_iter().enumerate() {
            let mut push = |record: Record| run.records.push(record);
            let new = |experiment: &str| Record::new(experiment, slug, round, 1_795_310_000);
            let grows = 0.02 + 0.05 * number as f64;
            let amdahl = |n: f64| n / (1.0 + grows * (n - 1.0));
            for n in [1.0, 2.0, 4.0, 8.0] {
                let busy = noise.around(1.0 + n / 3.0).min(8.0);
                let rate = noise.around(bits);
                push(
                    new("streams")
                        .at("streams", n)
                        .with("throughput", rate)
                        .with("cost", 8.0 * busy / rate)
                        .with("processors", busy),
                );
            }
            for n in [1.0, 2.0, 4.0, 8.0, 16.0, 32.0] {
                let busy = noise.around(n).min(8.0);
                let rate = noise.around(bits * amdahl(n));
                push(
                    new("tunnels")
                        .at("tunnels", n)
                        .with("throughput", rate)
                        .with("cost", 8.0 * busy / rate)
                        .with("processors", busy),
                );
            }
            for gateway in ["gw1", "gw2"] {
                for core in 0..8 {
                    let busy = if number % 3 == 0 { 0.9 } else { 0.95 / f64::from(1 + core % 4) };
                    let share = noise.around(busy).min(1.0);
                    push(new("cores").at("core", f64::from(core)).labelled("gateway", gateway).with("busy", share));
                }
            }
            for mtu in [500.0, 1420.0, 3000.0, 6000.0, 8920.0] {
                push(new("mtu").at("mtu", mtu).with("throughput", noise.around(bits * mtu / 1420.0)));
            }
            for size in [64.0, 256.0, 512.0, 1300.0] {
                let packets = noise.around(bits / 12_000.0);
                push(new("sizes").at("size", size).with("packets", packets).with("lost", 0.005));
                push(new("flood").at("size", size).with("packets", packets * 0.8).with("sent", packets * 3.0));
            }
            for (experiment, factor) in [("latency", 1.0), ("latency-loaded", 6.0)] {
                let mut times = Distribution::new();
                for _ in 0..3000 {
                    let tail = 1.0 / (1.0 - noise.next()).max(1e-4).powf(0.35);
                    times.record(Duration::from_nanos((micros * factor * 1000.0 * (0.9 + 0.1 * tail)) as u64));
                }
                push(new(experiment).timed(times));
            }
            push(new("handshakes").with("handshakes", noise.around(micros * 30.0)));
            push(new("first-byte").with("first_byte", noise.around(micros * 2e-5)));
            for outage in [1.0, 5.0, 30.0] {
                push(new("recovery").at("outage", outage).with("recovery", noise.around(outage * micros * 1e-3)));
            }
            push(new("start").with("start", noise.around(micros * 1e-3)).with("stop", 0.01));
            push(new("memory").with("loaded", noise.around(micros * 1e5)).with("idle", noise.around(micros * 5e4)));
            push(new("wakeups").with("wakeups", if number < 2 { 0.0 } else { noise.around(micros / 4.0) }));
            for peers in [1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0] {
                let memory = noise.around(5e6 + peers * 2000.0);
                push(
                    new("peers")
                        .at("peers", peers)
                        .with("memory", memory)
                        .with("configure", noise.around(peers * 1e-5))
                        .with("throughput", noise.around(bits)),
                );
            }
            for n in [1.0, 2.0, 3.0, 4.0, 6.0, 8.0] {
                push(new("scaling").at("workers", n).with("throughput", noise.around(bits * amdahl(n))));
            }
        }
    }
    run
}
