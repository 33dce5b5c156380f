//! What is stored, and how: one JSON document a record.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_netcore::model::{
    ContainerId, Endpoint, EndpointId, Network, NetworkId, Proto, Sandbox, SandboxId,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, PortRequest, Record, RecordChange};

pub(crate) const NETWORK: &str = "network";
pub(crate) const SANDBOX: &str = "sandbox";
pub(crate) const ENDPOINT: &str = "endpoint";
pub(crate) const LEASE: &str = "lease";

/// A sandbox and what its names and ports are made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) sandbox: Sandbox,
    /// Its endpoints in the order they were attached.
    pub(crate) order: Vec<EndpointId>,
    /// Ports asked for: published through whichever endpoint is the gateway.
    #[serde(with = "portolan_netcore::model::runs")]
    pub(crate) ports: Vec<PortRequest>,
    /// The container's own resolvers.
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) ndots: Option<u32>,
    /// Ports that the container says it listens on.
    #[serde(default)]
    pub(crate) exposed: Vec<(Proto, u16)>,
}

/// What a container has on a network, running or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) container: ContainerId,
    pub(crate) network: NetworkId,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// Asked for by number: nobody else gets it as long as the container exists.
    pub(crate) fixed: bool,
    /// The container's name when it got the address, for people.
    #[serde(default)]
    pub(crate) name: String,
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
        assert_eq!(record(&asked(20_000, r#", "count": 10000"#)).unwrap().ports, old.ports[..10_000]);
        assert!(record(&asked(65_535, r#", "count": 2"#)).is_err());
    }
}
