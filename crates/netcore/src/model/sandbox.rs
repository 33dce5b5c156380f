//! Sandboxes and the endpoints that join them to networks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{ContainerId, DhcpClient, EndpointId, IfName, MacAddr, NetworkId, PortBinding, SandboxId};
use crate::shared::{SharedMap, SharedSet};

/// Which namespace a container's processes see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxMode {
    /// A namespace of its own.
    Private,
    /// The host's.
    Host,
}

/// A network namespace and who it belongs to. It outlives the container's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// The container it was made for; `container:X` containers join it without a record of their own.
    pub container: ContainerId,
    /// Own namespace or the host's.
    pub mode: SandboxMode,
    /// `net.*` sysctls to set inside, by key with dots (`net.ipv4.ip_unprivileged_port_start`).
    pub sysctls: BTreeMap<String, String>,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What joins one sandbox to one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// The network.
    pub network: NetworkId,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The container's name, without a slash: what `network inspect` shows.
    pub container_name: String,
    /// The container end's name, `eth0` and so on.
    pub ifname: IfName,
    /// The host end's name, `veth` and seven digits.
    pub host_ifname: IfName,
    /// The container end's hardware address.
    pub mac: MacAddr,
    /// Its IPv4 address with the subnet's prefix length.
    pub ipv4: Option<Ipv4Net>,
    /// Its IPv6 address with the subnet's prefix length.
    pub ipv6: Option<Ipv6Net>,
    /// Further addresses that the user wants on the link, which no network manages. Docker: `LinkLocalIPs`.
    #[serde(default)]
    pub link_local: Vec<IpNet>,
    /// The network's IPv4 gateway.
    pub gateway_ipv4: Option<Ipv4Addr>,
    /// The network's IPv6 gateway.
    pub gateway_ipv6: Option<Ipv6Addr>,
    /// The default route of the sandbox goes through this endpoint.
    pub is_gateway: bool,
    /// The family whose default route goes through this endpoint because the gateway has none of it.
    #[serde(default)]
    pub stands_in: Option<Family>,
    /// Docker's `GwPriority`: the endpoint with the highest is the gateway; ties by network name.
    pub gw_priority: i64,
    /// Names the embedded resolver answers with this address; the first is the PTR answer.
    pub dns_names: Vec<String>,
    /// Names that only this sandbox resolves: link alias -> name of the other container.
    pub links: BTreeMap<String, String>,
    /// `portolan.source_guard`: it sends from its own addresses only.
    #[serde(default = "super::network::yes")]
    pub source_guard: bool,
    /// Published ports, each held on the host.
    #[serde(with = "published")]
    pub published: SharedSet<PortBinding>,
    /// Those of them that not everybody may use.
    #[serde(default, with = "allowed")]
    pub allowed: Allowed,
    /// Its IPv4 address, gateway and MTU come from a DHCP server.
    #[serde(default)]
    pub dhcp: Option<DhcpClient>,
}

impl Endpoint {
    /// All addresses of its link, those of the network first.
    pub fn addresses(&self) -> impl Iterator<Item = IpNet> + '_ {
        let managed = self.ipv4.map(IpNet::V4).into_iter().chain(self.ipv6.map(IpNet::V6));
        managed.chain(self.link_local.iter().copied())
    }

    /// It publishes these ports and no others.
    pub fn publish(&mut self, bindings: impl IntoIterator<Item = PortBinding>, allowed: Allowed) {
        self.published = bindings.into_iter().map(|binding| (binding, ())).collect();
        self.allowed = allowed;
    }

    /// Who may use a published port; everybody if there is none.
    pub fn sources(&self, binding: &PortBinding) -> &[IpNet] {
        self.allowed.get(binding).map_or(&[], Vec::as_slice)
    }
}

/// Who may use the published ports that not everybody may: networks, never none. Those of the other family
/// mean nobody of this.
pub type Allowed = SharedMap<PortBinding, Vec<IpNet>>;

/// How they are stored: by runs.
mod published {
    use serde::{Deserializer, Serialize, Serializer};

    use super::super::runs;
    use super::{PortBinding, SharedSet};

    pub(super) fn serialize<S: Serializer>(
        published: &SharedSet<PortBinding>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        runs::of_set(published).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SharedSet<PortBinding>, D::Error> {
        let bindings: Vec<PortBinding> = runs::deserialize(deserializer)?;
        Ok(bindings.into_iter().collect())
    }
}

/// How they are stored: a list of ports and their sources, by runs.
mod allowed {
    use serde::{Deserializer, Serializer};

    use super::super::runs::{self, Run};
    use super::{Allowed, Deserialize, IpNet, PortBinding, Serialize};

    #[derive(Clone, PartialEq, Serialize, Deserialize)]
    struct Entry {
        binding: PortBinding,
        from: Vec<IpNet>,
    }

    impl Run for Entry {
        fn higher(&self, by: u16) -> Option<Self> {
            Some(Self { binding: self.binding.higher(by)?, from: self.from.clone() })
        }
    }

    pub(super) fn serialize<S: Serializer>(allowed: &Allowed, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = |binding: &PortBinding, from: &Vec<IpNet>| {
            std::iter::once(Entry { binding: binding.clone(), from: from.clone() })
        };
        runs::of(allowed, entry).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Allowed, D::Error> {
        let entries: Vec<Entry> = runs::deserialize(deserializer)?;
        Ok(entries.into_iter().map(|entry| (entry.binding, entry.from)).collect())
    }
}
