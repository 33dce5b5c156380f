//! Other programs' firewalls: that they are in the way is told, and the command that is printed helps.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use portolan_e2e::attack::{ATTACKER, python, ready, said};
use portolan_e2e::{eventually, has_line, hear, inspect, is_portolan, run_server};
use portolan_testkit::{Engine, Firewall, Host, Output, portolan_binary, run, skip};

/// As ufw makes them from its own rules (before.rules, user.rules; `ufw enable` with the default policies).
const UFW: &str = "*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-before-input - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
COMMIT
";

/// As firewalld 1.3 makes them for the zone public, without its parts about other addresses.
const FIREWALLD: &str = "table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname \"lo\" accept
        jump filter_FORWARD_POLICIES_PRE
        jump filter_FORWARD_ZONES
        jump filter_FORWARD_POLICIES_POST
        ct state { invalid } drop
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_POLICIES_PRE { }
    chain filter_FORWARD_POLICIES_POST { }
    chain filter_FORWARD_ZONES {
        iifname \"up1\" goto filter_FWD_public
        goto filter_FWD_public
    }
    chain filter_FWD_public {
        jump filter_FWD_public_allow
        reject with icmpx admin-prohibited
    }
    chain filter_FWD_public_allow {
        oifname \"up1\" accept
    }
}";

/// Says `there` to everybody, until its input ends.
const SERVER: &str = "
import socket, sys, threading
s = socket.socket(); s.bind(('', 9000)); s.listen(64)
def serve():
    while True:
        c, _ = s.accept(); c.sendall(b'there\\n'); c.close()
threading.Thread(target=serve, daemon=True).start()
sys.stdin.read()
";

struct Lab {
    engine: Engine,
    outside: Host,
    /// A server outside; it ends when its standard input does, with this.
    server: Option<Child>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.stdin.take());
            let _ = server.wait();
        }
    }
}

/// An engine with a way out, a server behind port 8000, and a host outside that answers on port 9000.
fn lab() -> Lab {
    lab_of(Engine::start())
}

fn lab_of(engine: Engine) -> Lab {
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    engine.host().sh("ip route add default via 198.51.100.1").ok();
    run_server(&engine, "server", 7000, "hello", &["-p", "8000:7000"]);
    let words = [outside.prefix(), ["python3", "-c", SERVER].map(Into::into).to_vec()].concat();
    let server =
        Command::new(&words[0]).args(&words[1..]).stdin(Stdio::piped()).spawn().expect("python3 runs");
    let lab = Lab { engine, outside, server: Some(server) };
    eventually("it works before", 10, || (lab.comes_in() && lab.goes_out()).then_some(()));
    lab
}

impl Lab {
    fn comes_in(&self) -> bool {
        hear(&self.outside, "198.51.100.2", 8000) == "hello"
    }

    fn goes_out(&self) -> bool {
        let line = "echo | nc -w 2 198.51.100.1 9000";
        self.engine.docker(&["exec", "server", "sh", "-c", line]).stdout.contains("there")
    }

    fn portolan(&self, words: &[&str]) -> Output {
        let socket = format!("unix://{}", self.engine.socket().display());
        let mut all = self.engine.host().prefix();
        all.extend([portolan_binary().into_os_string(), "-H".into(), socket.into()]);
        all.extend(words.iter().map(Into::into));
        run(&all, None)
    }

    /// The commands that doctor prints for problems of other firewalls.
    fn advice(&self) -> Vec<String> {
        let said = self.portolan(&["doctor", "--format", "json"]);
        assert!(said.code <= 1, "{}", said.all());
        let all: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
        let firewalls = all.as_array().into_iter().flatten().filter(|one| one["Check"] == "firewalls");
        let problems = firewalls.filter(|one| one["Status"] == "problem");
        let fixes = problems.flat_map(|one| one["Fix"].as_array().cloned().unwrap_or_default());
        let mut commands: Vec<String> = fixes.filter_map(|fix| Some(fix.as_str()?.to_owned())).collect();
        commands.dedup();
        commands
    }

    fn status(&self) -> String {
        self.engine.docker(&["network", "inspect", "bridge"]).ok().to_owned()
    }
}

