//! Ports in a row, which are one element or one rule: who reaches which of them, and what a change of one
//! means for the others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other tests")]
mod lab;

use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use portolan_netcore::firewall::{
    BridgePolicy, CarriedPort, FirewallPolicy, PolicyItem, PublishedPort, Transaction,
};
use portolan_netcore::model::{GatewayMode, PortBinding, Proto};
use portolan_netlinux::firewall::{Firewall, FirewallBackend};

use lab::{Node, ask_udp, bridge, host_reaches, in_host, sh};

const BOTH: [FirewallBackend; 2] = [FirewallBackend::Nftables, FirewallBackend::Iptables];

fn container(name: &'static str, bridge: &BridgePolicy, number: u8, ports: &[u16]) -> Node {
    let node = Node::container(name, bridge, number, 2);
    for port in ports {
        node.serve(*port).serve_udp(*port);
    }
    node
}

/// Ports of the host that lead to the same ports of a container.
fn row(
    bridge: &BridgePolicy,
    proto: Proto,
    host: &str,
    ports: RangeInclusive<u16>,
    target: &str,
    from: &str,
) -> Vec<PublishedPort> {
    let port = |number| PublishedPort {
        binding: PortBinding {
            proto,
            container_port: number,
            host_ip: host.parse().unwrap(),
            host_port: number,
        },
        bridge: bridge.bridge.clone(),
        target: target.parse().unwrap(),
        from: from.split_whitespace().map(|net| net.parse().unwrap()).collect(),
    };
    ports.map(port).collect()
}

/// Ports of the host, on all of its IPv6 addresses, that the engine accepts connections at.
fn carried(bridge: &BridgePolicy, ports: RangeInclusive<u16>, from: &str) -> Vec<CarriedPort> {
    let port = |host_port| CarriedPort {
        binding: PortBinding {
            proto: Proto::Tcp,
            container_port: 0,
            host_ip: "::".parse().unwrap(),
            host_port,
        },
        bridge: bridge.bridge.clone(),
        from: from.split_whitespace().map(|net| net.parse().unwrap()).collect(),
    };
    ports.map(port).collect()
}

/// Servers of the host itself in place of the engine.
fn serve(ports: &[u16]) {
    for port in ports {
        let listener = TcpListener::bind(("::", *port)).unwrap();
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let address = client.peer_addr().unwrap().ip().to_string();
                let _ = client.write_all(address.as_bytes());
            }
        });
    }
}

fn policy(
    bridges: &[&BridgePolicy],
    ports: Vec<Vec<PublishedPort>>,
    carried: Vec<Vec<CarriedPort>>,
) -> FirewallPolicy {
    FirewallPolicy {
        carried: carried.into_iter().flatten().collect(),
        bridges: bridges.iter().map(|bridge| (bridge.bridge.clone(), (*bridge).clone())).collect(),
        published: ports.into_iter().flatten().collect(),
        ..FirewallPolicy::default()
    }
}

/// Below, first, middle, last, above: a server on each, and one that is published by nobody beside it.
const SERVED: [u16; 5] = [7999, 8000, 8050, 8100, 8101];

