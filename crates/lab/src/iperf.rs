//! Throughput, by `iperf3`.
//!
//! Each run gets a server of its own that ends with it: a server that still winds up one run turns the next away.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::{LabError, Namespace, Process};

/// How much longer than asked for a run may take before it is given up.
const SLACK: Duration = Duration::from_secs(20);

/// What to send.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// TCP with cubic, in this many streams.
    Tcp {
        /// Parallel connections.
        streams: u32,
    },
    /// UDP datagrams.
    Udp {
        /// Payload bytes of each.
        size: u32,
        /// Datagrams per second; `None` is as fast as the sender can.
        rate: Option<u64>,
    },
}

/// What came of a TCP run.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpRun {
    /// Bytes that arrived.
    pub bytes: u64,
    /// When its client was started, in seconds since 1970.
    pub began: f64,
    /// How long it took.
    pub seconds: f64,
    /// Segments that had to be sent again.
    pub retransmits: u64,
}

impl TcpRun {
    /// Gigabits per second that arrived.
    pub fn gigabits(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.seconds.max(1e-9) / 1e9
    }
}

/// What came of a UDP run.
#[derive(Clone, Copy, Debug, Default)]
pub struct UdpRun {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived.
    pub received: u64,
    /// How long it took.
    pub seconds: f64,
}

impl UdpRun {
    /// The share of datagrams that did not arrive.
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }
}

/// A run under way: its server and its client.
pub struct Run {
    client: Process,
    _server: Process,
    began: f64,
    seconds: u32,
}

impl Run {
    /// Starts a run of `seconds` from a client in `from` to a server in `to` at `address`. With `report`, the client prints a line
    /// each second instead of JSON at its end.
    ///
    /// # Errors
    /// One of the two could not be started.
    pub fn start(
        from: &Namespace,
        to: &Namespace,
        address: IpAddr,
        load: Load,
        seconds: u32,
        report: bool,
    ) -> Result<Run, LabError> {
        let (server, port) = serve(to)?;
        connect(from, listening(server)?, address, port, load, seconds, report)
    }

    /// The client, whose output grows while it runs.
    pub fn client(&mut self) -> &mut Process {
        &mut self.client
    }

    /// Waits for the end of a TCP run.
    ///
    /// # Errors
    /// iperf3 failed, or took much too long.
    pub fn tcp(self) -> Result<TcpRun, LabError> {
        let began = self.began;
        let (json, text) = self.json()?;
        let run = parse_tcp(&json).ok_or(LabError::Unreadable { what: "the TCP result of iperf3", text })?;
        Ok(TcpRun { began, ..run })
    }

    /// Waits for the end of a TCP run that reports each second.
    ///
    /// # Errors
    /// iperf3 failed, or took much too long.
    pub fn tcp_from_report(self) -> Result<TcpRun, LabError> {
        let limit = Duration::from_secs(self.seconds.into()) + SLACK;
        let began = self.began;
        let text = self.client.finish(limit)?.checked()?.stdout;
        let run = parse_report(&text).ok_or(LabError::Unreadable { what: "the TCP report of iperf3", text })?;
        Ok(TcpRun { began, ..run })
    }

    /// Waits for the end of a UDP run.
    ///
    /// # Errors
    /// iperf3 failed, or took much too long.
    pub fn udp(self) -> Result<UdpRun, LabError> {
        let (json, text) = self.json()?;
        parse_udp(&json).ok_or(LabError::Unreadable { what: "the UDP result of iperf3", text })
    }

    fn json(self) -> Result<(Value, String), LabError> {
        let limit = Duration::from_secs(self.seconds.into()) + SLACK;
        let finished = self.client.finish(limit)?;
        let json: Value = serde_json::from_str(&finished.stdout).unwrap_or_default();
        if let Some(error) = json["error"].as_str() {
            return Err(LabError::Unreadable { what: "a result of iperf3", text: error.to_owned() });
        }
        let text = finished.checked()?.stdout;
        Ok((json, text))
    }
}

/// Starts a run to each of several addresses of one host, all at nearly one moment: the servers are there before the first client begins.
///
/// # Errors
/// As [`Run::start`].
pub fn start_all(
    from: &Namespace,
    to: &Namespace,
    addresses: &[IpAddr],
    load: Load,
    seconds: u32,
) -> Result<Vec<Run>, LabError> {
    let servers = addresses.iter().map(|_| serve(to)).collect::<Result<Vec<_>, _>>()?;
    let mut ready = Vec::new();
    for (server, port) in servers {
        ready.push((listening(server)?, port));
    }
    let pairs = ready.into_iter().zip(addresses);
    pairs.map(|((server, port), address)| connect(from, server, *address, port, load, seconds, false)).collect()
}

/// A server for one run, which may not listen yet, and its port.
fn serve(to: &Namespace) -> Result<(Process, u16), LabError> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // A port of its own for each run: the last one's may still be in TIME_WAIT.
    let port = 5201 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000;
    let mut command = to.command("iperf3");
    Ok((Process::spawn(command.args(["-s", "-1", "-p", &port.to_string(), "--forceflush"]))?, port))
}

fn listening(mut server: Process) -> Result<Process, LabError> {
    server.wait_for_output("Server listening", Duration::from_secs(10))?;
    Ok(server)
}

