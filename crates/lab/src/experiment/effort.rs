//! How thoroughly is measured: which points of each axis, and for how long.

use std::thread;

use crate::Gso;

/// How thoroughly is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Effort {
    /// Its name, as runs keep it.
    pub name: &'static str,
    /// Rounds, where nobody says otherwise.
    pub rounds: u32,
    /// Seconds of each TCP measurement.
    pub seconds: u32,
    /// Kinds of links on which throughput is measured. The first is what a network is; super-packets cross the other whole.
    pub links: Vec<Gso>,
    /// TCP streams in one tunnel.
    pub streams: Vec<u32>,
    /// Tunnels between the gateways.
    pub tunnels: Vec<u32>,
    /// MTUs of the tunnel, in bytes.
    pub mtus: Vec<u32>,
    /// Payloads of UDP datagrams, in bytes.
    pub sizes: Vec<u32>,
    /// Rates that are tried to find the highest clean one: each halves what is between, on a scale of factors.
    pub probes: u32,
    /// Echo requests of an idle tunnel.
    pub pings: u32,
    /// New sessions of which the time to the first byte is taken.
    pub tries: u32,
    /// Seconds for which the path is away.
    pub outages: Vec<u32>,
    /// Peers of one server.
    pub peers: Vec<u32>,
    /// Clients that connect at once.
    pub members: u32,
    /// Processors that a tunnel is held to.
    pub workers: Vec<u32>,
    /// Processors of this machine.
    pub processors: u32,
}

impl Effort {
    /// For figures to quote: hours.
    pub fn full() -> Effort {
        Effort {
            name: "full",
            rounds: 5,
            seconds: 5,
            links: vec![Gso::Off, Gso::Through],
            streams: vec![1, 2, 4, 8],
            tunnels: vec![1, 2, 4, 8, 16],
            mtus: vec![1280, 1420, 2920, 5920, 8920],
            sizes: vec![64, 256, 512, 1300],
            probes: 8,
            pings: 1000,
            tries: 20,
            outages: vec![1, 5, 20],
            peers: vec![1, 10, 100, 1000, 10_000, 100_000],
            members: 5000,
            workers: workers(processors()),
            processors: processors(),
        }
    }

    /// For figures to quote where hours are not to be had.
    pub fn medium() -> Effort {
        Effort {
            name: "medium",
            seconds: 2,
            tunnels: vec![1, 2, 4, 8],
            mtus: vec![1280, 1420, 8920],
            sizes: vec![64, 512, 1300],
            probes: 7,
            pings: 500,
            tries: 10,
            outages: vec![1],
            peers: vec![1, 100, 1000, 10_000],
            members: 1000,
            ..Effort::full()
        }
    }

    /// To see where things stand: minutes.
    pub fn quick() -> Effort {
        let most = processors();
        Effort {
            name: "quick",
            rounds: 3,
            seconds: 1,
            links: vec![Gso::Off],
            streams: vec![1, 4],
            tunnels: vec![1, 4],
            mtus: vec![1420, 8920],
            sizes: vec![64, 1300],
            probes: 6,
            pings: 200,
            tries: 5,
            outages: vec![1],
            peers: vec![1, 1000],
            members: 500,
            workers: if most > 1 { vec![1, most] } else { vec![1] },
            ..Effort::full()
        }
    }

    /// The same with as few points as say anything at all.
    pub fn hasty() -> Effort {
        Effort {
            name: "hasty",
            streams: vec![1],
            tunnels: vec![4],
            mtus: vec![8920],
            sizes: vec![64],
            peers: vec![1000],
            ..Effort::quick()
        }
    }

    /// All of them, the most thorough first.
    pub fn all() -> [Effort; 4] {
        [Effort::full(), Effort::medium(), Effort::quick(), Effort::hasty()]
    }

    /// The one of a name.
    pub fn named(name: &str) -> Option<Effort> {
        Effort::all().into_iter().find(|effort| effort.name == name)
    }
}

fn processors() -> u32 {
    thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// 1, 2, 4 and so on, and all of them.
fn workers(most: u32) -> Vec<u32> {
    let mut counts: Vec<u32> = (0..).map(|power| 1 << power).take_while(|count| *count < most).collect();
    counts.push(most);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_processors() {
        assert_eq!(workers(1), [1]);
        assert_eq!(workers(2), [1, 2]);
        assert_eq!(workers(6), [1, 2, 4, 6]);
        assert_eq!(workers(8), [1, 2, 4, 8]);
    }

    #[test]
    fn each_is_found_by_its_name() {
        for effort in Effort::all() {
            assert_eq!(Effort::named(effort.name), Some(effort));
        }
        assert_eq!(Effort::named("thorough"), None);
    }
}
