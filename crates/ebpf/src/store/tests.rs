//! What a store makes of maps that another one has left.

use super::*;
use crate::maps::MapFds;
use crate::object::{Capacity, load};
use std::net::SocketAddr;

fn again(maps: &MapFds) -> Store {
    let all = maps.all.each_ref().map(|fd| fd.try_clone().unwrap());
    Store::new(Maps::new(MapFds { all }).unwrap().0, None).unwrap()
}

fn path(last: u8) -> Path {
    Path {
        remote: SocketAddr::new([192, 0, 2, last].into(), 51820),
        local: [192, 0, 2, 1].into(),
        gateway: None,
        ifindex: 2,
        mtu: 1500,
        macs: None,
        mark: 0,
    }
}

#[test]
fn what_another_store_has_left_is_claimed_by_its_tag_or_free_again() {
    let maps = load(crate::OBJECT, Capacity { peers: 8, allowed_ips: 8 }).unwrap().maps;
    let (first, tag) = (Arc::new(again(&maps)), [7; 32]);
    let number = first.maps.device().number.load(Ordering::Relaxed);
    assert_ne!(number, 0);
    let lending = Lending(first.clone());
    let lend = |peer, tag: Option<&Tag>| lending.notes(PeerId::from_u32(peer), tag).unwrap();
    // Two without a tag, and two with the same.
    let lent = [lend(1, Some(&tag)), lend(2, None), lend(3, None), lend(4, Some(&tag))];
    first.paths().set(lent[0].slot(), Some(path(9)));
    // Killed between writing a session's keys and beginning it.
    first.maps.set_keys(5, &[1; 32], &[2; 32], 1).unwrap();
    let slots = lent.each_ref().map(Lent::slot);
    lent.into_iter().for_each(std::mem::forget);

    let second = Arc::new(again(&maps));
    assert_eq!(second.maps.device().number.load(Ordering::Relaxed), number);
    assert!(second.maps.keys(5).unwrap().are_zeros());
    let claimed = Lending(second.clone()).notes(PeerId::from_u32(1), Some(&tag)).unwrap();
    assert!([slots[0], slots[3]].contains(&claimed.slot()));
    second.end_unclaimed();
    let in_use = |slot| second.maps.peers.get(slot).unwrap().in_use.load(Ordering::Relaxed) != 0;
    for slot in slots {
        assert_eq!(in_use(slot), slot == claimed.slot(), "{slot}");
    }
}

#[test]
fn a_slot_that_comes_back_has_no_path() {
    let maps = load(crate::OBJECT, Capacity { peers: 8, allowed_ips: 8 }).unwrap().maps;
    let store = Arc::new(again(&maps));
    let lent = Lending(store.clone()).notes(PeerId::from_u32(1), None).unwrap();
    let slot = lent.slot();
    store.paths().set(slot, Some(path(2)));
    assert_eq!(store.paths().get(slot), Some(&path(2)));
    let where_is = || store.maps.peers.get(slot).unwrap().whereabouts().map(|(remote, ..)| remote);
    assert_eq!(where_is(), Some(path(2).remote));
    drop(lent);
    assert_eq!((store.paths().get(slot), where_is()), (None, None));
}
