//! Names: what containers are told, what leaves the host and what does not, and who may die meanwhile.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portolan_e2e::{eventually, has_line, is_portolan, resolver};
use portolan_testkit::{Client, Engine, Host, Output, run, skip};

/// A resolver that answers every question for an address with its own, and writes down what it is asked.
const UPSTREAM: &str = r#"
import socket, sys
address, log = sys.argv[1], open(sys.argv[2], "a", buffering=1)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((address, 53))
print("ready", flush=True)
while True:
    packet, sender = server.recvfrom(4096)
    at, labels = 12, []
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode("latin-1"))
        at += packet[at] + 1
    kind = int.from_bytes(packet[at + 1:at + 3], "big")
    log.write(".".join(labels) + "\n")
    question = packet[12:at + 5]
    answer = b"\xc0\x0c" + bytes([0, 1, 0, 1, 0, 0, 0, 60, 0, 4]) + socket.inet_aton(address)
    answers = [answer] if kind == 1 else []
    header = packet[:2] + b"\x81\x80\x00\x01" + bytes([0, len(answers), 0, 0, 0, 0])
    server.sendto(header + question + b"".join(answers), sender)
"#;

/// A process that is ended with the test.
struct Upstream {
    child: Child,
    log: PathBuf,
}

impl Upstream {
    fn start(host: &Host, home: &Path, address: &str) -> Self {
        let log = home.join(format!("asked-{address}"));
        let mut words = host.prefix();
        words.extend(["python3".into(), "-c".into(), UPSTREAM.into(), address.into(), log.clone().into()]);
        let mut command = Command::new(&words[0]);
        let child = command.args(&words[1..]).stdout(Stdio::piped()).spawn();
        let mut upstream = Self { child: child.expect("python3 starts"), log };
        let mut ready = [0; 5];
        let output = upstream.child.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(output, &mut ready).expect("the upstream listens");
        upstream
    }

