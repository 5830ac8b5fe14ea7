//! `capture`: packets of an interface into a file, for looking at with Wireshark or tcpdump.
//!
//! What is captured is either what is *inside* the tunnel (`--plain`: the packets of its interface, in the clear) or what is *outside*
//! (`--outer`: the UDP datagrams that its sockets send and receive, sealed). It goes on until the first of its bounds is reached
//! (packets, seconds, bytes: there is always one of each), the interface goes down, or a signal comes.
//!
//! The file holds what somebody said in confidence. It is made by us, for its owner only, at a name where there was nothing, so that no link and
//! no file of another's is written to. Once it and the socket are open, nothing more takes a privilege, and all are given up.
//!
//! Super-packets are cut as they are on the wire, where the kernel tells how ([`Packets`]).

use std::fs::OpenOptions;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use clap_complete::engine::ArgValueCompleter;
use config::key;
use linux::capabilities::{CapabilitySet, keep_only};
use linux::packet::{Heard, Listen, PacketSocket};
use linux::poll::{Epoll, Event, Interest, Signal, SignalFd};
use linux::{clock, netns};
use rustix::net::netdevice;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::interface::InterfaceName;
use crate::{client, complete};
use packets::Packets;
use pcapng::{Packet, Writer};

mod packets;
mod pcapng;

/// Bytes of packets that may wait in the kernel.
const BUFFER: usize = 16 << 20;
/// The longest packet that is kept whole; the kernel makes super-packets of up to half of it.
const PACKET_MAX: usize = 512 << 10;
/// Packets that are taken in one go before signals and bounds are looked at.
const BURST: usize = 64;
const ENETDOWN: i32 = 100;

/// What `capture` is to do.
#[derive(Args)]
#[command(group(ArgGroup::new("side").required(true).args(["plain", "outer"])))]
pub struct CaptureArgs {
    /// The interface
    #[arg(add = ArgValueCompleter::new(complete::interface))]
    interface: InterfaceName,
    /// The file, which must not exist yet; `-` for standard output
    file: PathBuf,
    /// Capture what is inside the tunnel: the packets of the interface, in the clear
    #[arg(long)]
    plain: bool,
    /// Capture what is outside: the UDP datagrams that the interface sends and receives
    #[arg(long)]
    outer: bool,
    /// End after so many packets
    #[arg(long, value_name = "PACKETS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// End after so many seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
    seconds: u64,
    /// End before the file is longer than so many bytes; K, M and G stand for 1024 of the one before
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = size)]
    size: u64,
    /// Write the interface's private key and preshared keys into the file as well
    #[arg(long)]
    include_keys: bool,
}

/// Why nothing was captured, or no more.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum CaptureError {
    #[error("not allowed to capture packets: run as root or with CAP_NET_RAW")]
    Forbidden,
    #[error("interface '{0}' is not in this network namespace, expected `ip netns exec NAME wireloom capture …`")]
    Elsewhere(InterfaceName),
    #[error("interface '{0}' has no port: it is down; expected one that is up")]
    NoPort(InterfaceName),
    #[error("cannot capture on '{0}': {1}")]
    Socket(InterfaceName, io::Error),
    #[error("{} exists already, expected a new name: nothing is overwritten", .0.display())]
    Exists(PathBuf),
    #[error("cannot make {}: {source}", path.display())]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the keys of {0} alone are longer than --size allows, expected more than {1} bytes")]
    Keys(InterfaceName, u64),
    #[error("standard output is a terminal, expected a file or a pipe")]
    Terminal,
    #[error("cannot wait for packets: {0}")]
    Wait(io::Error),
    #[error("cannot give up privileges: {0}")]
    Privileges(io::Error),
}

/// Why it ended.
#[derive(Clone, Copy)]
enum End {
    Count,
    Time,
    Size,
    Down,
    Signal,
    Reader,
}

