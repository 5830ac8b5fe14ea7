//! A bed for `up` and `down`: a host that has not only its network but also its files to itself, `/etc` and `/run`.
//!
//! A process keeps the mounts; it lies in the namespace, and so ends with it, and the mounts with it. The host has one way out, `eth0`, to
//! a world of one more host. Nothing in it is random, so that two beds can be compared to the letter.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::{Engine, Finished, LabError, Namespace, Process, Unpacked, run, wait_until};

use crate::common::{LIMIT, wireloom};
use crate::engines::engine;

/// The interface that is brought up. No other bed sees it.
pub const INTERFACE: &str = "wg0";

/// Where hooks write to. It is no part of a bed's state.
pub const HOOKS: &str = "/run/hooks.log";

/// Makes the mounts, says so, and stays.
const HOLD: &str = "\
    mount -t tmpfs -o mode=755 bed /mnt; cp -a /etc /mnt/etc; mkdir /mnt/bin; mount --bind /mnt/etc /etc; \
    mount -t tmpfs -o mode=755 bed /run; \
    rm -rf /etc/resolv.conf /etc/wireguard /etc/resolvconf*; mkdir -m 700 /etc/wireguard; \
    echo 'nameserver 192.0.2.1' > /etc/resolv.conf; \
    echo made; exec sleep 600";

/// Prints what the host is like, in parts that begin with `== `. Of folders the time says nothing, since whoever makes a file in them and removes it
/// changes that; what `wireloom` and its daemon keep for themselves is no part of it. Nor is the greatest MTU of a link: a program at XDP at its other end sets it.
const LOOK: &str = "\
    part() { echo \"== $1\"; shift; \"$@\" 2>&1; }; \
    echo '== addresses'; ip -d address 2>&1 | sed 's/ maxmtu [0-9]*//'; \
    part 'IPv4 routes' ip -4 -d route show table all; part 'IPv6 routes' ip -6 -d route show table all; \
    part 'IPv4 rules' ip -4 rule; part 'IPv6 rules' ip -6 rule; \
    echo '== firewall'; nft list ruleset 2>&1 || true; echo '== resolv.conf'; cat /etc/resolv.conf 2>&1 || true; \
    echo '== settings'; grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf | sort; \
    echo '== files'; find /etc /run \\( -path /run/wireloom -o -path /run/wireguard -o -path /run/mount -o -path /run/hooks.log \\) -prune \
        -o -type d -printf '%p %m\\n' -o -printf '%p %y %m %s %l %i %T@\\n' | sort";

/// The host, and the world.
pub struct Bed {
    /// The host's network.
    pub namespace: Namespace,
    /// The other host, 192.0.2.1 and `2001:db8::1`, to which all default routes lead.
    pub world: Namespace,
    holder: Process,
    program: PathBuf,
}

/// What a host is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State(String);

impl Bed {
    /// A bed that has just been made.
    #[track_caller]
    pub fn new() -> Bed {
        let (namespace, world) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        for path in ["accept_dad", "dad_transmits", "router_solicitations"] {
            for host in [&namespace, &world] {
                host.set_sysctl(&format!("net/ipv6/conf/default/{path}"), "0").unwrap();
            }
        }
        let mut add: Vec<&str> =
            "link add eth0 address 02:00:00:00:00:02 type veth peer name eth0".split(' ').collect();
        add.extend(["address", "02:00:00:00:00:01", "netns", world.name()]);
        namespace.ip(&add).unwrap();
        for (host, number) in [(&world, 1), (&namespace, 2)] {
            for line in [
                format!("address add 192.0.2.{number}/24 dev eth0"),
                format!("address add 2001:db8::{number}/64 dev eth0"),
                "link set eth0 up".to_owned(),
            ] {
                host.ip(&line.split(' ').collect::<Vec<_>>()).unwrap();
            }
        }
        namespace.ip(&["-4", "route", "add", "default", "via", "192.0.2.1"]).unwrap();
        namespace.ip(&["-6", "route", "add", "default", "via", "2001:db8::1"]).unwrap();
        // Both ends are up, and have their link-local addresses, a moment later.
        wait_until("the link", LIMIT, || {
            [&namespace, &world].iter().all(|host| {
                host.ip(&["address", "show", "dev", "eth0"])
                    .is_ok_and(|text| text.contains(" state UP ") && text.contains("fe80:"))
            })
        })
        .unwrap();
        // Link-local addresses of interfaces without a hardware address follow from it.
        namespace.set_sysctl("net/ipv6/conf/default/stable_secret", "2001:db8::5ec").unwrap();
        let mut holder = namespace.command("unshare");
        holder.args(["--mount", "--propagation", "private", "sh", "-ec", HOLD]);
        let mut holder = Process::spawn(&mut holder).unwrap();
        holder.wait_for_output("made", LIMIT).unwrap();
        Bed { namespace, world, holder, program: wireloom().program().unwrap() }
    }