    /// What it was asked so far.
    fn asked(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sleeper(engine: &Engine, name: &str, flags: &[&str]) {
    engine.docker(&[&["run", "-d", "--name", name], flags, &["busybox", "sleep", "600"]].concat()).ok();
}

fn ask(engine: &Engine, from: &str, kind: &str, name: &str) -> Output {
    let kind = format!("-type={kind}");
    engine.docker(&["exec", from, "nslookup", kind.as_str(), name])
}

/// The addresses that a name has; none if it has none.
fn addresses(engine: &Engine, from: &str, name: &str) -> Vec<String> {
    let output = ask(engine, from, "a", name).stdout;
    let after_server = output.split_once("\n\n").map_or("", |(_, answer)| answer);
    after_server.lines().filter_map(|line| Some(line.strip_prefix("Address: ")?.to_owned())).collect()
}

fn address(engine: &Engine, from: &str, name: &str) -> Option<String> {
    addresses(engine, from, name).first().cloned()
}

/// The namespace of a container, to look into.
fn inside(engine: &Engine, container: &str, words: &[&str]) -> Output {
    let pid = portolan_e2e::inspect(engine, container, "{{.State.Pid}}");
    let target = format!("--net=/proc/{pid}/ns/net");
    run(&[&["nsenter", target.as_str(), "--"], words].concat(), None)
}

#[test]
fn a_container_is_found_by_all_its_names() {
    let engine = Engine::start();
    engine.docker(&["network", "create", "--subnet", "10.80.0.0/24", "front"]).ok();
    let flags =
        ["--network", "front", "--network-alias", "App", "--hostname", "its-host", "--ip", "10.80.0.9"];
    sleeper(&engine, "web", &flags);
    sleeper(&engine, "one", &["--network", "front", "--network-alias", "svc", "--ip", "10.80.0.11"]);
    sleeper(&engine, "two", &["--network", "front", "--network-alias", "svc", "--ip", "10.80.0.12"]);
    let id = portolan_e2e::inspect(&engine, "web", "{{.Id}}");
    let mut names = vec!["web", "WEB", &id[..12], "web.front", "app.front"];
    if is_portolan(&engine) {
        // Docker 20.10 keeps the case of an alias, and does not answer for the host name.
        names.extend(["app", "its-host", "its-host.front"]);
    }
    for name in names {
        assert_eq!(addresses(&engine, "one", name), ["10.80.0.9"], "{name}");
    }
    let mut both = addresses(&engine, "web", "svc");
    both.sort();
    assert_eq!(both, ["10.80.0.11", "10.80.0.12"]);
    let first: Vec<_> = (0..8).filter_map(|_| address(&engine, "web", "svc")).collect();
    assert!(first.contains(&both[0]) && first.contains(&both[1]), "in turn: {first:?}");
    has_line(ask(&engine, "one", "ptr", "9.0.80.10.in-addr.arpa").ok(), &["name = web.front"]);
    let none = ask(&engine, "one", "aaaa", "web");
    assert!(!none.all().contains("NXDOMAIN"), "known, but not by this family: {}", none.all());
    engine.docker(&["rm", "-f", "one"]).ok();
    assert_eq!(addresses(&engine, "web", "svc"), ["10.80.0.12"], "at once");
    engine.docker(&["rename", "two", "deux"]).ok();
    assert_eq!(addresses(&engine, "web", "deux"), ["10.80.0.12"]);
}

/// A container on several networks is told the address on the network by which it goes out, and that of another one
/// where the first has none of the family.
#[test]
fn a_name_on_several_networks_is_that_of_the_gateway_s() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker 20.10 has no priorities of gateways, and 28 another order");
    }
    engine.docker(&["network", "create", "--subnet", "10.81.0.0/24", "a"]).ok();
    engine.docker(&["network", "create", "--subnet", "10.82.0.0/24", "b"]).ok();
    engine.docker(&["network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd81::/64", "six"]).ok();
    let on = |ends: [&str; 3]| ends.map(|end| format!("--network={end}"));
    let web = on(["name=a,ip=10.81.0.50", "name=b,ip=10.82.0.50", "name=six"]);
    sleeper(&engine, "web", &web.each_ref().map(String::as_str));
    for (client, priorities, expected) in [
        ("first", ["name=six,gw-priority=9", "name=a,gw-priority=5", "name=b,gw-priority=1"], "10.81.0.50"),
        ("second", ["name=six,gw-priority=9", "name=a,gw-priority=1", "name=b,gw-priority=5"], "10.82.0.50"),
    ] {
        sleeper(&engine, client, &on(priorities).each_ref().map(String::as_str));
        assert_eq!(addresses(&engine, client, "web"), [expected], "{priorities:?}");
    }
}

/// A client that looks at what others hide: what one question brings, in numbers.
const CLIENT: &str = r#"
import json, socket, struct, sys
name, kind, tcp, edns = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "tcp", int(sys.argv[4])
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
opt = b"\0" + struct.pack("!HHIH", 41, edns, 0, 0) if edns else b""
query = struct.pack("!6H", 77, 0x0100, 1, 0, 0, 1 if edns else 0) + labels + struct.pack("!2H", kind, 1) + opt
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
s.settimeout(3)
s.connect(("127.0.0.11", 53))
s.sendall(struct.pack("!H", len(query)) + query if tcp else query)
reply = s.recv(65535)
if tcp:
    while len(reply) < 2 + struct.unpack("!H", reply[:2])[0]:
        reply += s.recv(65535)
    reply = reply[2:]
_, flags, _, answers, authority, additional = struct.unpack("!6H", reply[:12])
at, ttl = 12 + len(labels) + 4, None
if answers:
    ttl = struct.unpack("!I", reply[at + 6:at + 10])[0]
print(json.dumps({"answers": answers, "cut": bool(flags & 0x200), "code": flags & 15, "ttl": ttl,
    "edns": b"\0\0\x29" in reply}))
"#;

