//! What our daemons have in the kernel of eBPF: maps, programs and links, by their ids.
//!
//! Others on the machine load such things at the same time, and so what is new is not therefore ours. Ours is what a daemon or its steward has a
//! descriptor of (`/proc/PID/fdinfo` tells its id), and the maps of these programs, of which nobody needs to have one. Ids are not given out again
//! before two thousand million others have been. So it is enough to write them down while everything runs, and to see at the end that they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{LabError, Namespace, run_checked};
use serde_json::Value;

/// How long what has no user any more may take to go.
const LIMIT: Duration = Duration::from_secs(10);

/// What there is, by the names that `bpftool` has for it and the field of `fdinfo` with its id.
const KINDS: [(&str, &str); 3] = [("map", "map_id:"), ("prog", "prog_id:"), ("link", "link_id:")];

/// An object: its kind and its id.
type Object = (&'static str, u64);

/// What is held, and was.
#[derive(Default)]
pub struct Objects {
    /// All that was ever seen with one of ours.
    seen: BTreeSet<Object>,
    /// The programs among them whose maps are known.
    looked_into: BTreeSet<u64>,
}

impl Objects {
    /// Writes down what the processes of these namespaces hold now, and how many objects that are: maps, programs, links.
    ///
    /// # Errors
    /// `bpftool` is missing or says nothing readable.
    pub fn look(&mut self, namespaces: &[&Namespace]) -> Result<[usize; 3], LabError> {
        let mut held = BTreeSet::new();
        for pid in namespaces.iter().flat_map(|namespace| namespace.pids()) {
            // Whoever has just ended holds nothing.
            for file in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
                held.extend(named_in(&fs::read_to_string(file.path()).unwrap_or_default()));
            }
        }
        let fresh = |(kind, id): &Object| *kind == "prog" && !self.looked_into.contains(id);
        if held.iter().any(fresh) {
            for program in list("prog")? {
                let Some(id) = program["id"].as_u64().filter(|id| held.contains(&("prog", *id))) else { continue };
                self.looked_into.insert(id);
                let maps = program["map_ids"].as_array().into_iter().flatten();
                self.seen.extend(maps.filter_map(|map| Some(("map", map.as_u64()?))));
            }
        }
        let counts = KINDS.map(|(kind, _)| held.iter().filter(|(of, _)| *of == kind).count());
        self.seen.extend(held);
        Ok(counts)
    }

    /// How many different ones there were: maps, programs, links.
    pub fn seen(&self) -> [usize; 3] {
        KINDS.map(|(kind, _)| self.seen.iter().filter(|(of, _)| *of == kind).count())
    }

    /// Waits until all are gone that were ever seen, but those that the processes of these namespaces hold; what is there nevertheless, after a
    /// while.
    ///
    /// # Errors
    /// As [`Objects::look`].
    pub fn wait_for_end(&self, namespaces: &[&Namespace]) -> Result<Vec<String>, LabError> {
        let start = Instant::now();
        loop {
            let mut left = BTreeMap::new();
            for (kind, _) in KINDS {
                for object in list(kind)? {
                    let id = object["id"].as_u64().unwrap_or_default();
                    let name = object["name"].as_str().or(object["type"].as_str()).unwrap_or("nameless");
                    left.insert((kind, id), format!("{kind} {id} ({name})"));
                }
            }
            left.retain(|object, _| self.seen.contains(object));
            let mut held = Objects::default();
            held.look(namespaces)?;
            left.retain(|object, _| !held.seen.contains(object));
            if left.is_empty() || start.elapsed() > LIMIT {
                return Ok(left.into_values().collect());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// The objects that a file of `fdinfo` names: what the descriptor is of, and of a link its program.
fn named_in(fdinfo: &str) -> Vec<Object> {
    let object = |line: &str| {
        KINDS.iter().find_map(|(kind, field)| Some((*kind, line.strip_prefix(field)?.trim().parse().ok()?)))
    };
    fdinfo.lines().filter_map(object).collect()
}

/// All of a kind on this machine.
fn list(kind: &str) -> Result<Vec<Value>, LabError> {
    let text = run_checked(Command::new("bpftool").args(["-j", kind, "show"]), Duration::from_secs(30))?;
    match serde_json::from_str(&text) {
        Ok(Value::Array(list)) => Ok(list),
        _ => Err(LabError::Unreadable { what: "the list of bpftool", text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_tell_what_they_are_of() {
        let map = "pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1063\nmap_type:\t2\nkey_size:\t4\nmap_id:\t77951\nfrozen:\t0\n";
        assert_eq!(named_in(map), [("map", 77951)]);
        let link = "link_type:\ttcx\nlink_id:\t7622\nprog_tag:\t5a0a0b0c0d0e0f10\nprog_id:\t68643\nifindex:\t2\n";
        assert_eq!(named_in(link), [("link", 7622), ("prog", 68643)]);
        assert_eq!(named_in("pos:\t0\nflags:\t02\nmnt_id:\t15\nprog_id:\tx\n"), []);
    }
}
