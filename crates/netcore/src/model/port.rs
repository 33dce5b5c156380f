//! Published ports.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::runs::Run;

/// A transport protocol that can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Proto {
    /// The number in the IP header (IANA protocol numbers).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no protocol that can be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid protocol {0:?}: tcp, udp or sctp")]
pub struct UnknownProto(pub String);

impl FromStr for Proto {
    type Err = UnknownProto;

    fn from_str(text: &str) -> Result<Self, UnknownProto> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(UnknownProto(text.to_owned())),
        }
    }
}

/// Ports `first..=last` of the host from which one is taken; `first == last` asks for that one;
/// `None` in a request means any free port of the kernel's ephemeral range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest port, at least 1.
    pub first: u16,
    /// The highest port, at least `first`.
    pub last: u16,
}

impl PortRange {
    /// Just this one.
    pub fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The port is one of these.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Both ends this much higher; none beyond the last port.
    pub fn higher(self, by: u16) -> Option<Self> {
        Some(Self { first: self.first.checked_add(by)?, last: self.last.checked_add(by)? })
    }
}

/// `8000`, or `8000-8100`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

/// One published port: packets to `host_ip:host_port` go to the endpoint's `container_port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortBinding {
    /// Protocol of both ends.
    pub proto: Proto,
    /// The port inside the sandbox.
    pub container_port: u16,
    /// The host address it is published on; `0.0.0.0` and `::` mean every one of that family.
    pub host_ip: IpAddr,
    /// The port on the host.
    pub host_port: u16,
}

impl Run for PortBinding {
    fn higher(&self, by: u16) -> Option<Self> {
        let (container_port, host_port) =
            (self.container_port.checked_add(by)?, self.host_port.checked_add(by)?);
        Some(Self { container_port, host_port, ..self.clone() })
    }
}
