//! The netlink wire format: messages and their attributes, written and read without copying structs about.
//!
//! All numbers are in the machine's byte order. The reader takes whatever bytes it is given: what is cut short or claims a
//! length that cannot be ends the iteration, and nothing is believed that was not checked.

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct nlattr`.
const ATTRIBUTE: usize = 4;
/// NLA_F_NESTED: the attribute consists of attributes, which the kernel wants to be told since 5.2.
const NESTED: u16 = 0x8000;
/// Length of `struct ifinfomsg`.
pub(crate) const LINK: usize = 16;

fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The number at an offset, where there are bytes for it.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A request that is being written.
pub struct Request(Vec<u8>);

/// An attribute of attributes that is being written.
pub struct Nest(usize);

impl Request {
    /// Starts a request with the family-specific header that its kind has.
    pub fn new(kind: u16, flags: u16, sequence: u32, family_header: &[u8]) -> Request {
        Request::with_capacity(128, kind, flags, sequence, family_header)
    }

    /// The same with room for that many bytes, so that no copy of what it holds is left behind while it grows.
    pub fn with_capacity(room: usize, kind: u16, flags: u16, sequence: u32, family_header: &[u8]) -> Request {
        let mut bytes = Vec::with_capacity(room);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(family_header);
        Request(bytes)
    }

    /// Appends an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        self.put(kind, value);
        self
    }

    /// Appends an attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let nest = self.open(kind);
        self.0.extend_from_slice(value);
        self.close(nest);
    }

    /// Begins an attribute that consists of those that follow, up to [`close`](Request::close).
    pub fn open_nest(&mut self, kind: u16) -> Nest {
        self.open(kind | NESTED)
    }

    fn open(&mut self, kind: u16) -> Nest {
        self.0.resize(aligned(self.0.len()), 0);
        let start = self.0.len();
        self.0.extend_from_slice(&0u16.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        Nest(start)
    }

    /// Ends an attribute.
    pub fn close(&mut self, Nest(start): Nest) {
        let len = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// The finished bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(aligned(self.0.len()), 0);
        let len = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&len);
        self.0
    }
}

/// The header of an `ifinfomsg` with a change of flags.
pub(super) fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK] {
    let mut header = [0; LINK];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// A message that came.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it is.
    pub kind: u16,
    /// The flags of its header (`NLM_F_…`).
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What follows its header.
    pub body: &'a [u8],
}

/// The messages of one datagram.
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let bytes = self.0;
        let len = u32_at(bytes, 0)? as usize;
        if len < HEADER {
            return None;
        }
        let body = bytes.get(HEADER..len)?;
        let message = Message { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)?, body };
        self.0 = bytes.get(aligned(len)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes after a family-specific header: kind and value. The flags in the kind's upper bits are left out.
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let bytes = self.0;
        let len = u16_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(ATTRIBUTE..len)?;
        self.0 = bytes.get(aligned(len)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The value of the last attribute of a kind, as the kernel reads it too.
pub fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    Attributes(attributes).filter(|(k, _)| *k == kind).last().map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            kind: u16, sequence: u32, header in prop::collection::vec(any::<u8>(), 0..20),
            attributes in prop::collection::vec((0u16..0x4000, prop::collection::vec(any::<u8>(), 0..40)), 0..6),
        ) {
            let header_len = aligned(header.len());
            let mut padded = header;
            padded.resize(header_len, 0);
            let mut request = Request::new(kind, 5, sequence, &padded);
            for (kind, value) in &attributes {
                request = request.attribute(*kind, value);
            }
            let mut bytes = request.finish();
            let one = bytes.clone();
            bytes.extend_from_slice(&one);
            let messages: Vec<_> = Messages(&bytes).collect();
            prop_assert_eq!(messages.len(), 2);
            for message in messages {
                prop_assert_eq!(message.kind, kind);
                prop_assert_eq!(message.sequence, sequence);
                prop_assert_eq!(&message.body[..header_len], &padded[..]);
                let read: Vec<_> = Attributes(&message.body[header_len..])
                    .map(|(kind, value)| (kind, value.to_vec()))
                    .collect();
                prop_assert_eq!(&read, &attributes);
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm_and_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = Messages(&bytes).map(|m| HEADER + m.body.len()).sum();
            prop_assert!(total <= bytes.len());
            let total: usize = Attributes(&bytes).map(|(_, value)| ATTRIBUTE + value.len()).sum();
            prop_assert!(total <= bytes.len());
        }

        #[test]
        fn small_lengths_too(lengths in prop::collection::vec(0u16..40, 0..60)) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|l| l.to_ne_bytes()).collect();
            let total: usize = Attributes(&bytes).map(|(_, value)| ATTRIBUTE + value.len()).sum();
            prop_assert!(total <= bytes.len());
            prop_assert!(Messages(&bytes).count() <= bytes.len());
        }
    }
}