#[test]
fn answers_are_honest_on_the_wire() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker's answers live for ten minutes");
    }
    engine.docker(&["network", "create", "--subnet", "10.85.0.0/24", "front"]).ok();
    sleeper(&engine, "asker", &["--network", "front"]);
    sleeper(&engine, "web", &["--network", "front"]);
    let ask = |name: &str, kind: &str, transport: &str, edns: &str| {
        let output = inside(&engine, "asker", &["python3", "-c", CLIENT, name, kind, transport, edns]);
        serde_json::from_str::<serde_json::Value>(output.ok()).expect("an answer")
    };
    for transport in ["udp", "tcp"] {
        let answer = ask("web", "1", transport, "0");
        assert_eq!((&answer["answers"], &answer["code"]), (&1.into(), &0.into()), "{transport}: {answer}");
        assert!(answer["ttl"].as_u64().is_some_and(|ttl| ttl <= 5), "small: {answer}");
        assert_eq!(answer["edns"], false);
        assert_eq!(ask("web", "1", transport, "1232")["edns"], true, "EDNS is answered by EDNS");
        // Known, but nothing of this kind: no error, and not somebody else's to answer.
        for kind in ["28", "15", "16"] {
            let none = ask("web", kind, transport, "0");
            assert_eq!((&none["answers"], &none["code"]), (&0.into(), &0.into()), "{kind}: {none}");
        }
    }
}

#[test]
fn services_and_wildcards_are_answered() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has no SRV records for containers and no wildcard aliases");
    }
    engine.docker(&["network", "create", "--subnet", "10.81.0.0/24", "front"]).ok();
    let flags = [
        "--network",
        "front",
        "--ip",
        "10.81.0.9",
        "--expose",
        "8080/tcp",
        "-p",
        "80",
        "--network-alias",
        "*.app",
    ];
    sleeper(&engine, "web", &flags);
    sleeper(&engine, "asker", &["--network", "front"]);
    for name in ["_80._tcp.web", "_http._tcp.web.front"] {
        has_line(ask(&engine, "asker", "srv", name).ok(), &["service = 0 0 80 web.front"]);
    }
    has_line(ask(&engine, "asker", "srv", "_8080._tcp.web").ok(), &["0 0 8080 web.front"]);
    assert!(!ask(&engine, "asker", "srv", "_81._tcp.web").stdout.contains("service ="));
    for name in ["x.app", "y.x.app", "x.app.front"] {
        assert_eq!(addresses(&engine, "asker", name), ["10.81.0.9"], "{name}");
    }
    assert_eq!(address(&engine, "asker", "app"), None);
}

/// CVE-2024-29018: the host's resolver is on its loopback, and an internal network must not reach it.
#[test]
fn nothing_leaves_an_internal_network() {
    let home = tempfile();
    let conf = home.join("resolv.conf");
    std::fs::write(&conf, "nameserver 127.0.0.9\n").expect("a file");
    let engine = Engine::builder().image("busybox").arg("--resolv-conf").arg(&conf);
    if portolan_testkit::EngineKind::from_env() != portolan_testkit::EngineKind::Portolan {
        skip!("dockerd reads the machine's own resolv.conf");
    }
    let engine = engine.start();
    let upstream = Upstream::start(engine.host(), &home, "127.0.0.9");
    let outside = Host::new("outside");
    engine.host().wire("up1", "198.51.100.2/24", &outside, "up0", "198.51.100.1/24");
    engine.host().sh("ip route add default via 198.51.100.1").ok();
    // No chatter of IPv6's own.
    for (host, end) in [(engine.host(), "up1"), (&outside, "up0")] {
        host.sh(&format!("echo 1 > /proc/sys/net/ipv6/conf/{end}/disable_ipv6")).ok();
    }
    let count = || {
        let devices = outside.sh("cat /proc/net/dev").ok().to_owned();
        let line = devices.lines().find_map(|line| line.trim().strip_prefix("up0:")).expect("the wire's end");
        line.split_whitespace().nth(1).and_then(|packets| packets.parse::<u64>().ok()).expect("a number")
    };
    engine.docker(&["network", "create", "--internal", "shut"]).ok();
    engine.docker(&["network", "create", "open"]).ok();
    sleeper(&engine, "caged", &["--network", "shut"]);
    sleeper(&engine, "free", &["--network", "open"]);
    sleeper(&engine, "named", &["--network", "shut", "--dns", "198.51.100.1"]);
    assert_eq!(address(&engine, "free", "control.example").as_deref(), Some("127.0.0.9"));
    let before = count();
    for name in ["secret.example", "web", "9.9.9.9", "_80._tcp.secret.example"] {
        for from in ["caged", "named"] {
            for kind in ["a", "aaaa", "ptr", "txt", "srv"] {
                let script = format!("timeout 1 nslookup -type={kind} {name} || true");
                engine.docker(&["exec", from, "sh", "-c", &script]).ok();
            }
        }
    }
    let asked = upstream.asked();
    assert!(asked.contains("control.example"), "the control did leave");
    assert!(!asked.contains("secret") && !asked.contains("9.9.9.9"), "nothing else did: {asked}");
    assert_eq!(count() - before, 0, "packets went out");
    engine.docker(&["network", "connect", "open", "caged"]).ok();
    assert_eq!(address(&engine, "caged", "now.example").as_deref(), Some("127.0.0.9"), "once it may");
    drop(engine);
    let _ = std::fs::remove_dir_all(&home);
}