impl End {
    fn text(self) -> &'static str {
        match self {
            End::Count => "as many packets as were to be captured",
            End::Time => "the time is over",
            End::Size => "the file is as long as it may be",
            End::Down => "the interface was set down or removed",
            End::Signal => "interrupted",
            End::Reader => "whoever read it has seen enough",
        }
    }
}

/// Captures.
pub fn capture(args: &CaptureArgs) -> Result<(), Error> {
    let (path, name) = (&args.file, &args.interface);
    let to_stdout = path == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(CaptureError::Terminal.into());
    }
    let keys = if args.include_keys { Some(keys(name)?) } else { None };
    let socket = if args.plain { plain(name)? } else { outer(name)? };
    let failed = |source| CaptureError::Write { path: path.clone(), source };
    let file: Box<dyn Write> = if to_stdout { Box::new(io::stdout().lock()) } else { Box::new(make(path)?) };
    let wait = CaptureError::Wait;
    let signals = SignalFd::new(&[Signal::Interrupt, Signal::Terminate, Signal::Hangup]).map_err(wait)?;
    keep_only(CapabilitySet::empty()).map_err(CaptureError::Privileges)?;

    let kind = if args.plain { "inside the tunnel, in the clear" } else { "outside the tunnel, sealed" };
    eprintln!(
        "capturing what is {kind}: at most {} packets, {} seconds, {} bytes; ends on Ctrl-C",
        args.count, args.seconds, args.size
    );
    let mut writer =
        Writer::new(BufWriter::with_capacity(256 << 10, file), &format!("{name}, {kind}")).map_err(failed)?;
    if let Some(keys) = keys {
        let least = writer.len_with(1, keys.len());
        if least > args.size {
            if !to_stdout {
                // It is ours, and there is nothing in it.
                let _ = std::fs::remove_file(path);
            }
            return Err(CaptureError::Keys(name.clone(), least).into());
        }
        eprintln!(
            "warning: the file holds the private key and the preshared keys of {name}: whoever has it can be {name}. \
             Each session has keys of its own, which are not in it, and so the data stays sealed."
        );
        writer.keys(&keys).map_err(failed)?;
    }
    // A reader of the pipe can begin.
    writer.flush().map_err(failed)?;

    let mut run = Run { args, socket, writer, interfaces: Vec::new(), packets: 0 };
    let start = clock::boot_nanos();
    let end = match run.until_end(&signals, start) {
        Err(Stop::Write(error)) if to_stdout && error.kind() == io::ErrorKind::BrokenPipe => End::Reader,
        Err(Stop::Write(error)) => return Err(failed(error).into()),
        Err(Stop::Wait(error)) => return Err(wait(error).into()),
        Ok(end) => end,
    };
    let dropped = match run.finish() {
        Err(error) if !matches!(end, End::Reader) => return Err(failed(error).into()),
        Err(_) => 0,
        Ok(dropped) => dropped,
    };
    let seconds = Duration::from_nanos(clock::boot_nanos() - start).as_secs_f64();
    eprintln!(
        "{} packets in {seconds:.1} seconds, {} bytes; {dropped} more were dropped by the kernel ({})",
        run.packets,
        run.writer.len(),
        end.text()
    );
    Ok(())
}

/// A socket for the packets of the interface.
fn plain(name: &InterfaceName) -> Result<PacketSocket, Error> {
    // That it is WireGuard's is told by its configuration; the packets of others are not our business.
    client::get(name.as_str())?;
    let index = index(name).ok_or_else(|| CaptureError::Elsewhere(name.clone()))?;
    let open = || {
        let socket = PacketSocket::open(Listen::Interface(index), BUFFER)?;
        socket.announce(index)?;
        Ok(socket)
    };
    open().map_err(|error| refused(name, error))
}

/// The interface's index, if it is in the thread's network namespace.
fn index(name: &InterfaceName) -> Option<u32> {
    let any = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(any, name.as_str()).ok()
}

