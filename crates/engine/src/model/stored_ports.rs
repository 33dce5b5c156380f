//! How a container's ports are stored: those of a range as one entry, as it was asked for
//! (`20000-29999/tcp`). Single ones are as ever.

use std::fmt;

use portolan_netcore::model::Proto;
use portolan_netcore::model::runs::{self, Repeated, Run};
use portolan_netcore::shared::{SharedMap, SharedSet};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

use super::{ContainerPort, HostPort};

/// Consecutive ports of one protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    proto: Proto,
    first: u16,
    last: u16,
}

impl Span {
    /// So many from a port on.
    fn of(port: ContainerPort, count: u16) -> Self {
        Self { proto: port.proto, first: port.port, last: port.port.saturating_add(count.saturating_sub(1)) }
    }

    /// `80/tcp` or `8000-8100/tcp`.
    fn parse<E: Error>(text: &str) -> Result<Self, E> {
        let Some((first, rest)) = text.split_once('-') else {
            return Ok(Self::of(text.parse().map_err(E::custom)?, 1));
        };
        let last: ContainerPort = rest.parse().map_err(E::custom)?;
        Ok(Self { first: first.parse().map_err(E::custom)?, ..Self::of(last, 1) })
    }

    fn ports(self) -> impl Iterator<Item = ContainerPort> {
        (self.first..=self.last).map(move |port| ContainerPort { port, proto: self.proto })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}/{}", self.first, self.proto)
        } else {
            write!(f, "{}-{}/{}", self.first, self.last, self.proto)
        }
    }
}

impl Run for ContainerPort {
    fn higher(&self, by: u16) -> Option<Self> {
        Some(Self { port: self.port.checked_add(by)?, ..*self })
    }
}

/// A port and where it is published.
#[derive(Clone, PartialEq)]
struct Published {
    port: ContainerPort,
    hosts: Vec<HostPort>,
}

impl Run for Published {
    /// None if it is not one single port of the host.
    fn higher(&self, by: u16) -> Option<Self> {
        let [host] = self.hosts.as_slice() else { return None };
        let range = host.ports.filter(|range| range.first == range.last)?;
        let port = self.port.higher(by)?;
        Some(Self { port, hosts: vec![HostPort { ports: Some(range.higher(by)?), ..host.clone() }] })
    }
}

/// `PortBindings`.
pub(super) mod bindings {
    use std::collections::BTreeMap;

    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        bindings: &SharedMap<ContainerPort, Vec<HostPort>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let published = |port: &ContainerPort, hosts: &Vec<HostPort>| {
            std::iter::once(Published { port: *port, hosts: hosts.clone() })
        };
        let entry =
            |run: Repeated<Published>| (Span::of(run.first.port, run.count).to_string(), run.first.hosts);
        serializer.collect_map(runs::of(bindings, published).into_iter().map(entry))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SharedMap<ContainerPort, Vec<HostPort>>, D::Error> {
        let mut bindings = SharedMap::new();
        for (text, hosts) in BTreeMap::<String, Vec<HostPort>>::deserialize(deserializer)? {
            let span = Span::parse::<D::Error>(&text)?;
            let Some(count) = span.last.checked_sub(span.first) else {
                return Err(D::Error::custom(format!("ports {text} end before they begin")));
            };
            let first = Published { port: ContainerPort { port: span.first, proto: span.proto }, hosts };
            let run = Repeated { first, count: count.saturating_add(1) };
            let each = run.each().ok_or_else(|| D::Error::custom("ports beyond the last"))?;
            bindings.extend(each.into_iter().map(|published| (published.port, published.hosts)));
        }
        Ok(bindings)
    }
}

/// `ExposedPorts`.
pub(super) mod exposed {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        ports: &SharedSet<ContainerPort>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let runs = runs::of_set(ports);
        serializer.collect_seq(runs.into_iter().map(|run| Span::of(run.first, run.count).to_string()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SharedSet<ContainerPort>, D::Error> {
        let mut ports = SharedSet::new();
        for text in Vec::<String>::deserialize(deserializer)? {
            ports.extend(Span::parse::<D::Error>(&text)?.ports().map(|port| (port, ())));
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::super::HostConfig;
    use super::*;

    #[test]
    fn a_range_is_one_entry_and_comes_back_as_it_was() {
        let mut host = HostConfig::default();
        let mut exposed = SharedSet::new();
        for port in 20_000..30_000_u16 {
            let at = ContainerPort { port, proto: Proto::Tcp };
            let to = serde_json::from_str(&format!(
                r#"{{"ip": null, "ports": {{"first": {port}, "last": {port}}}}}"#
            ));
            host.port_bindings.insert(at, vec![to.unwrap()]);
            exposed.insert(at, ());
        }
        host.port_bindings.insert("20000/udp".parse().unwrap(), vec![HostPort::default(); 2]);
        host.port_bindings.insert("80/tcp".parse().unwrap(), vec![HostPort::default()]);
        let text = serde_json::to_string(&host).unwrap();
        assert!(text.contains(r#""20000-29999/tcp""#) && text.contains(r#""80/tcp""#), "{text}");
        assert!(text.len() < 10_000, "{}", text.len());
        assert_eq!(serde_json::from_str::<HostConfig>(&text).unwrap().port_bindings, host.port_bindings);

        let mut json = Vec::new();
        self::exposed::serialize(&exposed, &mut serde_json::Serializer::new(&mut json)).unwrap();
        assert_eq!(json, br#"["20000-29999/tcp"]"#);
        let back = self::exposed::deserialize(&mut serde_json::Deserializer::from_slice(&json)).unwrap();
        assert_eq!(back, exposed);
        let old = br#"["53/udp", "80/tcp"]"#;
        let old = self::exposed::deserialize(&mut serde_json::Deserializer::from_slice(old)).unwrap();
        let each: Vec<String> = old.keys().map(ToString::to_string).collect();
        assert_eq!(each, ["53/udp", "80/tcp"]);
    }
}