/// Puts a firewall in the way, sees it named, does what is advised, sees it work, and takes it away.
fn follow_the_advice(lab: &Lab, install: &str, remove: &str, named: &[&str], blocks: [bool; 2]) {
    let host = lab.engine.host();
    let since = host.sh("date +%s").ok().to_owned();
    host.sh(install).ok();
    let advice = eventually("doctor has advice", 5, || Some(lab.advice()).filter(|all| !all.is_empty()));
    assert_eq!([!lab.comes_in(), !lab.goes_out()], blocks, "what it really drops");
    for word in named {
        eventually(&format!("inspect names {word}"), 5, || lab.status().contains(word).then_some(()));
    }
    let doctor = lab.portolan(&["doctor"]);
    assert_eq!(doctor.code, 1, "{}", doctor.stdout);
    has_line(&doctor.stdout, &["problem", "firewalls", "docker0"]);
    if blocks[0] {
        let created = lab.engine.docker(&["create", "-p", "8001:80", "busybox", "true"]);
        assert!(created.stderr.contains("8") && created.stderr.contains(&advice[0]), "{}", created.stderr);
    }
    for command in &advice {
        host.sh(command).ok();
    }
    eventually("advice helps", 5, || (lab.comes_in() && lab.goes_out()).then_some(()));
    eventually("and doctor sees it", 5, || lab.advice().is_empty().then_some(()));
    host.sh(remove).ok();
    eventually("it is gone from inspect", 5, || (!lab.status().contains("\"Firewall\"")).then_some(()));
    let until = host.sh("echo $(($(date +%s) + 1))").ok().to_owned();
    let told = lab.engine.docker(&["events", "--since", &since, "--until", &until]);
    has_line(told.ok(), &["daemon firewall-conflict ", "network=bridge"]);
    has_line(told.ok(), &["daemon firewall-conflict-over", "network=bridge"]);
}

/// With the iptables backend our own accepts come first in the same chain: nothing is in the way, and
/// nothing is said.
fn passes_by_our_own_chains(lab: &Lab) -> bool {
    if Firewall::from_env() == Firewall::Nftables {
        return false;
    }
    assert!(lab.comes_in() && lab.goes_out());
    assert_eq!(lab.advice(), [""; 0]);
    true
}

#[test]
fn a_forward_policy_of_drop_is_told_and_the_advice_helps() {
    let lab = lab();
    if !is_portolan(&lab.engine) {
        skip!("Docker says nothing of it");
    }
    lab.engine.host().sh("iptables-nft -P FORWARD DROP").ok();
    if passes_by_our_own_chains(&lab) {
        return;
    }
    follow_the_advice(
        &lab,
        "iptables-nft -P FORWARD DROP",
        "iptables-nft -P FORWARD ACCEPT; iptables-nft -F FORWARD",
        &["\"Owner\": \"iptables\"", "iptables-nft -I FORWARD -o docker0 -j ACCEPT"],
        [true, true],
    );
}

#[test]
fn a_native_chain_is_told_and_the_advice_helps() {
    let lab = lab();
    if !is_portolan(&lab.engine) {
        skip!("Docker says nothing of it");
    }
    follow_the_advice(
        &lab,
        "nft add table inet mine; nft 'add chain inet mine f { type filter hook forward priority 5; policy drop; }'",
        "nft delete table inet mine",
        &["\"Owner\": \"nftables\"", "inet mine"],
        [true, true],
    );
}

#[test]
fn drops_before_routing_are_told_and_the_advice_helps() {
    let lab = lab();
    if !is_portolan(&lab.engine) {
        skip!("Docker says nothing of it");
    }
    follow_the_advice(
        &lab,
        "nft add table inet early; nft 'add chain inet early p { type filter hook prerouting priority -300; policy drop; }'",
        "nft delete table inet early",
        &["\"Owner\": \"nftables\"", "inet early"],
        [true, true],
    );
    follow_the_advice(
        &lab,
        "iptables-nft -t mangle -A PREROUTING -i docker0 -j DROP",
        "iptables-nft -t mangle -F PREROUTING",
        &["\"Owner\": \"iptables\"", "iptables-nft -t mangle -I PREROUTING -i docker0 -j ACCEPT"],
        [true, true],
    );
}