#[test]
fn a_range_is_reached_from_its_first_port_to_its_last() {
    for backend in BOTH {
        in_host(move || {
            eprintln!("backend {backend}");
            let firewall = Firewall::open(backend).unwrap();
            let docker0 = bridge("docker0", 17);
            let routed = BridgePolicy { gateway_mode_ipv4: GatewayMode::Routed, ..bridge("br-routed", 21) };
            let direct = BridgePolicy { direct_routing: true, ..bridge("br-direct", 22) };
            let c1 = container("c1", &docker0, 17, &[&SERVED[..], &[9000, 9007, 9100, 9207, 9307]].concat());
            let _r1 = container("r1", &routed, 21, &[9399, 9400, 9420, 9421]);
            let _d1 = container("d1", &direct, 22, &[9500, 9520, 9521]);
            let neighbour = Node::neighbour();
            let to = |proto, host, ports, from| row(&docker0, proto, host, ports, "172.17.0.2", from);
            let ports = vec![
                to(Proto::Tcp, "0.0.0.0", 8000..=8100, ""),
                to(Proto::Udp, "0.0.0.0", 8000..=8100, ""),
                row(&docker0, Proto::Tcp, "::", 8000..=8100, "fd17::2", ""),
                to(Proto::Tcp, "192.168.1.1", 9000..=9007, ""),
                to(Proto::Tcp, "127.0.0.1", 9100..=9110, ""),
                to(Proto::Tcp, "0.0.0.0", 9200..=9210, "192.168.1.2/32 fd00::/8"),
                to(Proto::Tcp, "0.0.0.0", 9300..=9310, "10.0.0.0/8 192.168.1.3/32"),
                row(&routed, Proto::Tcp, "0.0.0.0", 9400..=9420, "172.21.0.2", "192.168.0.0/16"),
                row(&direct, Proto::Tcp, "0.0.0.0", 9500..=9520, "172.22.0.2", ""),
                row(&direct, Proto::Tcp, "::", 9500..=9520, "fd22::2", ""),
            ];
            let apart = BridgePolicy { isolate: true, ..bridge("br-apart", 23) };
            let over = vec![
                carried(&docker0, 9600..=9610, ""),
                carried(&docker0, 9700..=9710, "fd02::/64 192.168.1.0/24"),
                carried(&apart, 9800..=9810, ""),
            ];
            serve(&[9600, 9610, 9611, 9705, 9805]);
            let policy = policy(&[&docker0, &routed, &direct, &apart], ports, over);
            firewall.apply(&Transaction::Replace(policy.clone())).unwrap();
            assert_eq!(firewall.verify().unwrap(), Some(policy));
            is_told_at_once(backend);

            for open in [8000, 8050, 8100] {
                neighbour.reaches(&format!("192.168.1.1:{open}"), "192.168.1.2");
                neighbour.reaches(&format!("[fd01::1]:{open}"), "fd01::2");
                host_reaches(&format!("127.0.0.1:{open}"), "172.17.0.1");
                assert_eq!(ask_udp(&format!("192.168.1.1:{open}")), Some([192, 168, 1, 1].into()));
                c1.reaches(&format!("172.17.0.1:{open}"), "172.17.0.1");
                c1.reaches(&format!("[fd17::1]:{open}"), "fd17::1");
            }
            // 8049 is published, and nobody is there: no port of the range takes the place of another.
            for closed in [7999, 8049, 8101] {
                neighbour.refused(&format!("192.168.1.1:{closed}"));
                neighbour.refused(&format!("[fd01::1]:{closed}"));
                assert_eq!(ask_udp(&format!("192.168.1.1:{closed}")), None);
            }
            neighbour.misses("172.17.0.2:8050");
            for open in [9000, 9007, 9207] {
                neighbour.reaches(&format!("192.168.1.1:{open}"), "192.168.1.2");
            }
            assert_eq!(lab::connect("127.0.0.1:9000".parse().unwrap()), None, "of another address");
            host_reaches("127.0.0.1:9100", "172.17.0.1");
            neighbour.refused("192.168.1.1:9100");
            neighbour.refused("192.168.1.1:9307");
            for open in ["172.21.0.2:9400", "172.21.0.2:9420", "172.22.0.2:9520", "[fd22::2]:9500"] {
                neighbour.gets_through(open);
            }
            for closed in ["172.21.0.2:9399", "172.21.0.2:9421", "172.22.0.2:9521", "[fd22::2]:9521"] {
                neighbour.misses(closed);
            }
            neighbour.reaches("192.168.1.1:9520", "192.168.1.2");
            for open in [9600, 9610, 9611, 9805] {
                neighbour.reaches(&format!("[fd01::1]:{open}"), "fd01::2");
            }
            neighbour.refused("[fd01::1]:9705");
            c1.reaches("[fd17::1]:9610", "fd17::2");
            c1.misses("[fd17::1]:9805");
        });
    }
}

