//! Which cores take what comes in by an interface: the kernel's receive packet steering, RPS.
//!
//! What a program redirects into an interface waits for the core that redirected it. Where that core changes within a flow, as with a veth, whose
//! receiving side runs wherever the sender runs, two cores have packets of one flow waiting and may go on in any order. With RPS
//! the flow says which core they wait for. The kernel takes this setting by sysfs alone.
//!
//! The sysfs at /sys is that of the network namespace in which it was mounted, which may not be ours. So a new one is made, mounted nowhere;
//! without the privilege for that /sys has to do, if it shows an interface of that name with the same index. An interface that is in another namespace than
//! ours is left alone, and above all one here that has its name.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags, openat};

use crate::netns;
use crate::tun::Queue;

// linux/mount.h
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

/// Has the flows that come in by the interface of this queue, which has so many, spread over all cores, each flow to one.
///
/// # Errors
/// The interface is in another namespace; no privilege for it, or a kernel without RPS.
pub fn spread_flows(queue: &Queue, queues: usize) -> io::Result<()> {
    if !netns::same(queue.netns()?.as_fd(), netns::current()?.as_fd())? {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it is in another network namespace"));
    }
    let (name, index) = (queue.name()?, queue.index()?);
    // SAFETY: no pointers.
    let cores = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    let cores = usize::try_from(cores).map_err(|_| io::Error::last_os_error())?;
    let mask = mask(cores);
    let sysfs = match our_sysfs() {
        Ok(sysfs) => sysfs,
        Err(_) => File::open("/sys")?.into(),
    };
    let open = |path: &str, how| openat(&sysfs, path, how | OFlags::CLOEXEC, Mode::empty()).map(File::from);
    let told = io::read_to_string(open(&format!("class/net/{name}/ifindex"), OFlags::RDONLY)?)?;
    if told.trim().parse() != Ok(index) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "/sys is another network namespace's"));
    }
    for queue in 0..queues {
        let path = format!("class/net/{name}/queues/rx-{queue}/rps_cpus");
        open(&path, OFlags::WRONLY)?.write_all(mask.as_bytes())?;
    }
    Ok(())
}

/// The sysfs of our network namespace.
fn our_sysfs() -> io::Result<OwnedFd> {
    let own = |result: libc::c_long| match libc::c_int::try_from(result) {
        // SAFETY: the call has just made it, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the name ends with a zero and outlives the call.
    let context = own(unsafe { libc::syscall(libc::SYS_fsopen, c"sysfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the command takes neither key nor value.
    let made = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    own(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

/// So many cores, as the kernel writes sets of them: hexadecimal, in groups of 32 bits.
fn mask(cores: usize) -> String {
    let rest = cores % 32;
    let first = (rest > 0).then(|| format!("{:x}", (1u32 << rest) - 1));
    let groups = first.into_iter().chain((0..cores / 32).map(|_| "ffffffff".to_owned()));
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tun::{self, Offloads};
    use std::process::Command;

    const SETTING: &str = "class/net/spread0/queues/rx-0/rps_cpus";

    #[test]
    fn an_interface_here_with_the_name_of_one_elsewhere_is_left_alone() {
        std::thread::spawn(|| {
            let ip =
                |args: &str| assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "{args}");
            let rps = || {
                let sysfs = File::from(openat(our_sysfs().unwrap(), SETTING, OFlags::RDONLY, Mode::empty()).unwrap());
                io::read_to_string(sysfs).unwrap().chars().any(|c| c.is_ascii_hexdigit() && c != '0')
            };
            netns::unshare().unwrap();
            let home = netns::current().unwrap();
            let made = tun::create("spread0", 1, Offloads::default()).unwrap();
            spread_flows(&made.queues[0], 1).unwrap();
            assert!(rps());
            // It goes, and another one here has its name.
            netns::unshare().unwrap();
            let there = netns::current().unwrap();
            netns::enter(home.as_fd()).unwrap();
            let mut rt = crate::rt::Rt::open().unwrap();
            rt.move_link(made.index, there.as_fd()).unwrap();
            ip("link add spread0 type veth peer name spread1");
            assert!(!rps());
            assert!(spread_flows(&made.queues[0], 1).is_err());
            assert!(!rps());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn cores_are_written_in_groups() {
        for (cores, text) in
            [(1, "1"), (2, "3"), (31, "7fffffff"), (32, "ffffffff"), (33, "1,ffffffff"), (64, "ffffffff,ffffffff")]
        {
            assert_eq!(mask(cores), text);
        }
    }
}