/// Two host ports are dropped before they are translated: the one that is published is named, and opened by the
/// command that is printed; the other as soon as it is published.
fn follow_the_advice_for_a_port(lab: &Lab, install: &str, remove: &str, fix: &dyn Fn(u16) -> String) {
    let host = lab.engine.host();
    let since = host.sh("date +%s").ok().to_owned();
    host.sh(install).ok();
    eventually("inspect names the port", 5, || lab.status().contains("\"8000/tcp\"").then_some(()));
    assert!(!lab.comes_in() && lab.goes_out(), "what it really drops");
    assert_eq!(lab.advice(), [fix(8000)]);
    has_line(&lab.portolan(&["doctor"]).stdout, &["problem", "firewalls", "host port 8000/tcp", "docker0"]);
    let exposure = || lab.portolan(&["exposure"]).ok().to_owned();
    has_line(&exposure(), &["0.0.0.0:8000/tcp", "this host", "to let it through", &fix(8000)]);
    let create = |port: &str| lab.engine.docker(&["create", "-p", port, "busybox", "true"]).stderr;
    assert!(create("8001:80").contains(&fix(8001)));
    assert_eq!(create("8002:8000"), "");

    host.sh(&fix(8000)).ok();
    eventually("the command helps", 5, || lab.comes_in().then_some(()));
    eventually("and doctor sees it", 5, || lab.advice().is_empty().then_some(()));
    has_line(&exposure(), &["0.0.0.0:8000/tcp", "every interface"]);
    // No rule changes now: it is the port that is new.
    let added = lab.portolan(&["port", "add", "server", "8001:7000"]);
    has_line(&added.stderr, &["WARNING: Published port 7000/tcp will not be reached", &fix(8001)]);
    eventually("inspect names the new port", 5, || lab.status().contains("\"8001/tcp\"").then_some(()));
    assert_eq!(hear(&lab.outside, "198.51.100.2", 8001), "");
    host.sh(&fix(8001)).ok();
    eventually("it is open", 5, || (hear(&lab.outside, "198.51.100.2", 8001) == "hello").then_some(()));

    lab.portolan(&["port", "rm", "server", "8001"]).ok();
    host.sh(remove).ok();
    eventually("inspect has nothing to say", 5, || (!lab.status().contains("\"Firewall\"")).then_some(()));
    let until = host.sh("echo $(($(date +%s) + 1))").ok().to_owned();
    let told = lab.engine.docker(&["events", "--since", &since, "--until", &until]);
    has_line(told.ok(), &["daemon firewall-conflict ", "network=bridge", "ports=8000/tcp"]);
}

#[test]
fn a_host_port_that_is_dropped_before_translation_is_told_and_the_advice_helps() {
    let lab = lab();
    if !is_portolan(&lab.engine) {
        skip!("Docker says nothing of it");
    }
    for (table, prefix) in [("raw", ""), ("mangle", "-i up1 ")] {
        let rule = format!("iptables-nft -t {table} -A PREROUTING {prefix}-p tcp --dport 8000:8001 -j DROP");
        // The iptables backend has a rule of its own there.
        let delete = format!("iptables-nft -t {table} -D PREROUTING");
        let accept = |port| format!("{delete} -i up1 -p tcp --dport {port} -j ACCEPT");
        let flush = [accept(8000), accept(8001), rule.replace("-A", "-D")].join("; ");
        follow_the_advice_for_a_port(&lab, &rule, &flush, &|port| {
            format!("iptables-nft -t {table} -I PREROUTING -i up1 -p tcp --dport {port} -j ACCEPT")
        });
    }
    for priority in [-300, -150] {
        let chain = format!("{{ type filter hook prerouting priority {priority}; policy accept; }}");
        let install = format!(
            "nft 'add table inet early; add chain inet early p {chain}; add rule inet early p tcp dport {{ 22, 8000-8001 }} drop'"
        );
        follow_the_advice_for_a_port(&lab, &install, "nft delete table inet early", &|port| {
            format!("nft insert rule inet early p iifname up1 tcp dport {port} accept")
        });
    }
    let chain = "{ type filter hook ingress device up1 priority 0; }";
    let install = format!(
        "nft 'add table netdev early; add chain netdev early p {chain}; add rule netdev early p tcp dport {{ 22, 8000-8001 }} drop'"
    );
    follow_the_advice_for_a_port(&lab, &install, "nft delete table netdev early", &|port| {
        format!("nft insert rule netdev early p tcp dport {port} accept")
    });
    lab.engine.host().sh("ip link add other0 type bridge; nft 'add table netdev late; add chain netdev late p { type filter hook ingress device other0 priority 0; }'").ok();
    eventually("what is not judged is named", 5, || {
        lab.portolan(&["doctor"])
            .stdout
            .contains("chain p of table netdev late on other0 is not judged")
            .then_some(())
    });
}

