//! What is stored, and how: one JSON document a record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_netcore::model::runs::{self, Run};
use portolan_netcore::model::{
    ContainerId, Endpoint, EndpointId, Network, NetworkId, PortRange, Proto, Sandbox, SandboxId,
};
use portolan_netcore::shared::{SharedMap, SharedSet};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, PortRequest, Record, RecordChange};

pub(crate) const NETWORK: &str = "network";
pub(crate) const SANDBOX: &str = "sandbox";
pub(crate) const ENDPOINT: &str = "endpoint";
pub(crate) const LEASE: &str = "lease";
pub(crate) const SERIAL: &str = "serial";

/// A sandbox and what its names and ports are made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) sandbox: Sandbox,
    /// Its endpoints in the order they were attached.
    pub(crate) order: Vec<EndpointId>,
    /// Ports asked for: published through whichever endpoint is the gateway.
    #[serde(with = "asked")]
    pub(crate) ports: Asked,
    /// The container's own resolvers.
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) ndots: Option<u32>,
    /// Ports that the container says it listens on.
    #[serde(default, with = "exposed")]
    pub(crate) exposed: SharedSet<Exposed>,
}

/// Ports asked for, and how often each.
pub(crate) type Asked = SharedMap<PortRequest, u16>;

/// A port that a container says it listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Exposed {
    pub(crate) proto: Proto,
    pub(crate) port: u16,
}

impl Run for Exposed {
    fn higher(&self, by: u16) -> Option<Self> {
        Some(Self { port: self.port.checked_add(by)?, ..*self })
    }
}

impl SandboxRecord {
    /// One port more is asked for.
    pub(crate) fn ask(&mut self, request: PortRequest) {
        *self.ports.get_or_insert_with(request, || 0) += 1;
    }

    /// One port is no longer asked for.
    pub(crate) fn ask_no_more(&mut self, request: &PortRequest) {
        match self.ports.get(request) {
            Some(1) => drop(self.ports.remove(request)),
            Some(times) => drop(self.ports.insert(request.clone(), times - 1)),
            None => {}
        }
    }

    /// The ports asked for, one by one.
    pub(crate) fn asked(&self) -> Vec<PortRequest> {
        self.ports.iter().flat_map(|(request, times)| each(request, times)).collect()
    }

    /// The ports that it listens on, as far as it says so or publishes them.
    pub(crate) fn listens(&self) -> Vec<(Proto, PortRange)> {
        let asked = self.ports.keys().map(|request| (request.proto, request.container_port));
        let exposed = self.exposed.keys().map(|exposed| (exposed.proto, exposed.port));
        let mut ports: Vec<(Proto, PortRange)> = Vec::new();
        for (proto, port) in merge(asked, exposed) {
            match ports.last_mut() {
                Some((last, range)) if *last == proto && range.contains(port) => {}
                Some((last, range)) if *last == proto && range.last.checked_add(1) == Some(port) => {
                    range.last = port;
                }
                _ => ports.push((proto, PortRange::one(port))),
            }
        }
        ports
    }
}

/// Two sorted lists as one.
fn merge<T: Ord>(one: impl Iterator<Item = T>, other: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if second < first => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

fn each(request: &PortRequest, times: &u16) -> std::iter::RepeatN<PortRequest> {
    std::iter::repeat_n(request.clone(), usize::from(*times))
}

/// How the ports asked for are stored: by runs.
mod asked {
    use super::{Asked, Deserializer, PortRequest, Serialize, Serializer, each, runs};

    pub(super) fn serialize<S: Serializer>(asked: &Asked, serializer: S) -> Result<S::Ok, S::Error> {
        runs::of(asked, each).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Asked, D::Error> {
        let requests: Vec<PortRequest> = runs::deserialize(deserializer)?;
        let mut asked = Asked::new();
        for request in requests {
            *asked.get_or_insert_with(request, || 0) += 1;
        }
        Ok(asked)
    }
}

/// How the ports that a container says it listens on are stored: by runs.
mod exposed {
    use super::{Deserialize, Deserializer, Exposed, Proto, Serialize, Serializer, SharedSet, runs};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        /// As it was before there were runs.
        One(Proto, u16),
        Run(runs::Repeated<Exposed>),
    }

    pub(super) fn serialize<S: Serializer>(
        exposed: &SharedSet<Exposed>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        runs::of_set(exposed).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SharedSet<Exposed>, D::Error> {
        let mut all = SharedSet::new();
        for stored in Vec::<Stored>::deserialize(deserializer)? {
            let run = match stored {
                Stored::One(proto, port) => runs::Repeated { first: Exposed { proto, port }, count: 1 },
                Stored::Run(run) => run,
            };
            let each = run.each().ok_or_else(|| serde::de::Error::custom("ports beyond the last"))?;
            all.extend(each.into_iter().map(|exposed| (exposed, ())));
        }
        Ok(all)
    }
}

/// What a container has on a network, running or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) container: ContainerId,
    pub(crate) network: NetworkId,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// Asked for by number: nobody else gets it as long as the container exists, or if another has it,
    /// once that gives it up.
    pub(crate) fixed: bool,
    /// Orders those who ask for the same address by number: the lowest has it, the next gets it. One
    /// that is in use belongs to who uses it, whatever it says.
    #[serde(default)]
    pub(crate) place: u64,
    /// The container's name, for people.
    #[serde(default)]
    pub(crate) name: String,
}

/// How far a network has come that gives addresses one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SerialRecord {
    pub(crate) network: NetworkId,
    /// The last one given of each subnet that has given one.
    pub(crate) last: Vec<IpAddr>,
}

