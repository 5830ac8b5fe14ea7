//! Where metrics are served: an address, or a socket's path.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use config::value::Quoted;
use serde::{Deserialize, Serialize};

/// A place to serve at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// This port of 127.0.0.1 and of ::1.
    Loopback(u16),
    /// This address and no other.
    Address(SocketAddr),
    /// A UNIX socket.
    Path(PathBuf),
}

/// A place that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPlace {
    /// It is spelt otherwise.
    #[error(
        "{0} is no place to serve metrics at, expected a port of this host (9586), an address with a port (192.0.2.1:9586, [::]:9586) or unix:/PATH"
    )]
    Spelling(Quoted),
    /// Programs that look for interfaces would take the socket for one.
    #[error(
        "{0} is in the folder of the interfaces' sockets, expected another, such as unix:/run/wireloom-metrics/wg0"
    )]
    Interfaces(Quoted),
}

impl Place {
    /// The addresses; of those of the loopback one may be missing.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Place::Loopback(port) => {
                vec![(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()]
            }
            Place::Address(address) => vec![*address],
            Place::Path(_) => Vec::new(),
        }
    }
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Place, NotAPlace> {
        let bad = || NotAPlace::Spelling(Quoted::new(text));
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            let odd = |part| matches!(part, Component::ParentDir | Component::CurDir);
            // A socket's path has room for 107 bytes.
            if !path.is_absolute() || path.file_name().is_none() || path.components().any(odd) || text.len() > 107 + 5 {
                return Err(bad());
            }
            let folders = ["/var/run/wireguard", "/run/wireguard"];
            if folders.iter().any(|folder| path.starts_with(folder)) {
                return Err(NotAPlace::Interfaces(Quoted::new(text)));
            }
            return Ok(Place::Path(path.to_owned()));
        }
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| is_number(text) && *port != 0);
        if let Some(port) = port(text.strip_prefix(':').unwrap_or(text)) {
            return Ok(Place::Loopback(port));
        }
        text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0).map(Place::Address).ok_or_else(bad)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Loopback(port) => write!(f, "{port}"),
            Place::Address(address) => write!(f, "{address}"),
            Place::Path(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = NotAPlace;

    fn try_from(text: String) -> Result<Place, NotAPlace> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> String {
        place.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_the_loopbacks_and_another_address_is_written_out() {
        for text in ["9586", ":9586"] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place, Place::Loopback(9586));
            assert!(place.addresses().iter().all(|address| address.ip().is_loopback() && address.port() == 9586));
            assert_eq!(place.addresses().len(), 2);
        }
        for text in ["0.0.0.0:1", "[::]:65535", "192.0.2.1:9586", "[2001:db8::1]:9586", "unix:/run/x/metrics.sock"] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), text);
            assert_eq!(Place::try_from(String::from(place.clone())), Ok(place));
        }
    }

    #[test]
    fn what_is_no_place_is_told_in_a_line() {
        let bad = [
            "",
            ":",
            "0",
            ":0",
            "65536",
            "+1",
            "-1",
            " 1",
            "1 ",
            "x:1",
            "localhost:9586",
            "0.0.0.0",
            "127.0.0.1:0",
            "::1:5",
            "unix:",
            "unix:x",
            "unix:/",
            "unix:/a/../var/run/wireguard/x",
            "*:9586",
        ];
        for text in bad {
            let error = text.parse::<Place>().unwrap_err();
            assert!(matches!(error, NotAPlace::Spelling(_)) && !error.to_string().contains('\n'), "{text}");
        }
        assert!(format!("unix:/{}", "x".repeat(106)).parse::<Place>().is_ok());
        assert!(format!("unix:/{}", "x".repeat(107)).parse::<Place>().is_err());
        for text in ["unix:/var/run/wireguard/wg0.metrics", "unix:/run/wireguard/x", "unix:/run//wireguard/x"] {
            assert!(matches!(text.parse::<Place>(), Err(NotAPlace::Interfaces(_))), "{text}");
        }
    }
}