/// A socket for its datagrams, in the network namespace where they leave.
fn outer(name: &InterfaceName) -> Result<PacketSocket, Error> {
    let port = client::get(name.as_str())?.listen_port;
    if port == 0 {
        return Err(CaptureError::NoPort(name.clone()).into());
    }
    let open = || {
        let socket = PacketSocket::open(Listen::Port(port), BUFFER)?;
        // In another namespace no program takes its packets.
        if let Some(index) = index(name) {
            socket.announce(index)?;
        }
        Ok(socket)
    };
    match home(name.as_str()) {
        Some(home) => netns::run_in(home.as_fd(), open),
        None => open(),
    }
    .map_err(|error| refused(name, error))
}

/// The network namespace of the daemon that runs the interface, if one does and we may look. The kernel's devices are taken to have their
/// sockets here.
pub fn home(interface: &str) -> Option<OwnedFd> {
    let stream = std::os::unix::net::UnixStream::connect(linux::unix::socket_path(interface)).ok()?;
    let pid = rustix::net::sockopt::socket_peercred(&stream).ok()?.pid;
    let file = std::fs::File::open(format!("/proc/{}/ns/net", pid.as_raw_nonzero())).ok()?;
    Some(file.into())
}

fn refused(name: &InterfaceName, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => CaptureError::Forbidden,
        _ => CaptureError::Socket(name.clone(), error),
    }
    .into()
}

/// Makes the file, for its owner only, where there is nothing of that name.
fn make(path: &Path) -> Result<std::fs::File, CaptureError> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    // `create_new` is O_EXCL.
    let opened =
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags.cast_signed()).open(path);
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CaptureError::Exists(path.to_owned()),
        _ => CaptureError::Make { path: path.to_owned(), source },
    })
}

/// The keys of the interface, as WireGuard's key log has them.
fn keys(name: &InterfaceName) -> Result<Zeroizing<String>, Error> {
    let device = client::get(name.as_str())?;
    let lines = 1 + 2 * device.peers.len();
    // As it grew, it would leave copies.
    let mut text = Zeroizing::new(String::with_capacity(lines * 80));
    let mut line = |what: &str, key: &str| {
        for part in [what, " = ", key, "\n"] {
            text.push_str(part);
        }
    };
    if let Some(private) = &device.private_key {
        line("LOCAL_STATIC_PRIVATE_KEY", key::to_base64(private).as_str());
    }
    for peer in &device.peers {
        line("REMOTE_STATIC_PUBLIC_KEY", key::to_base64(&peer.public_key).as_str());
        if let Some(preshared) = peer.preshared_key.as_deref() {
            line("PRESHARED_KEY", key::to_base64(preshared).as_str());
        }
    }
    Ok(text)
}

/// A capture that is going on.
struct Run<'a> {
    args: &'a CaptureArgs,
    socket: PacketSocket,
    writer: Writer<BufWriter<Box<dyn Write>>>,
    /// Those that packets came by, by index; where each stands here is its number in the file.
    interfaces: Vec<u32>,
    packets: u64,
}

/// Why it cannot go on.
enum Stop {
    Write(io::Error),
    Wait(io::Error),
}

