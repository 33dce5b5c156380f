//! Ports that come and go while a container runs, and who may use them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use portolan_e2e::{eventually, has_line, hear, inspect, is_portolan, portolan, run_server};
use portolan_testkit::{Engine, EngineKind, Host, run, skip};

#[test]
fn ports_of_a_running_container_come_and_go_and_stay_over_restarts() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker publishes at creation only");
    }
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    run_server(&engine, "web", 7000, "hello", &["-p", "8000:7000"]);
    let heard = |port: u16| hear(&outside, "198.51.100.2", port);
    eventually("the first port answers", 10, || (heard(8000) == "hello").then_some(()));
    assert_eq!(heard(8001), "");
    portolan(&engine, &["port", "add", "web", "8001:7000"]).ok();
    eventually("the second too", 5, || (heard(8001) == "hello").then_some(()));
    has_line(engine.docker(&["port", "web"]).ok(), &["7000/tcp -> 0.0.0.0:8001"]);
    portolan(&engine, &["port", "move", "web", "8001", "8009"]).ok();
    assert_eq!(heard(8001), "", "it has moved");
    eventually("it answers where it is now", 5, || (heard(8009) == "hello").then_some(()));
    has_line(
        portolan(&engine, &["port", "move", "web", "8001", "8002"]).fails(),
        &["does not publish host port 8001/tcp"],
    );
    portolan(&engine, &["port", "rm", "web", "8000"]).ok();
    assert_eq!(heard(8000), "", "unpublished");
    has_line(
        portolan(&engine, &["port", "rm", "web", "8000"]).fails(),
        &["does not publish host port 8000/tcp"],
    );
    // What was added, removed and moved stays so, whatever starts again.
    let published = |engine: &Engine| engine.docker(&["port", "web"]).ok().to_owned();
    let before = published(&engine);
    assert!(before.contains(":8009") && !before.contains(":8000") && !before.contains(":8001"), "{before}");
    engine.kill_daemon();
    engine.start_daemon();
    eventually("over the daemon's death", 10, || (heard(8009) == "hello").then_some(()));
    assert_eq!((heard(8000).as_str(), heard(8001).as_str()), ("", ""));
    assert_eq!(published(&engine), before);
    engine.docker(&["restart", "-t", "0", "web"]).ok();
    eventually("over its own restart", 10, || (heard(8009) == "hello").then_some(()));
    assert_eq!((heard(8000).as_str(), heard(8001).as_str()), ("", ""));
    assert_eq!(published(&engine), before);
    engine.docker(&["run", "-d", "--name", "other", "-p", "8000:80", "busybox", "sleep", "600"]).ok();
    has_line(
        portolan(&engine, &["port", "add", "web", "8000:7000"]).fails(),
        &["port is already allocated", "other"],
    );
    engine.docker(&["stop", "-t", "0", "web"]).ok();
    portolan(&engine, &["port", "add", "web", "8003:7000"]).ok();
    engine.kill_daemon();
    engine.start_daemon();
    engine.docker(&["start", "web"]).ok();
    eventually("added while it was stopped", 10, || (heard(8003) == "hello").then_some(()));
}

/// Counts what becomes of connections to an address and port for so many seconds.
const HAMMER: &str = "
import socket, sys, time
address, port, end = sys.argv[1], int(sys.argv[2]), time.time() + float(sys.argv[3])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
answered = refused = 0
others = []
print('ready', flush=True)
while time.time() < end:
    s = socket.socket(family); s.settimeout(3)
    try:
        s.connect((address, port))
        s.sendall(b'x')
        assert s.recv(9) == b'x'
        answered += 1
    except ConnectionRefusedError: refused += 1
    except (OSError, AssertionError) as error: others.append(repr(error))
    s.close()
print('answered' if answered > 9 else answered, 'refused' if refused > 9 else refused, others, flush=True)
";

/// Whoever gets through is served: there is no moment in which somebody takes a connection and drops it.
#[test]
fn a_port_that_comes_and_goes_answers_or_refuses() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker publishes at creation only");
    }
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    engine.docker(&["run", "-d", "--name", "web", "busybox", "sleep", "600"]).ok();
    let mut server = Script::in_container(&engine, "web", ECHO, &[]);
    assert_eq!(server.line(), "ready");
    let mut client = Script::in_host(&outside, HAMMER, &["198.51.100.2", "8001", "4"]);
    assert_eq!(client.line(), "ready");
    for _ in 0..20 {
        portolan(&engine, &["port", "add", "web", "8001:7000"]).ok();
        std::thread::sleep(Duration::from_millis(30));
        portolan(&engine, &["port", "rm", "web", "8001"]).ok();
    }
    assert_eq!(client.line(), "answered refused []");
}

