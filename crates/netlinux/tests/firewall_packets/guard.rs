//! The source guard: frames as a container with NET_RAW sends them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::mpsc::Receiver;

use portolan_netcore::firewall::{BridgePolicy, EndpointPolicy, FirewallPolicy};
use portolan_netcore::model::MacAddr;

use super::lab::{self, Node, bridge, sh};
use super::{container, endpoint, enforce, policy, with_each_backend};

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
    heard: BTreeMap<u16, Receiver<IpAddr>>,
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