/// One commit, as it grows.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) changes: Vec<RecordChange>,
}

impl Batch {
    fn put(&mut self, kind: &str, id: String, value: &impl Serialize) -> Result<(), Error> {
        let json = serde_json::to_string(value)
            .map_err(|error| Error::internal(format!("cannot write the {kind} {id} as JSON: {error}")))?;
        self.changes.push(RecordChange::Put(Record { kind: kind.to_owned(), id, json }));
        Ok(())
    }

    fn delete(&mut self, kind: &str, id: String) {
        self.changes.push(RecordChange::Delete { kind: kind.to_owned(), id });
    }

    pub(crate) fn put_network(&mut self, network: &Network) -> Result<(), Error> {
        self.put(NETWORK, network.id.to_string(), network)
    }

    pub(crate) fn delete_network(&mut self, id: &NetworkId) {
        self.delete(NETWORK, id.to_string());
    }

    pub(crate) fn put_sandbox(&mut self, record: &SandboxRecord) -> Result<(), Error> {
        self.put(SANDBOX, record.sandbox.id.to_string(), record)
    }

    pub(crate) fn delete_sandbox(&mut self, id: &SandboxId) {
        self.delete(SANDBOX, id.to_string());
    }

    pub(crate) fn put_endpoint(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        self.put(ENDPOINT, endpoint.id.to_string(), endpoint)
    }

    pub(crate) fn delete_endpoint(&mut self, id: &EndpointId) {
        self.delete(ENDPOINT, id.to_string());
    }

    pub(crate) fn put_lease(&mut self, lease: &LeaseRecord) -> Result<(), Error> {
        self.put(LEASE, lease_id(&lease.network, &lease.container), lease)
    }

    pub(crate) fn put_serial(&mut self, serial: &SerialRecord) -> Result<(), Error> {
        self.put(SERIAL, serial.network.to_string(), serial)
    }

    pub(crate) fn delete_serial(&mut self, network: &NetworkId) {
        self.delete(SERIAL, network.to_string());
    }

    pub(crate) fn delete_lease(&mut self, network: &NetworkId, container: &ContainerId) {
        self.delete(LEASE, lease_id(network, container));
    }
}

fn lease_id(network: &NetworkId, container: &ContainerId) -> String {
    format!("{network}/{container}")
}

/// A record as what it is.
pub(crate) fn read<T: DeserializeOwned>(record: &Record) -> Result<T, Error> {
    serde_json::from_str(&record.json).map_err(|error| {
        Error::internal(format!("the stored {} {} is damaged: {error}", record.kind, record.id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(ports: &str) -> Result<SandboxRecord, serde_json::Error> {
        let id = "a".repeat(64);
        serde_json::from_str(&format!(
            r#"{{"sandbox": {{"id": "{id}", "container": "{id}", "mode": "private", "sysctls": {{}}}},
                "order": [], "ports": [{ports}], "dns": [], "ndots": null}}"#
        ))
    }

    fn asked(port: u32, more: &str) -> String {
        let range = format!(r#"{{"first": {port}, "last": {port}}}"#);
        format!(
            r#"{{"proto": "tcp", "container_port": {port}, "host_ip": null, "host_ports": {range}{more}}}"#
        )
    }

    #[test]
    fn a_range_of_ports_is_stored_as_one_and_single_ones_as_ever() {
        let each: Vec<String> = (20_000..30_000).map(|port| asked(port, "")).collect();
        let old = record(&[each.as_slice(), &[asked(80, "")]].concat().join(",")).unwrap();
        assert_eq!(old.ports.len(), 10_001);
        let text = serde_json::to_string(&old).unwrap();
        assert!(text.len() < 1000, "{text}");
        assert_eq!(serde_json::from_str::<SandboxRecord>(&text).unwrap(), old);
        let run = record(&asked(20_000, r#", "count": 10000"#)).unwrap();
        assert_eq!(run.asked(), old.asked()[1..]);
        assert!(record(&asked(65_535, r#", "count": 2"#)).is_err());
    }
}
