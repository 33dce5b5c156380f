//! Self-healing: what strangers do to the host's networking is put right, and nothing opens meanwhile.

use std::time::{Duration, Instant};

use portolan_e2e::attack::{ATTACKER, python, ready, said};
use portolan_e2e::{eventually, has_line, hear, inspect, is_portolan, resolver, run_server};
use portolan_testkit::{Engine, EngineKind, Firewall, Host, skip};

fn metric(engine: &Engine, name: &str) -> f64 {
    let socket = engine.socket().display().to_string();
    let page = engine.host().run(&["curl", "-s", "--unix-socket", &socket, "http://portolan/metrics"]);
    let line = page.stdout.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(-1.0)
}

fn veth(engine: &Engine) -> String {
    engine.host().sh("ip -o link | grep -o 'veth[0-9a-f]*' | head -1").ok().trim().to_owned()
}

#[test]
fn what_a_stranger_breaks_is_put_right() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker does not heal");
    }
    let host = engine.host();
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    run_server(&engine, "server", 7000, "hello", &["-p", "8000:7000"]);
    let works = || (hear(&outside, "198.51.100.2", 8000) == "hello").then_some(());
    eventually("it works before", 10, works);
    let since = host.sh("date +%s").ok().to_owned();
    let breaks = [
        "ip link set docker0 down",
        "ip address del 172.17.0.1/16 dev docker0",
        "ip link set VETH nomaster",
        "ip link set VETH down",
        "ip link del docker0",
        "ip link del VETH",
        "ip link set docker0 down; ip link set docker0 name stolen0",
        "sysctl -qw net.ipv4.ip_forward=0",
        "nft flush ruleset",
    ];
    for line in breaks {
        let line = line.replace("VETH", &veth(&engine));
        host.sh(&line).ok();
        eventually(&format!("it works again after {line:?}"), 5, works);
    }
    assert!(!host.sh("ip -o link").ok().contains("stolen0"), "it has one bridge");
    assert!(metric(&engine, "portolan_heal_repairs_total{what=\"link\"}") >= 5.0);
    assert!(metric(&engine, "portolan_heal_repairs_total{what=\"address\"}") >= 1.0);
    assert!(metric(&engine, "portolan_heal_repairs_total{what=\"setting\"}") >= 1.0);
    assert!(metric(&engine, "portolan_heal_failures_total").abs() < f64::EPSILON);
    let until = host.sh("echo $(($(date +%s) + 1))").ok().to_owned();
    let told = engine.docker(&["events", "--since", &since, "--until", &until]);
    has_line(told.ok(), &["daemon repair", "link set docker0 up"]);
}

