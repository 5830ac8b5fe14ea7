//! What more workers bring, in one process and without the kernel: measures, and prints what it found as JSON.
//!
//! All of the data plane runs as it is: workers, job rings, helping, sessions and keys, routes, replay windows, joining, counters,
//! sleeping and waking. Only the four calls that move packets are ours (`calls`): they copy the same bytes and spin for as long
//! as the kernel took when it was asked just before (`costs`). What the kernel's own locks cost where several processors meet
//! is not in it.
//!
//! Run by `cargo xtask bench scale`, or `cargo run --release -p wireloom-plane --features modelled --example scale -- WORKERS MILLISECONDS
//! ROUNDS`, as root.

#![allow(clippy::unwrap_used, missing_docs)]

mod bed;
mod calls;
mod costs;
mod packets;

fn main() {
    use bed::{Case, Load, Way, measure};
    use std::time::Duration;

    let numbers: Vec<u64> = std::env::args().skip(1).map(|word| word.parse().expect("a number")).collect();
    let [workers, millis, rounds] = numbers[..] else { panic!("usage: scale WORKERS MILLISECONDS ROUNDS") };
    let only = std::env::var("SCALE_ONLY").unwrap_or_default();
    let costs = costs::measure();
    linux::modelled::set(Box::new(calls::Modelled));
    let most = (workers as usize).clamp(1, bed::cpus().len());
    let stock = bed::Stock::new(most, costs);
    let cost = |cost: costs::Cost| serde_json::json!({ "call_ns": cost.call, "byte_ns": cost.byte });
    let mut samples = Vec::new();
    for round in 0..rounds {
        for shape in packets::Shape::ALL {
            for way in Way::ALL {
                let counts = || (2..=most).filter(|count| *count <= 4 || count.is_power_of_two() || *count == most);
                let several = Load::ALL.into_iter().flat_map(|load| counts().map(move |workers| (load, workers)));
                // With one worker all loads are the same, and what one tunnel is to open comes to one worker, however many its flows.
                for (load, workers) in std::iter::once((Load::Tunnels, 1)).chain(several) {
                    if way == Way::Open && load == Load::Flows {
                        continue;
                    }
                    let case = Case { shape, way, load, workers };
                    let name = format!("{} {} {} {workers}", shape.name(), way.name(), load.name());
                    if !name.contains(&only) {
                        continue;
                    }
                    let sample = measure(case, &stock, costs, Duration::from_millis(millis));
                    let gbps = sample.bytes as f64 * 8e-9 / sample.seconds;
                    eprintln!("{round} {name}: {gbps:.2} Gb/s, {:.2} cores", sample.cpu / sample.seconds);
                    samples.push(serde_json::json!({
                        "shape": shape.name(), "way": way.name(), "load": load.name(), "workers": workers, "round": round,
                        "seconds": sample.seconds, "cpu_s": sample.cpu, "bytes": sample.bytes, "packets": sample.packets,
                        "reading_s": sample.reading, "sending_udp_s": sample.sending_udp, "sending_tun_s": sample.sending_tun,
                        "lost": sample.lost,
                    }));
                }
            }
        }
    }
    let costs = serde_json::json!({
        "tun_read": cost(costs.read), "tun_write": cost(costs.write), "udp_recv": cost(costs.recv), "udp_send": cost(costs.send),
    });
    println!("{}", serde_json::json!({ "costs": costs, "samples": samples }));
}
