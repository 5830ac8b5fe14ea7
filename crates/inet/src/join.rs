//! Joining the packets of a run into super-packets, for one write to the TUN each.
//!
//! The packets of a run (what one batch of datagrams held, opened and checked) are offered one after the other. A packet that
//! continues its flow's newest group joins it; any other opens a group of its own. A group that a packet of its flow could not
//! join is closed for good, so that writing the groups in the order of their first packets keeps the order within each flow.
//! A fragment closes all groups, because whose flow it belongs to cannot always be told.
//!
//! What may merge is what the kernel would merge and could take apart again without a trace, by the rules of `tcp_offload.c`
//! (`tcp_gro_receive`), `udp_offload.c` (`udp_gro_receive_segment`) and `af_inet.c` (`inet_gro_receive`): all headers equal but
//! for lengths, checksums and sequence numbers in step; all payloads of one size but for a smaller last one; checksums
//! right. A packet is summed up when it is offered, because nothing of it is kept but its headers; whatever cannot merge,
//! such as a bare acknowledgement, is not summed up at all.
//!
//! All memory is taken by [`Joiner::new`].

use crate::checksum;
use crate::cut::{PSH, TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER, UDP_CHECKSUM, UDP_HEADER, get, put};
use crate::ip::{self, IpPacket, Version};
use crate::vnet::{Gso, VnetHeader};

/// IPv6 and the longest TCP header.
const MAX_HEAD: usize = 40 + 60;
/// No super-packet is longer: the limit of IPv4, and of what a TUN takes.
const MAX_TOTAL: usize = 65535;
/// `UDP_GRO_CNT_MAX` and the limit of `UDP_SEGMENT` in the kernel.
const MAX_DATAGRAMS: u32 = 64;
/// How many slots a flow may lie away from where its hash points.
const PROBES: usize = 4;
/// No packet follows.
const NONE: u32 = u32::MAX;

const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

/// Finds which packets of a run form one super-packet.
pub struct Joiner {
    udp: bool,
    capacity: usize,
    /// For each packet the next one of its group.
    next: Vec<u32>,
    groups: Vec<State>,
    /// An open-addressing table of the flows' newest groups. A slot of an earlier generation is empty. Where all slots that a
    /// flow may use are taken, it evicts another, which costs a merge and nothing else.
    slots: Vec<Slot>,
    generation: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u64,
    hash: u32,
    group: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Flow {
    addresses: [u64; 4],
    ports: u32,
    protocol: u8,
    version: Version,
}

struct State {
    /// The flow, if the packet has one, and its group may be found by it.
    flow: Option<Flow>,
    /// The headers of the first packet.
    head: [u8; MAX_HEAD],
    /// Zero for a packet whose headers are not looked into.
    head_len: u8,
    transport: u8,
    /// The group may take more.
    open: bool,
    /// One of the packets has PSH.
    push: bool,
    first: u32,
    last: u32,
    count: u32,
    /// Payload of the first packet, which no later one exceeds.
    size: u32,
    /// Payload of all packets.
    payload: u32,
}

/// A packet that may merge with others of its flow.
#[derive(Clone, Copy)]
struct Segment {
    transport: usize,
    head_len: usize,
    payload: usize,
    push: bool,
}

enum Class {
    /// It belongs to no flow whose packets merge.
    Alone,
    /// It may belong to any flow.
    Fragment,
    /// It belongs to this flow, and may merge if it is a segment.
    Flow(Flow, Option<Segment>),
}

impl Joiner {
    /// A joiner for runs of up to `capacity` packets. UDP is joined only where `udp` says that the TUN takes it.
    pub fn new(capacity: usize, udp: bool) -> Self {
        let capacity = capacity.min(NONE as usize);
        let slots = (capacity * 2).next_power_of_two().max(PROBES);
        Self {
            udp,
            capacity,
            next: Vec::with_capacity(capacity),
            groups: Vec::with_capacity(capacity),
            slots: vec![Slot::default(); slots],
            generation: 1,
        }
    }

