//! What the firewall lets through and what not, with real packets, the same for both backends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::IpAddr;

use portolan_netcore::firewall::{
    BridgePolicy, EndpointPolicy, FirewallPolicy, PolicyItem, PublishedPort, Transaction,
};
use portolan_netcore::model::{EndpointId, GatewayMode, IfName, MacAddr, PortBinding, Proto};
use portolan_netlinux::firewall::{Firewall, FirewallBackend};

use lab::{Node, ask_udp, host_reaches, in_host, sh};

const BOTH: [FirewallBackend; 2] = [FirewallBackend::Nftables, FirewallBackend::Iptables];

fn bridge(name: &str, number: u8) -> BridgePolicy {
    sh(&format!(
        "ip link add {name} type bridge; ip link set {name} up; ip address add 172.{number}.0.1/16 dev {name}
         ip address add fd{number}::1/64 dev {name} nodad
         echo 1 > /proc/sys/net/ipv4/conf/{name}/route_localnet"
    ));
    BridgePolicy {
        bridge: IfName::new(name).unwrap(),
        subnets: vec![
            format!("172.{number}.0.0/16").parse().unwrap(),
            format!("fd{number}::/64").parse().unwrap(),
        ],
        internal: false,
        icc: true,
        masquerade: true,
        snat_ipv4: None,
        snat_ipv6: None,
        gateway_mode_ipv4: GatewayMode::Nat,
        gateway_mode_ipv6: GatewayMode::Nat,
        trusted_interfaces: Vec::new(),
    }
}

/// A container at `.host` of the bridge, with servers on ports 80 and 81.
fn container(name: &'static str, bridge: &BridgePolicy, number: u8, host: u8) -> Node {
    let v4 = format!("172.{number}.0.{host}/16");
    let v6 = format!("fd{number}::{host}/64");
    let node = Node::new(name, Some(bridge.bridge.as_str()), &[&v4, &v6], &[]);
    node.sh(&format!("ip route add default via 172.{number}.0.1; ip -6 route add default via fd{number}::1"));
    node.serve(80).serve(81).serve_udp(80);
    node
}

/// The neighbour, who knows the way to container addresses.
fn neighbour() -> Node {
    let node =
        Node::new("neighbour", None, &["192.168.1.2/24", "fd01::2/64"], &["192.168.1.1/24", "fd01::1/64"]);
    node.sh("ip route add 172.16.0.0/12 via 192.168.1.1; ip -6 route add fd00::/8 via fd01::1");
    node.serve(7000);
    node
}

fn endpoint(node: &str, bridge: &BridgePolicy, seed: u8, address: &str) -> EndpointPolicy {
    EndpointPolicy {
        id: EndpointId::from_bytes([seed; 32]),
        bridge: bridge.bridge.clone(),
        host_ifname: IfName::new(&format!("veth-{node}")).unwrap(),
        mac: MacAddr([2, 0x42, 0, 0, 0, seed]),
        addresses: vec![address.parse().unwrap()],
    }
}

fn publish(
    proto: Proto,
    host: &str,
    host_port: u16,
    bridge: &BridgePolicy,
    target: &str,
    port: u16,
) -> PublishedPort {
    PublishedPort {
        binding: PortBinding { proto, container_port: port, host_ip: host.parse().unwrap(), host_port },
        bridge: bridge.bridge.clone(),
        target: target.parse().unwrap(),
    }
}

fn policy(
    bridges: &[&BridgePolicy],
    endpoints: Vec<EndpointPolicy>,
    ports: Vec<PublishedPort>,
) -> FirewallPolicy {
    FirewallPolicy {
        bridges: bridges.iter().map(|bridge| (bridge.bridge.clone(), (*bridge).clone())).collect(),
        endpoints: endpoints.into_iter().map(|endpoint| (endpoint.id.clone(), endpoint)).collect(),
        published: ports.into_iter().collect(),
    }
}

fn with_each_backend(body: impl Fn(&Firewall) + Send + Copy + 'static) {
    for backend in BOTH {
        in_host(move || {
            eprintln!("backend {backend}");
            let firewall = Firewall::open(backend).unwrap();
            body(&firewall);
        });
    }
}

