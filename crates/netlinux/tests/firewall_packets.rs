//! What the firewall lets through and what not, with real packets, the same for both backends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

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

/// Sends one Ethernet frame from a node's `eth0`, as a container with NET_RAW can. The script gets
/// `mac` and `addr` to turn texts into bytes, and `frame` is what it leaves.
fn inject(node: &Node, script: &str) {
    let program = format!(
        r#"
import socket, struct
def mac(text): return bytes.fromhex(text.replace(":", ""))
def addr(text): return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
def check(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return 0xffff ^ total
def ip4(src, dst, proto, body):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 255, proto, 0) + addr(src) + addr(dst)
    return head[:10] + struct.pack("!H", check(head)) + head[12:] + body
def udp4(src, dst, sport, dport): return ip4(src, dst, 17, struct.pack("!HHHH", sport, dport, 9, 0) + b"!")
def ip6(src, dst, proto, body, at):
    pseudo = addr(src) + addr(dst) + struct.pack("!II", len(body), proto)
    body = body[:at] + struct.pack("!H", check(pseudo + body)) + body[at + 2:]
    return struct.pack("!IHBB", 6 << 28, len(body), proto, 255) + addr(src) + addr(dst) + body
def udp6(src, dst, sport, dport):
    return ip6(src, dst, 17, struct.pack("!HHHH", sport, dport, 9, 0) + b"!", 6)
def icmp6(src, dst, kind, body): return ip6(src, dst, 58, struct.pack("!BBH", kind, 0, 0) + body, 2)
def arp(op, sha, spa, tpa):
    return struct.pack("!HHBBH", 1, 0x800, 6, 4, op) + mac(sha) + addr(spa) + bytes(6) + addr(tpa)
def eth(dst, src, kind, body): return mac(dst) + mac(src) + struct.pack("!H", kind) + body
{script}
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
s.send(frame)
"#
    );
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("portolan-frame-{}-{count}.py", std::process::id()));
    std::fs::write(&path, program).unwrap();
    node.sh(&format!("python3 {}", path.display()));
    std::fs::remove_file(path).unwrap();
}

const ALL: &str = "ff:ff:ff:ff:ff:ff";

/// The hardware address of a node's `eth0`.
fn mac_of(node: &Node) -> String {
    // /sys shows the links of the namespace that mounted it.
    let line = node.sh("ip -br link show eth0");
    line.split_whitespace().nth(2).unwrap().to_owned()
}

/// What an attacker, a victim and a third container of one bridge are in these tests.
struct Guarded {
    bridge: BridgePolicy,
    attacker: Node,
    victim: Node,
    other: Node,
    /// What `other` hears on the ports 5000, 68 and 546.
    heard: std::collections::BTreeMap<u16, std::sync::mpsc::Receiver<IpAddr>>,
}

impl Guarded {
    fn new() -> Self {
        let bridge = bridge("docker0", 17);
        let attacker = container("bad", &bridge, 17, 2);
        let victim = container("good", &bridge, 17, 3);
        let other = container("other", &bridge, 17, 4);
        let heard = [5000, 68, 546].map(|port| (port, other.hear(port))).into();
        Self { bridge, attacker, victim, other, heard }
    }

    fn endpoint(&self, name: &str, node: &Node, host: u8, source_guard: bool) -> EndpointPolicy {
        let mac: Vec<u8> =
            mac_of(node).split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        EndpointPolicy {
            mac: MacAddr(mac.try_into().unwrap()),
            addresses: vec![[172, 17, 0, host].into(), format!("fd17::{host}").parse().unwrap()],
            source_guard,
            ..endpoint(name, &self.bridge, host, "172.17.0.1")
        }
    }

    /// Guards all but, if it is to be trusted, the attacker.
    fn policy(&self, attacker_guarded: bool) -> FirewallPolicy {
        let endpoints = vec![
            self.endpoint("bad", &self.attacker, 2, attacker_guarded),
            self.endpoint("good", &self.victim, 3, true),
            self.endpoint("other", &self.other, 4, true),
        ];
        policy(&[&self.bridge], endpoints, vec![])
    }

