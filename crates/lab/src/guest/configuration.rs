//! How a kernel with WireGuard built in is configured: everything that a guest of the lab needs, and nothing else.
//!
//! Kconfig answers `n` to all that is not said here (`make allnoconfig` with `KCONFIG_ALLCONFIG`) and adds what the answers select. So the kernel has no
//! modules and few drivers, and is compiled in minutes. What it lost of the answers, because something that they depend on is not there, is an
//! error: a kernel without its console would say nothing at all.

/// What a guest cannot do without, by what for.
const NEEDED: [(&str, &[&str]); 7] = [
    (
        "an emulated machine",
        &["64BIT", "SMP", "PRINTK", "BUG", "HIGH_RES_TIMERS", "NO_HZ_IDLE", "ACPI", "PCI", "PCI_MSI"],
    ),
    ("its console and its control port", &["TTY", "SERIAL_8250", "SERIAL_8250_CONSOLE", "VIRTIO_CONSOLE"]),
    ("its cable", &["VIRTIO_MENU", "VIRTIO_PCI", "NETDEVICES", "NET_CORE", "VIRTIO_NET"]),
    (
        "its disk in memory and its first process",
        &[
            "BLK_DEV_INITRD",
            "BINFMT_ELF",
            "BINFMT_SCRIPT",
            "DEVTMPFS",
            "PROC_FS",
            "PROC_SYSCTL",
            "SYSFS",
            "SHMEM",
            "TMPFS",
        ],
    ),
    (
        "programs",
        &[
            "MULTIUSER",
            "FUTEX",
            "EPOLL",
            "SIGNALFD",
            "TIMERFD",
            "EVENTFD",
            "AIO",
            "FILE_LOCKING",
            "POSIX_TIMERS",
            "ADVISE_SYSCALLS",
            "MEMBARRIER",
            "NAMESPACES",
        ],
    ),
    ("networks of its own", &["NET", "UNIX", "PACKET", "INET", "IPV6", "NET_NS", "TUN", "VETH"]),
    (
        "what the modules of other guests are",
        &["BPF_SYSCALL", "NET_SCHED", "NET_SCH_NETEM", "NET_SCH_INGRESS", "NET_CLS", "NET_CLS_ACT", "NET_CLS_BPF"],
    ),
];

/// As Debian's kernels have it, so that sizes can be compared: the compression, and what code is compiled with against attacks. Names of these change
/// from series to series, and one that a series does not know it leaves aside.
const LIKE_DEBIAN: [&str; 10] = [
    "KERNEL_ZSTD",
    // Every kernel of a distribution has it, and its tests, which are bigger than WireGuard, would be counted as if that had brought them.
    "CRYPTO",
    "CRYPTO_MANAGER_DISABLE_TESTS",
    "JUMP_LABEL",
    "STACKPROTECTOR",
    "STACKPROTECTOR_STRONG",
    "CPU_MITIGATIONS",
    "MITIGATION_RETPOLINE",
    "SPECULATION_MITIGATIONS",
    "RETPOLINE",
];

/// What it is all about.
const WIREGUARD: &str = "WIREGUARD";

/// The answers, for `KCONFIG_ALLCONFIG`.
pub(super) fn text(wireguard: bool) -> String {
    let mut text = "CONFIG_LOCALVERSION=\"-built-in\"\nCONFIG_NR_CPUS=8\n".to_owned();
    let names = NEEDED.iter().flat_map(|(_, names)| *names).chain(&LIKE_DEBIAN).chain(wireguard.then_some(&WIREGUARD));
    for name in names {
        text += &format!("CONFIG_{name}=y\n");
    }
    text
}

/// What of the answers did not come through to a `.config`, and what it would be for.
pub(super) fn lost(config: &str, wireguard: bool) -> Option<String> {
    let has = |name: &str| config.lines().any(|line| line.strip_prefix("CONFIG_") == Some(&format!("{name}=y")));
    for (what, names) in NEEDED {
        if let Some(name) = names.iter().find(|name| !has(name)) {
            return Some(format!("CONFIG_{name}=y, for {what}"));
        }
    }
    match (has(WIREGUARD), wireguard) {
        (false, true) => Some("CONFIG_WIREGUARD=y".to_owned()),
        (true, false) => Some("CONFIG_WIREGUARD=n".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_differ_by_wireguard_alone() {
        let (with, without) = (text(true), text(false));
        assert_eq!(with, format!("{without}CONFIG_WIREGUARD=y\n"));
        for line in with.lines() {
            let (name, value) = line.split_once('=').unwrap();
            assert!(name.starts_with("CONFIG_") && !value.is_empty(), "{line}");
            assert_eq!(with.matches(&format!("{name}=")).count(), 1, "{name} is asked twice");
        }
    }

    #[test]
    fn an_answer_that_was_lost_is_named() {
        let config = format!("# Linux/x86 6.12\n{}CONFIG_CRYPTO=y\n", text(true));
        assert_eq!(lost(&config, true), None);
        let without = config.replace("CONFIG_WIREGUARD=y", "# CONFIG_WIREGUARD is not set");
        assert_eq!(lost(&without, false), None);
        assert_eq!(lost(&without, true).as_deref(), Some("CONFIG_WIREGUARD=y"));
        assert_eq!(lost(&config, false).as_deref(), Some("CONFIG_WIREGUARD=n"));
        let mute = config.replace("CONFIG_VIRTIO_CONSOLE=y", "# CONFIG_VIRTIO_CONSOLE is not set");
        assert_eq!(lost(&mute, true).as_deref(), Some("CONFIG_VIRTIO_CONSOLE=y, for its console and its control port"));
        // A module is not built in, and a name is more than its beginning.
        assert!(lost(&config.replace("CONFIG_TUN=y", "CONFIG_TUN=m"), true).is_some());
        assert!(lost(&config.replace("CONFIG_NET=y", ""), true).is_some());
        // What a series knows by another name it may lack.
        assert_eq!(lost(&config.replace("CONFIG_RETPOLINE=y\n", ""), true), None);
    }
}
