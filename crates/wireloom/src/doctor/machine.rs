//! The machine: what a tunnel of ours needs of it, and what makes it fast.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use linux::probe::{self, TunProbe};
use linux::tun::TunError;
use linux::{clock, process};

use super::ebpf;
use super::finding::{Kind, OneLine, Report};

/// What our sockets ask for, in bytes; see `linux::udp::UdpOptions`.
const SOCKET_BUFFER: u64 = 7 << 20;
/// The oldest kernel that all of this was made for.
const OLDEST: (u32, u32) = (5, 4);

/// Looks at all of it.
pub fn examine(report: &mut Report) {
    let root = rustix::process::geteuid().is_root();
    if !root {
        report.add(
            Kind::Unseen,
            "You are not root: what the kernel would do for a TUN, devices of others and the paths inside a tunnel cannot all be looked at.",
            "Run it with sudo to see everything.",
        );
    }
    let version = kernel(report);
    tun(report, root);
    if root {
        ebpf::examine(report, version);
    }
    udp(report, root);
    processor(report);
    wall_clock(report);
    conntrack(report);
    resolver(report);
}

/// A setting of the kernel's, by its path below `/proc/sys`.
pub fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok().map(|text| text.trim().to_owned())
}

/// One that is a number.
pub fn sysctl_number(path: &str) -> Option<u64> {
    sysctl(path)?.parse().ok()
}

/// Tells of the kernel; its version.
fn kernel(report: &mut Report) -> Option<(u32, u32)> {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let version = version(&release);
    match version {
        Some(version) if version < OLDEST => report.add(
            Kind::KernelOld,
            format!("Linux {release} is older than 5.4, and nobody has tried this program there."),
            "Use a newer kernel.",
        ),
        _ => report.ok(Kind::Kernel, format!("Linux {release}.")),
    }
    // Asking the kernel would load the module.
    let modules = format!("/lib/modules/{release}");
    let listed = |file: &str| {
        fs::read_to_string(format!("{modules}/{file}")).is_ok_and(|text| text.contains("/net/wireguard/wireguard.ko"))
    };
    let what = if Path::new("/sys/module/wireguard").exists() || listed("modules.builtin") {
        "The kernel has WireGuard of its own, and it is loaded."
    } else if listed("modules.dep") {
        "The kernel has WireGuard of its own, as a module that is not loaded."
    } else {
        "The kernel has no WireGuard of its own."
    };
    report.add(Kind::KernelWireguard, what, "Nothing: ours does not need it.");
    version
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn tun(report: &mut Report, root: bool) {
    match fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !root => return,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return report.add(
                Kind::TunRefused,
                format!("/dev/net/tun cannot be opened: {}.", OneLine(error)),
                "Give the container the device (--device /dev/net/tun), or the file its mode 0666 back.",
            );
        }
        Err(error) => {
            return report.add(
                Kind::TunMissing,
                format!("There is no TUN driver: /dev/net/tun cannot be opened ({}).", OneLine(error)),
                "`modprobe tun`, or give the container the device (--device /dev/net/tun).",
            );
        }
        Ok(_) if !root => return,
        Ok(_) => (),
    }
    let probe = match TunProbe::run() {
        Ok(probe) => probe,
        // Not what is needed for a TUN, but for a place where to try.
        Err(TunError::Os { what: "making a network namespace", source }) => {
            return report.add(
                Kind::Unseen,
                format!(
                    "What the kernel does for a TUN cannot be tried: a network namespace is refused ({}).",
                    OneLine(source)
                ),
                "Run it with CAP_SYS_ADMIN to see it.",
            );
        }
        Err(error) => {
            return report.add(
                Kind::TunRefused,
                format!("The kernel refuses to make a TUN: {}.", OneLine(error)),
                "Run the daemon as root, or give it CAP_NET_ADMIN.",
            );
        }
    };
    let offloads = probe.offloads;
    let has = [(offloads.vnet && offloads.csum, "checksums"), (offloads.tso, "TCP"), (offloads.uso, "UDP")];
    let missing: Vec<&str> = has.iter().filter(|(has, _)| !has).map(|(_, name)| *name).collect();
    if missing.is_empty() && probe.queues {
        report.ok(Kind::Tun, "TUN devices can be made, with several queues and super-packets of TCP and UDP.");
    } else {
        report.ok(Kind::Tun, "TUN devices can be made.");
        let queues = if probe.queues { "" } else { " It has one queue only." };
        report.add(
            Kind::TunOffloadsMissing,
            format!("A TUN has no offload of {}.{queues}", missing.join(" and ")),
            "Nothing, or use Linux 6.2 or newer: it works without, but takes more processor time.",
        );
    }
    match (&probe.steering, &probe.bound) {
        (Ok(()), Ok(())) => report.ok(Kind::Ebpf, "The kernel takes our two eBPF programs."),
        (Err(error), _) | (_, Err(error)) => report.add(
            Kind::EbpfRefused,
            format!(
                "The kernel refuses our eBPF programs ({}): flows may be reordered, and queues are bounded by packets.",
                OneLine(error)
            ),
            "Allow the daemon the system call bpf: CAP_BPF or CAP_SYS_ADMIN, in a container's policy too.",
        ),
    }
    if sysctl("net/core/bpf_jit_enable").as_deref() == Some("0") {
        report.add(
            Kind::BpfJitOff,
            "The kernel interprets eBPF programs, and one of ours runs on each packet.",
            "`sysctl net.core.bpf_jit_enable=1`.",
        );
    }
}

