//! A run: one machine, the systems that were on it, and all that was measured.
//!
//! It lies in one JSON file, which is read as something from outside: bounded in size, unknown fields refused, and checked as a
//! whole, so that everything behind this file may rely on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::code::Code;
use crate::error::EvaluationError;
use crate::kernel::GuestKernel;
use crate::record::Record;
use crate::text::one_line;
use crate::whole;

/// The version of the file's form.
pub const FORMAT: u32 = 1;
/// Bytes that a file may have.
const MOST: u64 = 256 << 20;
/// Records that a run may have: more than a hundred rounds of everything.
const RECORDS: usize = 500_000;

/// Everything that was measured on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// [`FORMAT`].
    pub format: u32,
    /// A name, such as that of the file.
    pub id: String,
    /// When it began, in seconds since 1970.
    pub started: u64,
    /// The command that measured.
    pub command: String,
    /// The seed of whatever was left to chance. Nothing of the report is.
    pub seed: u64,
    /// On what was measured.
    pub machine: Machine,
    /// How it was measured: seconds of a measurement, MTU, congestion control and so on.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The systems, by the names that records use.
    pub systems: BTreeMap<String, System>,
    /// How much code systems have that were not measured, by their names for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub code: BTreeMap<String, Code>,
    /// What could not be measured because it is not there, and the command that installs it.
    #[serde(default)]
    pub missing: BTreeMap<String, String>,
    /// Kernels that were looked at in guests, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kernels: BTreeMap<String, GuestKernel>,
    /// All measurements, in the order in which they were made.
    pub records: Vec<Record>,
}

/// What the figures depend on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// How many processors the system has.
    pub processors: u32,
    /// The instructions that cryptography makes a difference by.
    #[serde(default)]
    pub features: Vec<String>,
    /// The kernel's release.
    pub kernel: String,
    /// Bytes.
    pub memory: u64,
    /// Such as `x86_64`.
    pub arch: String,
    /// The distribution, if known.
    #[serde(default)]
    pub distribution: String,
    /// What it is a guest of, such as `kvm`; empty on bare metal or where that is not known.
    #[serde(default)]
    pub virtualisation: String,
    /// How the processors' speed is governed, if that is to be seen.
    #[serde(default)]
    pub governor: String,
}

/// One system under test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct System {
    /// Its name for people.
    pub title: String,
    /// What it says of its version.
    pub version: String,
    /// The protocol: `WireGuard`, `IPsec`, `OpenVPN`, or `none`.
    pub protocol: String,
    /// What seals its packets, in words; empty where nothing does or that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cipher: String,
    /// What carries the packets: `userspace`, `kernel module`, `built into the kernel`, `eBPF`, or `none`.
    pub carrier: String,
    /// Whether it is what this project makes.
    #[serde(default)]
    pub ours: bool,
    /// What has to be known before its figures are quoted, in half a sentence: an old version, a fallback, defaults that are slow. Shown
    /// beside them, and below each verdict that names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub caveat: String,
    /// Lines of configuration of both ends for one tunnel, counted from what was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_lines: Option<u32>,
    /// Commands to a working tunnel from an installed system, counted from what was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// How much code packets meet, if it was there to be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

impl Machine {
    /// Whether it is the same as another, by all that figures depend on. The kernel keeps more or less memory for itself from one start to the next, so that
    /// of memory it is enough that it differs by less than a fiftieth.
    pub fn is_same(&self, other: &Machine) -> bool {
        let (one, two) = (self.memory, other.memory);
        let alike = one.abs_diff(two) <= one.max(two) / 50;
        alike && Machine { memory: two, ..self.clone() } == *other
    }

