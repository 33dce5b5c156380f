//! Ways round the rules that are closed: ports at which the engine itself listens, to carry connections over,
//! and chains of iptables that somebody has emptied.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other tests")]
mod lab;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpListener;

use portolan_netcore::firewall::{
    BridgePolicy, CarriedPort, FirewallPolicy, PolicyItem, PublishedPort, Transaction,
};
use portolan_netcore::model::{PortBinding, Proto};
use portolan_netlinux::firewall::{Firewall, FirewallBackend};

use lab::{Node, bridge, connect, in_host, sh};

const BOTH: [FirewallBackend; 2] = [FirewallBackend::Nftables, FirewallBackend::Iptables];

fn container(name: &'static str, bridge: &BridgePolicy, number: u8) -> Node {
    let node = Node::container(name, bridge, number, 2);
    node.serve(80).serve(81);
    node
}

fn binding(host: &str, host_port: u16) -> PortBinding {
    PortBinding { proto: Proto::Tcp, container_port: 0, host_ip: host.parse().unwrap(), host_port }
}

/// A server of the host itself in place of the engine: it tells clients their addresses.
fn carry(host: &str, port: u16, bridge: &BridgePolicy, from: &str) -> CarriedPort {
    let listener = TcpListener::bind((host, port)).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (mut client, address) = (client.try_clone().unwrap(), client.peer_addr().unwrap().ip());
            let _ = client.write_all(address.to_string().as_bytes());
        }
    });
    let from = from.split_whitespace().map(|net| net.parse().unwrap()).collect();
    CarriedPort { binding: binding(host, port), bridge: bridge.bridge.clone(), from }
}

fn policy(
    bridges: &[&BridgePolicy],
    published: Vec<PublishedPort>,
    carried: Vec<CarriedPort>,
) -> FirewallPolicy {
    FirewallPolicy {
        bridges: bridges.iter().map(|bridge| (bridge.bridge.clone(), (*bridge).clone())).collect(),
        published: published.into_iter().collect(),
        carried: carried.into_iter().collect(),
        ..FirewallPolicy::default()
    }
}

#[test]
fn carried_ports_are_for_whom_forwarded_ones_are() {
    for backend in BOTH {
        in_host(move || {
            eprintln!("backend {backend}");
            let firewall = Firewall::open(backend).unwrap();
            let open = bridge("br-open", 17);
            let other = bridge("br-other", 18);
            let internal = BridgePolicy { internal: true, ..bridge("br-int", 19) };
            let apart = BridgePolicy { isolate: true, ..bridge("br-apart", 20) };
            let [o1, i1, a1] = [("o1", &other, 18), ("i1", &internal, 19), ("a1", &apart, 20)]
                .map(|(name, bridge, number)| container(name, bridge, number));
            let neighbour = Node::neighbour();
            let carried = vec![
                carry("::", 8084, &open, ""),
                carry("fd01::1", 8085, &open, "fd01::/64 192.168.1.0/24"),
                carry("::", 8086, &apart, ""),
            ];
            // A server of the host's own on the port that is published on another address.
            carry("fd01::1", 8087, &open, "");
            let elsewhere = CarriedPort { binding: binding("::1", 8087), ..carried[0].clone() };
            let before = policy(&[&open, &other, &internal, &apart], vec![], carried.clone());
            firewall.apply(&Transaction::Replace(before.clone())).unwrap();
            assert_eq!(firewall.verify().unwrap(), Some(before));
            let comes = PolicyItem::Carried(elsewhere.clone());
            firewall.apply(&Transaction::Change { remove: vec![], add: vec![comes] }).unwrap();

            o1.reaches("[fd18::1]:8084", "fd18::2");
            for host in ["fd19::1", "fd17::1", "fd01::1"] {
                i1.misses(&format!("[{host}]:8084"));
            }
            a1.misses("[fd20::1]:8084");
            neighbour.reaches("[fd01::1]:8084", "fd01::2");
            // Who may not connect is refused before anybody accepts.
            neighbour.reaches("[fd01::1]:8085", "fd01::2");
            o1.refused("[fd01::1]:8085");
            assert!(connect("[fd01::1]:8085".parse().unwrap()).is_some(), "the host itself");
            o1.misses("[fd18::1]:8086");
            neighbour.reaches("[fd01::1]:8086", "fd01::2");
            i1.reaches("[fd01::1]:8087", "fd19::2");

            // The user's rules, and only for what is carried over.
            match backend {
                FirewallBackend::Nftables => sh("nft add rule inet portolan-user carried iifname eth0 drop"),
                _ => sh("ip6tables -A DOCKER-USER -i eth0 -j DROP"),
            };
            neighbour.misses("[fd01::1]:8084");
            neighbour.reaches("[fd01::1]:8087", "fd01::2");
            o1.reaches("[fd18::1]:8084", "fd18::2");

            let gone = carried.iter().cloned().map(PolicyItem::Carried).collect();
            firewall.apply(&Transaction::Change { remove: gone, add: vec![] }).unwrap();
            let left = firewall.verify().unwrap().unwrap();
            assert_eq!(left.carried, BTreeSet::from([elsewhere]));
        });
    }
}