fn tempfile() -> PathBuf {
    let home =
        PathBuf::from(format!("/tmp/pt-names-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&home).expect("a directory under /tmp");
    home
}

#[test]
fn the_host_s_resolvers_are_followed_as_they_change() {
    if portolan_testkit::EngineKind::from_env() != portolan_testkit::EngineKind::Portolan {
        skip!("Docker follows them at a container's start only");
    }
    let home = tempfile();
    let conf = home.join("resolv.conf");
    let nameserver = |address: &str| {
        let other = home.join("new.conf");
        std::fs::write(&other, format!("nameserver {address}\n")).expect("a file");
        std::fs::rename(&other, &conf).expect("the file is replaced");
    };
    nameserver("192.0.2.8");
    let mut engine = Engine::builder().image("busybox").arg("--resolv-conf").arg(&conf).start();
    engine.host().sh("ip address add 192.0.2.8 dev lo; ip address add 192.0.2.9 dev lo").ok();
    let _eight = Upstream::start(engine.host(), &home, "192.0.2.8");
    let _nine = Upstream::start(engine.host(), &home, "192.0.2.9");
    engine.docker(&["network", "create", "open"]).ok();
    sleeper(&engine, "named", &["--network", "open"]);
    sleeper(&engine, "plain", &[]);
    sleeper(&engine, "edited", &[]);
    engine.docker(&["exec", "edited", "sh", "-c", "echo '# mine' >> /etc/resolv.conf"]).ok();
    let cat = |engine: &Engine, name: &str| {
        engine.docker(&["exec", name, "cat", "/etc/resolv.conf"]).ok().to_owned()
    };
    assert_eq!(address(&engine, "named", "a.example").as_deref(), Some("192.0.2.8"));
    nameserver("192.0.2.9");
    eventually("the new resolver answers", 3, || {
        (address(&engine, "named", "b.example")? == "192.0.2.9").then_some(())
    });
    assert_eq!(
        address(&engine, "named", "a.example").as_deref(),
        Some("192.0.2.9"),
        "nor is the old one believed"
    );
    eventually("the copy follows", 3, || cat(&engine, "plain").contains("192.0.2.9").then_some(()));
    assert!(cat(&engine, "edited").contains("192.0.2.8"), "an edited one does not");

    // With no daemon the resolver follows all the same, and the copies once there is one.
    engine.kill_daemon();
    nameserver("192.0.2.8");
    engine.start_daemon();
    eventually("the copy catches up", 3, || cat(&engine, "plain").contains("192.0.2.8").then_some(()));
    eventually("the first one answers again", 3, || {
        (address(&engine, "named", "c.example")? == "192.0.2.8").then_some(())
    });
    drop(engine);
    let _ = std::fs::remove_dir_all(&home);
}

#[test]
fn names_outlive_the_daemon_and_the_resolver_comes_back() {
    let mut engine = Engine::builder().image("busybox").arg("--live-restore").start();
    if !is_portolan(&engine) {
        skip!("Docker's names are answered by the daemon itself");
    }
    engine.docker(&["network", "create", "front"]).ok();
    sleeper(&engine, "web", &["--network", "front"]);
    sleeper(&engine, "asker", &["--network", "front"]);
    let pid = portolan_e2e::inspect(&engine, "asker", "{{.State.Pid}}");
    let (done, lookup) = (Arc::new(AtomicBool::new(false)), vec!["nslookup", "-type=a", "web", "127.0.0.11"]);
    let stop = done.clone();
    // In the container's namespace, so that no client and no daemon is needed.
    let asking = std::thread::spawn(move || {
        let target = format!("--net=/proc/{pid}/ns/net");
        let (mut asked, mut failed) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            let words = [&["nsenter", target.as_str(), "--", "busybox"], lookup.as_slice()].concat();
            asked += 1;
            failed += i32::from(!run(&words, None).stdout.contains("Name:"));
        }
        (asked, failed)
    });
    for _ in 0..2 {
        engine.kill_daemon();
        engine.start_daemon();
        engine.stop_daemon();
        std::thread::sleep(Duration::from_millis(300));
        engine.start_daemon();
    }
    done.store(true, Ordering::Relaxed);
    let (asked, failed) = asking.join().expect("the asker ends");
    assert!(asked > 50 && failed == 0, "{failed} of {asked} look-ups failed while the daemon was away");

    let before = resolver(&engine).expect("a resolver runs");
    run(&["kill", "-9", &before.to_string()], None).ok();
    let since = Instant::now();
    let lookup = ["timeout", "0.2", "busybox", "nslookup", "-type=a", "web", "127.0.0.11"];
    eventually("names are back", 3, || {
        inside(&engine, "asker", &lookup).stdout.contains("Name:").then_some(())
    });
    assert!(since.elapsed() < Duration::from_secs(1), "healed after {:?}", since.elapsed());
    assert_ne!(resolver(&engine), Some(before));
    sleeper(&engine, "late", &["--network", "front"]);
    assert!(address(&engine, "asker", "late").is_some());
}

#[test]
fn a_network_s_resolvers_change_while_it_is_used() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker's networks have no resolvers of their own");
    }
    let home = tempfile();
    engine
        .docker(&["network", "create", "--subnet", "10.82.0.0/24", "-o", "portolan.dns=10.82.0.1", "front"])
        .ok();
    engine.host().sh("ip address add 203.0.113.5 dev lo").ok();
    let gateway = Upstream::start(engine.host(), &home, "10.82.0.1");
    let other = Upstream::start(engine.host(), &home, "203.0.113.5");
    sleeper(&engine, "web", &["--network", "front"]);
    assert_eq!(address(&engine, "web", "a.example").as_deref(), Some("10.82.0.1"));
    let update = |words: &[&str]| {
        let socket = format!("unix://{}", engine.socket().display());
        let program = Client::Portolan.program();
        let program = program.to_string_lossy();
        run(&[&[&*program, "--host", &socket, "network", "update"], words].concat(), None)
    };
    let since = engine.host().sh("date +%s.%N").ok().to_owned();
    update(&["--dns-drop", "10.82.0.1", "--dns-add", "203.0.113.5", "front"]).ok();
    let until = engine.host().sh("date +%s.%N").ok().to_owned();
    let told = engine.docker(&["events", "--since", &since, "--until", &until]);
    has_line(told.ok(), &["network update", "name=front"]);
    assert_eq!(address(&engine, "web", "b.example").as_deref(), Some("203.0.113.5"));
    assert_eq!(
        address(&engine, "web", "a.example").as_deref(),
        Some("203.0.113.5"),
        "the cache is another's"
    );
    assert!(!gateway.asked().contains("b.example") && other.asked().contains("b.example"));
    has_line(update(&["--dns-drop", "10.82.0.1", "front"]).fails(), &["no DNS server 10.82.0.1"]);
    has_line(update(&["--dns-add", "dns.example", "front"]).fails(), &["dns.example"]);
    has_line(update(&["front"]).fails(), &["--dns-add"]);
    has_line(update(&["--dns-add", "203.0.113.5", "bridge"]).fails(), &["bridge has no names"]);
    let options = engine.docker(&["network", "inspect", "-f", "{{json .Options}}", "front"]);
    assert!(options.ok().contains("203.0.113.5"), "{}", options.stdout);
    sleeper(&engine, "own", &["--network", "front", "--dns", "10.82.0.1"]);
    assert_eq!(address(&engine, "own", "c.example").as_deref(), Some("10.82.0.1"), "--dns goes first");
    drop(engine);
    let _ = std::fs::remove_dir_all(&home);
}

