//! The helper that the lab runs inside its namespaces: checked TCP and UDP. See `lab::traffic` for what it says.
#![forbid(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use lab::traffic::{UdpPlan, tcp, udp};

/// Checked traffic between two namespaces of the lab.
#[derive(Parser)]
enum Arguments {
    /// Answer TCP and UDP on a port, until ended.
    Serve {
        /// The port.
        port: u16,
    },
    /// Send bytes to the service and take as many back, all of them checked.
    Tcp {
        /// The service.
        to: SocketAddr,
        /// How many.
        bytes: u64,
    },
    /// Send numbered datagrams to the service and print what came of them as JSON.
    Udp {
        /// The service.
        to: SocketAddr,
        /// Flows.
        flows: u32,
        /// Datagrams per flow.
        count: u64,
        /// Bytes per datagram.
        size: usize,
        /// Microseconds between two of a flow.
        gap: u64,
        /// Whether the service sends them back.
        #[arg(action = clap::ArgAction::Set)]
        echo: bool,
    },
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-traffic: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act(arguments: Arguments) -> io::Result<()> {
    match arguments {
        Arguments::Serve { port } => serve(port),
        Arguments::Tcp { to, bytes } => tcp::exchange(to, bytes),
        Arguments::Udp { to, flows, count, size, gap, echo } => {
            let plan = UdpPlan { flows, count, size, gap: Duration::from_micros(gap), echo };
            let outcome = udp::exchange(to, &plan)?;
            println!("{}", serde_json::to_string(&outcome)?);
            Ok(())
        }
    }
}

fn serve(port: u16) -> io::Result<()> {
    // Both families: Linux lets an IPv6 wildcard socket take IPv4 as well.
    let listener = TcpListener::bind(("::", port))?;
    let socket = UdpSocket::bind(("::", port))?;
    println!("ready");
    thread::spawn(move || {
        if let Err(error) = udp::serve(&socket) {
            eprintln!("udp: {error}");
        }
    });
    tcp::serve(&listener)
}