#[test]
fn nothing_opens_when_single_chains_of_iptables_are_emptied() {
    in_host(|| {
        let firewall = Firewall::open(FirewallBackend::Iptables).unwrap();
        let docker0 = bridge("docker0", 17);
        let other = bridge("br-other", 18);
        let internal = BridgePolicy { internal: true, ..bridge("br-int", 19) };
        let [c1, o1, i1] = [("c1", &docker0, 17), ("o1", &other, 18), ("i1", &internal, 19)]
            .map(|(name, bridge, number)| container(name, bridge, number));
        let neighbour = Node::neighbour();
        let (heard, unpublished) = (neighbour.hear(5000), c1.hear(81));
        let published = |host: &str, target: &str| PublishedPort {
            binding: PortBinding { container_port: 80, ..binding(host, 18080) },
            bridge: docker0.bridge.clone(),
            target: target.parse().unwrap(),
            from: vec![],
        };
        let ports = vec![published("0.0.0.0", "172.17.0.2"), published("::", "fd17::2")];
        let whole = policy(&[&docker0, &other, &internal], ports, vec![]);
        for blow in [
            "-F DOCKER",
            "-F DOCKER-BRIDGE",
            "-F DOCKER-FORWARD",
            "-F DOCKER-INTERNAL",
            "-F DOCKER-CT",
            "-F FORWARD",
            "-D FORWARD -j DOCKER-FORWARD",
            "-D FORWARD -j MARK --set-xmark 0x0/0x40000000",
            "-I DOCKER -j ACCEPT",
            "-I FORWARD -j ACCEPT",
        ] {
            eprintln!("{blow}");
            firewall.apply(&Transaction::Replace(whole.clone())).unwrap();
            sh(&format!("iptables {blow}; ip6tables {blow}"));
            // Datagrams, as those need no answer to have got through.
            for closed in ["172.17.0.2:81", "[fd17::2]:81"] {
                neighbour.tell(closed);
                o1.tell(closed);
            }
            i1.tell("192.168.1.2:5000");
            i1.tell("[fd01::2]:5000");
            assert!(heard.recv_timeout(lab::PATIENCE).is_err());
            assert!(unpublished.try_recv().is_err());
            // What is open stays so: the emptied chain has decided nothing.
            neighbour.gets_through("192.168.1.1:18080");
            c1.gets_through("172.17.0.2:80");
            sh("iptables -F FORWARD; ip6tables -F FORWARD");
        }
        firewall.apply(&Transaction::Replace(whole)).unwrap();
        sh("iptables -A DOCKER-USER -p tcp --dport 81 -j ACCEPT");
        neighbour.gets_through("172.17.0.2:81");
        o1.misses("[fd17::2]:81");
    });
}