fn udp(report: &mut Report, root: bool) {
    match probe::udp_offloads() {
        Ok((true, true)) => report.ok(Kind::UdpOffloads, "UDP sockets send and receive super-packets."),
        Ok((send, _)) => report.add(
            Kind::UdpOffloadsMissing,
            format!("UDP sockets cannot {} super-packets.", if send { "receive" } else { "send" }),
            "Nothing, or use Linux 5.12 or newer: it works without, but takes more processor time.",
        ),
        Err(error) => report.add(
            Kind::UdpOffloadsMissing,
            format!("UDP sockets cannot be made here: {}.", OneLine(error)),
            "Bring the loopback interface up: `ip link set lo up`.",
        ),
    }
    let limits = ["rmem_max", "wmem_max"].map(|name| sysctl_number(&format!("net/core/{name}")));
    // Root passes the limits.
    if !root && limits.iter().flatten().any(|limit| *limit < SOCKET_BUFFER) {
        report.add(
            Kind::BuffersSmall,
            "A daemon without CAP_NET_ADMIN gets smaller socket buffers than the 7 MiB that it asks for, and drops more when it is busy.",
            format!("`sysctl net.core.rmem_max={SOCKET_BUFFER} net.core.wmem_max={SOCKET_BUFFER}`, or run the daemon as root."),
        );
    }
}

fn processor(report: &mut Report) {
    let (backend, cpus) = (aead::Backend::best().name(), process::cpus());
    let workers = if cpus == 1 { "one worker".to_owned() } else { format!("up to {cpus} workers") };
    report.ok(Kind::Processor, format!("Packets are sealed and opened by {backend}, by {workers}."));
}

/// Handshakes carry the time, and a peer takes none that is not later than the last one.
fn wall_clock(report: &mut Report) {
    let built = std::env::current_exe().and_then(|path| path.metadata()?.modified()).ok();
    let built = built.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let remedy = "Set it, and keep it right by NTP (systemd-timesyncd, chrony).";
    if clock_is_behind(clock::wall(), built) {
        report.add(
            Kind::ClockBehind,
            "The clock says that this program was not made yet: peers that have seen a later time take our handshakes for repeated ones.",
            remedy,
        );
        return;
    }
    match probe::clock_is_synchronised() {
        Ok(true) => report.ok(Kind::Clock, "The clock is kept right."),
        _ => report.add(
            Kind::ClockUnsynchronised,
            "Nobody keeps the clock right, as far as the kernel knows: should it ever go back, peers do not answer us until it has caught up.",
            remedy,
        ),
    }
}

/// Whether the time is before one that has been, give or take a day.
pub fn clock_is_behind(now: Duration, been: Option<Duration>) -> bool {
    const DAY: Duration = Duration::from_secs(86_400);
    been.is_some_and(|been| now + DAY < been)
}

fn conntrack(report: &mut Report) {
    let number = |name: &str| sysctl_number(&format!("net/netfilter/nf_conntrack_{name}"));
    if let (Some(count), Some(max)) = (number("count"), number("max"))
        && max > 0
        && count * 10 >= max * 9
    {
        report.add(
            Kind::ConntrackFull,
            format!("The firewall's table of connections is nearly full ({count} of {max}): new ones are about to be dropped."),
            format!("`sysctl net.netfilter.nf_conntrack_max={}`, and look at who opens so many.", max * 2),
        );
    }
}

fn resolver(report: &mut Report) {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if !has_nameserver(&text) {
        report.add(
            Kind::ResolverNone,
            "/etc/resolv.conf names no server: endpoints that are names cannot be resolved, but by /etc/hosts.",
            "Put a line `nameserver ADDRESS` there, or have your network's manager do it.",
        );
    }
}

/// Whether there is a program that changes the name servers for a while.
pub fn has_dns_program() -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .any(|folder| ["resolvconf", "resolvectl"].iter().any(|name| folder.join(name).exists()))
}

fn has_nameserver(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("nameserver") && words.next().is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("x"), None);
        assert!(has_nameserver("# a\nsearch x\n nameserver  10.0.0.1\n"));
        assert!(!has_nameserver("# nameserver 10.0.0.1\nnameserver\n"));
        let day = Duration::from_secs(86_400);
        assert!(clock_is_behind(day, Some(day * 3)));
        assert!(
            !clock_is_behind(day * 3, Some(day)) && !clock_is_behind(day, Some(day * 2)) && !clock_is_behind(day, None)
        );
    }
}
