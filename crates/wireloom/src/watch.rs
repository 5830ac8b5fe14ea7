//! A look at an interface by who watches it: `show --json`, `top` and the metrics. No secret is in it.

use config::device::Device;
use config::policy::{Rule, RuleCount};
use config::stats::Stats;

use crate::client::{self, Engine};
use crate::error::Error;

/// What an interface told at one moment, or nearly: peers move on while they are told.
pub struct Seen {
    /// Its name.
    pub name: String,
    /// What runs it.
    pub engine: Engine,
    /// Its peers, and no secrets.
    pub device: Device,
    /// What it does; only ours tell.
    pub stats: Option<Stats>,
    /// The rules that say what may pass, and what each has taken; only ours have any.
    pub policy: Vec<(Rule, RuleCount)>,
    /// Memory of its process that is there, in bytes, where that is known.
    pub resident: Option<u64>,
}

impl Seen {
    /// Asks the interface.
    pub fn ask(name: &str) -> Result<Seen, Error> {
        let (stats, engine) = match client::stats(name)? {
            Some((stats, engine)) => (Some(stats), engine),
            None => (None, client::engine_of(name)),
        };
        let mut device = client::get_openly(name)?;
        let policy = match &stats {
            // One of ours that is older has none.
            Some(_) => client::policy(name)
                .or_else(|error| if matches!(error, Error::NoPolicy(_)) { Ok(Vec::new()) } else { Err(error) })?,
            None => Vec::new(),
        };
        // Others than ours tell their secrets unasked.
        device.public_key = device.public_key();
        device.private_key = None;
        device.peers.iter_mut().for_each(|peer| peer.preshared_key = None);
        let resident = match engine {
            Engine::Wireloom { process: Some(process) } => resident(process),
            _ => None,
        };
        Ok(Seen { name: name.to_owned(), engine, device, stats, policy, resident })
    }
}

/// Resident memory of a process in bytes.
fn resident(process: u32) -> Option<u64> {
    let told = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = told.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
