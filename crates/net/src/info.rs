//! Answers: what there is.

use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_netcore::model::{
    ContainerId, Endpoint, EndpointId, MacAddr, Network, NetworkId, PortBinding, SandboxId, SandboxMode,
};
use portolan_netcore::shared::SharedSet;

/// A network and what is attached to it: what `GET /networks/{id}` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInfo {
    /// The network.
    pub network: Network,
    /// Its endpoints, by container id.
    pub endpoints: Vec<NetworkEndpoint>,
    /// How full its subnets are. Docker: `Status.IPAM.Subnets`.
    pub usage: Vec<SubnetUsage>,
    /// Routes of the host that overlap with its subnets and are not ours.
    pub overlaps: Vec<IpNet>,
}

/// One endpoint as its network shows it. Docker: `EndpointResource`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEndpoint {
    /// The endpoint.
    pub id: EndpointId,
    /// The container whose sandbox it is.
    pub container: ContainerId,
    /// That container's name, without a slash.
    pub container_name: String,
    /// None on `host` and `none`.
    pub mac: Option<MacAddr>,
    /// Address with the subnet's prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// Address with the subnet's prefix length.
    pub ipv6: Option<Ipv6Net>,
}

/// How full a subnet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetUsage {
    /// The subnet.
    pub subnet: IpNet,
    /// Addresses in use, with the gateway, auxiliary ones and those that no host may have.
    pub in_use: u64,
    /// Addresses that a container could still be given without asking for one.
    pub available: u64,
}

/// A sandbox as the engine needs it: the namespace to start the process in, and everything that
/// `/etc/hosts`, `/etc/resolv.conf` and `docker inspect` are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxInfo {
    /// Its id. Docker: `NetworkSettings.SandboxID`.
    pub id: SandboxId,
    /// The container it was made for.
    pub container: ContainerId,
    /// Own namespace or the host's.
    pub mode: SandboxMode,
    /// Where the namespace is pinned, for setns; none for the host's. Docker: `SandboxKey`.
    pub netns: Option<PathBuf>,
    /// Its endpoints, in the order they were attached.
    pub endpoints: Vec<EndpointInfo>,
    /// Ports published on the host, with the host ports chosen.
    pub ports: SharedSet<PortBinding>,
    /// 127.0.0.11 answers inside: write it to resolv.conf. It does once a user-defined network is joined.
    pub embedded_dns: bool,
}

/// One endpoint of a sandbox. Docker: `EndpointSettings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointInfo {
    /// The network's name.
    pub network_name: String,
    /// The endpoint is on a bridge; otherwise it has neither links nor addresses (`host`, `none`).
    pub linked: bool,
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
}

/// Something that happened to a network. Docker: events of type `network`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEvent {
    /// What.
    pub action: NetworkAction,
    /// The network's id. Docker: `Actor.ID`.
    pub network: NetworkId,
    /// Its name. Docker: attribute `name`.
    pub name: String,
    /// Its driver. Docker: attribute `type`.
    pub driver: &'static str,
    /// The container, on connect and disconnect. Docker: attribute `container`.
    pub container: Option<ContainerId>,
    /// The route, when one begins or ceases to overlap. Attribute `route`.
    pub route: Option<IpNet>,
}

/// What happened to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkAction {
    /// `create`
    Create,
    /// `connect`
    Connect,
    /// `disconnect`
    Disconnect,
    /// `destroy`
    Destroy,
    /// `update`: its resolvers are others from now on.
    Update,
    /// `overlap`, which Docker has not: a route of the host overlaps with it from now on.
    Overlap,
    /// `overlap-end`: no longer.
    OverlapEnd,
}

impl NetworkAction {
    /// Docker's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Connect => "connect",
            Self::Disconnect => "disconnect",
            Self::Destroy => "destroy",
            Self::Update => "update",
            Self::Overlap => "overlap",
            Self::OverlapEnd => "overlap-end",
        }
    }
}

/// Something that happened to the host's networking and was not asked for. Docker clients see an event
/// of type `daemon`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEvent {
    /// `repair`, `repair-failed`, `firewall-conflict` or `firewall-conflict-over`.
    pub action: &'static str,
    /// `steps` that put it right, `by` whom it was touched if that is known, `took_us` from the kernel's
    /// message to the end of the repair, `error`; of a conflict `network`, `bridge`, `table`, `chain`,
    /// `owner`, `drops`, `why` and `fix`.
    pub attributes: std::collections::BTreeMap<String, String>,
}