impl Run<'_> {
    fn until_end(&mut self, signals: &SignalFd, start: u64) -> Result<End, Stop> {
        const PACKETS: u64 = 0;
        const SIGNAL: u64 = 1;
        let epoll = Epoll::new().map_err(Stop::Wait)?;
        epoll.add(&self.socket, PACKETS, Interest::READ).map_err(Stop::Wait)?;
        epoll.add(signals, SIGNAL, Interest::READ).map_err(Stop::Wait)?;
        let end = start + self.args.seconds * 1_000_000_000;
        let mut buffer = vec![0; PACKET_MAX];
        loop {
            let left = match end.checked_sub(clock::boot_nanos()) {
                None | Some(0) => return Ok(End::Time),
                Some(left) => Duration::from_nanos(left),
            };
            let mut events = [Event::EMPTY; 2];
            let ready = epoll.wait(&mut events, Some(left)).map_err(Stop::Wait)?;
            if ready.iter().any(|event| event.token() == SIGNAL) && signals.next().is_some() {
                return Ok(End::Signal);
            }
            for _ in 0..BURST {
                match self.socket.recv(&mut buffer) {
                    Ok(heard) => {
                        if let Some(end) = self.keep(&heard, &buffer)? {
                            return Ok(end);
                        }
                    }
                    Err(error) if error.raw_os_error() == Some(ENETDOWN) => return Ok(End::Down),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        // Who reads along sees what there is.
                        self.writer.flush().map_err(Stop::Write)?;
                        break;
                    }
                    Err(error) => return Err(Stop::Wait(error)),
                }
            }
        }
    }

    /// Writes what was heard; the bound that is reached with it, if one is.
    fn keep(&mut self, heard: &Heard, buffer: &[u8]) -> Result<Option<End>, Stop> {
        let Some(interface) = self.number_of(heard.interface).map_err(Stop::Write)? else {
            return Ok(Some(End::Size));
        };
        let kept = buffer.get(heard.start..).unwrap_or_default();
        let bytes = &kept[..heard.len.min(kept.len())];
        let packets = Packets::new(heard, bytes);
        for at in 0..packets.count() {
            let bytes = packets.get(at);
            if self.writer.len_with(1, bytes.len()) > self.args.size {
                return Ok(Some(End::Size));
            }
            // What was cut is whole; of what was not, the buffer may hold the beginning only.
            let whole = if packets.count() > 1 { bytes.len() } else { bytes.len().max(packets.whole()) };
            let packet = Packet { interface, at: heard.at, outgoing: heard.outgoing, bytes: &bytes, whole };
            self.writer.packet(&packet).map_err(Stop::Write)?;
            self.packets += 1;
            if self.packets == self.args.count {
                return Ok(Some(End::Count));
            }
        }
        Ok(None)
    }

    /// The number in the file of an interface of this index; `None` if the file has no room for one more.
    fn number_of(&mut self, index: u32) -> io::Result<Option<u32>> {
        if let Some(at) = self.interfaces.iter().position(|known| *known == index) {
            return Ok(Some(at as u32));
        }
        let name = netdevice::index_to_name(&self.socket, index).unwrap_or_else(|_| format!("interface {index}"));
        let what = if self.args.plain { "inside" } else { "outside" };
        let comment = format!("what is {what} the tunnel {}", self.args.interface);
        if self.writer.len_with_interface(&name, &comment) > self.args.size {
            return Ok(None);
        }
        self.interfaces.push(index);
        self.writer.interface(&name, &comment).map(Some)
    }

    /// Ends the file; how many packets are missing.
    fn finish(&mut self) -> io::Result<u64> {
        let counts = self.socket.counts()?;
        if !self.interfaces.is_empty() {
            self.writer.statistics(0, clock::wall(), counts.heard, counts.dropped)?;
        }
        self.writer.flush()?;
        Ok(counts.dropped)
    }
}

/// A number of bytes, as people write it.
fn size(text: &str) -> Result<u64, String> {
    /// What the file holds besides packets.
    const LEAST: u64 = 4096;
    let (digits, shift) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 10),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 20),
            None => text.strip_suffix(['g', 'G']).map_or((text, 0), |digits| (digits, 30)),
        },
    };
    let number: Option<u64> = digits.parse().ok();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift)).filter(|bytes| *bytes >= LEAST);
    bytes.ok_or_else(|| format!("expected a number of bytes, at least {LEAST}, such as 500K or 64M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("5k"), Ok(5120));
        assert_eq!(size("1G"), Ok(1 << 30));
        for bad in ["", "M", "-1", "4095", "1T", "99999999999G", "1.5M"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