    /// Whether `other` hears a datagram on port 5000 that the attacker sends in this frame.
    fn heard(&self, port: u16, frame: &str) -> bool {
        let heard = &self.heard[&port];
        while heard.try_recv().is_ok() {}
        let (bad, good, other) = (mac_of(&self.attacker), mac_of(&self.victim), mac_of(&self.other));
        inject(
            &self.attacker,
            &format!("bad, good, other, all = {bad:?}, {good:?}, {other:?}, {ALL:?}\nframe = {frame}"),
        );
        heard.recv_timeout(lab::PATIENCE).is_ok()
    }

    /// The neighbour entry of an address that `other` has after the attacker's frame.
    fn learnt(&self, address: &str, frame: &str) -> String {
        self.other.sh("ip neigh flush all; ip -6 neigh flush all");
        // The entry is there and stale: an advertisement can change it.
        let (bad, good, other) = (mac_of(&self.attacker), mac_of(&self.victim), mac_of(&self.other));
        self.other.sh(&format!("ip neigh replace {address} lladdr {good} nud stale dev eth0"));
        inject(
            &self.attacker,
            &format!("bad, good, other, all = {bad:?}, {good:?}, {other:?}, {ALL:?}\nframe = {frame}"),
        );
        std::thread::sleep(lab::PATIENCE / 4);
        self.other.sh(&format!("ip neigh show {address}"))
    }
}

/// moby#36355, CVE-2021-32575: a container with NET_RAW cannot pass for another.
#[test]
fn a_container_cannot_send_from_what_is_not_its_own() {
    with_each_backend(|firewall| {
        let lab = Guarded::new();
        // Frames that go to `other`'s port 5000, by what is wrong with them.
        let honest = [
            "eth(other, bad, 0x800, udp4('172.17.0.2', '172.17.0.4', 9, 5000))",
            "eth(other, bad, 0x86dd, udp6('fd17::2', 'fd17::4', 9, 5000))",
        ];
        let spoofed = [
            ("another container's IPv4", "eth(other, bad, 0x800, udp4('172.17.0.3', '172.17.0.4', 9, 5000))"),
            ("a stranger's IPv4", "eth(other, bad, 0x800, udp4('203.0.113.9', '172.17.0.4', 9, 5000))"),
            ("the gateway's IPv4", "eth(other, bad, 0x800, udp4('172.17.0.1', '172.17.0.4', 9, 5000))"),
            ("another's MAC", "eth(other, good, 0x800, udp4('172.17.0.2', '172.17.0.4', 9, 5000))"),
            ("another's MAC and IPv4", "eth(other, good, 0x800, udp4('172.17.0.3', '172.17.0.4', 9, 5000))"),
            ("another container's IPv6", "eth(other, bad, 0x86dd, udp6('fd17::3', 'fd17::4', 9, 5000))"),
            (
                "a link-local IPv6 not its own",
                "eth(other, bad, 0x86dd, udp6('fe80::1234', 'fd17::4', 9, 5000))",
            ),
            ("another's MAC, IPv6", "eth(other, good, 0x86dd, udp6('fd17::2', 'fd17::4', 9, 5000))"),
        ];
        enforce(firewall, lab.policy(false));
        for frame in honest.iter().chain(spoofed.iter().map(|(_, frame)| frame)) {
            assert!(lab.heard(5000, frame), "without the guard the frame arrives: {frame}");
        }
        enforce(firewall, lab.policy(true));
        for frame in honest {
            assert!(lab.heard(5000, frame), "{frame}");
        }
        for (what, frame) in spoofed {
            assert!(!lab.heard(5000, frame), "{what}");
        }
        lab.attacker.reaches("172.17.0.4:80", "172.17.0.2");
        lab.attacker.reaches("[fd17::4]:80", "fd17::2");
        lab.victim.reaches("172.17.0.2:80", "172.17.0.3");
    });
}