/// Each is done, and soon after the check succeeds again. `VETH` is the container's link.
const SMALL_BREAKS: [(&str, &str); 22] = [
    ("ip route del 172.30.0.0/24 dev br-n1", "ip route | grep '^172.30.0.0/24 dev br-n1 proto kernel'"),
    ("ip -6 route del fd00:30::/64 dev br-n1", "ip -6 route | grep '^fd00:30::/64 dev br-n1 proto kernel'"),
    (
        "ip link set VETH alias x; ip link set VETH down",
        "ip link show VETH | grep 'alias portolan:' && ip link show VETH | grep -w UP",
    ),
    (
        "ip link set VETH alias ''; ip link set VETH down",
        "ip link show VETH | grep 'alias portolan:' && ip link show VETH | grep -w UP",
    ),
    ("ip link set VETH netns OTHER", "ip link show VETH | grep 'master br-n1'"),
    ("ip link set br-n1 alias ''", "ip link show br-n1 | grep 'alias portolan:'"),
    (
        "ip link set VETH mtu 1400",
        "ip link show VETH | grep 'mtu 1500' && ip link show br-n1 | grep 'mtu 1500'",
    ),
    ("ip link set br-n1 mtu 1300", "ip link show br-n1 | grep 'mtu 1500'"),
    ("ip link set br-n1 address 02:11:22:33:44:55", "ip link show br-n1 | grep '02:50:'"),
    ("ip link set br-n1 type bridge stp_state 1", "ip -d link show br-n1 | grep 'stp_state 0'"),
    ("bridge link set dev VETH isolated on", "bridge -d link show dev VETH | grep 'isolated off'"),
    ("bridge link set dev VETH learning off", "bridge -d link show dev VETH | grep 'learning on'"),
    ("bridge link set dev VETH flood off", "bridge -d link show dev VETH | grep ' flood on'"),
    ("bridge link set dev VETH bcast_flood off", "bridge -d link show dev VETH | grep 'bcast_flood on'"),
    ("bridge link set dev VETH mcast_flood off", "bridge -d link show dev VETH | grep 'mcast_flood on'"),
    (
        "bridge link set dev VETH neigh_suppress on",
        "bridge -d link show dev VETH | grep 'neigh_suppress off'",
    ),
    ("bridge link set dev VETH state 0", "bridge -d link show dev VETH | grep 'state forwarding'"),
    ("sysctl -qw net.ipv4.conf.br-n1.forwarding=0", "sysctl -n net.ipv4.conf.br-n1.forwarding | grep 1"),
    ("sysctl -qw net.ipv6.conf.br-n1.forwarding=0", "sysctl -n net.ipv6.conf.br-n1.forwarding | grep 1"),
    (
        "sysctl -qw net.ipv4.conf.br-n1.route_localnet=0",
        "sysctl -n net.ipv4.conf.br-n1.route_localnet | grep 1",
    ),
    ("sysctl -qw net.ipv6.conf.br-n1.accept_ra=1", "sysctl -n net.ipv6.conf.br-n1.accept_ra | grep 0"),
    (
        "ip link set br-n1 alias ''; ip link set br-n1 name hid0",
        "ip link show br-n1 | grep -w UP && ! ip link show hid0 && ip -o link show master br-n1 | grep veth",
    ),
];

/// All within a fraction of the ten seconds after which everything is looked at anyway.
#[test]
fn small_changes_of_links_and_settings_are_put_right_at_once() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker does not heal");
    }
    let (host, other) = (engine.host(), Host::new("other"));
    let name = ["-o", "com.docker.network.bridge.name=br-n1"];
    let subnets = ["--ipv6", "--subnet", "172.30.0.0/24", "--subnet", "fd00:30::/64"];
    engine.docker(&[&["network", "create", "n1"], name.as_slice(), &subnets].concat()).ok();
    engine.docker(&["run", "-d", "--name", "one", "--network", "n1", "busybox", "sleep", "600"]).ok();
    let pid = other.sh("sleep 600 >/dev/null 2>&1 & echo $!").ok().trim().to_owned();
    let mut slowest = Duration::ZERO;
    for (line, check) in SMALL_BREAKS {
        let line = line.replace("VETH", &veth(&engine)).replace("OTHER", &pid);
        let check = check.replace("VETH", &veth(&engine));
        host.sh(&line).ok();
        let begun = Instant::now();
        let healed = || (host.sh(&check).code == 0).then_some(());
        eventually(&format!("{check:?} holds after {line:?}"), 10, healed);
        slowest = slowest.max(begun.elapsed());
    }
    other.sh(&format!("kill {pid}")).ok();
    // An address of the host's own takes a container's packets.
    host.sh("ip address add 172.30.0.2/32 dev lo").ok();
    let events = || {
        let until = host.sh("echo $(($(date +%s) + 1))").ok().to_owned();
        engine.docker(&["events", "--since", "10m", "--until", &until]).stdout
    };
    eventually("it is told", 5, || {
        let overlaps = |line: &str| line.contains("network overlap ") && line.contains("route=172.30.0.2/32");
        events().lines().any(overlaps).then_some(())
    });
    let socket = engine.socket().display().to_string();
    let doctor = host.run(&["curl", "-s", "--unix-socket", &socket, "http://x/portolan/doctor"]).stdout;
    assert!(doctor.contains("172.30.0.2 is led away from network n1"), "{doctor}");
    host.sh("ip address del 172.30.0.2/32 dev lo").ok();
    assert!(slowest < Duration::from_secs(4), "the slowest took {slowest:?}");
    let pings =
        || (engine.docker(&["exec", "one", "ping", "-c1", "-W1", "172.30.0.1"]).code == 0).then_some(());
    eventually("the container reaches its gateway", 10, pings);
    assert!(metric(&engine, "portolan_heal_failures_total").abs() < f64::EPSILON);
    let looks = metric(&engine, "portolan_heal_repairs_total{what=\"link\"}");
    assert!(looks >= 15.0, "{looks}");
}

