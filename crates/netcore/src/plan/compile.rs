//! Docker's nouns to the kernel's. Every choice is made here, so that executing has none left.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::claim::ALIAS_PREFIX;
use super::{Desired, HostState, Link, LinkKey, LinkKind, Ns, Proxied, Route, RouteKind, Settings, Touched};
use crate::firewall::{BridgePolicy, CarriedPort, EndpointPolicy, FirewallPolicy, PublishedPort};
use crate::model::{
    BridgeOptions, Driver, Endpoint, EndpointId, Family, GatewayMode, IPV6_MIN_MTU, IfName, IpvlanMode,
    MacAddr, MacvlanMode, MacvlanOptions, MadeParent, Network, NetworkId, ParentOptions, PortBinding, Proto,
    RouteTarget, Sandbox, SandboxMode,
};

/// The auxiliary address that is the host's own on a macvlan network with host access.
pub const HOST_ADDRESS: &str = "portolan.host";

/// The host forwards IPv6.
pub const IPV6_FORWARDING: &str = "net/ipv6/conf/all/forwarding";

/// `IFLA_IFALIAS` of a link that is a network's or an endpoint's.
pub fn alias(id: impl std::fmt::Display) -> String {
    format!("{ALIAS_PREFIX}{id}")
}

/// The host as it has to be for all of `desired`.
pub fn compile(desired: &Desired) -> HostState {
    let mut state = empty(desired);
    for network in desired.networks.values() {
        add_network(&mut state, desired, network);
    }
    for sandbox in desired.sandboxes.values() {
        add_sandbox(&mut state, desired, sandbox);
    }
    for endpoint in desired.endpoints.values() {
        add_endpoint(&mut state, desired, endpoint);
    }
    if desired.settings.ip_forward {
        state.sysctls.insert((Ns::Host, "net/ipv4/ip_forward".to_owned()), "1".to_owned());
    }
    state
}

/// The part of it that the touched entries are responsible for.
pub fn compile_touched(desired: &Desired, touched: &Touched) -> HostState {
    let mut state = empty(desired);
    for network in touched.networks.iter().filter_map(|id| desired.networks.get(id)) {
        add_network(&mut state, desired, network);
    }
    for sandbox in touched.sandboxes.iter().filter_map(|id| desired.sandboxes.get(id)) {
        add_sandbox(&mut state, desired, sandbox);
    }
    for endpoint in touched.endpoints.iter().filter_map(|id| desired.endpoints.get(id)) {
        add_endpoint(&mut state, desired, endpoint);
    }
    state
}

fn empty(desired: &Desired) -> HostState {
    HostState { firewall: desired.settings.firewall.then(FirewallPolicy::default), ..HostState::default() }
}

/// A bridge keeps one hardware address whatever ports come and go: neighbours remember it. Derived
/// from the id, and not of the 02:42 range of endpoints.
fn bridge_mac(id: &NetworkId) -> MacAddr {
    let byte = |at: usize| u8::from_str_radix(&id.as_str()[at..at + 2], 16).unwrap_or_default();
    MacAddr([0x02, 0x50, byte(0), byte(2), byte(4), byte(6)])
}

fn add_network(state: &mut HostState, desired: &Desired, network: &Network) {
    match &network.driver {
        Driver::Bridge(options) if !options.unmanaged => add_bridge(state, desired, network, options),
        Driver::Macvlan(options) => {
            add_parent(state, network, &options.parent);
            add_host_access(state, network, options);
        }
        Driver::Ipvlan(options) => add_parent(state, network, &options.parent),
        Driver::Bridge(_) | Driver::Host | Driver::Null => {}
    }
}

/// A link below endpoints that is made for their network.
fn add_parent(state: &mut HostState, network: &Network, options: &ParentOptions) {
    let kind = match &options.made {
        Some(MadeParent::Vlan { link, id }) => LinkKind::Vlan { parent: link.clone(), id: *id },
        Some(MadeParent::Dummy) => LinkKind::Dummy,
        None => return,
    };
    let link = Link { mtu: options.mtu, alias: Some(alias(&network.id)), ..Link::bare(kind) };
    state.links.insert((Ns::Host, options.parent.clone()), link);
}