/// The same where the engine accepts itself, by IPv6 to a container without it: the container is asked first.
#[test]
fn a_carried_connection_is_an_answer_or_a_refusal() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("docker-proxy accepts before it asks");
    }
    if portolan(&engine, &["doctor"]).stdout.contains("queue of packets") {
        skip!("this kernel queues no packets");
    }
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    outside.sh("ip address add 2001:db8::1/64 dev up0 nodad").ok();
    engine.host().sh("ip address add 2001:db8::2/64 dev up1 nodad").ok();
    let ports = ["-p", "8001:7000", "-p", "8002:7999"];
    engine.docker(&[&["run", "-d", "--name", "web"], &ports[..], &["busybox", "sleep", "600"]].concat()).ok();
    let mut server = Script::in_container(&engine, "web", ECHO, &[]);
    assert_eq!(server.line(), "ready");
    let refused = |engine: &Engine| {
        for (host, address) in [(engine.host(), "::1"), (&outside, "2001:db8::2")] {
            let mut tried = Script::in_host(host, TRY, &[address, "8002"]);
            assert_eq!(tried.line(), "ConnectionRefusedError", "nobody listens there: {address}");
        }
    };
    refused(&engine);

    // A listener that comes and goes, but for the connections that its going would end.
    let mut clients = [(engine.host(), "::1"), (&outside, "2001:db8::2")]
        .map(|(host, address)| Script::in_host(host, HAMMER, &[address, "8001", "4"]));
    clients.iter_mut().for_each(|client| assert_eq!(client.line(), "ready"));
    let inside = format!("nsenter --net=/proc/{}/ns/net", inspect(&engine, "web", "{{.State.Pid}}"));
    for _ in 0..20 {
        let goes = "table inet t { chain c { type filter hook input priority 0; \
                    tcp dport 7000 tcp flags syn reject with tcp reset; }; }";
        engine.host().sh(&format!("{inside} nft '{goes}'")).ok();
        std::thread::sleep(Duration::from_millis(40));
        engine.host().sh(&format!("{inside} nft delete table inet t")).ok();
        std::thread::sleep(Duration::from_millis(40));
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.line(), "answered refused []"));

    // Nobody is accepted while no daemon runs, and whoever asks meanwhile hears of the next one.
    engine.kill_daemon();
    let meanwhile = |port| Script::in_host(&outside, TRY, &["2001:db8::2", port]);
    let (mut answered, mut turned_away) = (meanwhile("8001"), meanwhile("8002"));
    std::thread::sleep(Duration::from_millis(300));
    engine.start_daemon();
    assert_eq!(answered.line(), "b'x'");
    assert_eq!(turned_away.line(), "ConnectionRefusedError");
    refused(&engine);
}

#[test]
fn a_port_for_some_is_closed_to_others() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has no allow-lists");
    }
    let host = engine.host();
    let (friend, stranger) = (Host::new("friend"), Host::new("stranger"));
    friend.wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    stranger.wire("up0", "203.0.113.1/24", host, "up2", "203.0.113.2/24");
    let label = "portolan.publish.from.7000=198.51.100.0/24";
    run_server(&engine, "web", 7000, "hello", &["-p", "8000:7000", "--label", label]);
    eventually("a friend is let in", 10, || (hear(&friend, "198.51.100.2", 8000) == "hello").then_some(()));
    assert_eq!(hear(&stranger, "203.0.113.2", 8000), "", "a stranger is not");
    // By the other family, too, where the engine carries connections over: refused, not accepted and reset.
    for (host, address) in [(&friend, "2001:db8:1::1/64"), (&stranger, "2001:db8:2::1/64")] {
        host.sh(&format!("ip address add {address} dev up0 nodad")).ok();
    }
    host.sh("ip address add 2001:db8:1::2/64 dev up1 nodad; ip address add 2001:db8:2::2/64 dev up2 nodad")
        .ok();
    portolan(&engine, &["port", "add", "--from", "2001:db8:1::/64", "web", "8002:7000"]).ok();
    eventually("a friend is let in", 5, || (hear(&friend, "[2001:db8:1::2]", 8002) == "hello").then_some(()));
    let mut tried = Script::in_host(&stranger, TRY, &["2001:db8:2::2", "8002"]);
    assert_eq!(tried.line(), "ConnectionRefusedError");
    portolan(&engine, &["port", "add", "--from", "203.0.113.1", "web", "8001:7000"]).ok();
    eventually("nor the other way", 5, || (hear(&stranger, "203.0.113.2", 8001) == "hello").then_some(()));
    assert_eq!(hear(&friend, "198.51.100.2", 8001), "");
    // What would be open to everybody in spite of what it says is refused.
    for (label, words) in [
        ("portolan.publish.from.8002=10.0.0.0/8", "8002 is a port of the host"),
        ("portolan.publish.from.81/tcp=10.0.0.0/8", "does not publish that port"),
    ] {
        let made = engine.docker(&["create", "-p", "8002:80", "--label", label, "busybox", "true"]);
        has_line(made.fails(), &["would limit nothing", words]);
    }
    let body = r#"{"Add":{"80/tcp":[{"HostPort":"8002","Sources":["10.0.0.0/8"]}]}}"#;
    has_line(&post(&engine, "/portolan/containers/web/ports", body), &["Sources", "From"]);
    let shown = portolan(&engine, &["exposure"]);
    has_line(
        shown.ok(),
        &["0.0.0.0:8001/tcp", "web", "172.17.0.2:7000", "every interface", "203.0.113.1/32"],
    );
    has_line(shown.ok(), &["[::]:8001/tcp", "nobody", " - ", "no source of this family"]);
}