#[test]
fn a_port_that_is_added_while_a_firewall_is_in_its_way_warns_whoever_adds_it() {
    let lab = lab();
    if !is_portolan(&lab.engine) {
        skip!("Docker publishes at creation only");
    }
    let host = lab.engine.host();
    let quiet = lab.portolan(&["port", "add", "server", "8002:7000"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""));
    host.sh("nft add table inet mine; nft 'add chain inet mine f { type filter hook forward priority 5; policy drop; }'").ok();
    eventually("it is known", 5, || lab.status().contains("inet mine").then_some(()));
    let said = lab.portolan(&["port", "add", "server", "8001:7000"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    has_line(
        &said.stderr,
        &[
            "WARNING: Published port 7000/tcp will not be reached",
            "nft insert rule inet mine f oifname docker0 accept",
        ],
    );
    let socket = lab.engine.socket().display().to_string();
    let url = "http://portolan/portolan/containers/server/ports";
    let body = r#"{"Add": {"7001/tcp": [{"HostPort": "8003"}]}}"#;
    let answer = host.run(&["curl", "-s", "--unix-socket", &socket, "--json", body, url]);
    assert!(
        answer.stdout.starts_with(r#"{"Warnings":["Published port 7001/tcp will not"#),
        "{}",
        answer.all()
    );
}

#[test]
fn rules_of_iptables_legacy_are_seen() {
    let lab = lab();
    if !is_portolan(&lab.engine) {
        skip!("Docker says nothing of it");
    }
    if lab.engine.host().sh("iptables-legacy -S").code != 0 {
        skip!("this kernel has no iptables-legacy");
    }
    follow_the_advice(
        &lab,
        "iptables-legacy -P FORWARD DROP",
        "iptables-legacy -P FORWARD ACCEPT; iptables-legacy -F FORWARD",
        &[],
        [true, true],
    );
}

#[test]
fn ufw_is_named_with_its_own_command() {
    let lab = lab();
    if !is_portolan(&lab.engine) {
        skip!("Docker says nothing of it");
    }
    let host = lab.engine.host();
    host.run_with(&["iptables-nft-restore", "--noflush"], Some(UFW.as_bytes())).ok();
    if passes_by_our_own_chains(&lab) {
        return;
    }
    let advice = eventually("doctor has advice", 5, || Some(lab.advice()).filter(|all| !all.is_empty()));
    assert!(!lab.comes_in() && !lab.goes_out());
    assert_eq!(advice, ["ufw route allow in on docker0", "ufw route allow out on docker0"]);
    // What these commands put into the chain of the user's rules.
    host.sh("iptables-nft -A ufw-user-forward -i docker0 -j ACCEPT; iptables-nft -A ufw-user-forward -o docker0 -j ACCEPT").ok();
    eventually("doctor sees that it passes", 5, || lab.advice().is_empty().then_some(()));
    assert!(lab.comes_in() && lab.goes_out());
    // That containers do not reach this host is told, and is no problem of ours.
    assert!(lab.status().contains("to-host"), "{}", lab.status());
}

#[test]
fn firewalld_keeps_containers_in_until_their_bridge_is_in_a_zone() {
    let lab = lab();
    if !is_portolan(&lab.engine) {
        skip!("Docker says nothing of it");
    }
    let host = lab.engine.host();
    host.run_with(&["nft", "-f", "-"], Some(FIREWALLD.as_bytes())).ok();
    let advice = eventually("doctor has advice", 5, || Some(lab.advice()).filter(|all| !all.is_empty()));
    assert!(lab.comes_in(), "firewalld lets translated connections pass");
    assert!(advice[0].starts_with("firewall-cmd --zone=trusted"), "{advice:?}");
    // What a zone with target ACCEPT puts there.
    host.sh("nft insert rule inet firewalld filter_FORWARD_ZONES iifname docker0 accept").ok();
    eventually("doctor sees that it passes", 5, || lab.advice().is_empty().then_some(()));
    assert!(lab.goes_out());
}

#[test]
fn a_healthy_host_gets_a_clean_bill() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("Docker has no doctor");
    }
    let outside = Host::new("outside");
    outside.wire("up0", "198.51.100.1/24", engine.host(), "up1", "198.51.100.2/24");
    let lab = Lab { engine, outside, server: None };
    lab.engine.host().sh("ip route add default via 198.51.100.1").ok();
    let well = lab.portolan(&["doctor"]);
    assert_eq!(well.code, 0, "{}", well.stdout);
    has_line(&well.stdout, &["ok", "kernel", "nf_tables"]);
    has_line(&well.stdout, &["ok", "resolver"]);
    has_line(&well.stdout, &["ok", "leftovers"]);

    // A smaller uplink, and a link that says it is ours and belongs to nothing.
    let id = "0".repeat(63);
    let host = lab.engine.host();
    host.sh(&format!("ip link set up1 mtu 1400; ip link add stray0 type veth peer name stray1; ip link set stray0 alias portolan:1{id}")).ok();
    let ill = lab.portolan(&["doctor"]);
    assert_eq!(ill.code, 1, "{}", ill.stdout);
    has_line(&ill.stdout, &["problem", "mtu", "network bridge sends packets of 1500 bytes, up1 takes 1400"]);
    has_line(&ill.stdout, &["problem", "leftovers", "stray0"]);
    has_line(&ill.stdout, &["fix: ip link del stray0"]);
}

const BUS: &str = "<busconfig>
  <type>custom</type>
  <listen>unix:path=PLACE/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context=\"default\">
    <allow send_destination=\"*\"/><allow receive_sender=\"*\"/><allow own=\"*\"/><allow user=\"*\"/>
  </policy>
</busconfig>";

/// A real firewalld in an engine's host, with a bus and a configuration of its own.
struct Firewalld {
    place: PathBuf,
    children: Vec<Child>,
}

impl Firewalld {
    /// A place for it; nothing runs yet.
    fn new() -> Self {
        let place = std::env::temp_dir().join(format!("pt-firewalld-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("a directory");
        std::fs::write(place.join("bus.conf"), BUS.replace("PLACE", &place.display().to_string()))
            .expect("a file");
        run(&["cp", "-a", "/etc/firewalld", &place.join("etc").display().to_string()], None).ok();
        Self { place, children: Vec::new() }
    }

    fn address(&self) -> String {
        format!("unix:path={}/bus", self.place.display())
    }

    fn start(&mut self, host: &Host) {
        let place = self.place.display();
        let bus = format!("exec dbus-daemon --nofork --nopidfile --config-file={place}/bus.conf");
        let firewalld = format!(
            "exec firewalld --nofork --nopid --system-config {place}/etc --log-target file --log-file {place}/log"
        );
        self.children.push(self.spawn(host, &bus));
        eventually("the bus is there", 30, || self.place.join("bus").exists().then_some(()));
        self.children.push(self.spawn(host, &firewalld));
        eventually("firewalld runs", 60, || (self.cmd(host, "--state").code == 0).then_some(()));
    }

    fn spawn(&self, host: &Host, line: &str) -> Child {
        let words = [host.prefix(), ["sh", "-c", line].map(Into::into).to_vec()].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("DBUS_SYSTEM_BUS_ADDRESS", self.address());
        command.stdin(Stdio::null()).spawn().expect("it starts")
    }

    fn cmd(&self, host: &Host, words: &str) -> Output {
        host.sh(&format!("DBUS_SYSTEM_BUS_ADDRESS={} firewall-cmd {words}", self.address()))
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        for mut child in self.children.drain(..).rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

/// While firewalld takes everybody's rules away and makes its own again, nobody gets to what is closed:
/// neither a neighbour nor a container of another network.
fn reloads_open_nothing(lab: &Lab, firewalld: &Firewalld) {
    let engine = &lab.engine;
    run_server(engine, "local", 7002, "local", &["-p", "127.0.0.1:8002:7002"]);
    engine.docker(&["network", "create", "apart"]).ok();
    engine.docker(&["run", "-d", "--name", "apart", "--network", "apart", "busybox", "sleep", "600"]).ok();
    eventually("it is published there", 10, || {
        (hear(engine.host(), "127.0.0.1", 8002) == "local").then_some(())
    });
    // It sends to 127.0.0.1 over the wire (CVE-2020-8558, moby#45610).
    lab.outside
        .sh("ip route del table local local 127.0.0.0/8 dev lo; ip route del table local local 127.0.0.1 dev lo
             link=$(ip -br link | grep -v ^lo | head -1 | sed 's/[@ ].*//')
             sysctl -qw net.ipv4.conf.$link.route_localnet=1; ip route add 127.0.0.1/32 via 198.51.100.2")
        .ok();
    let inside = format!("--net=/proc/{}/ns/net", inspect(engine, "apart", "{{.State.Pid}}"));
    let mut children = [lab.outside.prefix(), vec!["nsenter".into(), inside.into(), "--".into()]]
        .map(|prefix| python(prefix, ATTACKER, "5"));
    let lines = children.each_mut().map(ready);
    for _ in 0..2 {
        firewalld.cmd(engine.host(), "--reload").ok();
    }
    for pair in children.into_iter().zip(lines) {
        let text = said(pair);
        assert!(text.starts_with("opened 0 of "), "{text}");
    }
    engine.docker(&["rm", "-f", "local", "apart"]).ok();
    engine.docker(&["network", "rm", "apart"]).ok();
}

#[test]
fn a_real_firewalld_gets_our_bridges_into_a_zone() {
    if run(&["sh", "-c", "command -v firewalld dbus-daemon"], None).code != 0 {
        skip!("firewalld is not installed");
    }
    let mut firewalld = Firewalld::new();
    let engine =
        Engine::builder().image("busybox").env("DBUS_SYSTEM_BUS_ADDRESS", firewalld.address()).start();
    let lab = lab_of(engine);
    if !is_portolan(&lab.engine) {
        skip!("Debian's dockerd is too old for zones");
    }
    let host = lab.engine.host();
    firewalld.start(host);
    let members = || firewalld.cmd(host, "--zone=portolan --list-interfaces").stdout;
    eventually("docker0 is in the zone", 60, || members().contains("docker0").then_some(()));
    eventually("packets pass", 30, || (lab.comes_in() && lab.goes_out()).then_some(()));
    eventually("nothing is in the way", 60, || lab.advice().is_empty().then_some(()));

    firewalld.cmd(host, "--reload").ok();
    eventually("it is there again after a reload", 60, || members().contains("docker0").then_some(()));
    eventually("packets pass again", 30, || (lab.comes_in() && lab.goes_out()).then_some(()));
    // What the zone accepts is still ours to drop (CVE-2025-54388, CVE-2025-54410).
    lab.outside.sh("ip route add 172.17.0.0/16 via 198.51.100.2").ok();
    reloads_open_nothing(&lab, &firewalld);
    assert_eq!(hear(&lab.outside, "172.17.0.2", 7000), "", "nobody outside reaches a container's address");

    let name = "com.docker.network.bridge.name=br-mine";
    lab.engine.docker(&["network", "create", "-o", name, "mine"]).ok();
    eventually("a new bridge is in the zone", 60, || members().contains("br-mine").then_some(()));
    lab.engine.docker(&["network", "rm", "mine"]).ok();
    eventually("and leaves it with its network", 60, || (!members().contains("br-mine")).then_some(()));

    // What somebody decides stays.
    firewalld.cmd(host, "--zone=trusted --change-interface=docker0").ok();
    lab.engine.docker(&["network", "create", "-o", name, "mine"]).ok();
    eventually("the zone has the new bridge", 60, || members().contains("br-mine").then_some(()));
    assert!(!members().contains("docker0"));
}
