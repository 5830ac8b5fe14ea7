//! `cargo xtask bench peers`: what a device with very many peers costs, ours beside wireguard-go.
//!
//! Configuring and showing them by both tools, and how long that keeps a ping through another peer waiting; the memory of each; what a
//! neighbour's TCP stream loses by them; 130,560 allowed IPs on one peer; and all of them shaking hands at one moment, with either end
//! beginning. As in the other benchmarks everything runs on this machine at once, the crowd of peers included, which takes
//! more of it than the daemon does: the daemon's CPU time says what it could do with a machine of its own.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use lab::crowd::{self, Outcome, Role};
use lab::{Daemon, End, Gso, LabError, Link, Namespace, Process, System, Tunnel, TunnelSpec};
use lab::{iperf, ping, run_checked, usage, wait_until};
use rustix::process::Signal;

use super::figures::{Figures, mib, seconds};
use super::stats::median;
use crate::error::Failure;

/// A tool that takes longer is ended; so is a crowd.
const LIMIT: Duration = Duration::from_secs(180);
/// A private key, base64: any will do.
const KEY: &str = "QEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEA=";

/// What `bench peers` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// How many; wireguard-go takes at most 65,536
    #[arg(long, value_parser = clap::value_parser!(u32).range(1000..=100_000))]
    peers: Option<u32>,
    /// Seconds of each TCP measurement
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// Rounds of TCP, with and without peers in turn
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=25))]
    runs: Option<u32>,
    /// Fewer peers, one short round: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
}

/// How much is measured.
struct Plan {
    peers: u32,
    seconds: u32,
    rounds: u32,
}

/// Measures, prints and saves.
pub fn run(options: &Options) -> Result<(), Failure> {
    let ours = &super::prepare()?;
    let plan = &Plan {
        peers: options.peers.unwrap_or(if options.quick { 10_000 } else { 100_000 }),
        seconds: options.seconds.unwrap_or(if options.quick { 1 } else { 3 }),
        rounds: options.runs.unwrap_or(if options.quick { 1 } else { 5 }),
    };
    let systems = [ours.clone(), System::WireguardGo];
    let mut figures = Figures::default();
    for system in &systems {
        println!("{}", system.name());
        type Step = fn(&System, &System, &Plan, &mut Figures) -> Result<(), LabError>;
        let steps: [(&str, Step); 5] = [
            ("configuration", configuration),
            ("one peer with many networks", networks),
            ("TCP beside many peers", tcp),
            ("a crowd that calls", |ours, system, plan, figures| storm(ours, system, plan, Role::Initiate, figures)),
            ("a crowd that is called", |ours, system, plan, figures| storm(ours, system, plan, Role::Respond, figures)),
        ];
        for (what, step) in steps {
            match step(ours, system, plan, &mut figures) {
                Err(error) if lab::interrupted() || system == ours => return Err(error.into()),
                // What another system does not survive is missing from its column.
                Err(error) => eprintln!("    {what} failed: {error}"),
                Ok(()) => (),
            }
        }
    }
    let names = systems.each_ref().map(System::name);
    println!("\n{} peers\n\n{}", plan.peers, figures.markdown(&names));
    figures.save("peers", plan.peers)
}

fn resident(daemon: &Daemon) -> Result<u64, LabError> {
    Ok(usage::memory(daemon.process.id())?.resident)
}

/// A file for the tools.
fn file(text: &str) -> Result<tempfile::NamedTempFile, LabError> {
    let failed = |source| LabError::Io { what: "a configuration file".to_owned(), source };
    let file = tempfile::NamedTempFile::new().map_err(failed)?;
    fs::write(file.path(), text).map_err(failed)?;
    Ok(file)
}

/// A file with all peers, somewhere that is nowhere, of which every hundredth is `moved`.
fn peers(interface: &str, count: u32, moved: bool) -> String {
    let port = |member| 1000 + u32::from(moved && member % 100 == 0);
    interface.to_owned() + &crowd::peers(0..count, |member| format!("Endpoint = 192.0.2.1:{}\n", port(member)))
}

/// Runs a tool to its end: how long that took.
fn timed(tool: &System, daemon: &Daemon, words: &[&str]) -> Result<Duration, LabError> {
    let program = match tool {
        System::Wireloom(path, _) => path.clone(),
        _ => "wg".into(),
    };
    let [verb, rest @ ..] = words else { return Ok(Duration::ZERO) };
    let start = Instant::now();
    run_checked(Command::new(program).arg(verb).arg(&daemon.interface).args(rest), LIMIT)?;
    Ok(start.elapsed())
}

