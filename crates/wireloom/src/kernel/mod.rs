//! Devices of the kernel's own WireGuard, by generic netlink (linux/wireguard.h).
//!
//! [`get`] asks for everything about a device ([`read`] puts the answers together), [`set`] changes it ([`write`] makes the messages),
//! [`interfaces`] lists what there is. All three are about the network namespace of the calling thread, and the first two take
//! CAP_NET_ADMIN.

use std::io;

use config::device::{Device, DeviceChange};
use linux::netlink::{ANSWER_MAX, Connection, DUMP, Request, with_nul};
use zeroize::Zeroizing;

mod attribute;
mod read;
#[cfg(test)]
mod tests;
mod write;

/// The name of the family, and of the kind of link.
const NAME: &str = "wireguard";
/// Bytes of `struct genlmsghdr`.
const HEADER: usize = 4;
// linux/socket.h
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
// enum wg_cmd
const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;

/// How often a device is asked again when it changed while it was told.
const ATTEMPTS: usize = 100;

/// Why the kernel told or did nothing.
#[derive(Debug)]
pub enum KernelError {
    /// There is no interface of that name.
    NoInterface,
    /// The interface is another's, or the kernel has no WireGuard.
    NotWireGuard,
    /// The answer makes no sense; what is told.
    Malformed(&'static str),
    /// The kernel refuses, or cannot be asked.
    Refused(io::Error),
}

impl From<io::Error> for KernelError {
    fn from(error: io::Error) -> KernelError {
        const ENODEV: i32 = 19;
        const EOPNOTSUPP: i32 = 95;
        match error.raw_os_error() {
            Some(ENODEV) => KernelError::NoInterface,
            Some(EOPNOTSUPP) => KernelError::NotWireGuard,
            _ => KernelError::Refused(error),
        }
    }
}

/// The kernel's devices, in its order.
pub fn interfaces() -> io::Result<Vec<String>> {
    linux::netlink::links_of_kind(NAME)
}

/// Everything about a device.
pub fn get(interface: &str) -> Result<Device, KernelError> {
    let mut last = io::ErrorKind::Interrupted.into();
    for _ in 0..ATTEMPTS {
        match get_once(interface) {
            Err(KernelError::Refused(error)) if error.kind() == io::ErrorKind::Interrupted => last = error,
            settled => return settled,
        }
    }
    Err(KernelError::Refused(last))
}

fn get_once(interface: &str) -> Result<Device, KernelError> {
    let (mut connection, family) = connect()?;
    let mut request = Request::new(family, DUMP, 0, &header(GET_DEVICE))
        .attribute(attribute::device::NAME, &with_nul(interface))
        .finish();
    let mut device = Device::default();
    let mut malformed = None;
    let told = connection.exchange(&mut request, &mut Zeroizing::new(vec![0; ANSWER_MAX]), |message| {
        read::message(&mut device, message.body).map_err(|error| {
            malformed = Some(error.0);
            io::ErrorKind::InvalidData.into()
        })
    });
    match (told, malformed) {
        (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => Err(error.into()),
        (_, Some(what)) => Err(KernelError::Malformed(what)),
        (told, None) => Ok(told.map(|()| device)?),
    }
}

/// Changes a device.
pub fn set(interface: &str, change: &DeviceChange) -> Result<(), KernelError> {
    let (mut connection, family) = connect()?;
    // With a refusal the kernel sends back what it refuses, keys and all.
    let mut answer = Zeroizing::new(vec![0; ANSWER_MAX]);
    for mut message in write::SetMessages::new(family, interface, change) {
        connection.exchange(&mut message, &mut answer, |_| Ok(()))?;
    }
    Ok(())
}

fn connect() -> Result<(Connection, u16), KernelError> {
    let mut connection = Connection::generic()?;
    match connection.family(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(KernelError::NotWireGuard),
        family => Ok((connection, family?)),
    }
}

/// A `struct genlmsghdr`.
fn header(command: u8) -> [u8; HEADER] {
    [command, 1, 0, 0]
}
