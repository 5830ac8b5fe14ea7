//! The WireGuard of a kernel that this machine does not run, looked at in a guest: whether it works, how it comes to be there, and what it weighs.
//!
//! A guest is emulated, and so nothing is said of how fast it carries packets. How long the module takes to load is told as it was in the emulator, which
//! is slower than any machine: two kernels in one emulator may be compared by it, and nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use evaluation::{Growth, GuestKernel};

use super::{Place, find};
use crate::guest::Size;
use crate::traffic::helper;
use crate::{GuestSpec, Kernel, LabError, Namespace};

/// Bytes there and back through the tunnel, each checked.
const BYTES: u64 = 200_000;

/// How often the module is unloaded and loaded.
const ROUNDS: usize = 3;

/// How long a script may take in a busy emulator.
const LIMIT: Duration = Duration::from_secs(120);

/// What is known of a kernel's WireGuard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// What `uname -r` says.
    pub release: String,
    /// A module, or a part of the image.
    pub place: Place,
    /// A module's file in bytes, unpacked.
    pub file: Option<u64>,
    /// The memory that a module takes, in bytes, as `/proc/modules` has it.
    pub memory: Option<u64>,
    /// The same with all modules that it needs.
    pub memory_with_needed: Option<u64>,
    /// How many those are.
    pub needed: usize,
    /// How long loading took in the emulator, each time; what it needs was there.
    pub loads: Vec<Duration>,
    /// Whether an interface outlives the module's being exchanged while the machine runs. What is built in cannot be exchanged without a reboot.
    pub interfaces_survive: Option<bool>,
    /// What building it in adds, of a kernel that was compiled here.
    pub growth: Option<Size>,
    /// Bytes that went through a tunnel between two namespaces of the guest and came back right.
    pub carried: u64,
}

impl Weight {
    /// For a run, at `when` seconds since 1970.
    pub fn record(&self, when: u64) -> GuestKernel {
        GuestKernel {
            release: self.release.clone(),
            place: self.place.name().to_owned(),
            carried: self.carried,
            file: self.file,
            memory: self.memory,
            memory_with_needed: self.memory_with_needed,
            needed: u32::try_from(self.needed).unwrap_or(u32::MAX),
            loads: self.loads.iter().map(Duration::as_secs_f64).collect(),
            growth: self.growth.map(|it| Growth { image: it.image, text: it.text, data: it.data, bss: it.bss }),
            interfaces_survive: self.interfaces_survive,
            emulated: true,
            when,
            failure: None,
        }
    }
}

/// Boots a kernel, has its WireGuard carry checked bytes between two hosts, and weighs it.
///
/// # Errors
/// As [`GuestSpec::boot`]; or it does not work.
pub fn weigh(kernel: Kernel) -> Result<Weight, LabError> {
    let namespace = Namespace::new()?;
    // That of busybox knows no fractions of a second.
    let guest = GuestSpec::new(kernel).program(helper()?).program(find("date")?).boot(&namespace)?;
    let script = |text: &str| -> Result<String, LabError> { Ok(guest.attempt(text, LIMIT)?.checked()?.stdout) };
    script(&pair())?;
    script(&format!("ip netns exec a lab-traffic tcp 10.77.1.2:7007 {BYTES}"))?;
    let is_module = script("[ -e /sys/module/wireguard/initstate ] && echo yes || echo no")?.trim() == "yes";
    let mut weight = Weight {
        release: guest.release.clone(),
        place: if is_module { Place::Module } else { Place::BuiltIn },
        file: None,
        memory: None,
        memory_with_needed: None,
        needed: 0,
        loads: Vec::new(),
        growth: kernel.image()?.sizes.map(|sizes| sizes.growth()),
        interfaces_survive: None,
        carried: BYTES,
    };
    if !is_module {
        return Ok(weight);
    }
    let number = |text: String| -> Result<u64, LabError> {
        text.trim().parse().map_err(|_| LabError::Unreadable { what: "a number of a guest", text })
    };
    weight.file = Some(number(script("stat -c %s /modules/wireguard.ko")?)?);
    let list = script("cat /proc/modules")?;
    let sizes =
        sizes_of(&list, "wireguard").ok_or(LabError::Unreadable { what: "the modules of a guest", text: list })?;
    weight.memory = sizes.first().copied();
    weight.memory_with_needed = Some(sizes.iter().sum());
    weight.needed = sizes.len() - 1;
    let times = script(&format!(
        "for i in $(seq {ROUNDS}); do rmmod wireguard || exit 1; a=$(date +%s%N); insmod /modules/wireguard.ko || exit 1; b=$(date +%s%N); echo $((b - a)); done"
    ))?;
    weight.loads = times.lines().filter_map(|line| Some(Duration::from_nanos(line.trim().parse().ok()?))).collect();
    let left = script("ip -n a -o link show type wireguard")?;
    weight.interfaces_survive = Some(!left.trim().is_empty());
    Ok(weight)
}

