//! Allowed IPs: which peer an address belongs to.
//!
//! A path-compressed binary trie for each family, as in the kernel's `allowedips.c`. The nodes are shared ([`Arc`]) and copied
//! when they change while somebody else holds them, so that a [`Snapshot`] costs two reference counts and never changes, and
//! an update costs at most one copy of the path to it.
//!
//! A prefix belongs to one owner: the one that took it last. Beside the tries, which answer lookups alone, the writer keeps
//! who owns which prefix, and in what order each owner took its own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::Cidr;

/// The writer's half of a routing table from prefixes to values `V`, each prefix owned by a `K`.
#[derive(Debug)]
pub struct AllowedIps<K, V> {
    tables: Snapshot<V>,
    /// Who owns a prefix, and the number under which `order` has it.
    owners: HashMap<Cidr, (K, u64)>,
    /// The prefixes of each owner, numbered in the order in which they were taken.
    order: BTreeMap<(K, u64), Cidr>,
    next: u64,
}

/// The table as it was at one moment, for readers.
#[derive(Debug)]
pub struct Snapshot<V> {
    v4: Link<u32, V>,
    v6: Link<u128, V>,
}

type Link<B, V> = Option<Arc<Node<B, V>>>;

/// A prefix that has a value, or at which two longer ones part.
#[derive(Clone, Debug)]
struct Node<B, V> {
    bits: B,
    len: u8,
    value: Option<V>,
    children: [Link<B, V>; 2],
}