/// The user's own table, or chain, goes with everybody's rules: it is there again for new ones. That the old
/// ones of a table are lost is told.
#[test]
fn the_users_table_is_made_again_after_a_flush() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker repairs nothing");
    }
    let host = engine.host();
    let since = host.sh("date +%s").ok().to_owned();
    let iptables = Firewall::from_env() == Firewall::Iptables;
    let rule = if iptables {
        "iptables -A DOCKER-USER -s 192.0.2.7 -j DROP"
    } else {
        "nft add rule inet portolan-user forward ip saddr 192.0.2.7 drop"
    };
    host.sh(rule).ok();
    host.sh("nft flush ruleset").ok();
    eventually("a rule can be added again", 5, || (host.sh(rule).code == 0).then_some(()));
    if iptables {
        return;
    }
    // What is in it is the user's affair.
    host.sh("nft flush chain inet portolan-user forward").ok();
    let until = host.sh("echo $(($(date +%s) + 1))").ok().to_owned();
    let told = engine.docker(&["events", "--since", &since, "--until", &until]);
    has_line(told.ok(), &["daemon repair", "by=nft", "lost=", "portolan-user made again, empty"]);
}

/// Between a kill of the daemon and the next one the tables are still nobody else's: the resolver, which lives
/// on, holds the socket that owns them.
#[test]
fn a_flush_while_no_daemon_runs_opens_nothing() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker's tables are anybody's");
    }
    let neighbour = Host::new("neighbour");
    neighbour.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    neighbour.run(&["ip", "route", "add", "172.16.0.0/12", "via", "198.51.100.2"]).ok();
    engine.docker(&["network", "create", "n1"]).ok();
    run_server(&engine, "server", 7000, "hello", &["--network", "n1", "-p", "8000:7000"]);
    let address = inspect(&engine, "server", "{{.NetworkSettings.Networks.n1.IPAddress}}");
    let is_kept = |engine: &Engine, port, text: &str| {
        let tables = engine.host().sh("nft flush ruleset; nft list tables").stdout;
        has_line(&tables, &["table inet portolan"]);
        // What iptables has is anybody's: its ports are closed until the next daemon.
        if Firewall::from_env() == Firewall::Nftables {
            eventually(text, 10, || (hear(&neighbour, "198.51.100.2", port) == text).then_some(()));
        }
        assert_eq!(hear(&neighbour, &address, 7000), "", "its own address is closed to neighbours");
    };
    engine.kill_daemon();
    is_kept(&engine, 8000, "hello");
    engine.start_daemon();
    // The next daemon changes them by the socket of the last.
    run_server(&engine, "second", 7000, "again", &["--network", "n1", "-p", "8001:7000"]);
    is_kept(&engine, 8001, "again");
    // One that takes the place of a resolver that died has it too.
    let died = resolver(&engine).expect("it runs");
    engine.host().sh(&format!("kill -9 {died}")).ok();
    eventually("another", 10, || resolver(&engine).filter(|pid| *pid != died));
    eventually("it serves", 10, || {
        (engine.docker(&["exec", "second", "nslookup", "server"]).code == 0).then_some(())
    });
    engine.kill_daemon();
    is_kept(&engine, 8001, "again");
    engine.start_daemon();
}