fn connect(
    from: &Namespace,
    server: Process,
    address: IpAddr,
    port: u16,
    load: Load,
    seconds: u32,
    report: bool,
) -> Result<Run, LabError> {
    let mut command = from.command("iperf3");
    command.args(["-c", &address.to_string(), "-p", &port.to_string()]);
    command.args(["-t", &seconds.to_string(), "--connect-timeout", "5000"]);
    if report {
        command.args(["-i", "1", "-f", "m", "--forceflush"]);
    } else {
        command.args(["-i", "0", "-J"]);
    }
    match load {
        Load::Tcp { streams } => {
            command.args(["-C", "cubic", "-P", &streams.to_string()]);
        }
        Load::Udp { size, rate } => {
            let bits = rate.map_or(0, |rate| rate * u64::from(size) * 8);
            command.args(["-u", "-l", &size.to_string(), "-b", &bits.to_string()]);
            // As large as every kernel allows: the receiver's naps are not the tunnel's losses.
            command.args(["-w", "208K"]);
        }
    }
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    Ok(Run { client: Process::spawn(&mut command)?, _server: server, began, seconds })
}

/// Runs TCP for `seconds` from one host to another.
///
/// # Errors
/// As [`Run::start`] and [`Run::tcp`].
pub fn tcp(from: &Namespace, to: &Namespace, address: IpAddr, streams: u32, seconds: u32) -> Result<TcpRun, LabError> {
    Run::start(from, to, address, Load::Tcp { streams }, seconds, false)?.tcp()
}

/// Runs UDP for `seconds` from one host to another.
///
/// # Errors
/// As [`Run::start`] and [`Run::udp`].
pub fn udp(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    size: u32,
    rate: Option<u64>,
    seconds: u32,
) -> Result<UdpRun, LabError> {
    Run::start(from, to, address, Load::Udp { size, rate }, seconds, false)?.udp()
}

/// The megabits per second in a line that iperf3 prints each second, such as
/// `[  5]   0.00-1.00   sec   118 MBytes   990 Mbits/sec    0   3.1 MBytes`; the closing summaries are not such lines.
pub fn parse_line(line: &str) -> Option<f64> {
    if line.contains("sender") || line.contains("receiver") {
        return None;
    }
    let words: Vec<_> = line.split_whitespace().collect();
    let at = words.iter().position(|&word| word == "Mbits/sec")?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

/// The last line but for `iperf Done`: `[  5]   0.00-10.04  sec  11400 MBytes  9520 Mbits/sec    receiver`.
fn parse_report(text: &str) -> Option<TcpRun> {
    let of = |role: &str| -> Option<Vec<&str>> {
        let line = text.lines().rev().find(|line| line.trim_end().ends_with(role))?;
        Some(line.split_whitespace().collect())
    };
    let received = of("receiver")?;
    let before = |words: &[&str], unit: &str| -> Option<f64> {
        let at = words.iter().position(|&word| word == unit)?;
        words.get(at.checked_sub(1)?)?.rsplit('-').next()?.parse().ok()
    };
    let seconds = before(&received, "sec")?;
    let megabits = before(&received, "Mbits/sec")?;
    let sent = of("sender")?;
    let retransmits = sent.get(sent.len().checked_sub(2)?)?.parse().ok()?;
    Some(TcpRun { bytes: (megabits * 1e6 / 8.0 * seconds) as u64, began: 0.0, seconds, retransmits })
}

fn parse_tcp(json: &Value) -> Option<TcpRun> {
    let received = &json["end"]["sum_received"];
    Some(TcpRun {
        began: 0.0,
        bytes: received["bytes"].as_u64()?,
        seconds: received["seconds"].as_f64()?,
        retransmits: json["end"]["sum_sent"]["retransmits"].as_u64()?,
    })
}

fn parse_udp(json: &Value) -> Option<UdpRun> {
    let sum = &json["end"]["sum"];
    let sent = sum["packets"].as_u64()?;
    // Duplicates and late ones can make the count of the lost negative.
    let lost = sum["lost_packets"].as_i64()?.max(0).unsigned_abs();
    Some(UdpRun { sent, received: sent.saturating_sub(lost), seconds: sum["seconds"].as_f64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_of_each_second() {
        let line = "[  5]   0.00-1.00   sec   118 MBytes   990 Mbits/sec    0   3.1 MBytes";
        assert_eq!(parse_line(line), Some(990.0));
        let last = "[  5]   0.00-5.00   sec   118 MBytes   990 Mbits/sec    0    sender";
        assert_eq!(parse_line(last), None);
        assert_eq!(parse_line("Connecting to host 10.0.0.2, port 5201"), None);
    }

    #[test]
    fn reads_a_report() {
        let text = "[  5]   0.00-1.00   sec   118 MBytes   990 Mbits/sec    0   3.1 MBytes\n\
            - - - - -\n\
            [  5]   0.00-10.00  sec  11400 MBytes  9560 Mbits/sec   17             sender\n\
            [  5]   0.00-10.04  sec  11400 MBytes  8000 Mbits/sec                  receiver\n\n\
            iperf Done.\n";
        let run = parse_report(text).unwrap();
        assert_eq!((run.seconds, run.retransmits), (10.04, 17));
        assert!((run.gigabits() - 8.0).abs() < 1e-6);
        assert!(parse_report("iperf3: error").is_none());
    }

    #[test]
    fn reads_the_json() {
        let text = r#"{"end":{"sum_sent":{"retransmits":3},
            "sum_received":{"bytes":1000000000,"seconds":2.0},
            "sum":{"packets":100,"lost_packets":25,"seconds":2.0}}}"#;
        let json: Value = serde_json::from_str(text).unwrap();
        let tcp = parse_tcp(&json).unwrap();
        assert_eq!((tcp.gigabits(), tcp.retransmits), (4.0, 3));
        let udp = parse_udp(&json).unwrap();
        assert_eq!((udp.sent, udp.received, udp.loss()), (100, 75, 0.25));
        assert!(parse_tcp(&Value::Null).is_none());
        assert!(parse_udp(&Value::Null).is_none());
    }
}
