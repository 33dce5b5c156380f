//! The source guard, seen from real containers: one with `NET_RAW` (Docker's default) sends frames that
//! are not its own, and its neighbour and the host tell which of them came.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use portolan_e2e::{inspect, is_portolan, skip_before};
use portolan_testkit::{Engine, Host, skip};

/// Prints the names of the frames that come by a link until one is called `end`.
const SNIFF: &str = r#"
import re, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((sys.argv[1], 0)); s.settimeout(8)
print("ready", flush=True)
try:
    while True:
        data, place = s.recvfrom(4096)
        name = re.search(rb"<(\w+)>", data)
        if name and place[2] != socket.PACKET_OUTGOING:
            print(name[1].decode(), flush=True)
            if name[1] == b"end": break
except TimeoutError: print("timeout", flush=True)
"#;

/// Sends frames from a container's `eth0`; each carries its name.
const ATTACK: &str = r#"
import socket, struct, sys
bad, good, me4, me6 = sys.argv[1:5]
mac = lambda text: bytes.fromhex(text.replace(":", ""))
addr = lambda text: socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
def check(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return 0xffff ^ total
def ip4(src, dst, port):
    body = struct.pack("!HHHH", 9, port, 8 + len(name), 0) + name
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, 17, 0) + addr(src) + addr(dst)
    return head[:10] + struct.pack("!H", check(head)) + head[12:] + body
def ip6(src, dst, proto, body, at):
    pseudo = addr(src) + addr(dst) + struct.pack("!II", len(body), proto)
    body = body[:at] + struct.pack("!H", check(pseudo + body)) + body[at + 2:]
    return struct.pack("!IHBB", 6 << 28, len(body), proto, 255) + addr(src) + addr(dst) + body
udp6 = lambda src, dst, port: ip6(src, dst, 17, struct.pack("!HHHH", 9, port, 8 + len(name), 0) + name, 6)
icmp6 = lambda src, dst, kind, body: ip6(src, dst, 58, struct.pack("!BBH", kind, 0, 0) + body + name, 2)
arp = lambda op, sha, spa: struct.pack("!HHBBH", 1, 0x800, 6, 4, op) + mac(sha) + addr(spa) + bytes(6) + addr("10.77.0.4") + name
all = "ff:ff:ff:ff:ff:ff"
own = bytearray(mac(bad)); own[0] ^= 2
own = socket.inet_ntop(socket.AF_INET6, bytes([0xfe, 0x80] + [0] * 6) + bytes(own[:3]) + b"\xff\xfe" + bytes(own[3:]))
advert = lambda target: struct.pack("!I", 0x20000000) + addr(target) + b"\x02\x01" + mac(bad)
frames = {
    "own_ip4": (bad, 0x800, lambda: ip4(me4, "10.77.0.4", 5000)),
    "own_ip6": (bad, 0x86dd, lambda: udp6(me6, "fd77::4", 5000)),
    "own_link_local": (bad, 0x86dd, lambda: udp6(own, "ff02::1", 5000)),
    "own_arp": (bad, 0x806, lambda: arp(1, bad, me4)),
    "own_advert": (bad, 0x86dd, lambda: icmp6(me6, "ff02::1", 136, advert(me6))),
    "spoofed_mac": (good, 0x800, lambda: ip4(me4, "10.77.0.4", 5000)),
    "spoofed_ip4": (bad, 0x800, lambda: ip4("10.77.0.3", "10.77.0.4", 5000)),
    "spoofed_gateway": (bad, 0x800, lambda: ip4("10.77.0.1", "10.77.0.4", 5000)),
    "spoofed_stranger": (bad, 0x800, lambda: ip4("203.0.113.1", "10.77.0.4", 5000)),
    "spoofed_ip6": (bad, 0x86dd, lambda: udp6("fd77::3", "fd77::4", 5000)),
    "spoofed_link_local": (bad, 0x86dd, lambda: udp6("fe80::1", "fd77::4", 5000)),
    "spoofed_arp": (bad, 0x806, lambda: arp(2, bad, "10.77.0.1")),
    "spoofed_arp_mac": (bad, 0x806, lambda: arp(2, good, me4)),
    "spoofed_advert": (bad, 0x86dd, lambda: icmp6(me6, "ff02::1", 136, advert("fd77::1"))),
    "spoofed_router": (bad, 0x86dd, lambda: icmp6(own, "ff02::1", 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0))),
    "spoofed_redirect": (bad, 0x86dd, lambda: icmp6(own, "ff02::1", 137, bytes(4) + addr("fd77::9") * 2)),
    "spoofed_dhcp": (bad, 0x800, lambda: ip4(me4, "255.255.255.255", 68)),
    "spoofed_dhcp6": (bad, 0x86dd, lambda: udp6(own, "ff02::1", 546)),
    "spoofed_ethertype": (bad, 0x88b5, lambda: name * 4),
    "end": (bad, 0x800, lambda: ip4(me4, "10.77.0.4", 5001)),
}
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
# Not forwarded: but who listens to whom they are from?
for group in ("02", "03", "0e"):
    s.send(mac("01:80:c2:00:00:" + group) + mac(good) + b"\x88\xcc" + bytes(50))
