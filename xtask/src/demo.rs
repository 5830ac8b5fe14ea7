//! `cargo xtask demo`: a tunnel between two network namespaces, our binary at both ends, real traffic through it.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use lab::iperf::{Load, Run, TcpRun, parse_line};
use lab::ping::{RoundTrips, ping};
use lab::traffic::{Service, UdpOutcome, UdpPlan, exchange_udp};
use lab::{Gso, LabError, Outer, System, Tunnel, TunnelSpec, interrupted, usage, wg};

use crate::cargo::build_release;
use crate::error::Failure;
use crate::setup;

/// What `demo` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// Seconds of TCP over IPv4; IPv6 gets half of it
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=25))]
    seconds: u32,
    /// Let each datagram cross the link alone, as on a real one, instead of GSO super-packets
    #[arg(long)]
    no_gso: bool,
    /// Put the tunnel on IPv6 instead of IPv4
    #[arg(long)]
    outer_v6: bool,
}

/// What a burst of TCP gave and cost.
struct Burst {
    tcp: TcpRun,
    /// CPU seconds per gigabyte, of the whole machine and of the two daemons.
    machine: f64,
    daemons: f64,
}

/// Runs the demonstration.
pub fn run(options: &Options) -> Result<(), Failure> {
    lab::require_root()?;
    setup::run(&setup::Options { no_peers: true })?;
    let ours = build_release()?;
    let start = Instant::now();
    let tunnel = build(&ours, options)?;
    let outcome = present(&tunnel, options);
    if outcome.is_err() && !interrupted() {
        for end in [&tunnel.left, &tunnel.right] {
            let log = end.daemon.process.log();
            eprintln!("--- {} said:\n{log}", end.daemon.process.name());
        }
    }
    drop(tunnel);
    outcome?;
    println!("\nCleaned up: no namespace, interface or socket is left. {} s in all.", start.elapsed().as_secs());
    Ok(())
}

fn build(ours: &System, options: &Options) -> Result<Tunnel, Failure> {
    let spec = TunnelSpec {
        preshared: true,
        gso: if options.no_gso { Gso::Off } else { Gso::Through },
        outer: if options.outer_v6 { Outer::V6 } else { Outer::V4 },
        ..TunnelSpec::new(ours, ours)
    };
    let tunnel = spec.build()?;
    let (left, right) = (&tunnel.left, &tunnel.right);
    println!("\nA tunnel between two hosts, {} at both ends:\n", ours.name());
    for (end, name) in [(left, "left "), (right, "right")] {
        println!(
            "  {name}  namespace {:<12} interface {:<12} listens on {:<22} {} and {} inside",
            end.namespace().name(),
            end.daemon.interface,
            end.endpoint(spec.outer).to_string(),
            end.v4,
            end.v6,
        );
    }
    Ok(tunnel)
}

fn present(tunnel: &Tunnel, options: &Options) -> Result<(), Failure> {
    let (left, right) = (&tunnel.left, &tunnel.right);

    println!("\nPing, left to right:");
    let mut trips = Vec::new();
    for address in right.inner() {
        trips.push(show_pings(tunnel, address)?);
    }

    println!("\nTCP, left to right, one stream:");
    let v4 = burst(tunnel, right.v4.into(), options.seconds)?;
    let v6 = burst(tunnel, right.v6.into(), options.seconds.div_ceil(2))?;

    println!("\nUDP, 20,000 numbered datagrams of 1200 bytes there and back, every byte checked:");
    let udp = check_udp(tunnel)?;

    println!("\n$ wg show {}", left.daemon.interface);
    println!("{}", wg::show(&left.daemon.interface)?.trim_end());

    let peer = left.peer(right)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let memory = |pid| usage::memory(pid).map(|memory| memory.resident as f64 / 1024.0);
    let median = |trips: &RoundTrips| trips.percentile(0.5).unwrap_or(f64::NAN);
    println!("\nSummary");
    let row = |what: &str, value: String| println!("  {what:<34}{value}");
    row("TCP over IPv4", format!("{:.2} Gb/s", v4.tcp.gigabits()));
    row("TCP over IPv6", format!("{:.2} Gb/s", v6.tcp.gigabits()));
    row("CPU, whole machine / both daemons", format!("{:.2} / {:.2} s per GB", v4.machine, v4.daemons));
    row("Round trip, IPv4 / IPv6, median", format!("{:.0} / {:.0} µs", median(&trips[0]), median(&trips[1])));
    row("UDP sent / arrived / came back", format!("{} / {} / {}", udp.sent, udp.service.received, udp.echoes.received));
    row(
        "Memory (RSS), left / right",
        format!("{:.1} / {:.1} MiB", memory(left.daemon.process.id())?, memory(right.daemon.process.id())?),
    );
    row("Latest handshake", format!("{} s ago", now.saturating_sub(peer.handshake)));
    Ok(())
}

