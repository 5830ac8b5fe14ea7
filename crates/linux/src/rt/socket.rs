//! The socket: one question and its answers, or many changes in one datagram.
//!
//! Each request has a number, which its answers repeat. A question is sent, then datagrams are read until one of its messages says that
//! it was the last: an acknowledgement, or the end of a list. Answers to an earlier question, whose reader had enough, are passed over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::RtError;
use crate::netlink::{ANSWER_MAX, Message, Messages, find, u32_at};
use crate::sys::set_int;

// linux/netlink.h
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;
const NETLINK_GET_STRICT_CHK: libc::c_int = 12;
const NLM_F_DUMP_INTR: u16 = 0x10;
/// On an acknowledgement: of the request only the header comes back.
const NLM_F_CAPPED: u16 = 0x100;
/// On an acknowledgement: attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

pub(super) const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
pub(super) const CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(super) const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
pub(super) const REPLACE: u16 = libc::NLM_F_REPLACE as u16;

/// Changes that go in one datagram. Their refusals, a kilobyte each, must fit into the socket's buffer all at once.
const BATCH: usize = 128;

/// How often a list is asked for while it changes.
const ATTEMPTS: usize = 8;

/// An rtnetlink socket.
#[derive(Debug)]
pub(super) struct Socket {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(super) fn open() -> io::Result<Socket> {
        // NETLINK_ROUTE is 0, the protocol that a socket has for want of one.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK] {
            // Older kernels say less and tell more than was asked for; we look at all of it anyway.
            let _ = set_int(socket.as_fd(), libc::SOL_NETLINK, option, 1);
        }
        Ok(Socket { socket, sequence: 0, buffer: vec![0; ANSWER_MAX] })
    }

    /// Makes one change.
    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), RtError> {
        self.ask(message, flags, |_| ())
    }

    /// Asks for one thing.
    pub(super) fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut take: impl FnMut(Answer<'_>),
    ) -> Result<(), RtError> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = encode(message, flags | REQUEST | ACK, self.sequence);
        send_all(&self.socket, &bytes)?;
        self.answers(self.sequence, &mut take).map(drop)
    }

    /// Asks for all that there is, again where it changed meanwhile.
    pub(super) fn list<T>(
        &mut self,
        message: &RouteNetlinkMessage,
        mut take: impl FnMut(Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, RtError> {
        let mut all = Vec::new();
        for _ in 0..ATTEMPTS {
            all.clear();
            self.sequence = self.sequence.wrapping_add(1);
            let bytes = encode(message.clone(), REQUEST | DUMP, self.sequence);
            send_all(&self.socket, &bytes)?;
            if self.answers(self.sequence, &mut |answer| all.extend(take(answer)))? {
                break;
            }
        }
        // It changes all the time: the last answer is as right as any other would be.
        Ok(all)
    }

    /// Makes many changes, in the order in which they are given. On a refusal it says which was refused first, counted from 0; those
    /// after it, up to the end of its datagram, may have been made.
    pub(super) fn change_all(
        &mut self,
        messages: impl Iterator<Item = RouteNetlinkMessage>,
        flags: u16,
    ) -> Result<(), (usize, RtError)> {
        let mut messages = messages.peekable();
        let mut done = 0;
        while messages.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::with_capacity(16 * 1024);
            let mut count = 0;
            while let (Some(message), true) = (messages.next(), count < BATCH) {
                self.sequence = self.sequence.wrapping_add(1);
                count += 1;
                let last = count == BATCH || messages.peek().is_none();
                bytes.extend(encode(message, flags | REQUEST | if last { ACK } else { 0 }, self.sequence));
                if last {
                    break;
                }
            }
            let failed = |(at, error)| (done + at, error);
            send_all(&self.socket, &bytes).map_err(|error| failed((0, error)))?;
            self.acknowledgements(first, count).map_err(failed)?;
            done += count;
        }
        Ok(())
    }

    /// Reads answers up to the last; whether nothing changed while they were made.
    fn answers(&mut self, sequence: u32, take: &mut dyn FnMut(Answer<'_>)) -> Result<bool, RtError> {
        let mut steady = true;
        loop {
            let datagram = receive(&self.socket, &mut self.buffer)?;
            for message in Messages(datagram).filter(|message| message.sequence == sequence) {
                steady &= message.flags & NLM_F_DUMP_INTR == 0;
                match end(&message) {
                    None => take(Answer { kind: message.kind, sequence, body: message.body }),
                    Some(told) => return told.map(|()| steady),
                }
            }
        }
    }

    /// Reads what the kernel says of `count` changes, of which the last one is acknowledged. The first refusal, if there was one.
    fn acknowledgements(&mut self, first: u32, count: usize) -> Result<(), (usize, RtError)> {
        let mut refused = None;
        loop {
            let datagram = receive(&self.socket, &mut self.buffer).map_err(|error| (0, error))?;
            for message in Messages(datagram) {
                let at = message.sequence.wrapping_sub(first) as usize;
                let Some(told) = (at < count).then(|| end(&message)).flatten() else { continue };
                if let Err(error) = told {
                    refused.get_or_insert((at, error));
                }
                if at == count - 1 {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }
}

/// One answer to a question.
pub(super) struct Answer<'a> {
    /// What it is.
    kind: u16,
    sequence: u32,
    /// What follows the netlink header.
    pub(super) body: &'a [u8],
}

impl Answer<'_> {
    /// What it says, if it can be read.
    pub(super) fn message(&self) -> Option<RouteNetlinkMessage> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        header.sequence_number = self.sequence;
        RouteNetlinkMessage::deserialize(&header, self.body).ok()
    }
}

/// Sends everything: the kernel takes a datagram whole or not at all.
fn send_all(socket: &OwnedFd, bytes: &[u8]) -> Result<(), RtError> {
    loop {
        match send(socket, bytes, SendFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(drop).map_err(|error| RtError::Io(error.into())),
        }
    }
}

fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<&'a [u8], RtError> {
    let len = loop {
        match recv(socket, &mut *buffer, RecvFlags::TRUNC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(|error| RtError::Io(error.into()))?.1,
        }
    };
    buffer.get(..len).ok_or_else(|| RtError::Io(io::ErrorKind::InvalidData.into()))
}

