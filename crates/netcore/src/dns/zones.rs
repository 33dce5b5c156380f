//! Names of containers, as the resolver sees them: an immutable value that is replaced whole.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::model::{NetworkId, SandboxId};

/// Every name the resolver may answer, and who may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zones {
    /// One zone a user-defined network.
    pub networks: BTreeMap<NetworkId, Zone>,
    /// Who asks: each sandbox with embedded DNS.
    pub sandboxes: BTreeMap<SandboxId, ZoneView>,
}

/// The names of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// The network's name: `web.front` asks for `web` in the network `front`.
    pub name: String,
    /// One record an endpoint.
    pub records: Vec<ZoneRecord>,
}

/// One endpoint's names and addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRecord {
    /// Names, lower case; the first is the PTR answer. Docker: `DNSNames`.
    pub names: Vec<String>,
    /// Its addresses, both families.
    pub addresses: Vec<IpAddr>,
}

/// What one sandbox sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneView {
    /// Its networks, in order of preference.
    pub networks: Vec<NetworkId>,
    /// Link aliases that only this sandbox resolves: alias -> names or addresses of the other container.
    pub links: BTreeMap<String, Vec<IpAddr>>,
    /// Where unknown names go, in order; empty if nothing is to leave (internal networks only).
    pub upstreams: Vec<Upstream>,
    /// The user's `ndots`, if it is set: single-label names then never leave.
    pub ndots: Option<u32>,
}

/// A recursive resolver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// Its address and port.
    pub address: SocketAddr,
    /// Ask from the host's namespace rather than from the sandbox's (host resolvers on loopback).
    pub from_host: bool,
}