/// What the engine answers to a request.
fn post(engine: &Engine, path: &str, body: &str) -> String {
    let socket = engine.socket().display().to_string();
    let url = format!("http://engine{path}");
    let head =
        ["curl", "-sS", "-X", "POST", "--unix-socket", &socket, "-H", "Content-Type: application/json"];
    run(&[&head, ["-d", body, &url].as_slice()].concat(), None).ok().to_owned()
}

#[test]
fn what_is_closed_stays_closed() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker publishes at creation only");
    }
    let start = |name: &str, flags: &[&str]| {
        let head = ["run", "-d", "--name", name];
        engine.docker(&[&head, flags, &["busybox", "sleep", "600"]].concat()).ok();
    };
    // The numbers of its ports on the host, sorted, as they are after it has started again.
    let ports = |name: &str| {
        engine.docker(&["restart", "-t", "0", name]).ok();
        let listed = engine.docker(&["port", name]);
        let of_line = |line: &str| line.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        let mut ports: Vec<u16> = listed.ok().lines().filter_map(of_line).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    start("some", &["-p", "80", "-p", "8200:80", "-p", "8203-8209:80", "-p", "8205:80"]);
    portolan(&engine, &["port", "rm", "some", "8200", "8205"]).ok();
    has_line(
        portolan(&engine, &["port", "rm", "some", "8207"]).fails(),
        &["does not publish host port 8207/tcp"],
    );
    let [range, ephemeral] = ports("some")[..] else { panic!("two are left") };
    assert!(range == 8203 && ephemeral >= 1024, "{range} {ephemeral}");
    start("all", &["-P", "--expose", "80", "--expose", "81"]);
    let published = engine.docker(&["port", "all", "80"]);
    let port =
        published.ok().lines().next().and_then(|line| line.rsplit_once(':')).expect("it is published").1;
    portolan(&engine, &["port", "rm", "all", port]).ok();
    assert_eq!(ports("all").len(), 1);
    has_line(engine.docker(&["port", "all"]).ok(), &["81/tcp -> "]);
    start("both", &["-p", "127.0.0.1:8220:80", "-p", "127.0.0.2:8220:80", "-p", "8240-8242:90-92"]);
    portolan(&engine, &["port", "move", "both", "8220", "8221"]).ok();
    portolan(&engine, &["port", "rm", "both", "127.0.0.1:8221", "8240-8241"]).ok();
    portolan(&engine, &["port", "move", "both", "8242", "127.0.0.1:8242"]).ok();
    assert_eq!(ports("both"), [8221, 8242]);
    for line in ["80/tcp -> 127.0.0.2:8221", "92/tcp -> 127.0.0.1:8242"] {
        has_line(engine.docker(&["port", "both"]).ok(), &[line]);
    }
    // The whole set, in Docker's own words; without it nothing changes.
    let update = |body: &str| {
        assert_eq!(post(&engine, "/containers/both/update", body).trim(), r#"{"Warnings":null}"#)
    };
    update(
        r#"{"PortBindings":{"80/tcp":[{"HostPort":"8242"}],"92/tcp":[{"HostIp":"127.0.0.2","HostPort":"8221"}]}}"#,
    );
    update(r#"{"PortBindings":null,"RestartPolicy":{"Name":"no"}}"#);
    engine.docker(&["update", "--restart", "no", "both"]).ok();
    assert_eq!(ports("both"), [8221, 8242]);
    for line in ["80/tcp -> 0.0.0.0:8242", "92/tcp -> 127.0.0.2:8221"] {
        has_line(engine.docker(&["port", "both"]).ok(), &[line]);
    }
    update(r#"{"PortBindings":{}}"#);
    assert!(ports("both").is_empty());
}

/// A script of the machine's python3 in a network namespace, which is told and tells line by line.
struct Script {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Script {
    fn start(prefix: &[String], script: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args(["python3", "-c", script]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 runs");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    fn in_container(engine: &Engine, name: &str, script: &str, arguments: &[&str]) -> Self {
        let netns = format!("--net=/proc/{}/ns/net", inspect(engine, name, "{{.State.Pid}}"));
        Self::start(&["nsenter".into(), netns, "--".into()], script, arguments)
    }

    fn in_host(host: &Host, script: &str, arguments: &[&str]) -> Self {
        let prefix: Vec<String> =
            host.prefix().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        Self::start(&prefix, script, arguments)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it speaks");
        line.trim().to_owned()
    }

    fn go_on(&mut self) -> String {
        self.child.stdin.as_mut().expect("it is piped").write_all(b"go\n").expect("it listens");
        self.line()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Gone already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ECHO: &str = "
import socket, threading
s = socket.socket(); s.bind(('', 7000)); s.listen(8)
print('ready', flush=True)
def serve(c):
    while (d := c.recv(64)): c.sendall(d)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

/// One connection, used once a line.
const TALK: &str = "
import socket, sys
c = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
while True:
    try:
        c.sendall(b'x'); print('alive' if c.recv(1) else 'ended', flush=True)
    except OSError as e: print('ended', flush=True)
    sys.stdin.readline()
";

/// What a connection says, or how it fails.
const TRY: &str = "
import socket, sys
try:
    c = socket.create_connection((sys.argv[1], int(sys.argv[2])), 15)
    c.sendall(b'x'); print(c.recv(1))
except OSError as e: print(type(e).__name__)
";

#[test]
fn connections_of_a_port_that_goes_are_kept_or_cut() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker unpublishes at the end only");
    }
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    engine.docker(&["run", "-d", "--name", "web", "-p", "8000:7000", "busybox", "sleep", "600"]).ok();
    let mut server = Script::in_container(&engine, "web", ECHO, &[]);
    assert_eq!(server.line(), "ready");
    let mut client = Script::in_host(&outside, TALK, &["198.51.100.2", "8000"]);
    assert_eq!(client.line(), "alive");
    portolan(&engine, &["port", "move", "web", "8000", "8001"]).ok();
    assert_eq!(client.go_on(), "alive", "kept");
    let mut other = Script::in_host(&outside, TALK, &["198.51.100.2", "8001"]);
    assert_eq!(other.line(), "alive");
    portolan(&engine, &["port", "rm", "--cut", "web", "8001"]).ok();
    assert_eq!(other.go_on(), "ended", "cut");
    assert_eq!(client.go_on(), "alive", "it came by another port");

    // The same of connections that the engine carries over.
    portolan(&engine, &["port", "add", "web", "8002:7000"]).ok();
    let mut carried = Script::in_host(engine.host(), TALK, &["::1", "8002"]);
    assert_eq!(carried.line(), "alive");
    portolan(&engine, &["port", "move", "web", "8002", "8003"]).ok();
    assert_eq!(carried.go_on(), "alive", "kept");
    let mut cut = Script::in_host(engine.host(), TALK, &["::1", "8003"]);
    let mut left = Script::in_host(engine.host(), TALK, &["::1", "8003"]);
    assert_eq!((cut.line().as_str(), left.line().as_str()), ("alive", "alive"));
    portolan(&engine, &["port", "rm", "--cut", "web", "8003"]).ok();
    assert_eq!((cut.go_on().as_str(), left.go_on().as_str()), ("ended", "ended"), "cut");
    assert_eq!(carried.go_on(), "alive", "it came by another port");
    engine.docker(&["rm", "-f", "web"]).ok();
    assert_eq!(carried.go_on(), "ended", "with its container");
}

const ANSWER: &str = "
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5000))
print('ready', flush=True)
while True:
    d, who = s.recvfrom(64); s.sendto(sys.argv[1].encode(), who)
";

/// One socket that never rests; tells who answers whenever that changes.
const ASK: &str = "
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], int(sys.argv[2]))); s.settimeout(0.05)
last, end = '', time.monotonic() + 60
while time.monotonic() < end:
    try:
        s.send(b'?'); who = s.recv(64).decode()
        if who != last: print(who, flush=True); last = who
    except OSError: pass
