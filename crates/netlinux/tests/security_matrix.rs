//! Who can reach what, for each gateway mode, both families and both backends. What is wanted is the
//! table in docs/security.md itself; `PORTOLAN_BLESS=1` writes what was found, for a person to judge.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other tests")]
mod lab;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use portolan_netcore::firewall::{BridgePolicy, EndpointPolicy, FirewallPolicy, PublishedPort, Transaction};
use portolan_netcore::model::{EndpointId, GatewayMode, IfName, MacAddr, PortBinding, Proto};
use portolan_netlinux::firewall::{Firewall, FirewallBackend};

use lab::{Node, bridge, in_host, sh};

const BEGIN: &str = "<!-- matrix: written by crates/netlinux/tests/security_matrix.rs -->\n";
const END: &str = "<!-- end of matrix -->\n";

/// A network that differs from the default in one thing.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    change: fn(&mut BridgePolicy),
}

const KINDS: [Kind; 8] = [
    Kind { name: "nat (default)", change: |_| {} },
    Kind { name: "nat, `--allow-direct-routing`", change: |bridge| bridge.direct_routing = true },
    Kind {
        name: "nat, the link trusted",
        change: |bridge| bridge.trusted_interfaces = vec![IfName::new("eth0").unwrap()],
    },
    Kind { name: "nat, `enable_icc=false`", change: |bridge| bridge.icc = false },
    Kind { name: "nat-unprotected", change: |bridge| set_mode(bridge, GatewayMode::NatUnprotected) },
    Kind { name: "routed", change: |bridge| set_mode(bridge, GatewayMode::Routed) },
    Kind { name: "internal", change: |bridge| bridge.internal = true },
    Kind {
        name: "internal, isolated",
        change: |bridge| {
            bridge.internal = true;
            set_mode(bridge, GatewayMode::Isolated);
        },
    },
];

fn set_mode(bridge: &mut BridgePolicy, mode: GatewayMode) {
    (bridge.gateway_mode_ipv4, bridge.gateway_mode_ipv6) = (mode, mode);
}

fn container(name: &'static str, bridge: &BridgePolicy, number: u8, host: u8) -> Node {
    let node = Node::container(name, bridge, number, host);
    node.serve(80).serve(81);
    node
}

fn guarded(name: &str, node: &Node, bridge: &BridgePolicy, number: u8, host: u8) -> EndpointPolicy {
    // /sys shows the links of the namespace that mounted it.
    let line = node.sh("ip -br link show eth0");
    let mac = line.split_whitespace().nth(2).unwrap();
    let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    EndpointPolicy {
        id: EndpointId::from_bytes([number ^ host << 4; 32]),
        bridge: bridge.bridge.clone(),
        host_ifname: IfName::new(&format!("veth-{name}")).unwrap(),
        mac: MacAddr(mac.try_into().unwrap()),
        addresses: vec![[172, number, 0, host].into(), format!("fd{number}::{host}").parse().unwrap()],
        source_guard: true,
    }
}

/// Everybody who tries, and what they try.
struct Lab {
    target: Node,
    sibling: Node,
    other: Node,
    neighbour: Node,
    client: Node,
    policy: FirewallPolicy,
}