/// What a message says of the end of the answers, if it is about that.
fn end(message: &Message<'_>) -> Option<Result<(), RtError>> {
    if !matches!(i32::from(message.kind), libc::NLMSG_DONE | libc::NLMSG_ERROR) {
        return None;
    }
    // Both begin with a negative errno, or with zero where all went well.
    Some(match u32_at(message.body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => {
            Err(RtError::Refused { source: io::Error::from_raw_os_error(error.wrapping_neg()), text: words(message) })
        }
        None => Err(RtError::Io(io::ErrorKind::InvalidData.into())),
    })
}

/// What the kernel says besides the number of an error.
fn words(message: &Message<'_>) -> Option<String> {
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request = message.body.get(4..)?;
    let len = match i32::from(message.kind) {
        libc::NLMSG_DONE => 0,
        _ if message.flags & NLM_F_CAPPED != 0 => HEADER,
        _ => u32_at(request, 0)? as usize,
    };
    let text = find(request.get(len.next_multiple_of(4)..)?, NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(text.split(|&b| b == 0).next()?).into_owned();
    (!text.is_empty()).then_some(text)
}

/// The bytes of a message, padded so that another may follow.
pub(super) fn encode(message: RouteNetlinkMessage, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    let len = message.buffer_len();
    message.serialize(&mut bytes[..len]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Request;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_answer_is_read_without_harm(
            kind in prop_oneof![Just(2u16), Just(3), any::<u16>()], flags: u16,
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let message = Message { kind, flags, sequence: 0, body: &body };
            let told = end(&message);
            prop_assert_eq!(told.is_some(), kind == 2 || kind == 3);
            let _ = Answer { kind, sequence: 0, body: &body }.message();
        }

        #[test]
        fn the_kernels_words_are_found(text in "[ -~]{1,40}", capped: bool, error in 1i32..100) {
            let request = Request::new(24, 0, 7, &[0; 12]).finish();
            let mut body = (-error).to_ne_bytes().to_vec();
            body.extend(if capped { &request[..HEADER] } else { &request[..] });
            let mut attributes = Request::new(0, 0, 0, &[]);
            attributes.put(NLMSGERR_ATTR_MSG, &crate::netlink::with_nul(&text));
            body.extend(&attributes.finish()[HEADER..]);
            let flags = NLM_F_ACK_TLVS | if capped { NLM_F_CAPPED } else { 0 };
            let message = Message { kind: libc::NLMSG_ERROR as u16, flags, sequence: 7, body: &body };
            match end(&message) {
                Some(Err(RtError::Refused { source, text: said })) => {
                    prop_assert_eq!(source.raw_os_error(), Some(error));
                    prop_assert_eq!(said, Some(text));
                }
                _ => prop_assert!(false),
            }
        }
    }
}