impl<K: Copy + Ord, V: Clone> AllowedIps<K, V> {
    /// An empty table.
    pub fn new() -> Self {
        Self { tables: Snapshot { v4: None, v6: None }, owners: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }

    /// Gives a prefix to `owner`, behind all that it has, and returns whose it was before: another's, or its own (then its
    /// value is replaced and it moves to the end all the same).
    pub fn insert(&mut self, prefix: Cidr, owner: K, value: &V) -> Option<K> {
        let number = self.next;
        self.next += 1;
        let former = self.owners.insert(prefix, (owner, number));
        if let Some(former) = former {
            self.order.remove(&former);
        }
        self.order.insert((owner, number), prefix);
        match prefix.addr() {
            IpAddr::V4(addr) => insert(&mut self.tables.v4, addr.to_bits(), prefix.prefix_len(), value),
            IpAddr::V6(addr) => insert(&mut self.tables.v6, addr.to_bits(), prefix.prefix_len(), value),
        }
        former.map(|(owner, _)| owner)
    }

    /// Takes a prefix from `owner`. Nothing happens, and the answer is `false`, if it is not its own.
    pub fn remove(&mut self, prefix: Cidr, owner: K) -> bool {
        match self.owners.get(&prefix) {
            Some(&(holder, number)) if holder == owner => {
                self.owners.remove(&prefix);
                self.order.remove(&(holder, number));
                self.remove_from_table(prefix);
                true
            }
            _ => false,
        }
    }

    /// Takes everything from `owner`, and returns how many prefixes that were.
    pub fn remove_owner(&mut self, owner: K) -> usize {
        let mut removed = 0;
        while let Some((&key, &prefix)) = self.order.range((owner, 0)..=(owner, u64::MAX)).next() {
            self.order.remove(&key);
            self.owners.remove(&prefix);
            self.remove_from_table(prefix);
            removed += 1;
        }
        removed
    }

    /// The prefixes of `owner` in the order in which it took them.
    pub fn of(&self, owner: K) -> impl Iterator<Item = Cidr> {
        self.order.range((owner, 0)..=(owner, u64::MAX)).map(|(_, &prefix)| prefix)
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// The table as it is now. Costs the same however large it is.
    pub fn snapshot(&self) -> Snapshot<V> {
        self.tables.clone()
    }

    fn remove_from_table(&mut self, prefix: Cidr) {
        match prefix.addr() {
            IpAddr::V4(addr) => remove(&mut self.tables.v4, addr.to_bits(), prefix.prefix_len()),
            IpAddr::V6(addr) => remove(&mut self.tables.v6, addr.to_bits(), prefix.prefix_len()),
        }
    }
}

impl<K: Copy + Ord, V: Clone> Default for AllowedIps<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> Snapshot<V> {
    /// A table without prefixes.
    pub fn empty() -> Self {
        Self { v4: None, v6: None }
    }

    /// The value of the longest prefix that contains `addr`.
    #[inline]
    pub fn lookup(&self, addr: IpAddr) -> Option<&V> {
        match addr {
            IpAddr::V4(addr) => lookup(&self.v4, addr.to_bits()),
            IpAddr::V6(addr) => lookup(&self.v6, addr.to_bits()),
        }
    }
}

impl<V> Clone for Snapshot<V> {
    fn clone(&self) -> Self {
        Self { v4: self.v4.clone(), v6: self.v6.clone() }
    }
}

impl<V> Default for Snapshot<V> {
    fn default() -> Self {
        Self::empty()
    }
}

/// What the trie asks of an address, taken as an integer with its first bit highest.
trait Bits: Copy {
    const LEN: u8;
    /// How many leading bits two addresses have in common.
    fn common(self, other: Self) -> u8;
    /// The bit at `at`, counted from the highest; zero beyond the last.
    fn bit(self, at: u8) -> usize;
    /// The leading `len` bits, the others zero.
    fn prefix(self, len: u8) -> Self;
}

macro_rules! bits {
    ($($integer:ty),*) => {$(
        impl Bits for $integer {
            const LEN: u8 = <$integer>::BITS as u8;

            #[inline]
            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            #[inline]
            fn bit(self, at: u8) -> usize {
                (self.checked_shl(u32::from(at)).unwrap_or(0) >> (Self::LEN - 1)) as usize
            }

            #[inline]
            fn prefix(self, len: u8) -> Self {
                self & Self::MAX.checked_shl(u32::from(Self::LEN - len)).unwrap_or(0)
            }
        }
    )*};
}

bits!(u32, u128);

#[inline]
fn lookup<B: Bits, V>(mut link: &Link<B, V>, addr: B) -> Option<&V> {
    let mut longest = None;
    while let Some(node) = link {
        if addr.common(node.bits) < node.len {
            break;
        }
        longest = node.value.as_ref().or(longest);
        if node.len == B::LEN {
            break;
        }
        link = &node.children[addr.bit(node.len)];
    }
    longest
}

fn insert<B: Bits, V: Clone>(mut link: &mut Link<B, V>, bits: B, len: u8, value: &V) {
    while let Some(node) = link {
        let (common, node_len) = (bits.common(node.bits).min(node.len).min(len), node.len);
        if common < node_len {
            // The node lies below the new prefix, or beside it: put one above both.
            let below = link.take();
            let side = below.as_ref().map_or(0, |node| node.bits.bit(common));
            let mut above = Node { bits: bits.prefix(common), len: common, value: None, children: [None, None] };
            above.children[side] = below;
            *link = Some(Arc::new(above));
        }
        let Some(node) = link else { break };
        let node = Arc::make_mut(node);
        if node.len == len {
            node.value = Some(value.clone());
            return;
        }
        link = &mut node.children[bits.bit(node.len)];
    }
    *link = Some(Arc::new(Node { bits, len, value: Some(value.clone()), children: [None, None] }));
}

/// Removes a prefix that is there. Recursion goes no deeper than an address has bits.
fn remove<B: Bits, V: Clone>(link: &mut Link<B, V>, bits: B, len: u8) {
    let Some(node) = link else { return };
    let node = Arc::make_mut(node);
    if node.len >= len {
        node.value = None;
    } else {
        remove(&mut node.children[bits.bit(node.len)], bits, len);
    }
    // A node without a value is there only to part two others.
    if node.value.is_none() && node.children.iter().any(Option::is_none) {
        let [left, right] = &mut node.children;
        *link = left.take().or(right.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes<B, V>(link: &Link<B, V>) -> usize {
        link.as_ref().map_or(0, |node| 1 + node.children.iter().map(nodes).sum::<usize>())
    }

    #[test]
    fn removed_prefixes_leave_no_nodes_behind() {
        let prefix = |i: u32| Cidr::new(IpAddr::from(i.wrapping_mul(0x9e37_79b9).to_be_bytes()), 8 + (i % 25) as u8);
        let prefixes: Vec<Cidr> = (0..500).filter_map(prefix).collect();
        let mut table = AllowedIps::new();
        for &prefix in &prefixes {
            table.insert(prefix, 'a', &());
        }
        for prefix in prefixes {
            assert!(nodes(&table.tables.v4) < 2 * table.len(), "{} prefixes", table.len());
            assert!(table.remove(prefix, 'a'));
        }
        assert_eq!(nodes(&table.tables.v4), 0);
        assert!(table.owners.is_empty() && table.order.is_empty());
    }
}