    /// Takes the next packet of the run, already trimmed to its IP length; they are numbered from zero. The answer is `false`,
    /// and nothing was taken, if there is no room for another.
    #[inline]
    pub fn offer(&mut self, packet: &[u8]) -> bool {
        if self.next.len() == self.capacity {
            return false;
        }
        match classify(packet, self.udp) {
            Class::Alone => self.open_group(None, packet, None, false),
            Class::Fragment => {
                self.generation += 1;
                self.open_group(None, packet, None, false);
            }
            Class::Flow(flow, segment) => self.offer_to_flow(flow, packet, segment),
        }
        true
    }

    /// The groups, in the order of their first packets.
    #[inline]
    pub fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.groups.iter().map(|state| Group { state, next: &self.next })
    }

    /// Forgets the run.
    #[inline]
    pub fn clear(&mut self) {
        self.next.clear();
        self.groups.clear();
        self.generation += 1;
    }

    #[inline]
    fn offer_to_flow(&mut self, flow: Flow, packet: &[u8], segment: Option<Segment>) {
        let hash = flow.hash();
        let home = hash as usize;
        let mask = self.slots.len() - 1;
        let mut free = home & mask;
        let mut found = None;
        for probe in 0..PROBES {
            let at = (home + probe) & mask;
            let slot = self.slots[at];
            if slot.generation != self.generation {
                free = at;
                break;
            }
            if slot.hash == hash && self.groups[slot.group as usize].flow == Some(flow) {
                found = Some(at);
                break;
            }
        }

        // The checksum is the dear part: it is looked at last, and at most once.
        let mut valid = None;
        if let (Some(at), Some(segment)) = (found, segment) {
            let group = &mut self.groups[self.slots[at].group as usize];
            if group.continues(packet, segment) && *valid.insert(checksums_valid(&flow, packet, segment)) {
                let number = self.next.len() as u32;
                self.next[group.last as usize] = number;
                self.next.push(NONE);
                group.append(number, segment);
                return;
            }
        }

        // What has PSH ends its group at once, so nothing will ask for its checksum.
        let opens = match segment {
            Some(segment) if !segment.push => valid.unwrap_or_else(|| checksums_valid(&flow, packet, segment)),
            _ => false,
        };
        if opens || found.is_some() {
            // The flow's older group, if any, is out of reach from here on.
            let group = self.groups.len() as u32;
            self.slots[found.unwrap_or(free)] = Slot { generation: self.generation, hash, group };
        }
        self.open_group(Some(flow), packet, segment, opens);
    }

    #[inline]
    fn open_group(&mut self, flow: Option<Flow>, packet: &[u8], segment: Option<Segment>, open: bool) {
        let number = self.next.len() as u32;
        self.next.push(NONE);
        let mut state = State {
            flow,
            head: [0; MAX_HEAD],
            head_len: 0,
            transport: 0,
            open,
            push: false,
            first: number,
            last: number,
            count: 1,
            size: 0,
            payload: 0,
        };
        if let Some(segment) = segment.filter(|_| open) {
            state.head[..segment.head_len].copy_from_slice(&packet[..segment.head_len]);
            state.head_len = segment.head_len as u8;
            state.transport = segment.transport as u8;
            state.size = segment.payload as u32;
            state.payload = segment.payload as u32;
        }
        self.groups.push(state);
    }
}

impl State {
    /// Whether a segment of this group's flow continues it, checksums aside.
    #[inline]
    fn continues(&self, packet: &[u8], segment: Segment) -> bool {
        let head_len = usize::from(self.head_len);
        if !self.open
            || segment.head_len != head_len
            || segment.payload > self.size as usize
            || head_len + self.payload as usize + segment.payload > MAX_TOTAL
        {
            return false;
        }
        let (ours, theirs) = (&self.head[..head_len], &packet[..head_len]);
        let same_ip = match self.flow.map(|flow| flow.version) {
            Some(Version::V4) => {
                // An identification means something only where fragmentation may follow (RFC 6864); there it must count up, as
                // it will when the super-packet is cut again.
                let dont_fragment = ours[6] & 0x40 != 0;
                let in_step = get(theirs, 4) == get(ours, 4).wrapping_add(self.count as u16);
                ours[1] == theirs[1] && ours[6..9] == theirs[6..9] && (dont_fragment || in_step)
            }
            Some(Version::V6) => ours[..4] == theirs[..4] && ours[7] == theirs[7],
            None => false,
        };
        let transport = usize::from(self.transport);
        let (ours, theirs) = (&ours[transport..], &theirs[transport..]);
        same_ip
            && match self.flow.map(|flow| flow.protocol) {
                Some(ip::TCP) => {
                    let expected = sequence(ours).wrapping_add(self.payload);
                    sequence(theirs) == expected
                        && ours[8..TCP_FLAGS] == theirs[8..TCP_FLAGS]
                        && (ours[TCP_FLAGS] ^ theirs[TCP_FLAGS]) & !PSH == 0
                        && ours[14..16] == theirs[14..16]
                        && ours[TCP_HEADER..] == theirs[TCP_HEADER..]
                }
                _ => true,
            }
    }

