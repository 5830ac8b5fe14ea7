//! `cargo xtask setup`: installs what the other commands use, and says what.
//!
//! Programs of the system come as Debian packages. The peers that are no packages are built by `cargo install` into a cache
//! in the user's home, once, each at the version that our results speak of. The kernels that guests boot are packages too, but
//! are only unpacked into that cache: nothing of this machine's own kernel changes. So is a small Debian, for packages and services.

use std::env;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use lab::{Debian, Image, Kernel, LabError, Series, System, Unpacked, peers_folder};

use crate::cargo::{root, show};
use crate::error::Failure;

/// What `setup` may be told.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Options {
    /// Leave out boringtun and gotatun, which take a few minutes to build, and the kernels; only `test` and `bench` use them
    #[arg(long)]
    pub no_peers: bool,
}

/// Programs that we use and the packages that hold them. What every Debian has (perl, setpriv, getconf) is not listed.
const PROGRAMS: &[(&str, &str)] = &[
    ("wg", "wireguard-tools"),
    ("wireguard-go", "wireguard-go"),
    ("iperf3", "iperf3"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("ethtool", "ethtool"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("man", "man-db"),
    ("mandoc", "mandoc"),
    ("zsh", "zsh"),
    ("fish", "fish"),
    ("nft", "nftables"),
    ("iptables-restore", "iptables"),
    ("dbus-daemon", "dbus-daemon"),
    ("debootstrap", "debootstrap"),
    ("tcpdump", "tcpdump"),
    ("openssl", "openssl"),
    ("openvpn", "openvpn"),
    ("swanctl", "strongswan-swanctl"),
    ("charon-systemd", "charon-systemd"),
    ("bpftool", "bpftool"),
    ("cc", "gcc libc6-dev"),
    ("clang-19", "clang-19"),
    ("llvm-strip-19", "llvm-19"),
];

/// What is no program, by a file of it: the libraries that the loader of eBPF programs reads objects with, and what strongSwan loads.
const FILES: [(&str, &str); 4] = [
    ("/usr/include/libelf.h", "libelf-dev"),
    ("/usr/include/zlib.h", "zlib1g-dev"),
    ("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so", "libcharon-extra-plugins"),
    ("/usr/lib/ipsec/plugins/libstrongswan-openssl.so", "libstrongswan-standard-plugins"),
];

/// Services that come with packages and that nobody has asked for, with the package: the lab runs those programs itself, where nobody else meets them.
const SERVICES: [(&str, &str); 2] = [("openvpn.service", "openvpn"), ("strongswan.service", "charon-systemd")];

/// What decides whether a package may start its services, and one that says no.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const NO_SERVICES: &str = "#!/bin/sh\n# For the time of an installation by `cargo xtask setup`.\nexit 101\n";

/// What the fuzz targets need on top: libFuzzer is C++.
const FUZZ_PROGRAMS: [(&str, &str); 1] = [("c++", "g++")];

/// A peer from the crates registry.
struct Peer {
    name: &'static str,
    version: &'static str,
    binary: &'static str,
    flags: &'static [&'static str],
}

const PEERS: [Peer; 2] = [
    Peer { name: "boringtun-cli", version: "0.7.1", binary: "boringtun-cli", flags: &[] },
    Peer {
        name: "gotatun-cli",
        version: "0.10.2",
        binary: "gotatun",
        // Its default is another crypto library, which takes longer to build and more tools.
        flags: &["--no-default-features", "--features", "ring"],
    },
];

/// Installs what is missing.
pub fn run(options: &Options) -> Result<(), Failure> {
    tell_of_compiler();
    install_packages()?;
    if !Path::new("/dev/net/tun").exists() {
        // It may be a module that nobody has asked for yet.
        let _ = Command::new("modprobe").arg("tun").status();
        if !Path::new("/dev/net/tun").exists() {
            return Err(Failure::NoTun);
        }
    }
    if options.no_peers {
        println!("Set up.");
        return Ok(());
    }
    for peer in &PEERS {
        install_peer(peer)?;
    }
    for series in Series::ALL {
        install_kernel(series)?;
    }
    install_debian()?;
    for package in Unpacked::ALL {
        unpack(package)?;
    }
    println!("Set up; these can be driven:");
    for system in System::peers() {
        println!("  {:<13} {}", system.name(), system.program()?.display());
    }
    for kernel in Kernel::ALL {
        println!("  {:<13} {}", "kernel", kernel.image()?.release);
    }
    Ok(())
}

/// A package into the cache, to be unpacked and not installed.
fn unpack(package: Unpacked) -> Result<(), Failure> {
    if package.folder().is_ok() {
        return Ok(());
    }
    println!("Downloading the package {} (to unpack and not to install) …", package.name());
    match package.fetch() {
        Err(failure) if !matches!(failure, LabError::Interrupted) && lab::require_root().is_ok() => {
            println!("{failure}\nOnce more, with new lists: old ones may tell of a package that is no more …");
            apt(&["update"])?;
            package.fetch()?;
        }
        fetched => {
            fetched?;
        }
    }
    Ok(())
}

/// Tells what `.cargo/cc` had to install before this program could be built, once.
fn tell_of_compiler() {
    let note = root().join("target/cc-installed");
    if let Ok(packages) = fs::read_to_string(&note) {
        println!("Installed the packages {}, since there was no C compiler to build with.", packages.trim());
        // If it stays, it is told again.
        let _ = fs::remove_file(note);
    }
}

fn install_packages() -> Result<(), Failure> {
    let fuzz = root().join("fuzz").exists();
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .chain(FUZZ_PROGRAMS.iter().filter(|_| fuzz))
        .filter(|(program, _)| find(program).is_none())
        .flat_map(|(_, packages)| packages.split(' '))
        .chain(FILES.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package))
        // The names of services, which ports may be written as.
        .chain((!Path::new("/etc/services").exists()).then_some("netbase"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing_line = missing.join(" ");
    let fail = |remedy| Err(Failure::Missing { missing: missing_line.clone(), remedy });
    if find("apt-get").is_none() {
        return fail("this is no Debian, so please install them with its own package manager");
    }
    if lab::require_root().is_err() {
        return fail("installing needs root: run this with sudo");
    }
    println!("Installing the packages {missing_line} …");
    apt(&["update"])?;
    // Without what they recommend: that of wireguard-tools is a kernel.
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(&missing);
    let _quiet = Quiet::new()?;
    apt(&args)?;
    for (service, _) in SERVICES.iter().filter(|(_, package)| missing.contains(package)) {
        // Where there is no systemd, nobody starts it anyway.
        let _ = Command::new("systemctl").args(["--quiet", "disable", service]).status();
    }
    Ok(())
}

/// As long as this lives, packages start no services. Where this machine has said so itself, it stays as it is.
struct Quiet {
    is_ours: bool,
}

impl Quiet {
    fn new() -> Result<Quiet, Failure> {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        match file {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Quiet { is_ours: false }),
            file => {
                let quiet = Quiet { is_ours: true };
                file.and_then(|mut file| file.write_all(NO_SERVICES.as_bytes()))
                    .map_err(Failure::io(POLICY.to_owned()))?;
                Ok(quiet)
            }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.is_ours {
            // It may not be there, if it could not be made.
            let _ = fs::remove_file(POLICY);
        }
    }
}

fn apt(args: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", "DPkg::Lock::Timeout=120"]).args(args);
    show(&mut command)
}

/// The newest kernel of its series, into the cache; one that is there stays as it is.
fn install_kernel(series: Series) -> Result<(), Failure> {
    if Kernel::Debian(series).image().is_ok() {
        return Ok(());
    }
    let package = match Image::find_package(series) {
        // The lists of a fresh system are empty.
        Err(LabError::NoKernel { .. }) if lab::require_root().is_ok() => {
            apt(&["update"])?;
            Image::find_package(series)?
        }
        found => found?,
    };
    println!("Downloading the package {} (about 30 MB, to unpack and not to install) …", package.name);
    let image = match package.fetch() {
        Err(failure) if !matches!(failure, LabError::Interrupted) && lab::require_root().is_ok() => {
            println!("{failure}\nOnce more, with new lists: old ones may tell of a package that is no more …");
            apt(&["update"])?;
            Image::find_package(series)?.fetch()?
        }
        fetched => fetched?,
    };
    println!("Linux {} is in {}.", image.release, image.folder().display());
    Ok(())
}

/// The small Debian that packages are installed into and that guests boot, into the cache.
fn install_debian() -> Result<(), Failure> {
    if Debian::is_fetched() {
        return Ok(());
    }
    println!("Making a small Debian (about 60 MB to download, once; a minute or two) …");
    println!("It is {}.", Debian::fetch()?.display());
    Ok(())
}

fn install_peer(peer: &Peer) -> Result<(), Failure> {
    let folder = peers_folder();
    let pinned = format!("\"{} {} ", peer.name, peer.version);
    let list = fs::read_to_string(folder.join(".crates.toml")).unwrap_or_default();
    if list.contains(&pinned) && folder.join("bin").join(peer.binary).exists() {
        return Ok(());
    }
    println!("Building {} {} into {} (once; a few minutes) …", peer.name, peer.version, folder.display());
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["install", "--locked", "--force", "--root"])
        .arg(&folder)
        .arg(format!("{}@{}", peer.name, peer.version))
        .args(peer.flags)
        // Not as a part of our workspace: neither its settings nor its target folder are theirs.
        .current_dir("/")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    show(&mut command)
}

/// Where a program is, in the path or where Debian keeps those of root.
fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