#[test]
fn a_container_cannot_answer_for_anothers_address() {
    with_each_backend(|firewall| {
        let lab = Guarded::new();
        // An entry may change as soon as it is there.
        lab.other.sh("echo 0 > /proc/sys/net/ipv4/neigh/eth0/locktime");
        let arp = [
            "eth(all, bad, 0x806, arp(1, bad, '172.17.0.3', '172.17.0.4'))",
            "eth(other, bad, 0x806, arp(2, bad, '172.17.0.3', '172.17.0.4'))",
        ];
        let nd = "eth(other, bad, 0x86dd, icmp6('fd17::2', 'fd17::4', 136, struct.pack('!I', 0x20000000) + addr('fd17::3') + b'\\x02\\x01' + mac(bad)))";
        let bad = mac_of(&lab.attacker);
        enforce(firewall, lab.policy(false));
        for frame in arp {
            assert!(lab.learnt("172.17.0.3", frame).contains(&bad), "without the guard: {frame}");
        }
        assert!(lab.learnt("fd17::3", nd).contains(&bad), "without the guard: {nd}");
        enforce(firewall, lab.policy(true));
        for frame in arp {
            assert!(!lab.learnt("172.17.0.3", frame).contains(&bad), "{frame}");
        }
        assert!(!lab.learnt("fd17::3", nd).contains(&bad), "{nd}");
        lab.other.sh("ip neigh flush all; ip -6 neigh flush all");
        lab.other.reaches("172.17.0.2:80", "172.17.0.4");
        lab.other.reaches("[fd17::2]:80", "fd17::4");
    });
}

/// CVE-2020-13401, CVE-2020-10749, CVE-2020-13597: nobody takes a container for a router or DHCP server.
#[test]
fn a_container_is_no_router_and_no_dhcp_server_to_others() {
    with_each_backend(|firewall| {
        let lab = Guarded::new();
        lab.other.sh("sysctl -qw net.ipv6.conf.eth0.accept_ra=2");
        sh("sysctl -qw net.ipv6.conf.docker0.accept_ra=2");
        // A prefix to make addresses of, and a default route.
        let (bad, all) = (mac_of(&lab.attacker), "33:33:00:00:00:01");
        let own = {
            let EndpointPolicy { mac: MacAddr([a, b, c, d, e, f]), .. } =
                lab.endpoint("bad", &lab.attacker, 2, true);
            format!(
                "fe80::{:x}:{:x}:{:x}:{:x}",
                u16::from_be_bytes([a ^ 2, b]),
                u16::from_be_bytes([c, 0xff]),
                u16::from_be_bytes([0xfe, d]),
                u16::from_be_bytes([e, f])
            )
        };
        let advertise = || {
            inject(
                &lab.attacker,
                &format!(
                    "prefix = struct.pack('!BBBBIII', 3, 4, 64, 0xc0, 3600, 3600, 0) + addr('2001:db8:bad::')\n\
                 frame = eth({all:?}, {bad:?}, 0x86dd, icmp6({own:?}, 'ff02::1', 134, struct.pack('!BBHII', 64, 0, 1800, 0, 0) + prefix))"
                ),
            );
            std::thread::sleep(lab::PATIENCE / 2);
        };
        let believed = |text: String| text.contains("2001:db8:bad");
        enforce(firewall, lab.policy(true));
        advertise();
        assert!(!believed(lab.other.sh("ip -6 address show dev eth0; ip -6 route")), "by a container");
        assert!(!believed(sh("ip -6 address show dev docker0; ip -6 route")), "by the host");
        assert!(
            !lab.heard(68, "eth(all, bad, 0x800, udp4('172.17.0.2', '255.255.255.255', 67, 68))"),
            "DHCP"
        );
        assert!(!lab.heard(546, "eth(other, bad, 0x86dd, udp6('fd17::2', 'fd17::4', 547, 546))"), "DHCPv6");
        enforce(firewall, lab.policy(false));
        assert!(lab.heard(546, "eth(other, bad, 0x86dd, udp6('fd17::2', 'fd17::4', 547, 546))"), "opted out");
        assert!(
            lab.heard(68, "eth(all, bad, 0x800, udp4('172.17.0.2', '255.255.255.255', 67, 68))"),
            "opted out"
        );
        advertise();
        assert!(believed(lab.other.sh("ip -6 address show dev eth0; ip -6 route")), "opted out");
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
