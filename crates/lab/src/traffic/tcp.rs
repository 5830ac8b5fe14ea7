//! TCP, checked: the client sends a seed, a length and the bytes; the service checks them and sends as many of its own. A connection may go on so, round by round.
//!
//! Both ask for cubic: a namespace takes the congestion control from the host, BBR collapses on a veth, and a host whose default
//! is BBR lets no namespace choose cubic by sysctl, but lets root choose it for a socket.
//!
//! The service answers nothing at all to a stream that differs: it closes, and the client reports the broken exchange.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_tcp_congestion;

use super::Pattern;

/// How long either end waits for the other to go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// The congestion control of both ends.
const CONGESTION: &str = "cubic";

/// Bytes per read or write: large, so that the sender makes super-packets.
const CHUNK: usize = 256 * 1024;

/// Answers connections for ever, each in a thread of its own.
///
/// # Errors
/// The listener broke.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    // Inherited by the connections that it accepts.
    set_tcp_congestion(listener, CONGESTION)?;
    loop {
        let (stream, from) = listener.accept()?;
        thread::spawn(move || {
            if let Err(error) = answer(stream) {
                eprintln!("tcp from {from}: {error}");
            }
        });
    }
}

/// One exchange: `bytes` there and as many back.
///
/// # Errors
/// A byte differs, or the connection broke or fell silent.
pub fn exchange(to: SocketAddr, bytes: u64) -> io::Result<()> {
    round(&mut connected(to)?, u64::from(std::process::id()), bytes)
}

/// Exchanges on one connection, round by round with a pause between two, until `enough`. Calls `told` after each with their number.
///
/// # Errors
/// As [`exchange`], or `told` failed.
pub fn converse(
    to: SocketAddr,
    bytes: u64,
    pause: Duration,
    enough: &AtomicBool,
    mut told: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut stream = connected(to)?;
    let mut rounds = 0;
    while !enough.load(Ordering::Relaxed) {
        // No round is like another.
        round(&mut stream, (u64::from(std::process::id()) << 32) ^ rounds, bytes)?;
        rounds += 1;
        told(rounds)?;
        thread::sleep(pause);
    }
    Ok(())
}

fn connected(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    set_tcp_congestion(&stream, CONGESTION)?;
    set_patience(&stream)?;
    Ok(stream)
}

fn round(stream: &mut TcpStream, seed: u64, bytes: u64) -> io::Result<()> {
    stream.write_all(&seed.to_be_bytes())?;
    stream.write_all(&bytes.to_be_bytes())?;
    send(stream, seed, bytes)?;
    receive(stream, !seed, bytes)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    set_patience(&stream)?;
    let mut first = [0; 1];
    // Until the client has enough.
    while stream.read(&mut first)? == 1 {
        let (mut seed, mut length) = ([first[0], 0, 0, 0, 0, 0, 0, 0], [0; 8]);
        stream.read_exact(&mut seed[1..])?;
        stream.read_exact(&mut length)?;
        let (seed, length) = (u64::from_be_bytes(seed), u64::from_be_bytes(length));
        receive(&mut stream, seed, length)?;
        send(&mut stream, !seed, length)?;
    }
    Ok(())
}

fn set_patience(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn send(stream: &mut impl Write, seed: u64, length: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        let now = left.min(CHUNK as u64) as usize;
        pattern.fill(&mut buffer[..now]);
        stream.write_all(&buffer[..now])?;
        left -= now as u64;
    }
    stream.flush()
}

fn receive(stream: &mut impl Read, seed: u64, length: u64) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < length {
        let room = (length - done).min(CHUNK as u64) as usize;
        let n = stream.read(&mut buffer[..room])?;
        if n == 0 {
            let what = format!("closed after {done} of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        if let Some(at) = pattern.find_difference(&buffer[..n]) {
            let what = format!("byte {} differs", done + at as u64);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        done += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_over_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || serve(&listener));
        exchange(to, 1_000_001).unwrap();
    }

    #[test]
    fn a_conversation_goes_on_until_it_is_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || serve(&listener));
        let (enough, mut rounds) = (AtomicBool::new(false), Vec::new());
        converse(to, 10_001, Duration::ZERO, &enough, |round| {
            rounds.push(round);
            enough.store(round == 3, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
        assert_eq!(rounds, [1, 2, 3]);
    }

    #[test]
    fn a_changed_byte_is_found() {
        let mut bytes = Vec::new();
        send(&mut bytes, 5, 300_000).unwrap();
        receive(&mut &bytes[..], 5, 300_000).unwrap();
        bytes[270_000] ^= 0x80;
        let error = receive(&mut &bytes[..], 5, 300_000).unwrap_err();
        assert_eq!(error.to_string(), "byte 270000 differs");
    }
}
