//! What the eBPF engine takes of this machine, what is missing of it, and what that costs.
//!
//! Nothing here is a fault: the userspace engine takes none of it. The kernel is asked by loading the engine's own programs, which are attached nowhere; where it
//! refuses them, the reason is looked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ebpf::LoadError;
use ebpf::crypto::Aead;
use ebpf::probe::Probe;
use linux::probe;

use super::finding::{Kind, OneLine, Report};
use super::machine::sysctl;
use super::subject::Subject;
use crate::client;

/// Where TCX begins.
const TCX: (u32, u32) = (6, 6);

/// Looks at all of it, which takes root. `version` is the kernel's.
pub fn examine(report: &mut Report, version: Option<(u32, u32)>) {
    let probe = Probe::run();
    match &probe.load {
        Ok(()) => report.ok(Kind::EbpfEngine, takes(version, &probe.aead)),
        Err(refusal) => report.add(Kind::EbpfEngineMissing, missing(refusal), remedy(refusal)),
    }
    if probe.load.is_ok() && version.is_some_and(|version| version < TCX) {
        report.add(
            Kind::EbpfNoTcx,
            "This kernel has no TCX: the eBPF engine's programs are filters of tc, which stay on an interface until somebody takes them away, and do not run beside others' clsact disciplines that are deleted.",
            "Nothing, or use Linux 6.6 or newer.",
        );
    }
    without_xdp(report);
    settings(report);
}

fn takes(version: Option<(u32, u32)>, aead: &Aead) -> String {
    let hooks = if version.is_some_and(|version| version < TCX) { "by filters of tc" } else { "by TCX" };
    let cipher = match aead {
        Aead::There => "it has ChaCha20-Poly1305 for programs, which this version does not use yet",
        _ => "they compute ChaCha20-Poly1305 themselves, since it has none for programs",
    };
    format!("The kernel takes the programs of the eBPF engine, {hooks}; {cipher}.")
}

fn missing(refusal: &LoadError) -> String {
    // Lockdown keeps even root's programs from reading the kernel's memory.
    let locked =
        fs::read_to_string("/sys/kernel/security/lockdown").is_ok_and(|text| text.contains("[confidentiality]"));
    let locked = if locked { "; the kernel is locked down (confidentiality)" } else { "" };
    format!("The eBPF engine cannot run here: {}{locked}.", OneLine(refusal))
}

fn remedy(refusal: &LoadError) -> &'static str {
    match refusal {
        LoadError::NoBtf => "Nothing, or use a kernel with CONFIG_DEBUG_INFO_BTF: the userspace engine works without.",
        LoadError::Forbidden => {
            "Nothing, or give the daemon CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN and the system call bpf, in a container's policy too."
        }
        _ => "Nothing, or use Linux 6.1 or newer: the userspace engine works without.",
    }
}

/// The interfaces by which default routes lead, as /proc tells of this network namespace.
fn underlays() -> Vec<String> {
    let read = |file: &str| fs::read_to_string(Path::new("/proc/self/net").join(file)).unwrap_or_default();
    let mut names: Vec<String> = read("route").lines().filter_map(default_of_v4).collect();
    names.extend(read("ipv6_route").lines().filter_map(default_of_v6));
    names.sort();
    names.dedup();
    names
}

/// The interface of a line of /proc/net/route, if it is a default route.
fn default_of_v4(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    (words.len() > 7 && words[1] == "00000000" && words[7] == "00000000").then(|| words[0].to_owned())
}

/// Likewise of /proc/net/ipv6_route, in which the unreachable default is the loopback's.
fn default_of_v6(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_default = words.len() > 9 && words[0].bytes().all(|byte| byte == b'0') && words[1] == "00";
    (is_default && words[9] != "lo").then(|| words[9].to_owned())
}

fn without_xdp(report: &mut Report) {
    // Kernels before 6.3 do not tell.
    let Ok(takes) = probe::takes_xdp() else { return };
    let index = |name: &String| fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok();
    let without = |name: &String| index(name).is_some_and(|index: u32| takes.get(&index) == Some(&false));
    let names: Vec<String> = underlays().into_iter().filter(without).collect();
    if !names.is_empty() {
        report.add(
            Kind::EbpfNoXdp,
            format!(
                "The driver of {} takes no XDP: the eBPF engine receives there behind the network stack's first part, which costs it time for each packet.",
                names.join(", ")
            ),
            "Nothing: it works without.",
        );
    }
}

