//! Requests: what a user asks for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_netcore::model::runs::Run;
use portolan_netcore::model::{
    Ask, ContainerId, IfName, MacAddr, PortBinding, PortRange, Proto, SandboxMode,
};
use serde::{Deserialize, Serialize};

/// How the networking of one engine is set up; dockerd's options of the same meaning in brackets.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Runtime files: namespaces are pinned in `<exec_root>/netns`.
    pub exec_root: PathBuf,
    /// Name of the default bridge (`--bridge`), `docker0`; `None` is `--bridge=none`.
    pub default_bridge: Option<IfName>,
    /// Address and subnet of the default bridge (`--bip`).
    pub bip: Option<Ipv4Net>,
    /// The same for IPv6 (`--bip6`), with `--ipv6`.
    pub bip6: Option<Ipv6Net>,
    /// Range for dynamic addresses on the default bridge (`--fixed-cidr`); its subnet, unless that is said by
    /// `bip` or already contains the range.
    pub fixed_cidr: Option<Ipv4Net>,
    /// The same for IPv6 (`--fixed-cidr-v6`), with `--ipv6`.
    pub fixed_cidr_v6: Option<Ipv6Net>,
    /// `--ipv6`.
    pub ipv6: bool,
    /// `--default-gateway`.
    pub default_gateway: Option<Ipv4Addr>,
    /// `--default-gateway-v6`.
    pub default_gateway_v6: Option<Ipv6Addr>,
    /// `--icc` of the default bridge.
    pub icc: bool,
    /// `--ip-masq` of the default bridge.
    pub masquerade: bool,
    /// `--mtu` of the default bridge, bytes.
    pub mtu: Option<u32>,
    /// `--ip`: default host address of published ports; both families if none.
    pub host_binding: Option<IpAddr>,
    /// `--ip loopback`: ports are published on 127.0.0.1 and ::1 where neither they nor their network say
    /// where.
    pub loopback_binding: bool,
    /// `--default-address-pool`: (base, prefix length of each network). Empty: Docker's own pools, and
    /// more of them.
    pub address_pools: Vec<(IpNet, u8)>,
    /// `--default-network-opt`: options of new networks by driver, where the request has none.
    pub network_options: BTreeMap<String, BTreeMap<String, String>>,
    /// `--ip-forward`.
    pub ip_forward: bool,
    /// `--userland-proxy`: publish on IPv6 addresses of the host for containers without IPv6 as well.
    pub userland_proxy: bool,
    /// `--allow-direct-routing`: neighbours may reach published ports by the container's own address.
    pub direct_routing: bool,
    /// `--iptables`: whether to manage the firewall at all.
    pub firewall: bool,
    /// Resolvers from the daemon's configuration (`--dns`); else the host's resolv.conf.
    pub dns: Vec<IpAddr>,
    /// `--default-bridge-names`: names are answered on the default bridge as on any other.
    pub default_bridge_names: bool,
}

/// A change of a network's own resolvers (Podman: `network update --dns-add --dns-drop`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsUpdate {
    /// To ask as well, after those that are asked already.
    pub add: Vec<IpAddr>,
    /// To ask no more; each must be there.
    pub remove: Vec<IpAddr>,
}

/// `POST /networks/create`, checked for syntax but not yet against the other networks.
#[derive(Clone, Debug, Default)]
pub struct NetworkSpec {
    /// Name.
    pub name: String,
    /// Driver: `bridge` if empty.
    pub driver: String,
    /// `EnableIPv4`; true if none.
    pub ipv4: Option<bool>,
    /// `EnableIPv6`.
    pub ipv6: Option<bool>,
    /// `Internal`.
    pub internal: bool,
    /// `Attachable`.
    pub attachable: bool,
    /// `ConfigOnly`: nothing but a configuration for other networks.
    pub config_only: bool,
    /// `ConfigFrom`: the name of the network whose configuration this one takes; none if empty.
    pub config_from: String,
    /// `Scope`: only `local` or empty.
    pub scope: String,
    /// `IPAM.Driver`: `default` if empty.
    pub ipam_driver: String,
    /// `IPAM.Options`.
    pub ipam_options: Option<BTreeMap<String, String>>,
    /// `IPAM.Config`.
    pub ipam: Vec<IpamPoolSpec>,
    /// `Options`.
    pub options: BTreeMap<String, String>,
    /// `Labels`.
    pub labels: BTreeMap<String, String>,
}

