//! Which neighbours a socket for reports hears of: those that somebody has asked about, and no others.
//!
//! A kernel reports each change of each neighbour of each interface, on a large network some in every second, and whoever listens is woken. So the socket
//! has a filter, a classic BPF program, that lets pass what is no report of a neighbour, and of neighbours those that are next hops.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::sys::{set_int, set_option};

/// With more of them it hears of all.
const MOST: usize = 64;

/// The next hops, by their interface and address.
#[derive(Debug, Default)]
pub struct Hops(BTreeSet<(u32, IpAddr)>);

impl Hops {
    /// None: the socket hears of no neighbour.
    pub fn none(socket: BorrowedFd<'_>) -> io::Result<Hops> {
        let hops = Hops::default();
        hops.attach(socket).map(|()| hops)
    }

    /// Has the socket hear of this one from now on.
    pub fn add(&mut self, socket: BorrowedFd<'_>, hop: (u32, IpAddr)) -> io::Result<()> {
        if self.0.insert(hop) { self.attach(socket) } else { Ok(()) }
    }

    /// Has the socket hear of no others than these.
    pub fn keep(&mut self, socket: BorrowedFd<'_>, which: impl Fn(&(u32, IpAddr)) -> bool) -> io::Result<()> {
        let before = self.0.len();
        self.0.retain(which);
        if self.0.len() < before { self.attach(socket) } else { Ok(()) }
    }

    fn attach(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        if self.0.len() > MOST {
            return set_int(socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0).or_else(|error| {
                // There was none.
                if error.raw_os_error() == Some(libc::ENOENT) { Ok(()) } else { Err(error) }
            });
        }
        let mut program = self.program();
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // The kernel copies the program that this points to during the call.
        set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// What the kernel is to run. Its loads take bytes for a number in network order, which the message has in the machine's own.
    fn program(&self) -> Vec<libc::sock_filter> {
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
        const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        // Of the `struct nlmsghdr`, of the `struct ndmsg` behind it, and of its first attribute, the address: `neigh_fill_info` in the kernel.
        const KIND: u32 = 4;
        const INTERFACE: u32 = 16 + 4;
        const ADDRESS: u32 = 16 + 12 + 4;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
        let mut program = vec![
            step(LOAD_HALF, 0, 0, KIND),
            step(JUMP_IF_EQUAL, 2, 0, kind(libc::RTM_NEWNEIGH)),
            step(JUMP_IF_EQUAL, 1, 0, kind(libc::RTM_DELNEIGH)),
            step(RETURN, 0, 0, u32::MAX),
        ];
        for (interface, ip) in &self.0 {
            // Of IPv6 the first and the last word: who hears of one too many looks once more.
            let words = match ip {
                IpAddr::V4(ip) => vec![(ADDRESS, ip.to_bits())],
                IpAddr::V6(ip) => vec![(ADDRESS, (ip.to_bits() >> 96) as u32), (ADDRESS + 12, ip.to_bits() as u32)],
            };
            let interface = (INTERFACE, u32::from_be_bytes(interface.to_ne_bytes()));
            let mut left = 2 * words.len() as u8 + 2;
            for (at, word) in [interface].into_iter().chain(words) {
                program.extend([step(LOAD, 0, 0, at), step(JUMP_IF_EQUAL, 0, left - 1, word)]);
                left -= 2;
            }
            program.push(step(RETURN, 0, 0, u32::MAX));
        }
        program.push(step(RETURN, 0, 0, 0));
        program
    }
}