/// Not port by port.
fn is_told_at_once(backend: FirewallBackend) {
    if backend == FirewallBackend::Nftables {
        let map = sh("nft list map inet portolan ranges4");
        assert!(map.contains("0.0.0.0/0 . 0.0.0.0/0 . tcp . 8000-8100 : 172.17.0.2"), "{map}");
        assert!(!sh("nft list map inet portolan published4_any").contains("8050"));
        return;
    }
    let listing = sh("iptables -t nat -vnL DOCKER; ip6tables -t nat -vnL DOCKER");
    let rules: Vec<&str> = listing.lines().filter(|line| line.contains("dpts:8000:8100")).collect();
    assert_eq!(rules.len(), 3, "{listing}");
    assert!(rules[0].contains("tcp dpts:8000:8100 to:172.17.0.2"), "{listing}");
}

/// Clients of the neighbours never notice, whether these stay a range, become single ports or become a range
/// again; what is connected stays so.
#[test]
fn taking_a_port_out_of_a_range_leaves_its_neighbours_open() {
    for backend in BOTH {
        in_host(move || {
            eprintln!("backend {backend}");
            let firewall = Firewall::open(backend).unwrap();
            let docker0 = bridge("docker0", 17);
            let asked = [8049, 8051, 9003, 9005].map(|port| format!("192.168.1.1:{port}"));
            let _c1 = container("c1", &docker0, 17, &[8049, 8050, 8051, 9003, 9004, 9005]);
            let neighbour = Node::neighbour();
            let range = row(&docker0, Proto::Tcp, "0.0.0.0", 8000..=8100, "172.17.0.2", "");
            // Of this no two ends are a range without its middle.
            let short = row(&docker0, Proto::Tcp, "0.0.0.0", 9000..=9009, "172.17.0.2", "");
            let taken = [&range[50..51], &short[4..5]].concat();
            let mut taken: Vec<PolicyItem> = taken.into_iter().map(PolicyItem::Port).collect();
            let over = [("fd01::/64", 9700..=9709), ("fd02::/64", 9720..=9729)];
            let over = over.map(|(from, ports)| carried(&docker0, ports, from));
            taken.extend(over.iter().map(|row| PolicyItem::Carried(row[4].clone())));
            serve(&[9703, 9725]);
            firewall
                .apply(&Transaction::Replace(policy(&[&docker0], vec![range, short], over.into())))
                .unwrap();
            let changes = if backend == FirewallBackend::Nftables { 100 } else { 8 };
            let done = AtomicBool::new(false);
            let ask = |to: &str, open: bool| {
                let mut asks = 0;
                while !done.load(Ordering::Relaxed) {
                    let refused = match neighbour.connects(to) {
                        Ok(_) => Some(false),
                        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(true),
                        // A packet may be late on a busy machine.
                        Err(_) => None,
                    };
                    assert_ne!(refused, Some(open), "{to} after {asks}");
                    asks += 1;
                }
                asks
            };
            let asks = thread::scope(|scope| {
                let mut clients: Vec<_> = asked.iter().map(|to| scope.spawn(|| ask(to, true))).collect();
                clients.push(scope.spawn(|| ask("[fd01::1]:9703", true)));
                clients.push(scope.spawn(|| ask("[fd01::1]:9725", false)));
                let change = |remove, add| firewall.apply(&Transaction::Change { remove, add }).unwrap();
                for _ in 0..changes {
                    change(taken.clone(), vec![]);
                    change(vec![], taken.clone());
                }
                change(taken, vec![]);
                done.store(true, Ordering::Relaxed);
                clients.into_iter().map(|client| client.join().unwrap()).sum::<u32>()
            });
            eprintln!("{asks} connections during {} changes", 2 * changes);
            neighbour.refused("192.168.1.1:8050");
            neighbour.refused("192.168.1.1:9004");
        });
    }
}
