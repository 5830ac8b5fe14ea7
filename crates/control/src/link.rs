//! The inner interface: what its user does to it, and the few settings that we make.

use crate::device::Device;
use linux::{
    link::{LinkEvent, Monitor},
    netns,
    tun::{Offloads, Queue},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// The most that one outer send carries, in bytes.
const SEND_MAX: u32 = 65_507;
/// What WireGuard adds to an inner packet, in bytes.
const OVERHEAD: u32 = 32;
/// Datagrams in one send.
const SEGMENTS_MAX: u32 = 64;

/// Follows the interface, wherever it is moved.
pub(crate) struct Link {
    monitor: Monitor,
    /// A descriptor of the device, by which it is found again.
    queue: Queue,
    /// The network namespace that we live in.
    home: OwnedFd,
    offloads: Offloads,
}

/// What the control thread must do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkNews {
    /// Nothing.
    None,
    /// The interface is in another network namespace, and followed by another monitor: wait on its descriptor.
    Moved,
    /// The interface has gone.
    Gone,
}

impl Link {
    /// Starts to follow the interface of this queue, and applies its state to the device.
    pub(crate) fn new(queue: Queue, offloads: Offloads, device: &Device) -> io::Result<Self> {
        let home = netns::current()?;
        let link = Self { monitor: Monitor::follow(&queue, home.as_fd())?, queue, home, offloads };
        link.apply(device);
        Ok(link)
    }

    /// Makes our settings, and hands on the interface's state.
    fn apply(&self, device: &Device) {
        let state = self.monitor.known();
        self.set_mtu(device, state.mtu);
        device.plane.find_inner();
        device.set_up(state.up);
    }

    /// Hands on what has happened to the interface.
    pub(crate) fn news(&mut self, device: &Device) -> LinkNews {
        while let Some(event) = self.monitor.next() {
            match event {
                LinkEvent::Up => device.set_up(true),
                // A removal begins with this. The workers are on their way out then, and need not be told.
                LinkEvent::Down if !self.queue.is_attached() => return LinkNews::Gone,
                LinkEvent::Down => device.set_up(false),
                LinkEvent::Mtu(mtu) => self.set_mtu(device, mtu),
                LinkEvent::Renamed(name) => log::debug!("the interface is called {name} now"),
                LinkEvent::Removed => return self.follow(device),
            }
        }
        LinkNews::None
    }

    fn follow(&mut self, device: &Device) -> LinkNews {
        if !self.queue.is_attached() {
            return LinkNews::Gone;
        }
        match Monitor::follow(&self.queue, self.home.as_fd()) {
            Ok(monitor) => {
                self.monitor = monitor;
                self.apply(device);
                LinkNews::Moved
            }
            // It may be in a network namespace that is closed to us. Packets go on; when it is removed, the workers notice.
            Err(error) => {
                log::error!("the interface was moved and cannot be followed: {error}");
                LinkNews::None
            }
        }
    }

    /// One super-packet of the kernel's is to fit one send of ours: of the segments, and of the bytes that they become.
    fn set_mtu(&self, device: &Device, mtu: u32) {
        device.plane.set_mtu(mtu);
        if !self.offloads.tso {
            return;
        }
        let (size, segments) = gso_max(mtu, device.plane.super_packet_max());
        if let Err(error) = self.monitor.set_gso_max(self.monitor.index(), size, segments) {
            log::debug!("the interface's super-packets keep their size: {error}");
        }
    }
}

impl AsFd for Link {
    /// Readable when there may be news.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.monitor.as_fd()
    }
}

/// How large a super-packet may be so that it fits one send and has at most `most` bytes: in bytes, and in segments.
fn gso_max(mtu: u32, most: u32) -> (u32, u32) {
    let payload = mtu.saturating_sub(40).max(1);
    let segments = (SEND_MAX / (mtu + OVERHEAD)).min(most.saturating_sub(40) / payload).clamp(1, SEGMENTS_MAX);
    // Headers are at least 40 bytes, once for the super-packet and once for each segment.
    let size = segments * mtu.saturating_sub(40) + 40;
    (size.clamp(mtu, 65_535.max(mtu)), segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_super_packet_fits_one_send() {
        assert_eq!(gso_max(1420, u32::MAX), (45 * 1380 + 40, 45));
        assert_eq!(gso_max(1280, u32::MAX).1, 49);
        assert_eq!(gso_max(65_455, u32::MAX), (65_455, 1));
        assert_eq!(gso_max(576, u32::MAX).1, 64);
        assert_eq!(gso_max(1420, 16_384), (11 * 1380 + 40, 11));
        assert_eq!(gso_max(65_455, 16_384), (65_455, 1), "no less than a packet");
        for mtu in 68..=65_535 {
            let (size, segments) = gso_max(mtu, u32::MAX);
            assert!((1..=64).contains(&segments) && size >= mtu && size <= 65_535);
            assert!(segments == 1 || segments * (mtu + OVERHEAD) <= SEND_MAX);
        }
    }
}