impl Lab {
    fn new(kind: Kind) -> Self {
        let mut tested = bridge("br-tested", 17);
        (kind.change)(&mut tested);
        if tested.gateway_mode_ipv4 == GatewayMode::Isolated {
            sh("ip address flush dev br-tested");
        }
        let second = bridge("br-other", 18);
        let target = container("target", &tested, 17, 2);
        let sibling = container("sibling", &tested, 17, 3);
        let other = container("other", &second, 18, 2);
        let neighbour = Node::new(
            "neighbour",
            None,
            &["192.168.1.2/24", "fd01::2/64"],
            &["192.168.1.1/24", "fd01::1/64"],
        );
        // The client is behind the neighbour, who routes.
        let client = Node::new("client", Some("br-other"), &["192.168.2.2/24", "fd02::2/64"], &[]);
        sh(&format!("ip link set veth-client netns {}", neighbour.pid()));
        neighbour.sh("ip link set veth-client up; ip address add 192.168.2.1/24 dev veth-client
             ip address add fd02::1/64 dev veth-client nodad
             echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
             ip route add 172.16.0.0/12 via 192.168.1.1
             ip -6 route add fd17::/64 via fd01::1; ip -6 route add fd18::/64 via fd01::1");
        client.sh("ip route add default via 192.168.2.1; ip -6 route add default via fd02::1");
        sh("ip route add 192.168.2.0/24 via 192.168.1.2; ip -6 route add fd02::/64 via fd01::2");
        let ports =
            [("0.0.0.0", 18080, "172.17.0.2"), ("::", 18080, "fd17::2"), ("127.0.0.1", 18090, "172.17.0.2")];
        let published = ports.map(|(host, host_port, to)| PublishedPort {
            binding: PortBinding {
                proto: Proto::Tcp,
                container_port: 80,
                host_ip: host.parse().unwrap(),
                host_port,
            },
            bridge: tested.bridge.clone(),
            target: to.parse().unwrap(),
            from: Vec::new(),
        });
        let endpoints = [
            guarded("target", &target, &tested, 17, 2),
            guarded("sibling", &sibling, &tested, 17, 3),
            guarded("other", &other, &second, 18, 2),
        ];
        let policy = FirewallPolicy {
            bridges: [tested, second].map(|bridge| (bridge.bridge.clone(), bridge)).into(),
            endpoints: endpoints.map(|endpoint| (endpoint.id.clone(), endpoint)).into(),
            published: published.into(),
            carried: std::collections::BTreeSet::new(),
        };
        Self { target, sibling, other, neighbour, client, policy }
    }

    /// The row of one family: what each of them reaches, in words.
    fn row(&self, v4: bool) -> [String; 5] {
        let (container, host) = if v4 { ("172.17.0.2", "192.168.1.1") } else { ("[fd17::2]", "[fd01::1]") };
        let targets = |who: Option<&Node>| {
            let loopback = match who {
                None if v4 => "127.0.0.1",
                _ => host,
            };
            [
                ("C:80", format!("{container}:80")),
                ("C:81", format!("{container}:81")),
                ("host:18080", format!("{host}:18080")),
                ("loopback:18090", format!("{loopback}:18090")),
            ]
        };
        let reached = |who: Option<&Node>| {
            std::thread::scope(|scope| {
                let tries = targets(who).map(|(name, to)| {
                    scope.spawn(move || {
                        let to: SocketAddr = to.parse().unwrap();
                        let answer = match who {
                            Some(node) => node.connect(&to.to_string()),
                            None => lab::connect(to),
                        };
                        answer.map(|_| name)
                    })
                });
                let names: Vec<&str> = tries.into_iter().filter_map(|one| one.join().unwrap()).collect();
                if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
            })
        };
        std::thread::scope(|scope| {
            let who =
                [None, Some(&self.sibling), Some(&self.other), Some(&self.neighbour), Some(&self.client)];
            who.map(|who| scope.spawn(move || reached(who))).map(|one| one.join().unwrap())
        })
    }
}

fn measure(backend: FirewallBackend) -> String {
    let mut table = String::from(
        "| network of C | family | this host | C's network | another network | a neighbour | a client behind a router |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for kind in KINDS {
        let (send, receive) = std::sync::mpsc::channel();
        in_host(move || {
            let lab = Lab::new(kind);
            let firewall = Firewall::open(backend).unwrap();
            firewall.apply(&Transaction::Replace(lab.policy.clone())).unwrap();
            // Its own port by way of the host: no address of anybody else is in it.
            let _ = lab.target.connect("192.168.1.1:18080");
            send.send([lab.row(true), lab.row(false)]).unwrap();
        });
        let Ok(rows) = receive.recv() else { return String::new() };
        for (family, row) in ["IPv4", "IPv6"].into_iter().zip(rows) {
            writeln!(table, "| {} | {family} | {} |", kind.name, row.join(" | ")).unwrap();
        }
    }
    table
}

#[test]
fn everybody_reaches_what_the_table_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md");
    let found = measure(FirewallBackend::Nftables);
    if found.is_empty() {
        return;
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (wanted, after) = rest.split_once(END).unwrap();
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{found}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, wanted, "nftables");
    }
    assert_eq!(measure(FirewallBackend::Iptables), found, "iptables");
}