fn show_pings(tunnel: &Tunnel, to: IpAddr) -> Result<RoundTrips, Failure> {
    let from = tunnel.left.namespace();
    let trips = ping(from, to, 20, "0.05", Duration::from_secs(15))?;
    let at = |share| trips.percentile(share).unwrap_or(f64::NAN);
    println!(
        "  {:<11} {} of {} came back, {:.0} µs in the median, {:.0} µs at most",
        to.to_string(),
        trips.received,
        trips.sent,
        at(0.5),
        at(1.0)
    );
    if trips.received + 1 < trips.sent {
        return Err(Failure::Tunnel(format!("pings to {to} were lost")));
    }
    Ok(trips)
}

/// Sends TCP for a while with a line for each second, and takes what it cost.
fn burst(tunnel: &Tunnel, to: IpAddr, seconds: u32) -> Result<Burst, Failure> {
    let (left, right) = (&tunnel.left, &tunnel.right);
    let pids = [left.daemon.process.id(), right.daemon.process.id()];
    let daemons_cpu =
        || -> Result<Duration, LabError> { Ok(usage::process_cpu(pids[0])? + usage::process_cpu(pids[1])?) };
    let (machine, daemons) = (usage::machine_cpu()?, daemons_cpu()?);
    let load = Load::Tcp { streams: 1 };
    let mut run = Run::start(left.namespace(), right.namespace(), to, load, seconds, true)?;
    println!("  to {to}");
    let mut shown = 0;
    let client = run.client();
    lab::wait_until("iperf3 to end", Duration::from_secs(u64::from(seconds) + 20), || {
        let ended = client.status().is_some();
        let text = client.stdout();
        // The last line may be half written while it runs.
        let whole = if ended { text.len() } else { text.rfind('\n').unwrap_or(0) };
        let figures: Vec<f64> = text[..whole].lines().filter_map(parse_line).collect();
        for megabits in &figures[shown..] {
            shown += 1;
            let gigabits = megabits / 1000.0;
            println!("  {shown:>4} s  {gigabits:>6.2} Gb/s  {}", bar(gigabits));
        }
        ended
    })?;
    let tcp = run.tcp_from_report()?;
    let gigabytes = tcp.bytes as f64 / 1e9;
    if tcp.bytes == 0 {
        return Err(Failure::Tunnel(format!("no TCP arrived at {to}")));
    }
    let per_gigabyte = |spent: Duration| spent.as_secs_f64() / gigabytes;
    Ok(Burst {
        tcp,
        machine: per_gigabyte(usage::machine_cpu()? - machine),
        daemons: per_gigabyte(daemons_cpu()? - daemons),
    })
}

/// Two columns for each gigabit per second.
fn bar(gigabits: f64) -> String {
    "█".repeat((gigabits * 2.0).round().clamp(0.0, 60.0) as usize)
}

fn check_udp(tunnel: &Tunnel) -> Result<UdpOutcome, Failure> {
    let _service = Service::start(tunnel.right.namespace())?;
    let plan = UdpPlan { flows: 4, count: 5000, size: 1200, gap: Duration::from_micros(400), echo: true };
    let outcome = exchange_udp(tunnel.left.namespace(), tunnel.right.v6.into(), &plan, Duration::from_secs(20))?;
    let (there, back) = (outcome.service, outcome.echoes);
    println!(
        "  {} sent, {} arrived, {} came back; {} damaged, {} out of order",
        outcome.sent,
        there.received,
        back.received,
        there.corrupt + back.corrupt,
        there.late + back.late
    );
    if there.corrupt + back.corrupt > 0 {
        return Err(Failure::Tunnel("datagrams were damaged".to_owned()));
    }
    if back.received < outcome.sent / 2 {
        return Err(Failure::Tunnel("most datagrams were lost".to_owned()));
    }
    Ok(outcome)
}