/// One entry of `IPAM.Config`, texts as given: all mistakes are reported together.
#[derive(Clone, Debug, Default)]
pub struct IpamPoolSpec {
    /// `Subnet`.
    pub subnet: String,
    /// `IPRange`.
    pub ip_range: String,
    /// `Gateway`.
    pub gateway: String,
    /// `AuxiliaryAddresses`.
    pub auxiliary: BTreeMap<String, String>,
}

/// A namespace to be made for a container.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// The container.
    pub container: ContainerId,
    /// Own namespace or the host's.
    pub mode: SandboxMode,
    /// `net.*` sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Networks to join at once, in the order of `eth0`, `eth1`, ...
    pub attach: Vec<AttachSpec>,
    /// Ports to publish through the gateway endpoint.
    pub ports: Vec<PortRequest>,
    /// Resolvers for this container (`--dns`), which replace the host's.
    pub dns: Vec<IpAddr>,
    /// `ndots` from `--dns-option`.
    pub ndots: Option<u32>,
    /// Ports that the container says it listens on (`EXPOSE`, `--expose`), for SRV answers.
    pub exposed: Vec<(Proto, u16)>,
}

/// How a sandbox joins a network. Docker: `EndpointSettings`.
#[derive(Clone, Debug, Default)]
pub struct AttachSpec {
    /// The network's name, id or unique id prefix.
    pub network: String,
    /// The container's name, without a slash.
    pub container_name: String,
    /// `IPAMConfig.IPv4Address`.
    pub ipv4: Option<Ipv4Addr>,
    /// `IPAMConfig.IPv6Address`.
    pub ipv6: Option<Ipv6Addr>,
    /// `IPAMConfig.LinkLocalIPs`: put on the link beside the network's addresses.
    pub link_local: Vec<IpAddr>,
    /// `MacAddress`.
    pub mac: Option<MacAddr>,
    /// `DNSNames`: container name, aliases, short id, hostname, in that order, without duplicates.
    pub dns_names: Vec<String>,
    /// `Links` on a user-defined network: alias -> container name.
    pub links: BTreeMap<String, String>,
    /// `DriverOpts`.
    pub driver_opts: BTreeMap<String, String>,
    /// `GwPriority`.
    pub gw_priority: i64,
    /// The container's host name, for DHCP servers.
    pub hostname: String,
}

/// One `-p`: ports to publish.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRequest {
    /// Protocol.
    pub proto: Proto,
    /// The container's port.
    pub container_port: u16,
    /// The host address; the network's or daemon's default if none.
    pub host_ip: Option<IpAddr>,
    /// The host ports to choose from; ephemeral if none.
    pub host_ports: Option<PortRange>,
    /// Who may use it; everybody if there is none.
    #[serde(default)]
    pub from: Vec<IpNet>,
}

impl PortRequest {
    /// Where it is to be, whatever it leads to.
    pub fn as_ask(&self) -> Ask<'_> {
        Ask { host_ip: self.host_ip, host_ports: self.host_ports, from: &self.from }
    }
}

impl Run for PortRequest {
    /// Those for one port of the host; others take whichever is free.
    fn higher(&self, by: u16) -> Option<Self> {
        let range = self.host_ports.filter(|range| range.first == range.last)?;
        let (container_port, host_ports) = (self.container_port.checked_add(by)?, range.higher(by)?);
        Some(Self { container_port, host_ports: Some(host_ports), ..self.clone() })
    }
}

/// Ports to publish and to unpublish while a container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortChange {
    /// To publish.
    pub add: Vec<PortRequest>,
    /// To unpublish: of those that the sandbox has.
    pub remove: Vec<PortBinding>,
    /// What the container asks for besides from now on, for when its gateway changes.
    pub asks: Vec<PortRequest>,
    /// What it no longer asks for.
    pub asks_no_more: Vec<PortRequest>,
    /// End the connections that came by the removed ports. Otherwise TCP connections go on to their end;
    /// UDP has no end and is led elsewhere at once in either case.
    pub cut: bool,
}
