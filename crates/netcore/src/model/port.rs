//! Published ports.

use std::collections::BTreeSet;
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
    /// Both ends this much higher; none beyond the last port.
    pub fn higher(self, by: u16) -> Option<Self> {
        Some(Self { first: self.first.checked_add(by)?, last: self.last.checked_add(by)? })
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

impl PortBinding {
    /// Those of `these` that are not among `others`, in order. It costs a walk along both where both are
    /// sorted.
    pub fn only_in<'a>(these: &'a [Self], others: &[Self]) -> Vec<&'a Self> {
        if !(these.is_sorted() && others.is_sorted()) {
            let others: BTreeSet<&Self> = others.iter().collect();
            return these.iter().filter(|binding| !others.contains(binding)).collect();
        }
        let mut others = others.iter().peekable();
        let mut is_new = |binding: &&Self| {
            while others.next_if(|other| *other < *binding).is_some() {}
            others.peek() != Some(binding)
        };
        these.iter().filter(|binding| is_new(binding)).collect()
    }
}

impl Run for PortBinding {
    fn higher(&self, by: u16) -> Option<Self> {
        let (container_port, host_port) =
            (self.container_port.checked_add(by)?, self.host_port.checked_add(by)?);
        Some(Self { container_port, host_port, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_is_the_same_whatever_the_order() {
        let port = |host_port| {
            let host_ip = IpAddr::from([0, 0, 0, 0]);
            PortBinding { proto: Proto::Tcp, container_port: 1, host_ip, host_port }
        };
        let (a, b) = ([1, 3, 5, 7, 9].map(port), [0, 3, 4, 9, 10].map(port));
        let numbers = |found: Vec<&PortBinding>| found.iter().map(|p| p.host_port).collect::<Vec<_>>();
        assert_eq!(numbers(PortBinding::only_in(&a, &b)), [1, 5, 7]);
        assert_eq!(numbers(PortBinding::only_in(&b, &a)), [0, 4, 10]);
        assert_eq!(numbers(PortBinding::only_in(&a, &[])), [1, 3, 5, 7, 9]);
        let (mut backward, mut other) = (a.clone(), b.clone());
        backward.reverse();
        other.swap(0, 4);
        assert_eq!(numbers(PortBinding::only_in(&backward, &b)), [7, 5, 1]);
        assert_eq!(numbers(PortBinding::only_in(&a, &other)), [1, 5, 7]);
    }
}