/// The script that makes two namespaces, a link, a tunnel, and the answering end.
fn pair() -> String {
    let mut text =
        "set -e\nip netns add a\nip netns add b\nip -n a link add v type veth peer name v netns b\n".to_owned();
    for (own, host) in [("a", 1), ("b", 2)] {
        text += &format!(
            "ip -n {own} link set lo up\nip -n {own} addr add 172.16.0.{host}/24 dev v\nip -n {own} link set v up\n\
             ip -n {own} link add wg0 type wireguard\numask 077\nwg genkey > /tmp/{own}\nwg pubkey < /tmp/{own} > /tmp/{own}.pub\n"
        );
    }
    for (own, far, host) in [("a", "b", 1), ("b", "a", 2)] {
        let other = 3 - host;
        text += &format!(
            "ip netns exec {own} wg set wg0 private-key /tmp/{own} listen-port 51820 peer $(cat /tmp/{far}.pub) \
             allowed-ips 10.77.1.{other}/32 endpoint 172.16.0.{other}:51820\n\
             ip -n {own} addr add 10.77.1.{host}/24 dev wg0\nip -n {own} link set wg0 mtu 1420 up\n"
        );
    }
    text + "ip netns exec b lab-traffic serve 7007 > /tmp/served 2>&1 &\n\
            for i in $(seq 300); do grep -q ready /tmp/served && exit 0; sleep 0.1; done\nexit 1\n"
}

/// The sizes of a module and of all that it needs, itself first, from `/proc/modules`: name, size, uses, by whom.
fn sizes_of(list: &str, module: &str) -> Option<Vec<u64>> {
    let lines: Vec<(&str, u64, Vec<&str>)> = list
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (name, size, _, users) = (words.next()?, words.next()?, words.next()?, words.next()?);
            Some((name, size.parse().ok()?, users.split(',').collect()))
        })
        .collect();
    let mut found = vec![lines.iter().find(|(name, ..)| *name == module)?.1];
    let mut names = BTreeSet::from([module]);
    loop {
        let more = lines
            .iter()
            .find(|(name, _, users)| !names.contains(name) && users.iter().any(|user| names.contains(user)));
        let Some((name, size, _)) = more else { return Some(found) };
        names.insert(name);
        found.push(*size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_that_a_module_needs() {
        let list = "wireguard 100 0 - Live 0x0\nlibcurve 20 1 wireguard, Live 0x0\nlibpoly 3 1 libchachapoly, Live 0x0\n\
                    libchachapoly 4 1 wireguard, Live 0x0\ntun 1000 0 - Live 0x0\n";
        let mut sizes = sizes_of(list, "wireguard").unwrap();
        assert_eq!(sizes[0], 100);
        sizes.sort_unstable();
        assert_eq!(sizes, [3, 4, 20, 100]);
        assert_eq!(sizes_of(list, "esp4"), None);
    }
}