/// The host's own link among a macvlan network's. It has its addresses alone, without their subnet:
/// the way to each container is a route of its own, so that the parent's subnet stays the parent's.
fn add_host_access(state: &mut HostState, network: &Network, options: &MacvlanOptions) {
    let Some(name) = &options.host_access else { return };
    let kind = LinkKind::Macvlan { parent: options.parent.parent.clone(), mode: options.mode };
    let own = network.ipam.iter().filter_map(|config| config.auxiliary.get(HOST_ADDRESS));
    let link = Link {
        mac: Some(bridge_mac(&network.id)),
        mtu: options.parent.mtu,
        addresses: own.map(|address| IpNet::from(*address)).collect(),
        alias: Some(alias(&network.id)),
        ..Link::bare(kind)
    };
    state.links.insert((Ns::Host, name.clone()), link);
}

fn bridge_link(network: &Network, options: &BridgeOptions) -> Link {
    if let Some(adopted) = &options.adopted {
        let addresses = bridge_addresses(network, options);
        let addresses = addresses.difference(&adopted.addresses).copied().collect();
        return Link { addresses, ..Link::bare(LinkKind::Adopted) };
    }
    Link {
        mac: Some(bridge_mac(&network.id)),
        mtu: options.mtu,
        addresses: bridge_addresses(network, options),
        alias: Some(alias(&network.id)),
        vlan: options.vlan,
        ..Link::bare(LinkKind::Bridge)
    }
}

fn add_bridge(state: &mut HostState, desired: &Desired, network: &Network, options: &BridgeOptions) {
    state.links.insert((Ns::Host, options.bridge.clone()), bridge_link(network, options));
    add_subnet_routes(state, network, options);
    if forwards(desired, network) && network.ipv4 {
        let key = format!("net/ipv4/conf/{}/forwarding", options.bridge);
        state.sysctls.insert((Ns::Host, key), "1".to_owned());
    }
    if desired.settings.ipv6 {
        add_ipv6_settings(state, desired, network, options);
    }
    if let Some(policy) = &mut state.firewall {
        let by_itself = options.adopted.as_ref().is_some_and(|adopted| adopted.route_localnet);
        if network.ipv4 && !network.internal && !by_itself {
            // Published ports answer on 127.0.0.1 too: the kernel routes such packets to the bridge
            // only with this, and the firewall, already in force, keeps 127.0.0.0/8 from outside off.
            state.sysctls.insert((Ns::Host, route_localnet(&options.bridge)), "1".to_owned());
        }
        policy.bridges.insert(options.bridge.clone(), bridge_policy(network, options, &desired.settings));
    }
}

/// The kernel routes packets from and to 127.0.0.0/8 by this link.
pub(super) fn route_localnet(link: &IfName) -> String {
    format!("net/ipv4/conf/{link}/route_localnet")
}

/// Its bridge forwards. A new one does, as the host does; but anybody may change that for one link.
fn forwards(desired: &Desired, network: &Network) -> bool {
    desired.settings.ip_forward && !network.internal
}

fn add_ipv6_settings(state: &mut HostState, desired: &Desired, network: &Network, options: &BridgeOptions) {
    if network.ipv6 && desired.settings.ip_forward {
        state.sysctls.insert((Ns::Host, IPV6_FORWARDING.to_owned()), "1".to_owned());
    }
    // On a smaller link the kernel has no IPv6, and no settings for it.
    if options.mtu.is_some_and(|mtu| mtu < IPV6_MIN_MTU) {
        return;
    }
    let mut set = |name: &str, value: &str| {
        let key = format!("net/ipv6/conf/{}/{name}", options.bridge);
        state.sysctls.insert((Ns::Host, key), value.to_owned());
    };
    let ours = options.adopted.is_none();
    if ours {
        // A router advertisement from a container must not configure the host (CVE-2020-13401). By a bridge of
        // somebody else's the host may have its own router; what containers send, the source guard drops.
        set("accept_ra", "0");
    }
    if network.ipv6 && forwards(desired, network) {
        set("forwarding", "1");
    }
    let mode = if network.ipv6 { options.gateway_mode_ipv6 } else { options.gateway_mode_ipv4 };
    match mode {
        // The kernel would give it a link-local address, by which host and containers see each other.
        GatewayMode::Isolated if ours => set("disable_ipv6", "1"),
        GatewayMode::Isolated => {}
        // New links may be without IPv6 on this host.
        _ if network.ipv6 => set("disable_ipv6", "0"),
        _ => {}
    }
}

