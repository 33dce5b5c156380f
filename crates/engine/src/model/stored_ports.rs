//! How a container's ports are stored: those of a range as one entry, as it was asked for
//! (`20000-29999/tcp`). Single ones are as ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use portolan_netcore::model::Proto;
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
    fn of(port: ContainerPort) -> Self {
        Self { proto: port.proto, first: port.port, last: port.port }
    }

    /// `80/tcp` or `8000-8100/tcp`.
    fn parse<E: Error>(text: &str) -> Result<Self, E> {
        let Some((first, rest)) = text.split_once('-') else {
            return Ok(Self::of(text.parse().map_err(E::custom)?));
        };
        let last: ContainerPort = rest.parse().map_err(E::custom)?;
        Ok(Self { first: first.parse().map_err(E::custom)?, ..Self::of(last) })
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

/// The same place on the host, this much higher; none if it is not one single port.
fn higher(hosts: &[HostPort], by: u16) -> Option<Vec<HostPort>> {
    let [host] = hosts else { return None };
    let range = host.ports.filter(|range| range.first == range.last)?;
    Some(vec![HostPort { ports: Some(range.higher(by)?), ..host.clone() }])
}

/// `PortBindings`.
pub(super) mod bindings {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        bindings: &BTreeMap<ContainerPort, Vec<HostPort>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut spans: Vec<(Span, &Vec<HostPort>)> = Vec::new();
        // Ports of several protocols take turns.
        let mut open: BTreeMap<Proto, usize> = BTreeMap::new();
        for (port, hosts) in bindings {
            if let Some((span, first)) = open.get(&port.proto).map(|at| &mut spans[*at])
                && span.last.checked_add(1) == Some(port.port)
                && higher(first, port.port - span.first).as_ref() == Some(hosts)
            {
                span.last = port.port;
                continue;
            }
            open.insert(port.proto, spans.len());
            spans.push((Span::of(*port), hosts));
        }
        serializer.collect_map(spans.into_iter().map(|(span, hosts)| (span.to_string(), hosts)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<ContainerPort, Vec<HostPort>>, D::Error> {
        let mut bindings = BTreeMap::new();
        for (text, hosts) in BTreeMap::<String, Vec<HostPort>>::deserialize(deserializer)? {
            let span = Span::parse::<D::Error>(&text)?;
            for port in span.ports().skip(1) {
                let next = higher(&hosts, port.port - span.first);
                bindings.insert(port, next.ok_or_else(|| D::Error::custom("ports beyond the last"))?);
            }
            bindings.insert(ContainerPort { port: span.first, proto: span.proto }, hosts);
        }
        Ok(bindings)
    }
}

/// `ExposedPorts`.
pub(super) mod exposed {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        ports: &BTreeSet<ContainerPort>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut spans: BTreeMap<Proto, Vec<Span>> = BTreeMap::new();
        for port in ports {
            let spans = spans.entry(port.proto).or_default();
            match spans.last_mut() {
                Some(span) if span.last.checked_add(1) == Some(port.port) => span.last = port.port,
                _ => spans.push(Span::of(*port)),
            }
        }
        serializer.collect_seq(spans.into_values().flatten().map(|span| span.to_string()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<ContainerPort>, D::Error> {
        let mut ports = BTreeSet::new();
        for text in Vec::<String>::deserialize(deserializer)? {
            ports.extend(Span::parse::<D::Error>(&text)?.ports());
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
        let mut exposed = BTreeSet::new();
        for port in 20_000..30_000_u16 {
            let at = ContainerPort { port, proto: Proto::Tcp };
            let to = serde_json::from_str(&format!(
                r#"{{"ip": null, "ports": {{"first": {port}, "last": {port}}}}}"#
            ));
            host.port_bindings.insert(at, vec![to.unwrap()]);
            exposed.insert(at);
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
        assert_eq!(old, ["53/udp", "80/tcp"].map(|port| port.parse().unwrap()).into());
    }
}