fn enforce(firewall: &Firewall, policy: FirewallPolicy) {
    firewall.apply(&Transaction::Replace(policy.clone())).unwrap();
    assert_eq!(firewall.verify().unwrap(), Some(policy));
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    with_each_backend(|firewall| {
        let docker0 = bridge("docker0", 17);
        let other = bridge("br-0123456789ab", 18);
        let c1 = container("c1", &docker0, 17, 2);
        let c2 = container("c2", &docker0, 17, 3);
        let d1 = container("d1", &other, 18, 2);
        let neighbour = neighbour();
        let ports = vec![
            publish(Proto::Tcp, "0.0.0.0", 18080, &docker0, "172.17.0.2", 80),
            publish(Proto::Tcp, "::", 18080, &docker0, "fd17::2", 80),
            publish(Proto::Udp, "0.0.0.0", 18080, &docker0, "172.17.0.2", 80),
        ];
        enforce(firewall, policy(&[&docker0, &other], vec![], ports));

        neighbour.reaches("192.168.1.1:18080", "192.168.1.2");
        neighbour.reaches("[fd01::1]:18080", "fd01::2");
        host_reaches("127.0.0.1:18080", "172.17.0.1");
        host_reaches("172.17.0.1:18080", "172.17.0.1");
        host_reaches("192.168.1.1:18080", "192.168.1.1");
        host_reaches("[fd01::1]:18080", "fd01::1");
        let refused = std::net::TcpStream::connect("[::1]:18080").unwrap_err();
        assert_eq!(
            refused.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "at once, so that clients go on to IPv4"
        );
        for bridge_netfilter in [1, 0] {
            sh(&format!("echo {bridge_netfilter} | tee /proc/sys/net/bridge/bridge-nf-call-ip*tables"));
            c1.reaches("172.17.0.1:18080", "172.17.0.1");
            c1.reaches("192.168.1.1:18080", "172.17.0.1");
            c1.reaches("[fd01::1]:18080", "fd17::1");
            // With br_netfilter the answer comes by us whatever its source, which can then be kept.
            c2.gets_through("172.17.0.1:18080");
            c2.gets_through("[fd17::1]:18080");
        }
        // Masqueraded: the target may have a way of its own to the other network, by which its answer
        // would miss us.
        d1.reaches("172.18.0.1:18080", "172.17.0.1");
        d1.reaches("172.17.0.1:18080", "172.17.0.1");
        d1.reaches("[fd17::1]:18080", "fd17::1");
        assert_eq!(ask_udp("127.0.0.1:18080"), Some(IpAddr::from([172, 17, 0, 1])), "udp");
        assert_eq!(ask_udp("192.168.1.1:18080"), Some(IpAddr::from([192, 168, 1, 1])), "udp");
    });
}

#[test]
fn networks_are_apart_and_direct_routing_is_dropped() {
    with_each_backend(|firewall| {
        let docker0 = bridge("docker0", 17);
        let other = bridge("br-0123456789ab", 18);
        let c1 = container("c1", &docker0, 17, 2);
        let c2 = container("c2", &docker0, 17, 3);
        let d1 = container("d1", &other, 18, 2);
        let neighbour = neighbour();
        neighbour.reaches("172.17.0.2:80", "192.168.1.2");
        let ports = vec![publish(Proto::Tcp, "0.0.0.0", 18080, &docker0, "172.17.0.2", 80)];
        enforce(firewall, policy(&[&docker0, &other], vec![], ports));

        c2.reaches("172.17.0.2:80", "172.17.0.3");
        c2.reaches("[fd17::2]:80", "fd17::3");
        host_reaches("172.17.0.2:81", "172.17.0.1");
        c1.reaches("192.168.1.2:7000", "192.168.1.1");
        c1.reaches("[fd01::2]:7000", "fd01::1");
        for closed in ["172.17.0.2:80", "172.17.0.2:81", "[fd17::2]:80"] {
            d1.misses(closed);
            neighbour.misses(closed);
        }
        c1.misses("172.18.0.2:80");
    });
}