fn settings(report: &mut Report) {
    if sysctl("net/core/bpf_jit_harden").as_deref() == Some("2") {
        report.add(
            Kind::BpfJitHardened,
            "The kernel hides the constants of all eBPF programs, root's too, which makes the eBPF engine slower.",
            "`sysctl net.core.bpf_jit_harden=1` does so for ordinary users' programs alone.",
        );
    }
    if sysctl("kernel/unprivileged_bpf_disabled").as_deref() == Some("0") {
        report.add(
            Kind::BpfUnprivileged,
            "Any user may load eBPF programs, which have been a way to read what is not theirs, such as keys.",
            "`sysctl kernel.unprivileged_bpf_disabled=1`.",
        );
    }
}

/// Looks at what the engine's programs pass by, if it is they that run the device.
pub fn bypassed(subject: &Subject, report: &mut Report) {
    let programs = client::stats(&subject.name).ok().flatten().is_some_and(|(stats, _)| !stats.programs.is_empty());
    if !programs {
        return;
    }
    // As an ordinary user sees nothing of them, and where there is no `nft` there is hardly a rule of nftables.
    let Ok(listed) = Command::new("nft").args(["list", "ruleset"]).output() else { return };
    let peers = subject.peers.iter().flat_map(|peer| &peer.at).map(|at| at.port()).collect();
    if let Some(rule) = about_us(&String::from_utf8_lossy(&listed.stdout), subject.port, &peers) {
        report.add(
            Kind::EbpfPassesFirewall,
            format!("What the eBPF programs send does not come through the firewall's output chains, which have a rule for it: `{}`.", OneLine(rule)),
            "Nothing, if it is not meant for the tunnel's data; else use the userspace engine.",
        );
    }
}

/// The first rule of an output chain, as `nft list ruleset` prints them, that names our port or a peer's.
fn about_us<'a>(ruleset: &'a str, port: u16, peers: &BTreeSet<u16>) -> Option<&'a str> {
    let mut output = false;
    for line in ruleset.lines().map(str::trim) {
        if line.starts_with("chain ") {
            output = false;
        }
        output |= line.starts_with("type ") && line.contains(" hook output ");
        let words: Vec<&str> = line.split_whitespace().collect();
        let named = |what: &str, is: &dyn Fn(u16) -> bool| {
            words.windows(2).any(|pair| pair[0] == what && pair[1].parse().is_ok_and(is))
        };
        if output && (named("sport", &|it| it == port) || named("dport", &|it| peers.contains(&it))) {
            return Some(line);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_what_we_send_are_found() {
        let rules = |chain: &str, rule: &str| {
            format!(
                "table inet filter {{\n\tchain a {{\n\t\ttype filter hook {chain} priority filter; policy accept;\n\t\t{rule}\n\t}}\n\tchain b {{\n\t\tudp sport 51820 drop\n\t}}\n}}\n"
            )
        };
        let peers = BTreeSet::from([1234]);
        for (chain, rule, found) in [
            ("output", "udp sport 51820 drop", true),
            ("output", "meta l4proto udp udp dport 1234 counter packets 0 bytes 0 reject", true),
            ("output", "udp dport 51820 drop", false),
            ("output", "udp sport 51821 drop", false),
            ("input", "udp sport 51820 drop", false),
        ] {
            assert_eq!(about_us(&rules(chain, rule), 51820, &peers), found.then_some(rule), "{chain} {rule}");
        }
    }

    #[test]
    fn default_routes_are_told_from_others() {
        let v4 = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        assert_eq!(default_of_v4(v4).as_deref(), Some("eth0"));
        assert_eq!(default_of_v4(&v4.replacen("00000000", "0000A8C0", 1)), None);
        assert_eq!(default_of_v4("Iface\tDestination\tGateway \tFlags"), None);
        let zeros = "0".repeat(32);
        let v6 = |net: &str, len: &str, dev: &str| {
            format!("{net} {len} {zeros} 00 {zeros} 00000400 00000001 00000000 00000003 {dev}")
        };
        assert_eq!(default_of_v6(&v6(&zeros, "00", "eth0")).as_deref(), Some("eth0"));
        assert_eq!(default_of_v6(&v6(&zeros, "00", "lo")), None);
        assert_eq!(default_of_v6(&v6(&zeros, "40", "eth0")), None);
        assert_eq!(default_of_v6(&v6(&zeros.replacen('0', "2", 1), "00", "eth0")), None);
    }
}