fn configuration(ours: &System, system: &System, plan: &Plan, figures: &mut Figures) -> Result<(), LabError> {
    let name = system.name();
    let tunnel = TunnelSpec::new(system, system).build()?;
    let daemon = &tunnel.left.daemon;
    first_ping(&tunnel)?;
    let before = resident(daemon)?;
    let all = file(&peers("", plan.peers, false))?;
    let added = file_path(&all);
    // With a ping through the neighbour, every ten milliseconds.
    let mut series = ping::start(tunnel.left.namespace(), tunnel.right.v4.into(), 100_000, "0.01")?;
    let time = timed(&System::WireguardGo, daemon, &["addconf", &added])?;
    figures.enter(name, "`wg addconf` of all peers", seconds(time));
    let after = resident(daemon)?;
    figures.enter(name, "memory before, after", format!("{}, {}", mib(before), mib(after)));
    let each = after.saturating_sub(before) * 1024 / u64::from(plan.peers);
    figures.enter(name, "memory of each peer", format!("{each} B"));
    let conf = file(&run_checked(Command::new("wg").args(["showconf", &daemon.interface]), LIMIT)?)?;
    let (_, sections) = (&conf, fs::read_to_string(conf.path()).unwrap_or_default());
    let changed = file(&sections.replace(".1:1000\n", ".1:1001\n"))?;
    for (tool, said) in [(&System::WireguardGo, "wg"), (ours, "wireloom")] {
        for words in [&["show", "dump"][..], &["show"], &["showconf"]] {
            // The interface's name comes behind the verb.
            let time = timed(tool, daemon, words)?;
            figures.enter(name, format!("`{said} {}`", words.join(" ")), seconds(time));
        }
        let time = timed(tool, daemon, &["syncconf", &file_path(&conf)])?;
        figures.enter(name, format!("`{said} syncconf`, nothing changed"), seconds(time));
    }
    let time = timed(ours, daemon, &["syncconf", &file_path(&changed)])?;
    figures.enter(name, "`wireloom syncconf`, all endpoints changed", seconds(time));
    series.signal(Signal::INT);
    let trips = ping::collect(series, LIMIT)?;
    let longest = trips.percentile(1.0).unwrap_or_default() / 1000.0;
    let lost = trips.sent - trips.received;
    figures.enter(name, "a ping meanwhile, longest; lost", format!("{longest:.0} ms; {lost} of {}", trips.sent));

    let whole = format!("[Interface]\nPrivateKey = {KEY}\nListenPort = 50031\n");
    let (full, empty) = (file(&peers(&whole, plan.peers, false))?, file(&whole)?);
    for (tool, said) in [(&System::WireguardGo, "wg"), (ours, "wireloom")] {
        timed(tool, daemon, &["setconf", &file_path(&empty)])?;
        let time = timed(tool, daemon, &["setconf", &file_path(&full)])?;
        figures.enter(name, format!("`{said} setconf` of all peers"), seconds(time));
        if said == "wireloom" {
            let some = file(&peers(&whole, plan.peers, true))?;
            let time = timed(tool, daemon, &["syncconf", &file_path(&some)])?;
            figures.enter(name, "`wireloom syncconf`, 1 in 100 changed", seconds(time));
        }
        let time = timed(tool, daemon, &["syncconf", &file_path(&empty)])?;
        figures.enter(name, format!("`{said} syncconf`, all removed"), seconds(time));
    }
    figures.enter(name, "memory when all are removed", mib(resident(daemon)?));
    Ok(())
}

fn file_path(file: &tempfile::NamedTempFile) -> String {
    file.path().display().to_string()
}

fn first_ping(tunnel: &Tunnel) -> Result<(), LabError> {
    wait_until("the first ping", Duration::from_secs(15), || {
        ping::once(tunnel.left.namespace(), tunnel.right.v4.into(), &["-W", "1"])
            .is_ok_and(|finished| finished.status.success())
    })
}

/// 130,560 networks of both families on one peer.
fn networks(_: &System, system: &System, _: &Plan, figures: &mut Figures) -> Result<(), LabError> {
    let name = system.name();
    let daemon = system.start(&Namespace::new()?)?;
    let before = resident(&daemon)?;
    let pairs = (0..255).flat_map(|a| (0..256).map(move |b| (a, b)));
    let list: Vec<_> = pairs.map(|(a, b)| format!("{a}.{b}.0.0/24, {a:x}:{b:x}::/64")).collect();
    let key = crowd::key_text(&crowd::private_key(0).public());
    let text = format!("[Interface]\n\n[Peer]\nPublicKey = {key}\nAllowedIPs = {}\n", list.join(", "));
    let conf = file(&text)?;
    let time = timed(&System::WireguardGo, &daemon, &["setconf", &file_path(&conf)])?;
    figures.enter(name, "130,560 allowed IPs on one peer: `wg setconf`", seconds(time));
    let time = timed(&System::WireguardGo, &daemon, &["show", "allowed-ips"])?;
    figures.enter(name, "`wg show allowed-ips` of them", seconds(time));
    figures.enter(name, "memory before them, after", format!("{}, {}", mib(before), mib(resident(&daemon)?)));
    Ok(())
}

