//! What the firewall lets through and what not, with real packets, the same for both backends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod guard;
#[path = "../lab/mod.rs"]
mod lab;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use portolan_netcore::firewall::{
    BridgePolicy, EndpointPolicy, FirewallPolicy, PolicyItem, PublishedPort, Transaction,
};
use portolan_netcore::model::{EndpointId, GatewayMode, IfName, MacAddr, PortBinding, Proto};
use portolan_netlinux::firewall::{Firewall, FirewallBackend};

use lab::{Node, ask_udp, bridge, host_reaches, in_host, sh};

const BOTH: [FirewallBackend; 2] = [FirewallBackend::Nftables, FirewallBackend::Iptables];

/// A container at `.host` of the bridge, with servers on ports 80 and 81.
fn container(name: &'static str, bridge: &BridgePolicy, number: u8, host: u8) -> Node {
    let node = Node::container(name, bridge, number, host);
    node.serve(80).serve(81).serve_udp(80);
    node
}

/// The neighbour, with a server.
fn neighbour() -> Node {
    let node = Node::neighbour();
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
        source_guard: false,
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
        from: Vec::new(),
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
        carried: BTreeSet::new(),
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
            publish(Proto::Sctp, "0.0.0.0", 18080, &docker0, "172.17.0.2", 80),
        ];
        enforce(firewall, policy(&[&docker0, &other], vec![], ports));
        associates(&neighbour, &c1, "192.168.1.1", 18080);

        neighbour.reaches("192.168.1.1:18080", "192.168.1.2");
        neighbour.reaches("[fd01::1]:18080", "fd01::2");
        host_reaches("127.0.0.1:18080", "172.17.0.1");
        host_reaches("172.17.0.1:18080", "172.17.0.1");
        host_reaches("192.168.1.1:18080", "192.168.1.1");
        let iptables = firewall.backend() == FirewallBackend::Iptables;
        host_reaches("172.18.0.1:18080", if iptables { "172.17.0.1" } else { "172.18.0.1" });
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
            let kept = bridge_netfilter == 1 && firewall.backend() == FirewallBackend::Nftables;
            c2.reaches("172.17.0.1:18080", if kept { "172.17.0.3" } else { "172.17.0.1" });
            c2.reaches("[fd17::1]:18080", if kept { "fd17::3" } else { "fd17::1" });
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

/// SCTP by raw sockets, for kernels that have none: an INIT to a published port comes to the container's
/// port 80, and its INIT ACK back from where the INIT was sent to (RFC 9260, section 3).
const SCTP: &str = r#"
import socket, struct, sys
def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8): crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff
def packet(source, target, tag, kind):
    head = struct.pack("!HHI", source, target, tag)
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20, 0x1234, 65535, 1, 1, 1)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132); s.settimeout(4)
if sys.argv[1] == "serve":
    print("ready", flush=True)
else:
    s.sendto(packet(40000, int(sys.argv[2]), 0, 1), (sys.argv[1], 0))
data, peer = s.recvfrom(2000)
sctp = data[(data[0] & 15) * 4:]
source, target = struct.unpack("!HH", sctp[:4])
whole = struct.unpack("<I", sctp[8:12])[0] == crc32c(sctp[:8] + bytes(4) + sctp[12:])
print(peer[0], source, target, sctp[12], whole, flush=True)
if sys.argv[1] == "serve": s.sendto(packet(target, source, 0x1234, 2), peer)
"#;

fn associates(client: &Node, server: &Node, address: &str, port: u16) {
    let start = |node: &Node, words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", node.pid())).args(["python3", "-c", SCTP]).args(words);
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut serving = start(server, &["serve"]);
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let answer = start(client, &[address, &port.to_string()]).wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), format!("{address} {port} 40000 2 True\n"));
    assert_eq!(lines.next().unwrap().unwrap(), "192.168.1.2 40000 80 1 True");
    serving.wait().unwrap();
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
        let floor = sh("nft list table inet portolan");
        assert!(!floor.contains("dnat ip") && !floor.contains("masquerade "), "iptables translates: {floor}");
        sh("iptables -A DOCKER-USER -s 203.0.113.1/32 -j DROP");
        enforce(&Firewall::open(FirewallBackend::Iptables).unwrap(), policy());
        enforce(&Firewall::open(FirewallBackend::Nftables).unwrap(), policy());
        let saved = sh("iptables-save");
        for ours in ["PORTOLAN", "DOCKER-FORWARD", "MARK"] {
            assert!(!saved.contains(ours), "{ours}: {saved}");
        }
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

