//! `cargo xtask bench flood`: what a flood costs those who are served, one TCP stream through the tunnel, while somebody floods the host that receives it.
//!
//! The flood itself takes a processor and the kernel's time, whomever it is aimed at. So each run has two halves, in turn first: the same
//! flood against a port of the same host whose socket nobody reads (the kernel drops it there), and against ours. What remains of the
//! stream in the second half, of what there was in the first, is what we make of it. The flooder stays on the last processor, and our
//! answers are dropped where they reach its host: at a real one they would cost another machine's time.

use std::net::UdpSocket;
use std::time::Duration;

use clap::Args;
use lab::flood::{Flooder, KNOWN, Kind, Plan};
use lab::iperf::{Load, Run};
use lab::rogue::{base64, private_key};
use lab::{Gso, Hook, LabError, System, Tap, TunnelSpec, ping, usage};

use super::LinkKind;
use super::stats::median;
use crate::error::Failure;

/// What `bench flood` may be told.
#[derive(Args, Debug)]
pub struct Options {
    /// Datagrams a second of each flood
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    rate: u32,
    /// Seconds of each half of a run
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: Option<u32>,
    /// Runs of each kind of flood
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=25))]
    runs: Option<u32>,
    /// The link of the tunnel
    #[arg(long, value_enum, default_value = "no-gso")]
    link: LinkKind,
    /// One short run: to see that it works, not to quote
    #[arg(long)]
    quick: bool,
}

/// How it is measured.
struct Settings {
    rate: u32,
    seconds: u32,
    runs: u32,
    link: Gso,
}

/// What one half of a run found.
#[derive(Clone, Copy)]
struct Half {
    /// Gb/s of the stream.
    stream: f64,
    /// CPU time of the flooded daemon, in processors.
    cpu: f64,
    /// Datagrams a second that were sent.
    flooded: f64,
}

/// Measures and prints a table.
pub fn run(options: &Options) -> Result<(), Failure> {
    let ours = super::prepare()?;
    let settings = Settings {
        rate: options.rate,
        seconds: options.seconds.unwrap_or(if options.quick { 1 } else { 4 }),
        runs: options.runs.unwrap_or(if options.quick { 1 } else { 5 }),
        link: options.link.gso(),
    };
    println!(
        "| flood | stream, flood at a sink → at us, Gb/s | remains | our CPU, processors | kpps | what was counted |"
    );
    println!("|---|--:|--:|--:|--:|---|");
    for kind in Kind::ALL {
        let line = measure(&ours, &settings, kind)?;
        println!("{line}");
    }
    Ok(())
}

fn measure(ours: &System, settings: &Settings, kind: Kind) -> Result<String, LabError> {
    let tunnel = TunnelSpec { gso: settings.link, ..TunnelSpec::new(ours, ours) }.build()?;
    let (left, right) = (&tunnel.left, &tunnel.right);
    let known = base64(&private_key(KNOWN).public());
    right.daemon.set(&["peer", &known, "allowed-ips", "10.77.0.9/32"])?;
    lab::wait_until("the first ping", Duration::from_secs(15), || {
        ping::once(left.namespace(), right.v4.into(), &["-W", "1"]).is_ok_and(|finished| finished.status.success())
    })?;
    let flooder = Flooder::new(right.namespace(), Gso::Off)?;
    let _answers = Tap::new(flooder.namespace(), Hook::Incoming, "meta l4proto udp @th,64,8 3", "drop")?;
    let sink = right.namespace().inside(|| UdpSocket::bind("0.0.0.0:0"))?;
    let sink = sink.local_addr().map_err(|source| LabError::Io { what: "the sink".to_owned(), source })?.port();
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    let before = right.daemon.drops()?;

    let half = |port| -> Result<Half, LabError> {
        let (rate, seconds) = (settings.rate, settings.seconds + 4);
        let plan = Plan { kind, key: &right.keys.public, port, v6: false, rate, seconds, cpu: Some(cpus - 1) };
        // One who shakes hands first does it with us, whomever he floods then.
        let flood = flooder.start(&Plan { port: right.listen_port, ..plan }, port)?;
        let id = right.daemon.process.id();
        let cpu = usage::process_cpu(id)?;
        let load = Load::Tcp { streams: 1 };
        let run = Run::start(left.namespace(), right.namespace(), right.v4.into(), load, settings.seconds, false)?;
        let run = run.tcp()?;
        let cpu = usage::process_cpu(id)? - cpu;
        let flooded = flood.finish(Duration::from_secs(30))?;
        Ok(Half {
            stream: run.gigabits(),
            cpu: cpu.as_secs_f64() / run.seconds.max(1e-9),
            flooded: flooded as f64 / f64::from(seconds),
        })
    };
    let mut pairs = Vec::new();
    for number in 0..settings.runs {
        let (at_sink, at_us);
        if number % 2 == 0 {
            at_sink = half(sink)?;
            at_us = half(right.listen_port)?;
        } else {
            at_us = half(right.listen_port)?;
            at_sink = half(sink)?;
        }
        pairs.push((at_sink, at_us));
    }
    let after = right.daemon.drops()?;
    let mut counted: Vec<_> = (after.iter())
        .map(|(reason, count)| (count - before.get(reason).unwrap_or(&0), reason.as_str()))
        .filter(|(count, _)| *count > 100)
        .collect();
    counted.sort_unstable_by(|a, b| b.cmp(a));
    let counted: Vec<_> = counted.iter().map(|(count, reason)| format!("{reason} {}k", count / 1000)).collect();
    let middle = |f: &dyn Fn(&(Half, Half)) -> f64| median(pairs.iter().map(f).collect()).unwrap_or(0.0);
    Ok(format!(
        "| {} | {:.2} → {:.2} | {:.0} % | {:.2} → {:.2} | {:.0} → {:.0} | {} |",
        kind.name(),
        middle(&|pair| pair.0.stream),
        middle(&|pair| pair.1.stream),
        100.0 * middle(&|pair| pair.1.stream / pair.0.stream.max(1e-9)),
        middle(&|pair| pair.0.cpu),
        middle(&|pair| pair.1.cpu),
        middle(&|pair| pair.0.flooded / 1e3),
        middle(&|pair| pair.1.flooded / 1e3),
        counted.join(", "),
    ))
}
