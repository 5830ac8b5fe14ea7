//! Commits outbound jobs: sends their runs, each by one system call or several by one.
//!
//! A run whose datagrams fit the path goes as one send that the kernel (or the network card) cuts. When the kernel
//! refuses, what it says decides: a segment larger than the path is remembered for the endpoint, a device without
//! segmentation too, and a source address that has gone is forgotten. Whatever is sent again is the same ciphertext.

use super::{
    drops::Reason,
    events::{ACTIVITY, REKEY_DUE},
    icmp::Errors,
    outbound::{Outbound, Run},
    pool::Pool,
    shared::{Shared, Sockets, now},
};
use crate::ring::Committer;
use arrayvec::ArrayVec;
use inet::{Endpoint, icmp};
use linux::{
    poll,
    udp::{BATCH, Outgoing, SendError, Socket},
};
use std::{sync::Arc, time::Duration};

/// How long a full socket buffer may hold up a commit before packets are dropped.
const FULL_BUFFER_WAIT: Duration = Duration::from_millis(5);
/// Jobs that are sent together. They and their counters are back before the next ones are looked at.
pub(crate) const TOGETHER: usize = 4;

/// The committer of a worker's outbound ring.
pub(crate) struct Sender {
    shared: Arc<Shared>,
    worker: usize,
    gso: bool,
    pool: Pool<Outbound>,
    jobs: Vec<Box<Outbound>>,
    /// To the senders of packets that were larger than their path.
    errors: Errors,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>, worker: usize, gso: bool, pool: Pool<Outbound>) -> Self {
        Self { shared, worker, gso, pool, jobs: Vec::with_capacity(TOGETHER), errors: Errors::new(now()) }
    }
}

impl Committer<Box<Outbound>> for Sender {
    #[inline]
    fn take(&mut self, job: Box<Outbound>) {
        if self.jobs.len() == TOGETHER {
            self.flush();
        }
        self.jobs.push(job);
    }

    fn flush(&mut self) {
        let sockets = self.shared.links[self.worker].sockets.load();
        let sockets = sockets.as_deref();
        let mut batch = Batch { shared: &self.shared, entries: ArrayVec::new(), socket: None, patient: true };
        for job in &self.jobs {
            let (runs, output) = job.sealed();
            let (mut packets, mut bytes) = (0, 0);
            for run in runs {
                packets += run.count;
                bytes += run.len;
                batch.add(run, output, sockets, self.gso);
            }
            self.shared.loads[self.worker].sent.batch(packets, bytes);
        }
        batch.send();
        drop(batch);
        let mut awaited = false;
        for mut job in self.jobs.drain(..) {
            job.release();
            for (packet, mtu) in job.too_big() {
                self.errors.send(&self.shared, icmp::Reason::TooBig(mtu as u32), packet);
            }
            job.clear();
            awaited |= self.pool.put(job);
        }
        if awaited {
            self.shared.links[self.worker].wake.signal();
        }
    }
}

/// One message of a system call.
#[derive(Clone, Copy)]
struct Entry<'a> {
    run: &'a Run,
    outgoing: Outgoing<'a>,
    datagrams: usize,
}

/// Messages that leave by one system call, all by the same socket.
struct Batch<'a> {
    shared: &'a Shared,
    entries: ArrayVec<Entry<'a>, BATCH>,
    socket: Option<&'a Socket>,
    /// Whether a full socket buffer is still waited for: until that was in vain.
    patient: bool,
}

impl<'a> Batch<'a> {
    fn add(&mut self, run: &'a Run, output: &'a [u8], sockets: Option<&'a Sockets>, gso: bool) {
        if run.session.is_revoked() || run.peer.is_removed() {
            return self.shared.drops.count(Reason::SessionEnded, run.count);
        }
        let endpoint = run.path.endpoint;
        let Some(socket) = sockets.and_then(|sockets| sockets.family(endpoint.addr.is_ipv6())) else {
            return self.shared.drops.count(Reason::NoSocket, run.count);
        };
        if self.socket.is_some_and(|current| !std::ptr::eq(current, socket)) {
            self.send();
        }
        self.socket = Some(socket);
        let bytes = &output[run.at..run.at + run.len];
        if run.count > 1 && gso && socket.gso() && run.path.takes_segments_of(run.stride) {
            let outgoing = Outgoing { to: endpoint, class: run.ecn, bytes, segment: Some(run.stride as u16) };
            self.push(Entry { run, outgoing, datagrams: run.count });
        } else {
            for bytes in bytes.chunks(run.stride) {
                let outgoing = Outgoing { to: endpoint, class: run.ecn, bytes, segment: None };
                self.push(Entry { run, outgoing, datagrams: 1 });
            }
        }
    }