    /// A command that will run on the host. What is in `/mnt/bin` comes before all others.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("/mnt/bin:{path}")).env("WG_QUICK_USERSPACE_IMPLEMENTATION", &self.program);
        if engine() != Engine::Userspace {
            command.env("WIRELOOM_ENGINE", engine().name());
        }
        command.args(["-t", &self.holder.id().to_string(), "--mount", "--net", "--wd=/"]);
        command.args(["setpriv", "--pdeathsig", "TERM"]).arg(program);
        command
    }

    /// Runs a shell script on the host, which is expected to succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        let finished = run(self.command("sh").args(["-ec", script]), LIMIT).and_then(Finished::checked);
        finished.unwrap().stdout
    }

    /// Puts a file there.
    #[track_caller]
    pub fn write(&self, path: &str, mode: u32, text: &str) {
        let scratch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(scratch.path(), text).unwrap();
        let from = scratch.path().display();
        self.sh(&format!("rm -f {path}; cp {from} {path}; chmod {mode:o} {path}"));
    }

    /// Writes the interface's file.
    #[track_caller]
    pub fn configure(&self, text: &str) {
        self.write(&format!("/etc/wireguard/{INTERFACE}.conf"), 0o600, text);
    }

    /// Puts the files of a package over those of the host, as if it were installed.
    #[track_caller]
    pub fn install(&self, package: Unpacked) {
        let tree = package.folder().unwrap();
        let tree = tree.display();
        self.sh(&format!(
            "if [ -d {tree}/etc ]; then cp -a {tree}/etc/. /etc; fi\n\
             over() {{ at=$1; shift; all=; for from; do if [ -d $from ]; then all=$all$from:; fi; done; \
             if [ -n \"$all\" ]; then mount -t overlay bed -o lowerdir=$all$at $at; fi; }}\n\
             over /usr/lib {tree}/lib {tree}/usr/lib; over /usr/sbin {tree}/sbin {tree}/usr/sbin; over /usr/bin {tree}/usr/bin"
        ));
    }

    /// Runs `wireloom ARGS`, whatever comes of it.
    #[track_caller]
    pub fn wireloom(&self, args: &[&str]) -> Finished {
        run(self.command(&self.program).args(args), LIMIT).unwrap()
    }

    /// Runs Debian's `wg-quick VERB INTERFACE`, whatever comes of it.
    #[track_caller]
    pub fn wg_quick(&self, verb: &str) -> Finished {
        run(self.command("wg-quick").args([verb, INTERFACE]), LIMIT).unwrap()
    }

    /// What it is like now.
    #[track_caller]
    pub fn state(&self) -> State {
        State(self.sh(LOOK))
    }

    /// Takes programs away, as if they were not installed.
    #[track_caller]
    pub fn hide(&self, programs: &[&str]) {
        let programs = programs.join(" ");
        self.sh(&format!(
            "mkdir -p /mnt/sbin; cp -an /usr/sbin/. /mnt/sbin; cd /mnt/sbin; rm -f {programs}; mount --bind /mnt/sbin /usr/sbin"
        ));
    }

    /// Whether there is a journal of the interface.
    pub fn has_journal(&self) -> bool {
        self.sh("ls -A /run/wireloom 2>/dev/null || true").contains(&format!("{INTERFACE}.json"))
    }

    /// The commands that run on the host.
    pub fn processes(&self) -> Vec<String> {
        let name = |pid: u32| std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok();
        let all = self.namespace.pids().into_iter().filter(|pid| *pid != self.holder.id());
        all.filter_map(name).map(|line| line.replace('\0', " ")).collect()
    }

    /// Waits until nothing runs on the host any more.
    ///
    /// # Errors
    /// Something does.
    pub fn wait_until_idle(&self) -> Result<(), LabError> {
        self.wait_until_idle_but_for(&[])
    }

    /// The same, but commands that have one of these words in them may go on.
    ///
    /// # Errors
    /// Another does.
    pub fn wait_until_idle_but_for(&self, words: &[&str]) -> Result<(), LabError> {
        let others = || self.processes().into_iter().filter(|line| !words.iter().any(|word| line.contains(word)));
        let what = format!("{:?} to end", others().collect::<Vec<_>>());
        wait_until(&what, Duration::from_secs(30), || others().next().is_none())
    }
}

impl State {
    /// The same without the lines that have one of these words in them.
    pub fn without(&self, words: &[&str]) -> State {
        let keep = |line: &&str| !words.iter().any(|word| line.contains(word));
        State(self.0.lines().filter(keep).map(|line| format!("{line}\n")).collect())
    }

    /// What of it can be the same on two hosts, or after a file was written anew: of files not which they are, and not when they were written.
    pub fn comparable(&self) -> State {
        let Some((rest, files)) = self.0.split_once("== files\n") else {
            return self.clone();
        };
        let names = files.lines().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ") + "\n");
        State(format!("{rest}== files\n{}", names.collect::<String>()))
    }

    /// One part of it.
    #[track_caller]
    pub fn part(&self, name: &str) -> &str {
        let start = format!("== {name}\n");
        let from = self.0.find(&start).unwrap() + start.len();
        let rest = &self.0[from..];
        &rest[..rest.find("\n== ").map_or(rest.len(), |end| end + 1)]
    }

    /// Fails, with the lines that differ, unless both are the same.
    #[track_caller]
    pub fn assert_same(&self, other: &State, what: &str) {
        if self == other {
            return;
        }
        let only = |one: &State, other: &State, sign: char| {
            let lines = one.0.lines().filter(|line| !other.0.lines().any(|there| there == *line));
            lines.map(|line| format!("{sign} {line}\n")).collect::<String>()
        };
        let (gone, come) = (only(self, other, '-'), only(other, self, '+'));
        assert!(!gone.is_empty() || !come.is_empty(), "{what}: the order differs:\n{}\n---\n{}", self.0, other.0);
        panic!("{what}:\n{gone}{come}");
    }
}

/// Fails, with what it said, unless it did its work.
#[track_caller]
pub fn succeeded(finished: Finished) -> String {
    assert!(finished.status.success(), "`{}`: {}\n{}", finished.command, finished.status, finished.log());
    finished.log()
}

/// Fails unless it did not do its work; gives the line in which it says why.
#[track_caller]
pub fn failed(finished: Finished) -> String {
    assert!(!finished.status.success(), "`{}` should have failed:\n{}", finished.command, finished.log());
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with("wireloom: ")).collect();
    lines.last().map_or_else(|| panic!("it does not say why:\n{}", finished.log()), |line| (*line).to_owned())
}