/// RFC 4291, section 2.5.6.
const LINK_LOCAL_PREFIX: u8 = 64;

/// A bridge without an address in its subnet, only a link-local one, needs a route there.
fn add_subnet_routes(state: &mut HostState, network: &Network, options: &BridgeOptions) {
    let apart = network.ipam.iter().filter(|config| {
        let outside = config.gateway.is_some_and(|gateway| !config.subnet.contains(&gateway));
        outside && options.gateway_mode_ipv6 != GatewayMode::Isolated
    });
    state.routes.extend(apart.map(|config| {
        let route = Route {
            destination: config.subnet,
            kind: RouteKind::Unicast,
            gateway: None,
            dev: options.bridge.clone(),
            metric: 0,
        };
        (Ns::Host, route)
    }));
}

fn bridge_addresses(network: &Network, options: &BridgeOptions) -> BTreeSet<IpNet> {
    let of = |gateway: IpAddr, subnet: IpNet| {
        let (mode, inhibit) = match gateway {
            IpAddr::V4(_) => (options.gateway_mode_ipv4, options.inhibit_ipv4),
            IpAddr::V6(_) => (options.gateway_mode_ipv6, false),
        };
        let wanted = mode != GatewayMode::Isolated && !inhibit;
        let prefix = if subnet.contains(&gateway) { subnet.prefix_len() } else { LINK_LOCAL_PREFIX };
        if wanted { IpNet::new(gateway, prefix).ok() } else { None }
    };
    network.ipam.iter().filter_map(|config| of(config.gateway?, config.subnet)).collect()
}

fn bridge_policy(network: &Network, options: &BridgeOptions, settings: &Settings) -> BridgePolicy {
    BridgePolicy {
        bridge: options.bridge.clone(),
        subnets: network.ipam.iter().map(|config| config.subnet).collect(),
        internal: network.internal,
        icc: options.icc,
        masquerade: options.masquerade,
        snat_ipv4: options.snat_ipv4,
        snat_ipv6: options.snat_ipv6,
        gateway_mode_ipv4: options.gateway_mode_ipv4,
        gateway_mode_ipv6: options.gateway_mode_ipv6,
        trusted_interfaces: options.trusted_interfaces.clone(),
        direct_routing: settings.direct_routing,
        isolate: options.isolate,
    }
}

fn add_sandbox(state: &mut HostState, desired: &Desired, sandbox: &Sandbox) {
    if sandbox.mode == SandboxMode::Host {
        return;
    }
    let ns = Ns::Sandbox(sandbox.id.clone());
    state.namespaces.insert(sandbox.id.clone());
    if desired.settings.ipv6 {
        // Links come up without IPv6, not even link-local, unless their network has it (CVE-2024-32473).
        state.sysctls.insert((ns.clone(), "net/ipv6/conf/default/disable_ipv6".to_owned()), "1".to_owned());
    }
    for (key, value) in &sandbox.sysctls {
        state.sysctls.insert((ns.clone(), sysctl_path(key)), value.clone());
    }
    if let Some(ports) = desired.dns.get(&sandbox.id) {
        state.dns_redirects.insert(sandbox.id.clone(), *ports);
    }
}