#[test]
fn a_port_on_loopback_stays_there() {
    with_each_backend(|firewall| {
        let docker0 = bridge("docker0", 17);
        let c1 = container("c1", &docker0, 17, 2);
        let neighbour = neighbour();
        // The neighbour sends to 127.0.0.1 over the wire, as #45610 has it.
        neighbour.sh(
            "ip route del table local local 127.0.0.0/8 dev lo; ip route del table local local 127.0.0.1 dev lo
             ip route add 127.0.0.1/32 via 192.168.1.1
             echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet",
        );
        let port = publish(Proto::Tcp, "127.0.0.1", 18080, &docker0, "172.17.0.2", 80);
        let datagrams = publish(Proto::Udp, "127.0.0.1", 5000, &docker0, "172.17.0.2", 5000);
        enforce(firewall, policy(&[&docker0], vec![], vec![port, datagrams]));

        host_reaches("127.0.0.1:18080", "172.17.0.1");
        neighbour.misses("127.0.0.1:18080");
        // Its own kernel may refuse the answer; that nothing arrives is what counts.
        let heard = c1.hear(5000);
        neighbour.tell("127.0.0.1:5000");
        assert!(heard.recv_timeout(lab::PATIENCE).is_err());
        neighbour.misses("192.168.1.1:18080");
        c1.misses("172.17.0.1:18080");
    });
}

#[test]
fn an_internal_network_has_no_way_in_or_out() {
    with_each_backend(|firewall| {
        let docker0 = bridge("docker0", 17);
        let internal = BridgePolicy { internal: true, ..bridge("br-int", 19) };
        let c1 = container("c1", &docker0, 17, 2);
        let i1 = container("i1", &internal, 19, 2);
        let i2 = container("i2", &internal, 19, 3);
        let neighbour = neighbour();
        let ports = vec![
            publish(Proto::Tcp, "0.0.0.0", 18080, &docker0, "172.17.0.2", 80),
            publish(Proto::Tcp, "0.0.0.0", 18081, &internal, "172.19.0.2", 80),
        ];
        enforce(firewall, policy(&[&docker0, &internal], vec![], ports));

        i2.reaches("172.19.0.2:80", "172.19.0.3");
        host_reaches("172.19.0.2:80", "172.19.0.1");
        i1.misses("192.168.1.2:7000");
        i1.misses("[fd01::2]:7000");
        // Not even a datagram that nobody answers.
        let heard = neighbour.hear(5000);
        i1.tell("192.168.1.2:5000");
        i1.tell("[fd01::2]:5000");
        assert!(heard.recv_timeout(lab::PATIENCE).is_err());
        c1.tell("192.168.1.2:5000");
        assert_eq!(heard.recv_timeout(lab::PATIENCE).unwrap(), "192.168.1.1".parse::<IpAddr>().unwrap());
        i1.misses("172.17.0.2:80");
        i1.misses("172.19.0.1:18080");
        c1.misses("172.19.0.2:80");
        neighbour.misses("172.19.0.2:80");
        neighbour.misses("192.168.1.1:18081");
    });
}

#[test]
fn icc_off_leaves_published_ports_only() {
    with_each_backend(|firewall| {
        let apart = BridgePolicy { icc: false, ..bridge("br-apart", 20) };
        let x1 = container("x1", &apart, 20, 2);
        let x2 = container("x2", &apart, 20, 3);
        let neighbour = neighbour();
        let endpoints =
            vec![endpoint("x1", &apart, 1, "172.20.0.2"), endpoint("x2", &apart, 2, "172.20.0.3")];
        let port = publish(Proto::Tcp, "0.0.0.0", 18080, &apart, "172.20.0.3", 80);
        x1.reaches("172.20.0.3:80", "172.20.0.2");
        enforce(firewall, policy(&[&apart], endpoints, vec![port]));

        x1.misses("172.20.0.3:80");
        x2.misses("172.20.0.2:81");
        x1.gets_through("172.20.0.1:18080");
        x1.reaches("192.168.1.2:7000", "192.168.1.1");
        neighbour.reaches("192.168.1.1:18080", "192.168.1.2");
        if firewall.backend() == FirewallBackend::Nftables {
            sh("echo 0 > /proc/sys/net/bridge/bridge-nf-call-iptables");
            x1.misses("172.20.0.3:80");
            x1.gets_through("172.20.0.1:18080");
        }
    });
}