    /// In one line.
    pub fn line(&self) -> String {
        let mut text = format!("{}, {} processors", self.cpu, self.processors);
        if !self.features.is_empty() {
            text += &format!(" ({})", self.features.join(" "));
        }
        text +=
            &format!(", {:.0} GiB, Linux {} on {}", self.memory as f64 / f64::from(1 << 30), self.kernel, self.arch);
        if !self.distribution.is_empty() {
            text += &format!(", {}", self.distribution);
        }
        if !self.virtualisation.is_empty() {
            text += &format!(", virtual machine ({})", self.virtualisation);
        }
        if !self.governor.is_empty() {
            text += &format!(", governor {}", self.governor);
        }
        one_line(&text)
    }
}

impl Run {
    /// Without any measurement yet.
    pub fn new(id: &str, started: u64, seed: u64, machine: Machine) -> Run {
        Run {
            format: FORMAT,
            id: id.to_owned(),
            started,
            command: String::new(),
            seed,
            machine,
            settings: BTreeMap::new(),
            systems: BTreeMap::new(),
            code: BTreeMap::new(),
            missing: BTreeMap::new(),
            kernels: BTreeMap::new(),
            records: Vec::new(),
        }
    }

    /// The systems' names in the order of tables and colours: ours, then others, then none.
    pub fn order(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.systems.iter().collect();
        names.sort_by_key(|(_, system)| (system.protocol == "none", !system.ours));
        names.into_iter().map(|(name, _)| name.as_str()).collect()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is too big, or is no run.
    pub fn load(path: &Path) -> Result<Run, EvaluationError> {
        let failed = |source| EvaluationError::File { path: path.to_owned(), source };
        let mut text = String::new();
        let file = fs::File::open(path).map_err(failed)?;
        // Measured while it is read: the file may be a pipe, or grow.
        file.take(MOST + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MOST {
            return Err(EvaluationError::TooBig { path: path.to_owned(), size: text.len() as u64, most: MOST });
        }
        Run::parse(&path.display().to_string(), &text)
    }

    /// Reads JSON; `place` is what it is called in an error.
    ///
    /// # Errors
    /// It is no run.
    pub fn parse(place: &str, text: &str) -> Result<Run, EvaluationError> {
        let json = |source| EvaluationError::Json { place: place.to_owned(), source };
        let run: Run = serde_json::from_str(text).map_err(json)?;
        match run.fault() {
            Some(what) => Err(EvaluationError::Invalid { place: place.to_owned(), what }),
            None => Ok(run),
        }
    }

    /// As it lies in the file.
    pub fn text(&self) -> String {
        // Fails only for maps whose keys are no strings, and a run has none.
        serde_json::to_string_pretty(self).expect("a run is made of strings, numbers and lists") + "\n"
    }

    /// The same in one line.
    pub fn line(&self) -> String {
        // As above.
        serde_json::to_string(self).expect("a run is made of strings, numbers and lists")
    }

    /// Writes a file, as [`whole::write`] does.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), EvaluationError> {
        let failed = |source| EvaluationError::File { path: path.to_owned(), source };
        whole::write(path, &self.text()).map_err(failed)
    }

    /// What is wrong with it, if anything is.
    pub fn fault(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("written in form {}, and this program reads form {FORMAT}", self.format));
        }
        if self.machine.processors == 0 {
            return Some("a machine without processors".to_owned());
        }
        let fault = self.kernels.iter().find_map(|(name, kernel)| Some((name, kernel.fault()?)));
        if let Some((name, fault)) = fault {
            return Some(format!("kernel {name:?}: {fault}"));
        }
        if self.records.len() > RECORDS {
            return Some(format!("{} records (at most {RECORDS})", self.records.len()));
        }
        let mut seen = BTreeSet::new();
        for (number, record) in self.records.iter().enumerate() {
            let fault = record.fault().or_else(|| {
                (!self.systems.contains_key(&record.system))
                    .then(|| format!("system {:?} is not among the run's systems", record.system))
            });
            let fault = fault.or_else(|| {
                (!seen.insert((record.place(), record.round)))
                    .then(|| format!("the same measurement twice in round {}", record.round))
            });
            if let Some(fault) = fault {
                return Some(format!("record {}: {fault}", number + 1));
            }
        }
        None
    }
}