/// `net.ipv4.conf.eth0/1.forwarding` to `net/ipv4/conf/eth0.1/forwarding`, as sysctl(8) has it.
fn sysctl_path(key: &str) -> String {
    if key.find('/').is_some_and(|slash| key.find('.').is_none_or(|dot| slash < dot)) {
        return key.to_owned();
    }
    key.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

fn add_endpoint(state: &mut HostState, desired: &Desired, endpoint: &Endpoint) {
    let Some(network) = desired.networks.get(&endpoint.network) else { return };
    match &network.driver {
        Driver::Bridge(options) => {
            add_pair(state, endpoint, options, hairpin(desired, options));
            if !options.unmanaged {
                add_ports(state, desired, endpoint, options);
            }
        }
        Driver::Macvlan(options) => {
            let kind = LinkKind::Macvlan { parent: options.parent.parent.clone(), mode: options.mode };
            // In mode passthru the parent's hardware address is the container's.
            let mac = Some(endpoint.mac).filter(|_| options.mode != MacvlanMode::Passthru);
            let mtu = options.parent.mtu.or(lent_mtu(endpoint));
            add_stacked(state, endpoint, Link { mac, mtu, ..Link::bare(kind) });
            if let Some(host) = &options.host_access {
                add_host_routes(state, endpoint, host);
            }
        }
        Driver::Ipvlan(options) => {
            let (parent, mode, flag) = (options.parent.parent.clone(), options.mode, options.flag);
            let kind = LinkKind::Ipvlan { parent, mode, flag };
            add_stacked(state, endpoint, Link { mtu: options.parent.mtu, ..Link::bare(kind) });
        }
        Driver::Host | Driver::Null => return,
    }
    let ns = Ns::Sandbox(endpoint.sandbox.clone());
    if desired.settings.ipv6 && endpoint.addresses().any(|net| net.addr().is_ipv6()) {
        // Addresses and routes come from us, not from a neighbour that plays the router.
        for (name, value) in [("disable_ipv6", "0"), ("accept_ra", "0")] {
            let key = format!("net/ipv6/conf/{}/{name}", endpoint.ifname);
            state.sysctls.entry((ns.clone(), key)).or_insert_with(|| value.to_owned());
        }
    }
    let routes = default_routes(network, endpoint).chain(static_routes(network, endpoint));
    let routes = routes.chain(lent_routes(network, endpoint));
    state.routes.extend(routes.map(|route| (ns.clone(), route)));
}

/// The end of a macvlan or ipvlan link in its sandbox.
fn add_stacked(state: &mut HostState, endpoint: &Endpoint, link: Link) {
    let link = Link { addresses: endpoint.addresses().collect(), alias: Some(alias(&endpoint.id)), ..link };
    state.links.insert((Ns::Sandbox(endpoint.sandbox.clone()), endpoint.ifname.clone()), link);
}

/// The host's way to an endpoint by the host's own link of its network.
fn add_host_routes(state: &mut HostState, endpoint: &Endpoint, dev: &IfName) {
    let v4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let v6 = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    for address in v4.into_iter().chain(v6) {
        let route = Route {
            destination: address.into(),
            kind: RouteKind::Unicast,
            gateway: None,
            dev: dev.clone(),
            metric: 0,
        };
        state.routes.insert((Ns::Host, route));
    }
}

/// What an endpoint has on the host beyond its link: published ports and their rules.
fn add_ports(state: &mut HostState, desired: &Desired, endpoint: &Endpoint, options: &BridgeOptions) {
    let internal = desired.networks.get(&endpoint.network).is_none_or(|network| network.internal);
    // In gateway mode routed a port has no place on the host.
    for binding in endpoint.published.keys().filter(|binding| binding.host_port != 0) {
        state.held_ports.insert(hold(binding));
        let carries = desired.settings.proxy && !internal;
        if let Some(target) = proxy_target(endpoint, binding, options).filter(|_| carries) {
            let from = endpoint.sources(binding).to_vec();
            if let Some(policy) = &mut state.firewall {
                policy.carried.insert(CarriedPort {
                    binding: hold(binding),
                    bridge: options.bridge.clone(),
                    from: from.clone(),
                });
            }
            state.proxied_ports.insert(hold(binding), Proxied { target, from });
        }
    }
    if let Some(policy) = &mut state.firewall {
        add_endpoint_policy(policy, endpoint, options);
    }
}

/// The hold on a host port is the same whatever it leads to.
pub(super) fn hold(binding: &PortBinding) -> PortBinding {
    PortBinding { container_port: 0, ..binding.clone() }
}

/// Where a proxy leads a port whose packets the firewall cannot lead all: the endpoint has no address of
/// its family, and DNAT stays in one; or they may come to ::1, which the kernel lets on no link.
fn proxy_target(endpoint: &Endpoint, binding: &PortBinding, options: &BridgeOptions) -> Option<SocketAddr> {
    let v4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let v6 = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    let (same, other) = if binding.host_ip.is_ipv4() { (v4, v6) } else { (v6, v4) };
    let loopback6 = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let target = match same {
        None => other,
        Some(_) if loopback6.contains(&binding.host_ip) => same,
        Some(_) => None,
    }?;
    let mode = if target.is_ipv4() { options.gateway_mode_ipv4 } else { options.gateway_mode_ipv6 };
    let by_host_port = matches!(mode, GatewayMode::Nat | GatewayMode::NatUnprotected);
    let can = by_host_port && binding.host_port != 0 && binding.proto != Proto::Sctp;
    can.then(|| SocketAddr::new(target, binding.container_port))
}

/// By the gateway; where packets are not put into frames for a neighbour, just out by the link.
fn default_routes(network: &Network, endpoint: &Endpoint) -> impl Iterator<Item = Route> {
    let on_link = !network.internal
        && matches!(&network.driver, Driver::Ipvlan(options) if options.mode != IpvlanMode::L2);
    let route = |destination, gateway: Option<IpAddr>, has: bool, family: Family| {
        let chosen = endpoint.is_gateway || endpoint.stands_in == Some(family);
        let wanted = chosen && (gateway.is_some() || (on_link && has));
        wanted.then(|| Route {
            destination,
            kind: RouteKind::Unicast,
            gateway: gateway.filter(|_| !on_link),
            dev: endpoint.ifname.clone(),
            metric: network.routing.metric,
        })
    };
    let (gateway, has) = (endpoint.gateway_ipv4.map(Into::into), endpoint.ipv4.is_some());
    let v4 = route(IpNet::V4(Ipv4Net::default()), gateway, has, Family::Ipv4);
    let (gateway, has) = (endpoint.gateway_ipv6.map(Into::into), endpoint.ipv6.is_some());
    let v6 = route(IpNet::V6(Ipv6Net::default()), gateway, has, Family::Ipv6);
    [v4, v6].into_iter().flatten()
}

/// The network's own routes, of the families that the endpoint has.
fn static_routes<'a>(network: &'a Network, endpoint: &'a Endpoint) -> impl Iterator<Item = Route> + 'a {
    let has = |v4: bool| if v4 { endpoint.ipv4.is_some() } else { endpoint.ipv6.is_some() };
    let routes = network.routing.routes.iter().filter(move |route| has(route.destination.addr().is_ipv4()));
    routes.filter_map(|route| {
        let (kind, gateway) = match route.via {
            RouteTarget::Gateway(gateway) => (RouteKind::Unicast, Some(gateway)),
            RouteTarget::Blackhole => (RouteKind::Blackhole, None),
            RouteTarget::Unreachable => (RouteKind::Unreachable, None),
            RouteTarget::Prohibit => (RouteKind::Prohibit, None),
        };
        let dev = match kind {
            RouteKind::Unicast => endpoint.ifname.clone(),
            _ => IfName::new("lo").ok()?,
        };
        let metric = route.metric.unwrap_or(network.routing.metric);
        Some(Route { destination: route.destination, kind, gateway, dev, metric })
    })
}

/// The MTU that came with a lease.
fn lent_mtu(endpoint: &Endpoint) -> Option<u32> {
    endpoint.dhcp.as_ref()?.lease.as_ref()?.mtu
}

/// The routes that came with a lease.
fn lent_routes<'a>(network: &'a Network, endpoint: &'a Endpoint) -> impl Iterator<Item = Route> + 'a {
    let lease = endpoint.dhcp.as_ref().and_then(|client| client.lease.as_ref());
    let routes = lease.into_iter().flat_map(|lease| &lease.routes);
    routes.map(|route| Route {
        destination: route.destination.into(),
        kind: RouteKind::Unicast,
        gateway: route.gateway.map(IpAddr::V4),
        dev: endpoint.ifname.clone(),
        metric: network.routing.metric,
    })
}

fn add_pair(state: &mut HostState, endpoint: &Endpoint, options: &BridgeOptions, hairpin: bool) {
    let host = (Ns::Host, endpoint.host_ifname.clone());
    let container = (Ns::Sandbox(endpoint.sandbox.clone()), endpoint.ifname.clone());
    state.links.insert(host.clone(), host_end(endpoint, options, hairpin));
    let link = Link {
        mac: Some(endpoint.mac),
        mtu: options.mtu.or(lent_mtu(endpoint)),
        addresses: endpoint.addresses().collect(),
        ..Link::bare(LinkKind::Veth { peer: host })
    };
    state.links.insert(container, link);
}

/// Where bridged frames pass the IP hooks, a container's way to its own published port is turned round
/// within the bridge (`hairpin`); elsewhere it is routed and needs nothing.
fn host_end(endpoint: &Endpoint, options: &BridgeOptions, hairpin: bool) -> Link {
    let peer = (Ns::Sandbox(endpoint.sandbox.clone()), endpoint.ifname.clone());
    Link {
        mtu: options.mtu.or(lent_mtu(endpoint)),
        master: Some(options.bridge.clone()),
        hairpin,
        alias: Some(alias(&endpoint.id)),
        // A bridge of ours has its VLAN for all of its ports.
        vlan: options.vlan.filter(|_| options.unmanaged || options.adopted.is_some()),
        ..Link::bare(LinkKind::Veth { peer })
    }
}

fn hairpin(desired: &Desired, options: &BridgeOptions) -> bool {
    desired.settings.bridge_netfilter && !options.unmanaged
}

/// The bridge of a network, if it is ours.
pub(super) fn link_of_network(desired: &Desired, id: &NetworkId) -> Option<(LinkKey, Link)> {
    let network = desired.networks.get(id)?;
    match &network.driver {
        Driver::Bridge(options) if !options.unmanaged && options.adopted.is_none() => {
            Some(((Ns::Host, options.bridge.clone()), bridge_link(network, options)))
        }
        _ => None,
    }
}

/// The host's end of an endpoint's pair.
pub(super) fn link_of_endpoint(desired: &Desired, id: &EndpointId) -> Option<(LinkKey, Link)> {
    let endpoint = desired.endpoints.get(id)?;
    let Driver::Bridge(options) = &desired.networks.get(&endpoint.network)?.driver else { return None };
    let link = host_end(endpoint, options, hairpin(desired, options));
    Some(((Ns::Host, endpoint.host_ifname.clone()), link))
}

fn add_endpoint_policy(policy: &mut FirewallPolicy, endpoint: &Endpoint, options: &BridgeOptions) {
    let bridge = &options.bridge;
    let v4 = endpoint.ipv4.map(|net| IpAddr::V4(net.addr()));
    let v6 = endpoint.ipv6.map(|net| IpAddr::V6(net.addr()));
    policy.endpoints.insert(
        endpoint.id.clone(),
        EndpointPolicy {
            id: endpoint.id.clone(),
            bridge: bridge.clone(),
            host_ifname: endpoint.host_ifname.clone(),
            mac: endpoint.mac,
            addresses: endpoint.addresses().map(|net| net.addr()).collect(),
            source_guard: endpoint.source_guard && options.source_guard,
        },
    );
    for binding in endpoint.published.keys() {
        let target = if binding.host_ip.is_ipv4() { v4 } else { v6 };
        if let Some(target) = target {
            policy.published.insert(PublishedPort {
                binding: binding.clone(),
                bridge: bridge.clone(),
                target,
                from: endpoint.sources(binding).to_vec(),
            });
        }
    }
}