    #[inline]
    fn append(&mut self, number: u32, segment: Segment) {
        self.last = number;
        self.count += 1;
        self.payload += segment.payload as u32;
        self.push |= segment.push;
        let udp = self.flow.is_some_and(|flow| flow.protocol == ip::UDP);
        let full = udp && self.count == MAX_DATAGRAMS;
        self.open = !(self.push || full || segment.payload < self.size as usize);
    }
}

impl Flow {
    /// The partial sum of the pseudo header: the same words as in [`checksum::pseudo_header`], in pieces of 32 bits.
    #[inline]
    fn pseudo_header(&self, len: usize) -> u64 {
        let words: u64 = self.addresses.iter().map(|&long| (long >> 32) + (long & 0xffff_ffff)).sum();
        words + u64::from(self.protocol) + len as u64
    }

    #[inline]
    fn hash(&self) -> u32 {
        // A multiplication whose halves are added mixes every bit of both words into every bit of the product.
        let mix = |a: u64, b: u64| {
            let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
            product as u64 ^ (product >> 64) as u64
        };
        let [a, b, c, d] = self.addresses;
        let hash = mix(mix(a, b) ^ mix(c, d), u64::from(self.ports) << 8 | u64::from(self.protocol));
        (hash >> 32) as u32 ^ hash as u32
    }
}

/// Packets that form one super-packet, or a single one.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    state: &'a State,
    next: &'a [u32],
}

impl<'a> Group<'a> {
    /// The numbers of the packets, in order.
    #[inline]
    pub fn packets(&self) -> impl Iterator<Item = usize> + use<'a> {
        let next = self.next;
        let follow = move |&number: &u32| next.get(number as usize).copied().filter(|&next| next != NONE);
        std::iter::successors(Some(self.state.first), follow).map(|number| number as usize)
    }

    /// How many packets there are: at least one.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a group is never empty")]
    pub fn len(&self) -> usize {
        self.state.count as usize
    }

    /// How many bytes of each packet are IP and transport header; its payload follows them. Zero for a single packet, which is
    /// written as it is.
    #[inline]
    pub fn head_len(&self) -> usize {
        if self.state.count == 1 { 0 } else { usize::from(self.state.head_len) }
    }

    /// Writes the super-packet's head to the first [`Group::head_len`] bytes of `out`, and returns the virtio-net header that
    /// goes before it; the payloads of all packets follow. `first` is the group's first packet. The transport checksum is left
    /// to the kernel: its field holds the sum of the pseudo header.
    ///
    /// A group of one has no head, and the default header.
    ///
    /// # Panics
    /// If `first` or `out` is shorter than the head.
    #[inline]
    pub fn write_head(&self, first: &[u8], out: &mut [u8]) -> VnetHeader {
        let head_len = self.head_len();
        let Some(flow) = self.state.flow.filter(|_| head_len != 0) else { return VnetHeader::default() };
        let transport = usize::from(self.state.transport);
        let total = head_len + self.state.payload as usize;
        let head = &mut out[..head_len];
        head.copy_from_slice(&first[..head_len]);
        match flow.version {
            Version::V4 => {
                put(head, 2, total as u16);
                put(head, 10, 0);
                let sum = checksum::finish(checksum::sum(&head[..transport], 0));
                put(head, 10, sum);
            }
            Version::V6 => put(head, 4, (total - transport) as u16),
        }
        let len = total - transport;
        let pseudo = checksum::fold(flow.pseudo_header(len));
        let (gso, checksum_at) = match (flow.protocol, flow.version) {
            (ip::UDP, _) => {
                put(head, transport + 4, len as u16);
                (Gso::UdpL4, UDP_CHECKSUM)
            }
            (_, version) => {
                head[transport + TCP_FLAGS] |= u8::from(self.state.push) * PSH;
                (if version == Version::V4 { Gso::TcpV4 } else { Gso::TcpV6 }, TCP_CHECKSUM)
            }
        };
        put(head, transport + checksum_at, pseudo);
        VnetHeader {
            needs_csum: true,
            data_valid: false,
            gso,
            ecn: false, // a segment with CWR never merges
            hdr_len: head_len as u16,
            gso_size: self.state.size as u16,
            csum_start: transport as u16,
            csum_offset: checksum_at as u16,
        }
    }
}