#[test]
fn a_port_is_open_to_the_sources_that_it_names() {
    with_each_backend(|firewall| {
        let docker0 = bridge("docker0", 17);
        let routed = BridgePolicy { gateway_mode_ipv4: GatewayMode::Routed, ..bridge("br-routed", 21) };
        let _c1 = container("c1", &docker0, 17, 2);
        let _r1 = container("r1", &routed, 21, 2);
        let neighbour = neighbour();
        neighbour.sh("ip address add 192.168.1.3/24 dev eth0");
        let from = |nets: &[&str], port: PublishedPort| PublishedPort {
            from: nets.iter().map(|net| net.parse().unwrap()).collect(),
            ..port
        };
        let to = |host, port| publish(Proto::Tcp, host, port, &docker0, "172.17.0.2", 80);
        let ports = vec![
            from(&["192.168.1.2/32", "192.168.1.0/31"], to("0.0.0.0", 18080)),
            from(&["192.168.1.3/32", "10.0.0.0/8", "10.1.0.0/16"], to("0.0.0.0", 18081)),
            from(&["192.168.0.0/16"], to("192.168.1.1", 18082)),
            from(&["fd01::/64"], publish(Proto::Tcp, "::", 18080, &docker0, "fd17::2", 80)),
            from(&["fd02::/64"], publish(Proto::Tcp, "::", 18081, &docker0, "fd17::2", 80)),
            to("0.0.0.0", 18083),
            from(&["192.168.1.2/32"], publish(Proto::Tcp, "0.0.0.0", 18084, &routed, "172.21.0.2", 80)),
            from(&["192.168.1.3/32"], publish(Proto::Tcp, "0.0.0.0", 18085, &routed, "172.21.0.2", 81)),
        ];
        enforce(firewall, policy(&[&docker0, &routed], vec![], ports));
        neighbour.reaches("192.168.1.1:18080", "192.168.1.2");
        neighbour.misses("192.168.1.1:18081");
        neighbour.reaches("192.168.1.1:18082", "192.168.1.2");
        neighbour.reaches("[fd01::1]:18080", "fd01::2");
        neighbour.misses("[fd01::1]:18081");
        neighbour.reaches("192.168.1.1:18083", "192.168.1.2");
        neighbour.reaches("172.21.0.2:80", "192.168.1.2");
        neighbour.misses("172.21.0.2:81");
        assert_eq!(lab::connect("127.0.0.1:18080".parse().unwrap()), None, "the host is none of them");
    });
}

#[test]
fn direct_routing_reaches_published_ports_only() {
    with_each_backend(|firewall| {
        let open = BridgePolicy { direct_routing: true, ..bridge("docker0", 17) };
        let _c1 = container("c1", &open, 17, 2);
        let neighbour = neighbour();
        let ports = vec![
            publish(Proto::Tcp, "0.0.0.0", 18080, &open, "172.17.0.2", 80),
            publish(Proto::Tcp, "::", 18080, &open, "fd17::2", 80),
        ];
        enforce(firewall, policy(&[&open], vec![], ports));
        neighbour.reaches("172.17.0.2:80", "192.168.1.2");
        neighbour.reaches("[fd17::2]:80", "fd01::2");
        neighbour.misses("172.17.0.2:81");
        neighbour.misses("[fd17::2]:81");
        neighbour.reaches("192.168.1.1:18080", "192.168.1.2");
    });
}

/// The user's table: a drop is final, a mark overrides our drops, and nothing of it is ever changed.
#[test]
fn the_users_table_has_its_say() {
    in_host(|| {
        let docker0 = bridge("docker0", 17);
        let _c1 = container("c1", &docker0, 17, 2);
        let neighbour = neighbour();
        let ports = vec![publish(Proto::Tcp, "0.0.0.0", 18080, &docker0, "172.17.0.2", 80)];
        let firewall = Firewall::open(FirewallBackend::Nftables).unwrap();
        enforce(&firewall, policy(&[&docker0], vec![], ports.clone()));
        neighbour.reaches("192.168.1.1:18080", "192.168.1.2");
        neighbour.misses("172.17.0.2:81");
        sh("nft add rule inet portolan-user forward tcp dport 80 drop
            nft add rule inet portolan-user forward ip saddr 192.168.1.2 tcp dport 81 meta mark set meta mark or 0x10000000 accept");
        neighbour.misses("192.168.1.1:18080");
        neighbour.reaches("172.17.0.2:81", "192.168.1.2");
        let before = sh("nft list table inet portolan-user");
        enforce(&firewall, policy(&[&docker0], vec![], ports));
        firewall.apply(&Transaction::Clear).unwrap();
        assert_eq!(sh("nft list table inet portolan-user"), before);
    });
}