for text, (source, kind, body) in frames.items():
    name = b"<%s>" % text.encode()
    s.send(mac(all) + mac(source) + struct.pack("!H", kind) + body())
print(" ".join(frames))
"#;

fn python(prefix: &[&str], script: &str, arguments: &[&str]) -> Command {
    let words = [prefix, &["python3", "-c", script], arguments].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::piped()).stdin(Stdio::null());
    command
}

/// What comes to the other container, or to the host, of what `attacker` sends; and all that it sent.
fn heard(engine: &Engine, attacker: &str, by_host: bool) -> (BTreeSet<String>, BTreeSet<String>) {
    let at = |name: &str| format!("--net=/proc/{}/ns/net", inspect(engine, name, "{{.State.Pid}}"));
    let network = |field: &str, name: &str| {
        inspect(engine, name, &format!("{{{{(index .NetworkSettings.Networks \"front\").{field}}}}}"))
    };
    let bridge = engine.host().sh("ip -o link show type bridge | grep -o 'br-[0-9a-f]*'").ok().to_owned();
    let (inside, out) = (at("server"), at(attacker));
    let host: Vec<String> =
        engine.host().prefix().iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let host: Vec<&str> = host.iter().map(String::as_str).collect();
    let (prefix, link) = match by_host {
        true => (host, bridge.trim()),
        false => (vec!["nsenter", &inside, "--"], "eth0"),
    };
    let mut sniffer = python(&prefix, SNIFF, &[link]).spawn().expect("python3 runs");
    let mut lines = BufReader::new(sniffer.stdout.take().expect("it is piped"));
    let mut ready = String::new();
    lines.read_line(&mut ready).expect("it speaks");
    assert_eq!(ready, "ready\n");
    let (bad, good) = (network("MacAddress", attacker), network("MacAddress", "victim"));
    let (me4, me6) = (network("IPAddress", attacker), network("GlobalIPv6Address", attacker));
    let attack = python(&["nsenter", &out, "--"], ATTACK, &[&bad, &good, &me4, &me6]).output();
    let attack = attack.expect("python3 runs");
    let mut text = String::new();
    lines.read_to_string(&mut text).expect("it ends");
    sniffer.wait().expect("it is ours");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
    (words(&text), words(&String::from_utf8_lossy(&attack.stdout)))
}

/// CVE-2024-32473: IPv6 that nobody asked for is a way round the rules.
#[test]
fn a_container_without_ipv6_has_none() {
    let engine = Engine::start();
    if skip_before(&engine, 28, "mend of this hole") {
        return;
    }
    let other = Host::new("lan");
    other.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    let lan =
        ["network", "create", "-d", "macvlan", "-o", "parent=up1", "--subnet", "198.51.100.0/24", "lan"];
    engine.docker(&lan).ok();
    for network in ["bridge", "lan"] {
        let seen = ["cat", "/proc/net/if_inet6"];
        let run = ["run", "--rm", "--network", network, "busybox"];
        let text = engine.docker(&[run.as_slice(), &seen].concat()).ok().to_owned();
        assert!(!text.contains("eth0"), "on {network}: {text}");
    }
}

