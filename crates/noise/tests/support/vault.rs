//! Memory that outlasts a node, as a data plane in the kernel lends it: whoever dies leaves it as it is.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use noise::{Inherited, Label, Ledger, Lender, Lent, Notes, PeerId, Session, Tag};

#[derive(Default)]
struct PeerPlace {
    notes: Arc<Notes>,
    tag: Option<Tag>,
    holder: Option<PeerId>,
    received: Option<Label>,
    /// The place of the session that is sent with.
    current: Option<u32>,
}

#[derive(Default)]
struct SessionPlace {
    ledger: Arc<Ledger>,
    held: bool,
    keys: Option<[[u8; 32]; 2]>,
    peer: u32,
}

#[derive(Default)]
struct Books {
    /// How many holders have died.
    deaths: usize,
    peers: Vec<PeerPlace>,
    sessions: Vec<SessionPlace>,
    sent: Option<Label>,
}

/// What is lent, and to whom.
#[derive(Clone, Default)]
pub struct Vault(Arc<Mutex<Books>>);

/// Gives its place back, unless its holder has died.
struct Held<T> {
    memory: Arc<T>,
    vault: Vault,
    place: u32,
    deaths: usize,
    give_back: fn(&mut Books, u32),
}

impl<T> AsRef<T> for Held<T> {
    fn as_ref(&self) -> &T {
        &self.memory
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let mut books = self.vault.books();
        if books.deaths == self.deaths {
            (self.give_back)(&mut books, self.place);
        }
    }
}

impl Vault {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap()
    }

    fn hold<T: Send + Sync + 'static>(
        &self,
        deaths: usize,
        memory: &Arc<T>,
        place: usize,
        give_back: fn(&mut Books, u32),
    ) -> Lent<T> {
        let place = place as u32;
        let held = Held { memory: memory.clone(), vault: self.clone(), place, deaths, give_back };
        Lent::new(place, Box::new(held))
    }

    /// Whoever holds anything is dead. What it still does with it is as if others did, who share the memory.
    pub fn die(&self) {
        let mut books = self.books();
        books.deaths += 1;
        books.peers.iter_mut().for_each(|place| place.holder = None);
        books.sessions.iter_mut().for_each(|place| place.held = false);
    }

    /// A session is to be received with. Whether it lived before.
    pub fn install(&self, session: &Session) -> bool {
        let Some(ledger) = session.ledger() else { return false };
        let epoch = ledger.as_ref().epoch();
        if epoch.load(Ordering::Relaxed) % 2 == 1 {
            return true;
        }
        let (sending, receiving) = session.keys().unwrap();
        self.books().sessions[ledger.slot() as usize].keys = Some([*sending, *receiving]);
        epoch.fetch_add(1, Ordering::Relaxed);
        false
    }

    pub fn set_current(&self, peer: PeerId, session: Option<&Session>) {
        let place = session.and_then(Session::ledger).map(Lent::slot);
        if let Some(peer) = self.books().peers.iter_mut().find(|it| it.holder == Some(peer)) {
            peer.current = place;
        }
    }

    /// The session has ended.
    pub fn retire(&self, session: &Session) {
        if let Some(ledger) = session.ledger() {
            end(&mut self.books(), ledger.slot());
        }
    }

    /// Puts each session into another place too.
    pub fn duplicate(&self) {
        let mut books = self.books();
        let copy = |it: &SessionPlace| SessionPlace { ledger: it.ledger.clone(), ..*it };
        let copies: Vec<_> = books.sessions.iter().map(copy).collect();
        books.sessions.extend(copies);
    }

    /// How many sessions live.
    pub fn living(&self) -> usize {
        let books = self.books();
        let lives = |place: &&SessionPlace| place.ledger.epoch().load(Ordering::Relaxed) % 2 == 1;
        books.sessions.iter().filter(lives).count()
    }

    /// The next counter of each session that lives.
    pub fn next_counters(&self) -> Vec<u64> {
        let books = self.books();
        let lives = |place: &&SessionPlace| place.ledger.epoch().load(Ordering::Relaxed) % 2 == 1;
        books.sessions.iter().filter(lives).map(|place| place.ledger.next_counter()).collect()
    }
}

/// Makes the epoch even, if it is not.
fn end(books: &mut Books, place: u32) {
    let place = &mut books.sessions[place as usize];
    let epoch = place.ledger.epoch();
    if epoch.load(Ordering::Relaxed) % 2 == 1 {
        epoch.fetch_add(1, Ordering::Relaxed);
        place.keys = None;
    }
}

impl Lender for Vault {
    fn notes(&self, peer: PeerId, tag: Option<&Tag>) -> Option<Lent<Notes>> {
        let mut books = self.books();
        let left = |it: &PeerPlace| it.holder.is_none() && it.tag.is_some() && it.tag.as_ref() == tag;
        let place = books.peers.iter().position(left).unwrap_or_else(|| {
            books.peers.push(PeerPlace::default());
            books.peers.len() - 1
        });
        let deaths = books.deaths;
        books.peers[place].holder = Some(peer);
        books.peers[place].tag = tag.copied();
        Some(self.hold(deaths, &books.peers[place].notes, place, |books, place| {
            books.peers[place as usize] = PeerPlace::default();
        }))
    }

    fn retag(&self, peer: PeerId, tag: Option<&Tag>) {
        self.books().peers.iter_mut().find(|it| it.holder == Some(peer)).unwrap().tag = tag.copied();
    }

    fn ledger(&self, peer: PeerId) -> Option<Lent<Ledger>> {
        let mut books = self.books();
        let peer = books.peers.iter().position(|it| it.holder == Some(peer))?;
        let free = |it: &SessionPlace| !it.held && it.ledger.epoch().load(Ordering::Relaxed).is_multiple_of(2);
        let place = books.sessions.iter().position(free).unwrap_or_else(|| {
            books.sessions.push(SessionPlace::default());
            books.sessions.len() - 1
        });
        let deaths = books.deaths;
        let session = &mut books.sessions[place];
        session.held = true;
        session.peer = peer as u32;
        Some(self.hold(deaths, &session.ledger, place, |books, place| {
            end(books, place);
            books.sessions[place as usize].held = false;
        }))
    }

    fn inherited(&self, peer: PeerId) -> Vec<Inherited> {
        let mut books = self.books();
        let deaths = books.deaths;
        let Some(peer) = books.peers.iter().position(|it| it.holder == Some(peer)) else { return Vec::new() };
        let current = books.peers[peer].current;
        let sessions = books.sessions.iter_mut().enumerate().filter(|(_, it)| !it.held && it.peer == peer as u32);
        sessions
            .filter_map(|(place, session)| {
                let [sending, receiving] = session.keys?.map(Into::into);
                session.held = true;
                let ledger = self.hold(deaths, &session.ledger, place, |books, place| {
                    end(books, place);
                    books.sessions[place as usize].held = false;
                });
                Some(Inherited { ledger, sending, receiving, is_current: current == Some(place as u32) })
            })
            .collect()
    }

    fn sent_label(&self) -> Option<Label> {
        self.books().sent
    }

    fn keep_sent_label(&self, label: &Label) {
        self.books().sent = Some(*label);
    }

    fn received_label(&self, peer: PeerId) -> Option<Label> {
        self.books().peers.iter().find(|it| it.holder == Some(peer))?.received
    }

    fn keep_received_label(&self, peer: PeerId, label: &Label) {
        self.books().peers.iter_mut().find(|it| it.holder == Some(peer)).unwrap().received = Some(*label);
    }
}
