//! Filters of the `clsact` discipline, by rtnetlink: what kernels before 6.6 have in place of TCX.
//!
//! A filter is ours by its priority and its handle, which is the number of the interface that it works for. Those of a daemon that was killed with
//! its steward stay, since nobody else would delete them, until another daemon comes to the same place: it replaces those of its own interface, and deletes
//! those of interfaces that there are no more. The discipline is made if it is missing, and taken away with the last filter in it, if it was made
//! here; one that somebody else made stays.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use super::Hook;
use crate::link::message::{Request, find, u32_at};
use crate::link::{Requests, Target, direct, open_requests};

/// The priority of our filters. Others' come at 49152 if they are not told otherwise, and before that if they are.
pub const PRIORITY: u16 = 51820;

/// TC_H_CLSACT, the parent of the discipline; with these minors, of its filters.
const CLSACT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// The number that a `clsact` always has.
const HANDLE: u32 = 0xffff_0000;
// linux/rtnetlink.h
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
// linux/pkt_cls.h
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
/// How our filters are called.
const NAME: &[u8] = b"wireloom\0";
/// The program's result is the verdict.
const DIRECT: u32 = 1;

const ACKNOWLEDGED: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const NEW: u16 = ACKNOWLEDGED | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// Interfaces whose discipline was made here.
static MADE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Length of a `struct tcmsg`.
const HEADER: usize = 20;

/// A `struct tcmsg`.
fn header(interface: u32, handle: u32, parent: u32, info: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    for (at, value) in [(4, interface), (8, handle), (12, parent), (16, info)] {
        header[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    header
}

fn parent(hook: Hook) -> u32 {
    if hook == Hook::FilterIngress { INGRESS } else { EGRESS }
}

fn filter_header(hook: Hook, interface: u32, handle: u32) -> [u8; HEADER] {
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    header(interface, handle, parent(hook), u32::from(PRIORITY) << 16 | u32::from(protocol))
}

fn ask(request: Request) -> io::Result<()> {
    Requests::over(open_requests()?).exchange(request, direct, |_, _| false)
}

/// Adds the filter, and the discipline if there is none. One with this handle, which an earlier daemon left, is replaced, with no moment between
/// the two.
pub(super) fn add(program: BorrowedFd<'_>, hook: Hook, interface: u32, handle: u32) -> io::Result<()> {
    let discipline = header(interface, HANDLE, CLSACT, 0);
    match ask(Request::new(libc::RTM_NEWQDISC, NEW, 0, &discipline).attribute(TCA_KIND, b"clsact\0")) {
        Ok(()) => made().push(interface),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => (),
        Err(error) => return Err(error),
    }
    clear_up(hook, interface, handle);
    let added = insert(program, hook, interface, handle);
    if added.is_err() {
        tidy(interface);
    }
    added
}

fn insert(program: BorrowedFd<'_>, hook: Hook, interface: u32, handle: u32) -> io::Result<()> {
    let mut request = Request::new(
        libc::RTM_NEWTFILTER,
        ACKNOWLEDGED | libc::NLM_F_CREATE as u16,
        0,
        &filter_header(hook, interface, handle),
    )
    .attribute(TCA_KIND, b"bpf\0");
    let options = request.open_nest(TCA_OPTIONS);
    request.put(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes());
    request.put(TCA_BPF_NAME, NAME);
    request.put(TCA_BPF_FLAGS, &DIRECT.to_ne_bytes());
    request.close(options);
    ask(request)
}

fn delete(hook: Hook, interface: u32, handle: u32) -> io::Result<()> {
    let header = filter_header(hook, interface, handle);
    ask(Request::new(libc::RTM_DELTFILTER, ACKNOWLEDGED, 0, &header).attribute(TCA_KIND, b"bpf\0"))
}

/// Deletes the filter, and the discipline if it is empty and ours.
pub(super) fn remove(hook: Hook, interface: u32, handle: u32) -> io::Result<()> {
    let deleted = delete(hook, interface, handle);
    tidy(interface);
    deleted
}

/// Deletes filters of ours that work for interfaces which are not there, other than `own`.
fn clear_up(hook: Hook, interface: u32, own: u32) {
    let mut handles = Vec::new();
    let listed = list(hook, interface, |body| handles.extend(ours(body)));
    if let Err(error) = listed {
        return log::debug!("filters of interface {interface} cannot be listed: {error}");
    }
    for handle in handles.into_iter().filter(|handle| *handle != own) {
        let there = open_requests().and_then(|socket| Requests::over(socket).find(Target::Index(handle)));
        if there.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV)) {
            let deleted = delete(hook, interface, handle);
            log::debug!("interface {interface} had a filter of a daemon that has ended: {deleted:?}");
        }
    }
}

/// The handle of the filter that a report tells of, if it is one of ours.
fn ours(body: &[u8]) -> Option<u32> {
    let (handle, info) = (u32_at(body, 8)?, u32_at(body, 16)?);
    let attributes = body.get(HEADER..)?;
    let name = find(find(attributes, TCA_OPTIONS)?, TCA_BPF_NAME)?;
    let is_ours = info >> 16 == u32::from(PRIORITY) && find(attributes, TCA_KIND)? == b"bpf\0" && name == NAME;
    (is_ours && handle != 0).then_some(handle)
}

fn tidy(interface: u32) {
    let mut made = made();
    if !made.contains(&interface) || !matches!(is_empty(interface), Ok(true)) {
        return;
    }
    made.retain(|other| *other != interface);
    let discipline = header(interface, HANDLE, CLSACT, 0);
    // Gone already, with its interface.
    let _ = ask(Request::new(libc::RTM_DELQDISC, ACKNOWLEDGED, 0, &discipline).attribute(TCA_KIND, b"clsact\0"));
}

fn is_empty(interface: u32) -> io::Result<bool> {
    let mut empty = true;
    for hook in [Hook::FilterIngress, Hook::FilterEgress] {
        list(hook, interface, |_| empty = false)?;
    }
    Ok(empty)
}

/// Tells of all filters, others' too.
fn list(hook: Hook, interface: u32, mut tell: impl FnMut(&[u8])) -> io::Result<()> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let request = Request::new(libc::RTM_GETTFILTER, flags, 0, &header(interface, 0, parent(hook), 0));
    Requests::over(open_requests()?).exchange(request, direct, |kind, body| {
        if kind == libc::RTM_NEWTFILTER {
            tell(body);
        }
        false
    })
}

/// The interface's discipline was made by a process that has ended, and is to be taken away with the last filter all the same.
pub(super) fn take_over(interface: u32) {
    let mut made = made();
    if !made.contains(&interface) {
        made.push(interface);
    }
}

/// Whether the interface's discipline was made here.
pub(super) fn is_made_here(interface: u32) -> bool {
    made().contains(&interface)
}

fn made() -> std::sync::MutexGuard<'static, Vec<u32>> {
    // Each change of the list is one call.
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}
