//! What was heard, as it was or will be on the wire: super-packets cut into packets, checksums completed.

use std::borrow::Cow;

use inet::cut::Cut;
use inet::vnet::VnetHeader;
use linux::packet::Heard;

/// The packets of something that was heard.
pub struct Packets<'a> {
    bytes: &'a [u8],
    whole: usize,
    /// How it is cut; what cannot be, or need not, is one packet as it stands.
    cut: Option<Cut<'a>>,
}

impl<'a> Packets<'a> {
    /// Looks at what was heard, of which `bytes` is what the buffer holds.
    pub fn new(heard: &Heard, bytes: &'a [u8]) -> Packets<'a> {
        let header = heard.vnet.and_then(|header| VnetHeader::parse(&header).ok());
        let is_whole = bytes.len() == heard.len;
        let cut = header.filter(|_| is_whole).and_then(|header| Cut::new(&header, bytes).ok());
        Packets { bytes, whole: heard.len, cut }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.cut.as_ref().map_or(1, Cut::segments)
    }

    /// The length of what was heard.
    pub fn whole(&self) -> usize {
        self.whole
    }

    /// One of them.
    pub fn get(&self, at: usize) -> Cow<'a, [u8]> {
        let Some(cut) = &self.cut else { return Cow::Borrowed(self.bytes) };
        let mut packet = vec![0; cut.head_len()];
        cut.write_head(at, &mut packet);
        packet.extend_from_slice(cut.body(at));
        Cow::Owned(packet)
    }
}