/// The kernel tells nobody of changes of iptables-legacy: they are looked for every second.
#[test]
fn rules_of_iptables_legacy_are_put_back_in_a_second() {
    if EngineKind::from_env() == EngineKind::Docker {
        skip!("Docker does not heal");
    }
    let programs = tempfile::tempdir().expect("a directory");
    for name in ["iptables", "ip6tables"] {
        for verb in ["", "-save", "-restore"] {
            let place = programs.path().join(format!("{name}{verb}"));
            std::os::unix::fs::symlink(format!("/usr/sbin/{name}-legacy{verb}"), place).expect("a link");
        }
    }
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap_or_default());
    let mut builder = Engine::builder().image("busybox").env("PATH", path);
    if Firewall::from_env() == Firewall::Nftables {
        builder = builder.arg("--firewall-backend").arg("iptables");
    }
    if Host::new("legacy").sh("iptables-legacy -S").code != 0 {
        skip!("this kernel has no iptables-legacy");
    }
    let engine = builder.start();
    run_server(&engine, "server", 7000, "hello", &["-p", "8000:7000"]);
    let neighbour = Host::new("neighbour");
    neighbour.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    let is_open = |seconds| {
        eventually("it is open", seconds, || {
            (hear(&neighbour, "198.51.100.2", 8000) == "hello").then_some(())
        })
    };
    is_open(10);
    engine.host().sh("iptables-legacy -t nat -F DOCKER").ok();
    is_open(4);
    // As many rules as before.
    engine
        .host()
        .sh("iptables-legacy -t nat -D PREROUTING 1; iptables-legacy -t nat -A PREROUTING -p icmp -j RETURN")
        .ok();
    is_open(4);
    assert!(metric(&engine, "portolan_heal_repairs_total{what=\"firewall\"}") > 1.0);
}

const HOLD: &str = "
import socket, sys, time
s = socket.socket()
s.bind(('0.0.0.0', int(sys.argv[1])))
s.listen()
print('ready', flush=True)
time.sleep(60)
";

const TRY: &str = "
import socket, sys
for kind, family, address, port in (
    (socket.SOCK_STREAM, socket.AF_INET, '0.0.0.0', 8000), (socket.SOCK_STREAM, socket.AF_INET6, '::', 8000),
    (socket.SOCK_DGRAM, socket.AF_INET, '127.0.0.1', 8001), (socket.SOCK_STREAM, socket.AF_INET, '0.0.0.0', 8002),
):
    s = socket.socket(family, kind)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try: s.bind((address, port))
    except OSError: continue
    print('free', port)
";

/// Nobody takes a published port while no daemon runs, not even one on the default bridge; and one that somebody
/// could take all the same is told, and held as soon as that is possible.
#[test]
fn ports_stay_held_while_no_daemon_runs() {
    let mut engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker's ports are free without its daemon, or their proxies");
    }
    let neighbour = Host::new("neighbour");
    neighbour.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    neighbour.run(&["ip", "route", "add", "172.16.0.0/12", "via", "198.51.100.2"]).ok();
    run_server(&engine, "web", 7000, "hello", &["-p", "8000:7000", "-p", "8001:7001/udp"]);
    let address = inspect(&engine, "web", "{{.NetworkSettings.Networks.bridge.IPAddress}}");
    let files = |engine: &Engine| {
        let files = format!("/proc/{}/fd", resolver(engine)?);
        let links = std::fs::read_dir(files).ok()?.flatten().filter_map(|file| file.path().read_link().ok());
        Some(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
    };
    let free = |engine: &Engine| engine.host().run(&["python3", "-c", TRY]).ok().to_owned();
    // Its own two, the tables' and four of ports.
    eventually("they are kept", 5, || (files(&engine)? >= 7).then_some(()));
    engine.kill_daemon();
    assert_eq!(free(&engine), "free 8002");
    has_line(&engine.host().sh("nft flush ruleset; nft list tables").stdout, &["table inet portolan"]);
    assert_eq!(hear(&neighbour, &address, 7000), "", "its own address is closed to neighbours");
    engine.start_daemon();
    eventually("it serves", 10, || (hear(&neighbour, "198.51.100.2", 8000) == "hello").then_some(()));
    assert_eq!(free(&engine), "free 8002");
    engine.docker(&["rm", "-f", "web"]).ok();
    assert_eq!(free(&engine), "free 8000\nfree 8000\nfree 8001\nfree 8002", "at once");

    run_server(&engine, "web", 7000, "hello", &["-p", "8002:7000"]);
    engine.kill_daemon();
    let keeper = resolver(&engine).expect("it keeps 8002");
    engine.host().sh(&format!("kill -9 {keeper}")).ok();
    eventually("its files are closed", 5, || free(&engine).contains("8002").then_some(()));
    let mut thief = python(engine.host().prefix(), HOLD, "8002");
    ready(&mut thief);
    engine.start_daemon();
    let socket = engine.socket().display().to_string();
    let page = |engine: &Engine, page: &str| {
        let url = format!("http://x/portolan/{page}");
        engine.host().run(&["curl", "-s", "--unix-socket", &socket, &url]).stdout
    };
    let who = "address already in use by python3 (pid ";
    eventually("it is named", 5, || page(&engine, "doctor").contains(who).then_some(()));
    assert!(page(&engine, "exposure").contains(who));
    let until = engine.host().sh("echo $(($(date +%s) + 1))").ok().to_owned();
    let told = engine.docker(&["events", "--since", "10m", "--until", &until]);
    has_line(told.ok(), &["daemon repair-failed", who]);
    thief.kill().expect("it is ours");
    thief.wait().expect("it is ours");
    eventually("it is held", 10, || (!free(&engine).contains("8002")).then_some(()));
    assert!(!page(&engine, "doctor").contains(who));
}