    fn push(&mut self, entry: Entry<'a>) {
        if self.entries.is_full() {
            self.send();
        }
        self.entries.push(entry);
    }

    /// Sends what has been added.
    fn send(&mut self) {
        let Some(socket) = self.socket else { return };
        let mut outgoing = ArrayVec::<Outgoing<'_>, BATCH>::new();
        outgoing.extend(self.entries.iter().map(|entry| entry.outgoing));
        let mut done = 0;
        while done < self.entries.len() {
            let (sent, error) = socket.send(&outgoing[done..]);
            self.sent(&self.entries[done..done + sent]);
            done += sent;
            if let Some(error) = error {
                let entry = self.entries[done];
                self.again(socket, &entry, error);
                done += 1;
            }
        }
        self.entries.clear();
    }

    /// Sends a refused message in the way that the refusal suggests, or drops it.
    fn again(&mut self, socket: &Socket, entry: &Entry<'_>, error: SendError) {
        let Entry { run, outgoing, datagrams } = entry;
        let segmented = outgoing.segment.is_some();
        match error {
            SendError::WouldBlock if self.patient => {
                self.patient = poll::wait_writable(socket, FULL_BUFFER_WAIT);
                if self.patient {
                    self.retry(socket, entry, *outgoing);
                    return;
                }
            }
            SendError::Invalid if outgoing.to.source.is_some() => {
                run.peer.forget_source();
                self.shared.tell_moved(run.peer.id);
                let to = Endpoint { source: None, ..outgoing.to };
                let (sent, error) = socket.send(&[Outgoing { to, ..*outgoing }]);
                if sent == 1 {
                    return self.sent(std::slice::from_ref(entry));
                }
                // Kernels before 6.14 say EINVAL for a segment that is larger than the path, too.
                if matches!(error, Some(SendError::Invalid | SendError::TooLarge)) && segmented {
                    if self.one_by_one(socket, entry, to) {
                        run.path.refuse_datagrams_of(run.stride, now());
                    }
                    return;
                }
            }
            SendError::Invalid | SendError::TooLarge if segmented => {
                if self.one_by_one(socket, entry, outgoing.to) {
                    run.path.refuse_datagrams_of(run.stride, now());
                }
                return;
            }
            SendError::NoOffload if segmented => {
                if self.one_by_one(socket, entry, outgoing.to) {
                    run.path.refuse_segments(now());
                }
                return;
            }
            // Larger than IP can carry: the next one's sender will hear of it.
            SendError::TooLarge => run.path.refuse_datagrams_of(outgoing.bytes.len(), now()),
            _ => (),
        }
        log::trace!("{datagrams} datagrams not sent: {error}");
        self.shared.drops.count(Reason::SendFailed, *datagrams);
    }

    /// Sends a run without the kernel cutting it. Whether any of it left: only then was the cutting what was refused.
    fn one_by_one(&self, socket: &Socket, entry: &Entry<'_>, to: Endpoint) -> bool {
        let mut any = false;
        for bytes in entry.outgoing.bytes.chunks(entry.run.stride) {
            let outgoing = Outgoing { to, bytes, segment: None, ..entry.outgoing };
            any |= self.retry(socket, &Entry { run: entry.run, outgoing, datagrams: 1 }, outgoing);
        }
        any
    }

    /// One more try, the last. Whether it left.
    fn retry(&self, socket: &Socket, entry: &Entry<'_>, outgoing: Outgoing<'_>) -> bool {
        let (sent, _) = socket.send(&[outgoing]);
        if sent == 1 {
            self.sent(std::slice::from_ref(entry));
        } else {
            self.shared.drops.count(Reason::SendFailed, entry.datagrams);
        }
        sent == 1
    }

    /// Accounts for what has left.
    fn sent(&self, entries: &[Entry<'_>]) {
        if entries.is_empty() {
            return;
        }
        let now = now();
        for entry in entries {
            let Run { peer, session, data, .. } = entry.run;
            peer.count_tx(entry.outgoing.bytes.len() as u64);
            let news = if *data { peer.activity.data_sent(now) } else { peer.activity.keepalive_sent(now) };
            if news {
                self.shared.events.raise(peer, ACTIVITY);
            }
            if session.rekey_due_on_send(now) {
                self.shared.events.raise(peer, REKEY_DUE);
            }
        }
    }
}