#[test]
fn a_container_with_net_raw_passes_for_nobody_else() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has no source guard");
    }
    let subnets = ["--subnet", "10.77.0.0/24", "--ipv6", "--subnet", "fd77::/64"];
    engine.docker(&[&["network", "create", "front"], subnets.as_slice()].concat()).ok();
    let attacker = "name=front,ip=10.77.0.2,driver-opt=portolan.endpoint.host_ifname=evil0";
    let trusted = "name=front,ip=10.77.0.5,driver-opt=portolan.source_guard=off";
    for (name, network, more) in [
        ("attacker", attacker, [].as_slice()),
        ("victim", "front", ["--ip", "10.77.0.3"].as_slice()),
        ("server", "front", &["--ip", "10.77.0.4", "--ip6", "fd77::4"]),
        ("trusted", trusted, &[]),
    ] {
        let flags = [&["run", "-d", "--name", name, "--network", network], more].concat();
        engine.docker(&[flags.as_slice(), &["busybox", "sleep", "600"]].concat()).ok();
    }
    let spoofed = |names: &BTreeSet<String>| -> BTreeSet<String> {
        names.iter().filter(|name| name.starts_with("spoofed")).cloned().collect()
    };
    for by_host in [false, true] {
        let (came, sent) = heard(&engine, "attacker", by_host);
        assert!(sent.len() > 15, "{sent:?}");
        assert_eq!(spoofed(&came), BTreeSet::new(), "of a guarded container, by_host: {by_host}");
        let honest: BTreeSet<_> = sent.difference(&spoofed(&sent)).cloned().collect();
        assert_eq!(came, honest, "by_host: {by_host}");
        let learnt = engine.host().run(&["bridge", "fdb", "show", "brport", "evil0"]).ok().to_owned();
        let victim = inspect(&engine, "victim", "{{.NetworkSettings.Networks.front.MacAddress}}");
        assert!(!learnt.contains(&victim), "the victim's frames go to the attacker: {learnt}");
        let (came, sent) = heard(&engine, "trusted", by_host);
        assert_eq!(came, sent, "of one that is trusted, by_host: {by_host}");
    }
    // A whole network may be trusted.
    let open = ["--subnet", "10.79.0.0/24", "-o", "portolan.source_guard=off", "open"];
    engine.docker(&[&["network", "create"], &open[..]].concat()).ok();
    for (network, prefix, answered) in [("open", "10.79.0", true), ("front", "10.77.0", false)] {
        let line = format!("ip addr add {prefix}.99/24 dev eth0 && ping -c1 -W1 -I {prefix}.99 {prefix}.1");
        let run =
            ["run", "--rm", "--cap-add", "NET_ADMIN", "--network", network, "busybox", "sh", "-c", &line];
        let asked = engine.docker(&run);
        assert!(asked.stdout.contains("packets transmitted"), "{}", asked.all());
        assert_eq!(asked.code == 0, answered, "{network}: {}", asked.all());
    }
}

/// CVE-2025-9074: what a container can reach of its host is no way into the engine.
#[test]
fn the_api_is_on_no_socket_that_a_container_can_reach() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("dockerd's sockets are its own affair");
    }
    engine.docker(&["network", "create", "--ipv6", "named"]).ok();
    engine.docker(&["run", "-d", "--network", "named", "busybox", "sleep", "600"]).ok();
    // 0A: TCP_LISTEN.
    let listening = engine.host().sh("cat /proc/net/tcp /proc/net/tcp6 | awk '$4 == \"0A\"'");
    assert_eq!(listening.ok(), "");
    let mode = engine.host().sh(&format!("stat -c %a {}", engine.socket().display()));
    assert_eq!(mode.ok().trim(), "660");
}

/// CVE-2023-28840 to -28842: an encrypted network whose packets go in the clear. We have none, and say so.
#[test]
fn no_network_promises_to_be_encrypted() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has overlay networks");
    }
    for driver in ["overlay", "bridge"] {
        let words = ["network", "create", "--driver", driver, "--opt", "encrypted", "promised"];
        let said = engine.docker(&words);
        let word = if driver == "overlay" { "swarm" } else { "encrypted" };
        assert!(said.fails().contains(word), "{}", said.all());
        assert!(!engine.docker(&["network", "ls"]).ok().contains("promised"));
    }
}