#[inline]
fn classify(packet: &[u8], udp: bool) -> Class {
    let offered = packet.len();
    let Ok(packet) = IpPacket::parse(packet) else { return Class::Alone };
    let Some(transport) = packet.transport() else { return Class::Fragment };
    if transport.fragment {
        return Class::Fragment;
    }
    if transport.protocol != ip::TCP && !(udp && transport.protocol == ip::UDP) {
        return Class::Alone;
    }
    let bytes = packet.bytes();
    let rest = &bytes[transport.offset..];
    let Some(&[a, b, c, d]) = rest.first_chunk() else { return Class::Alone };
    let word = |at: usize| u64::from(u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let (addresses, plain) = match packet.version() {
        // No options, and neither the reserved bit nor a fragment's.
        Version::V4 => ([word(12), word(16), 0, 0], transport.offset == 20 && bytes[6] & !0x40 == 0),
        Version::V6 => {
            let long = |at: usize| word(at) << 32 | word(at + 4);
            ([long(8), long(16), long(24), long(32)], transport.offset == 40)
        }
    };
    let flow = Flow {
        addresses,
        ports: u32::from_be_bytes([a, b, c, d]),
        protocol: transport.protocol,
        version: packet.version(),
    };
    let segment = match transport.protocol {
        // A packet that was not trimmed would bring its padding along.
        _ if !plain || bytes.len() != offered => None,
        ip::TCP => tcp_segment(rest, transport.offset),
        _ => udp_segment(rest, transport.offset),
    };
    Class::Flow(flow, segment)
}

/// A TCP segment with payload and no flags that mean more than "here are more bytes".
#[inline]
fn tcp_segment(tcp: &[u8], transport: usize) -> Option<Segment> {
    let fixed: &[u8; TCP_HEADER] = tcp.first_chunk()?;
    let len = usize::from(fixed[12] >> 4) * 4;
    if len < TCP_HEADER || tcp.len() <= len || fixed[TCP_FLAGS] & !(PSH | ECE) != ACK {
        return None;
    }
    let push = fixed[TCP_FLAGS] & PSH != 0;
    Some(Segment { transport, head_len: transport + len, payload: tcp.len() - len, push })
}

/// A UDP datagram with payload and checksum, that fills its packet.
#[inline]
fn udp_segment(udp: &[u8], transport: usize) -> Option<Segment> {
    let fixed: &[u8; UDP_HEADER] = udp.first_chunk()?;
    if usize::from(get(fixed, 4)) != udp.len() || udp.len() == UDP_HEADER || get(fixed, UDP_CHECKSUM) == 0 {
        return None;
    }
    Some(Segment { transport, head_len: transport + UDP_HEADER, payload: udp.len() - UDP_HEADER, push: false })
}

/// Whether the IPv4 header's checksum and the transport's are right.
#[inline]
fn checksums_valid(flow: &Flow, packet: &[u8], segment: Segment) -> bool {
    let (header, rest) = packet.split_at(segment.transport);
    let header_valid = flow.version == Version::V6 || checksum::finish(checksum::sum(header, 0)) == 0;
    header_valid && checksum::finish(checksum::sum(rest, flow.pseudo_header(rest.len()))) == 0
}

#[inline]
fn sequence(tcp: &[u8]) -> u32 {
    u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]])
}