";

/// What a client of this host says by one of its addresses, TCP and UDP.
fn asks(host: &Host, address: &str, tcp: u16, udp: u16) -> (String, String) {
    let stream = format!("echo x | socat -t 2 -T 2 - TCP:{address}:{tcp},connect-timeout=2");
    let datagram = format!("echo x | socat -t 1 -T 1 - UDP:{address}:{udp}");
    let said = |line: String| host.run(&["sh", "-c", &line]).stdout.trim().to_owned();
    (said(stream), said(datagram))
}

#[test]
fn ipv6_loopback_and_ipv6_clients_of_an_ipv4_container_are_served() {
    if EngineKind::from_env() == EngineKind::Docker {
        skip!("Debian's dockerd answers from the wrong address");
    }
    // As without the flag.
    let engine = Engine::builder().arg("--ip=any").image("busybox").start();
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    outside.sh("ip address add 2001:db8::1/64 dev up0 nodad").ok();
    engine.host().sh("ip address add 2001:db8::2/64 dev up1 nodad").ok();
    engine.docker(&["network", "create", "--ipv6", "--subnet", "fd77::/64", "dual"]).ok();
    for (number, network) in [(1_u16, "bridge"), (2, "dual")] {
        let name = format!("on-{network}");
        let (tcp, udp) = (8000 + number, 5000 + number);
        let (tcp_flag, udp_flag) = (format!("{tcp}:7000"), format!("{udp}:5000/udp"));
        let flags = ["run", "-d", "--name", &name, "--network", network, "-p", &tcp_flag, "-p", &udp_flag];
        engine.docker(&[flags.as_slice(), &["busybox", "sleep", "600"]].concat()).ok();
        let mut servers = [
            Script::in_container(&engine, &name, &ECHO.replace("socket.socket()", DUAL), &[]),
            Script::in_container(
                &engine,
                &name,
                &ANSWER.replace("(socket.AF_INET, ", "(socket.AF_INET6, "),
                &["y"],
            ),
        ];
        servers.iter_mut().for_each(|server| assert_eq!(server.line(), "ready"));
        let served = ("x".to_owned(), "y".to_owned());
        for address in ["127.0.0.1", "[::1]", "[2001:db8::2]"] {
            assert_eq!(asks(engine.host(), address, tcp, udp), served, "by {address}, {network}");
        }
        for address in ["198.51.100.2", "[2001:db8::2]"] {
            assert_eq!(asks(&outside, address, tcp, udp), served, "by {address}, {network}");
        }
    }
}