/// What cannot be put right is tried less and less often, told once, and named.
#[test]
fn a_repair_that_cannot_succeed_is_named_and_made_when_it_can() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker does not heal");
    }
    let host = engine.host();
    let name = "com.docker.network.bridge.name=br-n1";
    engine.docker(&["network", "create", "-o", name, "n1"]).ok();
    // While the daemon stands still, or it is healed in between.
    let pid = engine.pid();
    host.sh(&format!(
        "kill -STOP {pid}; ip link del br-n1; ip link add br-n1 type veth peer name taken1; kill -CONT {pid}"
    ))
    .ok();
    let socket = engine.socket().display().to_string();
    let doctor = || host.run(&["curl", "-s", "--unix-socket", &socket, "http://x/portolan/doctor"]).stdout;
    eventually("the doctor names it", 10, || doctor().contains("[host] link add br-n1").then_some(()));
    let repairs = "portolan_heal_repairs_total{what=\"link\"}";
    let before = metric(&engine, repairs);
    std::thread::sleep(Duration::from_secs(4));
    assert!((metric(&engine, repairs) - before).abs() < f64::EPSILON, "nothing was repaired");
    let failures = metric(&engine, "portolan_heal_failures_total");
    assert!((1.0..40.0).contains(&failures), "{failures}");
    host.sh("ip link del br-n1").ok();
    eventually("it is made when it can be", 10, || {
        host.sh("ip -d link show br-n1 | grep 'alias portolan:'").code.eq(&0).then_some(())
    });
    eventually("the doctor is content", 5, || (!doctor().contains("link add br-n1")).then_some(()));
}

/// iptables' tables are flushed one after the other: also between a repair's look and its deed. Our tables of
/// nf_tables are not touched by it.
#[test]
fn flushes_of_table_after_table_are_repaired_at_once_and_without_a_failure() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker repairs nothing");
    }
    run_server(&engine, "server", 7000, "hello", &["-p", "8000:7000"]);
    let works = || (hear(engine.host(), "127.0.0.1", 8000) == "hello").then_some(());
    eventually("it works before", 10, works);
    for _ in 0..10 {
        engine.host().sh("iptables -F; iptables -t nat -F; ip6tables -F; ip6tables -t nat -F").ok();
        eventually("it works again", 10, works);
    }
    let repairs = if Firewall::from_env() == Firewall::Iptables { 10.0 } else { 0.0 };
    eventually("repairs are counted", 10, || {
        (metric(&engine, "portolan_heal_repairs_total{what=\"firewall\"}") >= repairs).then_some(())
    });
    assert!(metric(&engine, "portolan_heal_failures_total").abs() < f64::EPSILON);
}

const ECHO: &str = "
import socket, threading
def serve(c):
    while True:
        d = c.recv(4096)
        if not d: return
        c.sendall(d)
def listen(port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('', port)); s.listen(64)
    while True:
        c, _ = s.accept()
        threading.Thread(target=serve, args=(c,), daemon=True).start()
threading.Thread(target=listen, args=(7001,), daemon=True).start()
threading.Thread(target=listen, args=(7002,), daemon=True).start()
listen(7000)
";

