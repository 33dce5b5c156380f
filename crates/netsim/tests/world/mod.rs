//! Small desired states from a few bytes of choice.

#![allow(clippy::unwrap_used, reason = "the worlds are valid by construction")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use portolan_netcore::model::{
    Adopted, BridgeOptions, ContainerId, DhcpClient, DhcpLease, DhcpRoute, Driver, Endpoint, EndpointId,
    GatewayMode, IfName, IpamConfig, IpvlanFlag, IpvlanMode, IpvlanOptions, MacAddr, MacvlanMode,
    MacvlanOptions, MadeParent, Network, NetworkId, ParentOptions, PortBinding, Proto, RouteTarget, Routing,
    Sandbox, SandboxId, SandboxMode, StaticRoute,
};
use portolan_netcore::plan::{Desired, HOST_ADDRESS, Touched};

/// Hands out the bytes, then zeros.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, n: u8) -> u8 {
        self.0.next().copied().unwrap_or_default() % n
    }
}

fn ifname(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn network(number: u8, choices: &mut Choices<'_>) -> Network {
    let subnet = Ipv4Net::new(Ipv4Addr::new(10, number, 0, 0), 24).unwrap();
    // The last one may be of another kind, and the same subnet then leads through it.
    let driver = match if number == 2 { choices.below(4) } else { 3 } {
        0 => Driver::Macvlan(MacvlanOptions {
            parent: parent("nic0", None),
            mode: MacvlanMode::Bridge,
            host_access: (choices.below(2) == 0).then(|| ifname("pm-net")),
        }),
        1 => Driver::Macvlan(MacvlanOptions {
            parent: parent("dm-net", Some(MadeParent::Dummy)),
            mode: MacvlanMode::Vepa,
            host_access: None,
        }),
        2 => Driver::Ipvlan(IpvlanOptions {
            parent: parent("nic0", None),
            mode: IpvlanMode::L2,
            flag: IpvlanFlag::Bridge,
        }),
        _ => Driver::Bridge(bridge(number, choices)),
    };
    let internal = choices.below(4) == 0;
    Network {
        id: NetworkId::from_bytes([number + 1; 32]),
        name: format!("n{number}"),
        created_ns: 0,
        driver,
        ipv4: true,
        ipv6: false,
        internal,
        attachable: false,
        ipam_driver: "default".into(),
        ipam_options: None,
        ipam: vec![IpamConfig {
            subnet: subnet.into(),
            ip_range: None,
            gateway: Some(Ipv4Addr::new(10, number, 0, 1 + choices.below(2)).into()),
            auxiliary: [(HOST_ADDRESS.to_owned(), Ipv4Addr::new(10, number, 0, 3).into())].into(),
            configured: false,
        }],
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        predefined: false,
        config_only: false,
        config_from: None,
        routing: routing(number, choices),
    }
}

fn parent(name: &str, made: Option<MadeParent>) -> ParentOptions {
    ParentOptions { parent: ifname(name), made, mtu: None, ifname_prefix: "eth".into() }
}

fn routing(number: u8, choices: &mut Choices<'_>) -> Routing {
    let to = |net: u8| Ipv4Net::new(Ipv4Addr::new(10, 100 + net, number, 0), 24).unwrap().into();
    let by_neighbour = StaticRoute {
        destination: to(0),
        via: RouteTarget::Gateway(Ipv4Addr::new(10, number, 0, 9).into()),
        metric: (choices.below(2) == 0).then_some(50),
    };
    let nowhere = StaticRoute { destination: to(1), via: RouteTarget::Blackhole, metric: None };
    Routing {
        routes: [by_neighbour, nowhere].into_iter().take(usize::from(choices.below(3))).collect(),
        metric: u32::from(choices.below(2)) * 7,
        no_default_route: false,
    }
}

fn bridge(number: u8, choices: &mut Choices<'_>) -> BridgeOptions {
    // Somebody else's, which may have the gateway's address already.
    let adopted = (choices.below(6) == 0).then(|| Adopted {
        addresses: (0..choices.below(2))
            .map(|_| Ipv4Net::new(Ipv4Addr::new(10, number, 0, 1), 24).unwrap().into())
            .collect(),
        route_localnet: false,
    });
    BridgeOptions {
        bridge: ifname(&format!("{}{number}", if adopted.is_some() { "lan" } else { "br" })),
        icc: choices.below(2) == 0,
        masquerade: true,
        // One of them is as large as the kernel makes it, and the others are not always large enough for IPv6.
        mtu: [1500, 1400, 1000].get(usize::from(choices.below(3))).copied().filter(|_| number > 0),
        host_binding: None,
        gateway_mode_ipv4: [GatewayMode::Nat, GatewayMode::NatUnprotected, GatewayMode::Routed]
            [usize::from(choices.below(3))],
        gateway_mode_ipv6: GatewayMode::Nat,
        ifname_prefix: "eth".into(),
        snat_ipv4: None,
        snat_ipv6: None,
        inhibit_ipv4: choices.below(6) == 0,
        trusted_interfaces: Vec::new(),
        source_guard: true,
        default_bridge: false,
        unmanaged: false,
        vlan: (choices.below(8) == 0).then_some(10),
        isolate: choices.below(4) == 0,
        adopted,
    }
}

fn sandbox(number: u8) -> Sandbox {
    Sandbox {
        id: SandboxId::from_bytes([0x50 + number; 32]),
        container: ContainerId::from_bytes([number; 32]),
        mode: SandboxMode::Private,
        sysctls: [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into(),
    }
}

/// A desired state with up to three networks, two sandboxes and four endpoints.
pub(crate) fn world(bytes: &[u8]) -> Desired {
    let mut choices = Choices(bytes.iter());
    let mut desired = Desired::default();
    for number in 0..3 {
        if choices.below(4) > 0 {
            let network = network(number, &mut choices);
            desired.networks.insert(network.id.clone(), network.into());
        }
    }
    for number in 0..2 {
        if choices.below(4) > 0 {
            let sandbox = sandbox(number);
            desired.dns.insert(sandbox.id.clone(), (40_000, 40_001));
            desired.sandboxes.insert(sandbox.id.clone(), sandbox.into());
        }
    }
    let (mut names, mut inner, mut ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    // One sandbox is on a network once.
    let mut joined = BTreeSet::new();
    for number in 0..4 {
        if let Some(mut endpoint) = endpoint(number, &desired, &mut choices)
            && names.insert(endpoint.host_ifname.clone())
            && inner.insert((endpoint.sandbox.clone(), endpoint.ifname.clone()))
            && joined.insert((endpoint.sandbox.clone(), endpoint.network.clone()))
        {
            endpoint.is_gateway = !desired.endpoints.values().any(|other| other.sandbox == endpoint.sandbox);
            endpoint.published.retain(|binding, ()| ports.insert((binding.proto, binding.host_port)));
            endpoint.allowed.retain(|binding, _| endpoint.published.contains(binding));
            desired.endpoints.insert(endpoint.id.clone(), endpoint.into());
        }
    }
    desired
}

fn endpoint(number: u8, desired: &Desired, choices: &mut Choices<'_>) -> Option<Endpoint> {
    let (net, sb) = (choices.below(3), choices.below(2));
    let (host_end, inner, host) = (choices.below(4), choices.below(2), choices.below(3));
    let (publishes, port, inside) = (choices.below(2) == 0, choices.below(2), choices.below(2));
    let network = desired.networks.get(&NetworkId::from_bytes([net + 1; 32]))?;
    let sandbox = desired.sandboxes.get(&SandboxId::from_bytes([0x50 + sb; 32]))?;
    // Each number has addresses of its own: two endpoints with one address are not for a plan to sort out.
    let address = Ipv4Addr::new(10, net, 0, 10 + 10 * number + host);
    let gateway = network.ipam[0].gateway.and_then(|gateway| match gateway {
        IpAddr::V4(gateway) => Some(gateway),
        IpAddr::V6(_) => None,
    });
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (loopback, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED));
    let binding = PortBinding {
        proto: if inside == 0 { Proto::Tcp } else { Proto::Udp },
        container_port: 80 + u16::from(inside),
        host_ip: [any, loopback, v6][usize::from(host)],
        host_port: 8000 + u16::from(port),
    };
    let also =
        |n: u8| PortBinding { host_port: 8100 + 10 * u16::from(number) + u16::from(n), ..binding.clone() };
    let more: Vec<PortBinding> = (0..choices.below(3)).map(also).collect();
    let published = if publishes { [vec![binding], more].concat() } else { Vec::new() };
    let sources = ["10.0.0.0/8", "192.0.2.0/24"];
    let from = sources.get(usize::from(choices.below(3))).map(|net| vec![net.parse().unwrap()]);
    Some(Endpoint {
        id: EndpointId::from_bytes([0xe0 + number; 32]),
        network: network.id.clone(),
        sandbox: sandbox.id.clone(),
        container_name: format!("c{sb}"),
        ifname: ifname(&format!("eth{inner}")),
        host_ifname: ifname(&format!("veth{host_end}")),
        mac: if host == 2 { MacAddr([2, 0, 0, 0, 0, number]) } else { MacAddr::of_ipv4(address) },
        ipv4: Some(Ipv4Net::new(address, 24).unwrap()),
        ipv6: None,
        link_local: Vec::new(),
        gateway_ipv4: gateway,
        gateway_ipv6: None,
        is_gateway: false,
        stands_in: None,
        gw_priority: 0,
        dns_names: Vec::new(),
        links: BTreeMap::new(),
        source_guard: true,
        allowed: published.last().cloned().zip(from).into_iter().collect(),
        published: published.into_iter().collect(),
        dhcp: (choices.below(3) == 0).then(|| client(net, choices.below(2))),
    })
}

/// What a DHCP server says beyond the address.
fn client(net: u8, change: u8) -> DhcpClient {
    let lease = DhcpLease {
        address: Ipv4Net::new(Ipv4Addr::new(10, net, 0, 200), 24).unwrap(),
        server: Ipv4Addr::new(10, net, 0, 9),
        server_mac: MacAddr([2, 0, 0, 0, 0, 9]),
        gateway: None,
        routes: vec![DhcpRoute {
            destination: Ipv4Net::new(Ipv4Addr::new(10, 110, net, 0), 24).unwrap(),
            gateway: (change == 0).then(|| Ipv4Addr::new(10, net, 0, 8)),
        }],
        dns: Vec::new(),
        domains: Vec::new(),
        mtu: (change == 0).then_some(1400),
        renew_at: 1,
        rebind_at: 2,
        expires_at: 3,
    };
    DhcpClient { hostname: String::new(), lease: Some(lease) }
}

/// The keys that differ, and the endpoints of networks that do.
pub(crate) fn touched(a: &Desired, b: &Desired) -> Touched {
    fn differ<K: Ord + Clone, V: PartialEq>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> BTreeSet<K> {
        a.keys().chain(b.keys()).filter(|key| a.get(key) != b.get(key)).cloned().collect()
    }
    let networks = differ(&a.networks, &b.networks);
    let sandboxes = differ(&a.sandboxes, &b.sandboxes);
    let mut endpoints = differ(&a.endpoints, &b.endpoints);
    for endpoint in a.endpoints.values().chain(b.endpoints.values()) {
        if networks.contains(&endpoint.network) || sandboxes.contains(&endpoint.sandbox) {
            endpoints.insert(endpoint.id.clone());
        }
    }
    Touched { networks, sandboxes, endpoints: endpoints.into_iter().collect() }
}