/// One TCP stream to the neighbour, on an empty device and on one with all peers in turn.
fn tcp(_: &System, system: &System, plan: &Plan, figures: &mut Figures) -> Result<(), LabError> {
    let (empty, full) = (TunnelSpec::new(system, system).build()?, TunnelSpec::new(system, system).build()?);
    let all = file(&peers("", plan.peers, false))?;
    for end in [&full.left, &full.right] {
        timed(&System::WireguardGo, &end.daemon, &["addconf", &file_path(&all)])?;
    }
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..plan.rounds {
        for (tunnel, rates) in [&empty, &full].into_iter().zip(&mut rates) {
            first_ping(tunnel)?;
            let (from, to) = (tunnel.left.namespace(), tunnel.right.namespace());
            rates.push(iperf::tcp(from, to, tunnel.right.v4.into(), 1, plan.seconds)?.gigabits());
        }
    }
    let mut ratios: Vec<f64> = rates[1].iter().zip(&rates[0]).map(|(full, empty)| full / empty.max(1e-9)).collect();
    ratios.sort_by(f64::total_cmp);
    let [empty, full] = rates.map(|list| median(list).unwrap_or_default());
    let ratio = median(ratios.clone()).unwrap_or_default();
    let (low, high) = (ratios.first().unwrap_or(&0.0), ratios.last().unwrap_or(&0.0));
    let text = format!("{empty:.2}, {full:.2} Gb/s; {ratio:.2} ({low:.2} to {high:.2})");
    figures.enter(system.name(), "TCP, one stream: empty, with all peers; median ratio", text);
    Ok(())
}

/// All peers shake hands at one moment, beside a neighbour who is pinged.
fn storm(_: &System, system: &System, plan: &Plan, role: Role, figures: &mut Figures) -> Result<(), LabError> {
    let name = system.name();
    let tunnel = TunnelSpec::new(system, system).build()?;
    first_ping(&tunnel)?;
    let (hub, crowd) = (&tunnel.left, Namespace::new()?);
    let link = Link::new(hub.namespace(), &crowd, Gso::Through)?;
    crowd::settle(&link)?;
    let address = SocketAddr::from((link.left.v4, hub.listen_port));
    let start = || crowd::start(&crowd, address, &hub.keys.public, plan.peers, role, LIMIT);
    let add = |text: &str| timed(&System::WireguardGo, &hub.daemon, &["addconf", &file_path(&file(text)?)]);
    let usage = |hub: &End| Ok::<_, LabError>((usage::process_cpu(hub.daemon.process.id())?, resident(&hub.daemon)?));
    let pings = || ping::start(tunnel.right.namespace(), hub.v4.into(), 100_000, "0.01");
    let who = match role {
        Role::Initiate => "all peers call at once",
        Role::InTurn => "peers call in turn",
        Role::Respond => "all peers are called at once",
    };
    let (process, series, before): (Process, Process, _);
    match role {
        Role::Initiate | Role::InTurn => {
            add(&crowd::peers(0..plan.peers, |_| String::new()))?;
            (before, series) = (usage(hub)?, pings()?);
            process = start()?;
        }
        Role::Respond => {
            process = start()?;
            (before, series) = (usage(hub)?, pings()?);
            let text =
                crowd::peers(0..plan.peers, |member| crowd::endpoint_line(member) + "PersistentKeepalive = 3600\n");
            let time = add(&text)?;
            figures.enter(name, format!("{who}: `wg addconf` of them"), seconds(time));
        }
    }
    let Outcome { members, agreed, half, most, last, initiations, cookies, .. } =
        crowd::finish(process, LIMIT + Duration::from_secs(20))?;
    let after = usage(hub)?;
    let mut series = series;
    series.signal(Signal::INT);
    let trips = ping::collect(series, Duration::from_secs(10))?;
    let cpu = (after.0 - before.0).as_secs_f64();
    figures.enter(name, format!("{who}: who agreed"), format!("{agreed} of {members}"));
    figures.enter(name, format!("{who}: half, 99 %, all"), format!("{half:.1}, {most:.1}, {last:.1} s"));
    let rate = f64::from(agreed) / last.max(1e-9);
    figures.enter(
        name,
        format!("{who}: handshakes"),
        format!("{rate:.0} per s, {:.0} per CPU-s", f64::from(agreed) / cpu),
    );
    if role == Role::Initiate {
        figures.enter(name, format!("{who}: initiations, cookies"), format!("{initiations}, {cookies}"));
        let each = after.1.saturating_sub(before.1) * 1024 / u64::from(plan.peers);
        figures.enter(name, format!("{who}: memory of each session"), format!("{each} B"));
    }
    figures.enter(name, format!("{who}: memory after"), mib(after.1));
    let (p99, longest) = (trips.percentile(0.99).unwrap_or_default(), trips.percentile(1.0).unwrap_or_default());
    let lost = trips.sent - trips.received;
    let text = format!("{:.1}, {:.0} ms; {lost} of {}", p99 / 1000.0, longest / 1000.0, trips.sent);
    figures.enter(name, format!("{who}: a neighbour's ping, p99, longest; lost"), text);
    Ok(())
}