const CLIENTS: &str = "
import socket, sys, time
end = time.time() + float(sys.argv[1])
all = [socket.create_connection(('198.51.100.2', 8000), 5) for _ in range(20)]
for c in all: c.settimeout(8)
print('ready', flush=True)
rounds = 0
worst = 0
while time.time() < end:
    for n, c in enumerate(all):
        t = time.time()
        c.sendall(b'%04d' % n)
        assert c.recv(64) == b'%04d' % n
        worst = max(worst, time.time() - t)
    rounds += 1
    time.sleep(0.02)
print('alive', len(all), 'rounds', rounds, 'worst', round(worst, 3), flush=True)
";

#[test]
fn a_storm_of_flushes_breaks_no_connection_and_opens_nothing() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker does not heal");
    }
    let host = engine.host();
    let (client, attacker) = (Host::new("client"), Host::new("attacker"));
    client.wire("up0", "198.51.100.1/24", host, "up1", "198.51.100.2/24");
    attacker.wire("up0", "203.0.113.1/24", host, "up2", "203.0.113.2/24");
    for route in ["172.17.0.0/16", "198.51.100.0/24"] {
        attacker.run(&["ip", "route", "add", route, "via", "203.0.113.2"]).ok();
    }
    // It sends to 127.0.0.1 over the wire (CVE-2020-8558, moby#45610).
    attacker
        .sh("ip route del table local local 127.0.0.0/8 dev lo; ip route del table local local 127.0.0.1 dev lo
             sysctl -qw net.ipv4.conf.up0.route_localnet=1; ip route add 127.0.0.1/32 via 203.0.113.2")
        .ok();
    let flags = ["-p", "8000:7000", "-p", "127.0.0.1:8002:7002"];
    engine
        .docker(&[&["run", "-d", "--name", "echo"], flags.as_slice(), &["busybox", "sleep", "600"]].concat())
        .ok();
    engine.docker(&["network", "create", "apart"]).ok();
    engine.docker(&["run", "-d", "--name", "other", "--network", "apart", "busybox", "sleep", "600"]).ok();
    // The image has no program that serves many: one of the machine's runs in the container's namespace.
    let at = |name: &str| format!("--net=/proc/{}/ns/net", inspect(&engine, name, "{{.State.Pid}}"));
    let mut server = python(vec!["nsenter".into(), at("echo").into(), "--".into()], ECHO, "");
    let probe = "import socket; c = socket.create_connection(('127.0.0.1', 8000), 1); c.sendall(b'x'); assert c.recv(1)";
    eventually("it serves", 10, || host.run(&["python3", "-c", probe]).code.eq(&0).then_some(()));
    let seconds = "6";
    let start = |prefix, script| {
        let mut child = python(prefix, script, seconds);
        let lines = ready(&mut child);
        (child, lines)
    };
    // Established before the storm: with iptables nothing new is translated between a flush and its end.
    let clients = start(client.prefix(), CLIENTS);
    let attack = start(attacker.prefix(), ATTACKER);
    let neighbour = start(vec!["nsenter".into(), at("other").into(), "--".into()], ATTACKER);
    let end = Instant::now() + Duration::from_secs(5);
    let storm = "nft flush ruleset; iptables -F; iptables -t nat -F; ip address del 172.17.0.1/16 dev docker0; ip link set VETH down; ip link set docker0 down";
    let storm = storm.replace("VETH", &veth(&engine));
    let mut gusts = 0;
    while Instant::now() < end {
        host.sh(&storm);
        gusts += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let (clients, attack, neighbour) = (said(clients), said(attack), said(neighbour));
    server.kill().expect("it is ours");
    server.wait().expect("it is ours");
    let worst = metric(&engine, "portolan_heal_max_seconds");
    #[allow(clippy::print_stdout, reason = "figures for a person")]
    {
        println!(
            "{gusts} gusts; {clients}; a neighbour {attack}; another network {neighbour}; longest repair {worst} s"
        );
    }
    assert!(gusts >= 5, "{gusts}");
    has_line(&clients, &["alive 20"]);
    has_line(&attack, &["opened 0 of"]);
    has_line(&neighbour, &["opened 0 of"]);
    eventually("all is as it was", 5, || {
        let links = host.sh("ip -o link show docker0; ip -o address show docker0").stdout;
        (links.contains("UP") && links.contains("172.17.0.1/16")).then_some(())
    });
}
