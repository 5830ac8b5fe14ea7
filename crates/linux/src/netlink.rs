//! Asking the kernel by netlink: one question, and its answers up to the last.
//!
//! A [`Connection`] is a socket of one protocol. The buffers are the caller's, because what goes through them may be keys, which the
//! caller wipes. Who may ask what is the kernel's business: its refusal comes back as the error.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::link::message::LINK;
pub use crate::link::message::{Attributes, Message, Messages, Nest, Request, find, u32_at};

// linux/netlink.h
/// A question.
pub const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
/// A question that wants to be acknowledged.
pub const ACKNOWLEDGE: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
/// A question for all that there is.
pub const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
const NLM_F_DUMP_INTR: u16 = 0x10;
// linux/if_link.h
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

/// NETLINK_ROUTE is 0, the protocol that a socket has for want of one.
const ROUTE: Option<Protocol> = None;

/// How long a datagram of answers may be, in bytes: the kernel makes none longer than 32 KiB.
pub const ANSWER_MAX: usize = 64 * 1024;

/// A socket to the kernel.
pub struct Connection {
    socket: OwnedFd,
    sequence: u32,
}

impl Connection {
    /// For generic netlink, in the calling thread's network namespace.
    pub fn generic() -> io::Result<Connection> {
        Connection::open(Some(netlink::GENERIC))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Connection> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Connection { socket, sequence: 0 })
    }

    /// Sends a request and gives the answers to `take`, one by one, until the kernel says that it was the last.
    ///
    /// # Errors
    /// What the kernel refused with; `Interrupted`, after the last answer, when what was to be told changed meanwhile, so that it is
    /// to be asked again (and no error of `take` counts from there on); `InvalidData` for an answer that is none or that `buffer`
    /// does not hold; and what `take` ends with.
    pub fn exchange(
        &mut self,
        request: &mut [u8],
        buffer: &mut [u8],
        mut take: impl FnMut(Message<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        request[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(&self.socket, request, SendFlags::empty())?;
        let mut interrupted = false;
        loop {
            let len = match recv(&self.socket, &mut *buffer, RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?.1,
            };
            let datagram = buffer.get(..len).ok_or(io::ErrorKind::InvalidData)?;
            for message in Messages(datagram).filter(|message| message.sequence == self.sequence) {
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match i32::from(message.kind) {
                    // Both begin with a negative errno, or with zero where all went well.
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        return match u32_at(message.body, 0).map(u32::cast_signed) {
                            Some(0) if interrupted => Err(io::ErrorKind::Interrupted.into()),
                            Some(0) => Ok(()),
                            Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
                            None => Err(io::ErrorKind::InvalidData.into()),
                        };
                    }
                    _ => match take(message) {
                        // What was torn apart need not make sense.
                        Err(_) if interrupted => (),
                        taken => taken?,
                    },
                }
            }
        }
    }

    /// The number of a family of generic netlink. `NotFound` where the kernel does not have it, and no module for it.
    pub fn family(&mut self, name: &str) -> io::Result<u16> {
        let header = [libc::CTRL_CMD_GETFAMILY as u8, 1, 0, 0];
        let mut request = Request::new(libc::GENL_ID_CTRL as u16, ACKNOWLEDGE, 0, &header)
            .attribute(libc::CTRL_ATTR_FAMILY_NAME as u16, &with_nul(name))
            .finish();
        let mut family = None;
        self.exchange(&mut request, &mut vec![0; ANSWER_MAX], |message| {
            let id = message.body.get(header.len()..).and_then(|body| find(body, libc::CTRL_ATTR_FAMILY_ID as u16));
            family = id.and_then(|id| id.try_into().ok()).map(u16::from_ne_bytes).or(family);
            Ok(())
        })?;
        family.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Times that the links are asked for while they come and go.
const ATTEMPTS: u32 = 8;

/// The interfaces of a kind, such as `wireguard`, of the calling thread's network namespace, in the kernel's order.
pub fn links_of_kind(kind: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut request = Request::new(libc::RTM_GETLINK, DUMP, 0, &[0; LINK]).finish();
    let (mut connection, mut buffer) = (Connection::open(ROUTE)?, vec![0; ANSWER_MAX]);
    for _ in 0..ATTEMPTS {
        names.clear();
        let told = connection.exchange(&mut request, &mut buffer, |message| {
            names.extend(parse_link(message.body, kind.as_bytes()));
            Ok(())
        });
        match told {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            told => return told.map(|()| names),
        }
    }
    // They come and go all the time: the last answer is as right as any other would be.
    Ok(names)
}

/// The name of a link, if it is of that kind.
fn parse_link(body: &[u8], kind: &[u8]) -> Option<String> {
    let attributes = body.get(LINK..)?;
    if until_nul(find(find(attributes, IFLA_LINKINFO)?, IFLA_INFO_KIND)?) != kind {
        return None;
    }
    String::from_utf8(until_nul(find(attributes, IFLA_IFNAME)?).to_vec()).ok()
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|&b| b == 0).next().unwrap_or_default()
}

/// A text as the kernel reads it in an attribute.
pub fn with_nul(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_kernel_has_is_found_and_what_not_is_told() {
        let mut generic = Connection::generic().unwrap();
        assert_eq!(generic.family("nlctrl").unwrap(), libc::GENL_ID_CTRL as u16);
        assert_eq!(generic.family("no-such-family").unwrap_err().kind(), io::ErrorKind::NotFound);
        // The connection goes on after a refusal.
        assert!(generic.family("nlctrl").is_ok());
        assert_eq!(links_of_kind("no-such-kind").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_answer_too_long_for_the_buffer_is_told() {
        let mut connection = Connection::open(ROUTE).unwrap();
        let mut request = Request::new(libc::RTM_GETLINK, DUMP, 0, &[0; LINK]).finish();
        let error = connection.exchange(&mut request, &mut [0; 64], |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_interrupted_answer_is_heard_to_its_end() {
        use rustix::net::socketpair;
        let flags = SocketFlags::CLOEXEC;
        let (socket, kernel) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        for (sequence, interrupted) in [(1, true), (2, false)] {
            for (kind, flags) in
                [(9, 0), (9, if interrupted { NLM_F_DUMP_INTR } else { 0 }), (9, 0), (libc::NLMSG_DONE, 0)]
            {
                let answer = Request::new(kind as u16, flags, sequence, &[0; 4]).finish();
                send(&kernel, &answer, SendFlags::empty()).unwrap();
            }
        }
        let mut connection = Connection { socket, sequence: 0 };
        let mut ask = || {
            let (mut request, mut taken) = (Request::new(9, DUMP, 0, &[]).finish(), 0);
            let told = connection.exchange(&mut request, &mut [0; 256], |_| {
                taken += 1;
                Ok(())
            });
            (told.map_err(|error| error.kind()), taken)
        };
        assert_eq!(ask(), (Err(io::ErrorKind::Interrupted), 3));
        assert_eq!(ask(), (Ok(()), 3));
    }

    proptest! {
        #[test]
        fn links_are_told_by_kind(name in "[a-z0-9]{1,15}", kind in "[a-z]{1,9}") {
            let mut request = Request::new(libc::RTM_NEWLINK, 0, 0, &[0; LINK]).attribute(IFLA_IFNAME, &with_nul(&name));
            let nest = request.open_nest(IFLA_LINKINFO);
            request.put(IFLA_INFO_KIND, &with_nul(&kind));
            request.close(nest);
            let bytes = request.finish();
            let message = Messages(&bytes).next().unwrap();
            prop_assert_eq!(parse_link(message.body, kind.as_bytes()), Some(name));
            prop_assert_eq!(parse_link(message.body, b"wireguard0"), None);
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_link(&bytes, b"wireguard");
        }
    }
}