#[test]
fn gateway_modes_and_trusted_links() {
    with_each_backend(|firewall| {
        let mode = |name, number, mode| BridgePolicy {
            gateway_mode_ipv4: mode,
            gateway_mode_ipv6: mode,
            ..bridge(name, number)
        };
        let routed = mode("br-routed", 21, GatewayMode::Routed);
        let open = mode("br-open", 22, GatewayMode::NatUnprotected);
        let trusting =
            BridgePolicy { trusted_interfaces: vec![IfName::new("eth0").unwrap()], ..bridge("br-trust", 23) };
        let r1 = container("r1", &routed, 21, 2);
        let o1 = container("o1", &open, 22, 2);
        let t1 = container("t1", &trusting, 23, 2);
        let neighbour = neighbour();
        let ports = vec![
            publish(Proto::Tcp, "0.0.0.0", 18080, &routed, "172.21.0.2", 80),
            publish(Proto::Tcp, "0.0.0.0", 18081, &open, "172.22.0.2", 80),
            publish(Proto::Tcp, "0.0.0.0", 18082, &trusting, "172.23.0.2", 80),
            publish(Proto::Tcp, "::", 18080, &routed, "fd21::2", 80),
        ];
        enforce(firewall, policy(&[&routed, &open, &trusting], vec![], ports));

        neighbour.reaches("172.21.0.2:80", "192.168.1.2");
        neighbour.reaches("[fd21::2]:80", "fd01::2");
        neighbour.misses("172.21.0.2:81");
        neighbour.misses("192.168.1.1:18080");
        neighbour.sh("ip route add 172.21.0.0/16 via 192.168.1.1");
        r1.reaches("192.168.1.2:7000", "172.21.0.2");
        neighbour.reaches("172.22.0.2:81", "192.168.1.2");
        neighbour.reaches("192.168.1.1:18081", "192.168.1.2");
        o1.reaches("192.168.1.2:7000", "192.168.1.1");
        neighbour.reaches("172.23.0.2:80", "192.168.1.2");
        neighbour.misses("172.23.0.2:81");
        neighbour.reaches("192.168.1.1:18082", "192.168.1.2");
        t1.misses("172.21.0.2:81");
    });
}

#[test]
fn a_fixed_source_takes_the_place_of_masquerade() {
    with_each_backend(|firewall| {
        let fixed = BridgePolicy {
            snat_ipv4: Some("192.168.1.9".parse().unwrap()),
            snat_ipv6: Some("fd01::9".parse().unwrap()),
            ..bridge("br-fixed", 24)
        };
        let plain = BridgePolicy { masquerade: false, ..bridge("br-plain", 25) };
        let _neighbour = neighbour();
        sh("ip address add 192.168.1.9/24 dev eth0; ip address add fd01::9/64 dev eth0 nodad");
        let f1 = container("f1", &fixed, 24, 2);
        let p1 = container("p1", &plain, 25, 2);
        enforce(firewall, policy(&[&fixed, &plain], vec![], vec![]));
        f1.reaches("192.168.1.2:7000", "192.168.1.9");
        f1.reaches("[fd01::2]:7000", "fd01::9");
        p1.reaches("192.168.1.2:7000", "172.25.0.2");
    });
}

#[test]
fn changes_take_effect_one_by_one_and_clear_leaves_nothing() {
    with_each_backend(|firewall| {
        let docker0 = bridge("docker0", 17);
        let _c1 = container("c1", &docker0, 17, 2);
        let _c2 = container("c2", &docker0, 17, 3);
        let neighbour = neighbour();
        enforce(firewall, FirewallPolicy::default());
        let item = |target| PolicyItem::Port(publish(Proto::Tcp, "0.0.0.0", 18080, &docker0, target, 80));
        let change = |remove, add| firewall.apply(&Transaction::Change { remove, add }).unwrap();
        change(vec![], vec![PolicyItem::Bridge(docker0.clone()), item("172.17.0.2")]);
        neighbour.reaches("192.168.1.1:18080", "192.168.1.2");
        // The port moves to another container in one transaction.
        change(vec![item("172.17.0.2")], vec![item("172.17.0.3")]);
        neighbour.reaches("192.168.1.1:18080", "192.168.1.2");
        change(vec![item("172.17.0.3")], vec![]);
        neighbour.misses("192.168.1.1:18080");
        change(vec![PolicyItem::Bridge(docker0.clone())], vec![]);
        assert_eq!(firewall.verify().unwrap(), Some(FirewallPolicy::default()));
        firewall.apply(&Transaction::Clear).unwrap();
        let left = sh("nft list tables; iptables-save; ip6tables-save");
        for ours in ["portolan\n", "PORTOLAN", "DOCKER-FORWARD", "DOCKER -"] {
            assert!(!left.contains(ours), "{ours}: {left}");
        }
    });
}