const DUAL: &str = "socket.socket(socket.AF_INET6)";

#[test]
fn the_default_host_address_can_be_loopback() {
    if EngineKind::from_env() == EngineKind::Docker {
        skip!("Docker takes one address");
    }
    let engine = Engine::builder().arg("--ip=loopback").image("busybox").start();
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    run_server(&engine, "web", 7000, "hello", &["-p", "8000:7000", "-p", "198.51.100.2:8001:7000"]);
    let lines = engine.docker(&["port", "web"]);
    has_line(lines.ok(), &["7000/tcp -> 127.0.0.1:8000"]);
    has_line(lines.ok(), &["7000/tcp -> [::1]:8000"]);
    eventually("asked for", 10, || (hear(&outside, "198.51.100.2", 8001) == "hello").then_some(()));
    eventually("it answers", 10, || (hear(engine.host(), "127.0.0.1", 8000) == "hello").then_some(()));
    eventually("by IPv6 too", 10, || (hear(engine.host(), "[::1]", 8000) == "hello").then_some(()));
    assert_eq!(hear(&outside, "198.51.100.2", 8000), "");
}

/// moby#53384 and its like: a flow of datagrams that does not pause follows its port to the new holder.
#[test]
fn datagrams_follow_a_port_that_changes_hands() {
    if EngineKind::from_env() == EngineKind::Docker && !EngineKind::is_old() {
        skip!("with Docker 28 they go on to where the old holder was: it is the issue");
    }
    let engine = Engine::start();
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    let mut client = Script::in_host(&outside, ASK, &["198.51.100.2", "5000"]);
    let mut hold = Vec::new();
    for name in ["first", "second", "third"] {
        // Each has another address.
        engine.docker(&["run", "-d", "--name", &format!("{name}-pad"), "busybox", "sleep", "600"]).ok();
        let flags = ["run", "-d", "--name", name, "-p", "5000:5000/udp", "busybox", "sleep", "600"];
        engine.docker(&flags).ok();
        let mut server = Script::in_container(&engine, name, ANSWER, &[name]);
        assert_eq!(server.line(), "ready");
        assert_eq!(client.line(), name);
        hold.push(server);
        engine.docker(&["rm", "-f", name]).ok();
    }
}