#[test]
fn the_default_bridge_and_the_host_have_names_if_the_daemon_is_told_so() {
    if portolan_testkit::EngineKind::from_env() != portolan_testkit::EngineKind::Portolan {
        skip!("Docker has neither");
    }
    let flags = ["--default-bridge-names", "--host-names=127.0.0.54"];
    let builder = flags.iter().fold(Engine::builder().image("busybox"), |builder, flag| builder.arg(flag));
    let mut engine = builder.start();
    engine.docker(&["network", "create", "--subnet", "10.83.0.0/24", "front"]).ok();
    sleeper(&engine, "one", &[]);
    sleeper(&engine, "two", &[]);
    sleeper(&engine, "web", &["--network", "front", "--ip", "10.83.0.9"]);
    assert_eq!(address(&engine, "one", "two").as_deref(), Some("172.17.0.3"));
    assert_eq!(address(&engine, "one", "web"), None, "not across networks");
    let host = |name: &str| engine.host().run(&["busybox", "nslookup", "-type=a", name, "127.0.0.54"]).all();
    has_line(&host("web.front.portolan.internal"), &["Address: 10.83.0.9"]);
    has_line(&host("one.bridge.portolan.internal"), &["Address: 172.17.0.2"]);
    assert!(host("nosuch.front.portolan.internal").contains("NXDOMAIN"));
    assert!(host("example.org").contains("REFUSED"), "it is no resolver for anything else");
    engine.kill_daemon();
    let away =
        engine.host().run(&["busybox", "nslookup", "-type=a", "web.front.portolan.internal", "127.0.0.54"]);
    has_line(&away.all(), &["Address: 10.83.0.9"]);
    engine.start_daemon();
}

#[test]
fn what_is_not_healthy_leaves_the_answer_to_others() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker's names do not know about health");
    }
    engine.docker(&["network", "create", "--subnet", "10.84.0.0/24", "front"]).ok();
    let check = ["--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries", "1"];
    let flags = |ip: &'static str| {
        [&["--network", "front", "--network-alias", "svc", "--ip", ip], check.as_slice()].concat()
    };
    sleeper(&engine, "one", &flags("10.84.0.11"));
    sleeper(&engine, "two", &flags("10.84.0.12"));
    assert_eq!(addresses(&engine, "one", "svc").len(), 2, "none is healthy yet: all are told");
    engine.docker(&["exec", "one", "touch", "/ok"]).ok();
    eventually("the healthy one alone", 5, || {
        (addresses(&engine, "two", "svc") == ["10.84.0.11"]).then_some(())
    });
    engine.docker(&["exec", "two", "touch", "/ok"]).ok();
    eventually("both again", 5, || (addresses(&engine, "two", "svc").len() == 2).then_some(()));
    engine.docker(&["exec", "one", "rm", "/ok"]).ok();
    eventually("the other alone", 5, || (addresses(&engine, "two", "svc") == ["10.84.0.12"]).then_some(()));
}