#[test]
fn switching_backends_leaves_nothing_of_the_other() {
    in_host(|| {
        let docker0 = bridge("docker0", 17);
        let policy = || policy(&[&docker0], vec![], vec![]);
        enforce(&Firewall::open(FirewallBackend::Nftables).unwrap(), policy());
        enforce(&Firewall::open(FirewallBackend::Iptables).unwrap(), policy());
        let tables = sh("nft list tables");
        assert!(!tables.lines().any(|table| table.ends_with(" portolan")), "{tables}");
        sh("iptables -A DOCKER-USER -s 203.0.113.1/32 -j DROP");
        enforce(&Firewall::open(FirewallBackend::Iptables).unwrap(), policy());
        enforce(&Firewall::open(FirewallBackend::Nftables).unwrap(), policy());
        let saved = sh("iptables-save");
        assert!(!saved.contains("PORTOLAN") && !saved.contains("DOCKER-FORWARD"), "{saved}");
        assert!(
            saved.contains("-A DOCKER-USER -s 203.0.113.1/32 -j DROP"),
            "the user's rules are kept: {saved}"
        );
    });
}

#[test]
fn iptables_lists_what_the_documents_show() {
    in_host(|| {
        let docker0 = bridge("docker0", 17);
        let user = bridge("br-0123456789ab", 18);
        let ports = vec![publish(Proto::Tcp, "0.0.0.0", 18080, &docker0, "172.17.0.4", 80)];
        let firewall = Firewall::open(FirewallBackend::Iptables).unwrap();
        enforce(&firewall, policy(&[&docker0, &user], vec![], ports));
        let listing = sh("iptables -t nat -vnL");
        let has = |parts: &[&str]| listing.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(has(&["DNAT", "tcp dpt:18080 to:172.17.0.4:80"]), "{listing}");
        assert!(has(&["MASQUERADE", "172.17.0.0/16"]), "{listing}");
        let rules = sh("iptables -t nat -S");
        assert!(rules.contains("-s 172.18.0.0/16 ! -o br-0123456789ab -j MASQUERADE"), "{rules}");
        sh("iptables -t nat -F DOCKER");
        assert_eq!(firewall.verify().unwrap(), None);
    });
}

#[test]
fn the_resolver_is_reached_on_port_53_without_conntrack() {
    in_host(|| {
        use std::net::UdpSocket;
        let resolver = UdpSocket::bind("127.0.0.11:0").unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.11:0").unwrap();
        let own = UdpSocket::bind("0.0.0.0:53").unwrap();
        let (udp, tcp) = (resolver.local_addr().unwrap().port(), listener.local_addr().unwrap().port());
        portolan_netlinux::nft::redirect_dns(udp, tcp).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (_, peer) = resolver.recv_from(&mut buffer).unwrap();
            resolver.send_to(peer.ip().to_string().as_bytes(), peer).unwrap();
        });
        std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
        });
        assert_eq!(ask_udp("127.0.0.11:53"), Some(IpAddr::from([127, 0, 0, 1])));
        assert!(lab::connect("127.0.0.11:53".parse().unwrap()).is_some());
        own.set_nonblocking(true).unwrap();
        assert!(own.recv(&mut [0; 8]).is_err(), "the sandbox's own port 53 was not asked");
        let flows = sh("conntrack -L 2>/dev/null | wc -l");
        assert_eq!(flows.trim(), "0");
    });
}
