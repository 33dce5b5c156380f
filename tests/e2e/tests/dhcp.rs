//! Addresses from a DHCP server of the LAN: Debian's dnsmasq in a namespace of its own, at the other
//! end of a cable. Docker has nothing like it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use portolan_e2e::{eventually, has_line, inspect, skip_on_docker};
use portolan_testkit::{Engine, Host};

/// A router of the LAN at 10.93.0.1 that lends addresses and knows names.
struct Lan {
    host: Host,
    files: tempfile::TempDir,
    dnsmasq: Child,
}

impl Lan {
    /// At the other end of `nic0` of the engine's host.
    fn new(engine: &Engine) -> Self {
        let host = Host::new("lan");
        engine.host().wire("nic0", "192.0.2.1/32", &host, "lan0", "10.93.0.1/24");
        let files = tempfile::Builder::new().prefix("pt-dhcp-").tempdir_in("/tmp").expect("a directory");
        let dnsmasq = serve(&host, &files, "10.93.0.100,10.93.0.150");
        Self { host, files, dnsmasq }
    }

    /// Another server comes, which knows nothing of what the first one lent.
    fn forget_and_lend(&mut self, range: &str) {
        self.end();
        for file in ["leases", "log"] {
            std::fs::write(self.file(file), "").expect("a file");
        }
        self.dnsmasq = serve(&self.host, &self.files, range);
    }

    fn end(&mut self) {
        let _ = self.dnsmasq.kill();
        let _ = self.dnsmasq.wait();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// `expiry hardware-address address name client-id`, a line each.
    fn leases(&self) -> String {
        std::fs::read_to_string(self.file("leases")).unwrap_or_default()
    }

    fn logs(&self, text: &str, times: usize) {
        let said = || (self.log().matches(text).count() >= times).then_some(());
        eventually(&format!("{times} {text} in the server's log"), 20, said);
    }
}

fn serve(host: &Host, files: &tempfile::TempDir, range: &str) -> Child {
    let file = |name: &str| files.path().join(name).display().to_string();
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", host.name())).arg("dnsmasq").args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--interface=lan0",
        "--bind-interfaces",
        "--address=/printer.lan/10.93.0.77",
        "--dhcp-authoritative",
        "--no-ping",
        "--user=root",
        "--domain=lan.example",
        "--dhcp-option-force=58,3",
        "--dhcp-option-force=59,100",
        "--dhcp-option=option:mtu,1400",
        "--dhcp-option=option:classless-static-route,10.66.0.0/16,10.93.0.66,0.0.0.0/0,10.93.0.1",
    ]);
    command.arg(format!("--dhcp-range={range},255.255.255.0,2m"));
    command.arg(format!("--log-facility={}", file("log")));
    command.arg(format!("--dhcp-leasefile={}", file("leases"))).arg(format!("--pid-file={}", file("pid")));
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.expect("dnsmasq (scripts/packages.sh test)");
    eventually("dnsmasq", 10, || {
        std::fs::read_to_string(files.path().join("log")).ok()?.contains("started").then_some(())
    });
    child
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.end();
    }
}

fn inside(engine: &Engine, name: &str, words: &[&str]) -> String {
    engine.docker(&[&["exec", name], words].concat()).ok().to_owned()
}

const MACVLAN: [&str; 8] =
    ["network", "create", "-d", "macvlan", "-o", "parent=nic0", "--ipam-driver", "dhcp"];

#[test]
fn a_macvlan_container_has_what_the_lan_s_server_lends() {
    let mut engine = Engine::start();
    if skip_on_docker(&engine, "DHCP networks") {
        return;
    }
    let lan = Lan::new(&engine);
    engine.docker(&[&MACVLAN[..], &["lan"]].concat()).ok();
    engine
        .docker(&[
            "run",
            "-d",
            "--name",
            "web",
            "--hostname",
            "web",
            "--network",
            "lan",
            "busybox",
            "sleep",
            "600",
        ])
        .ok();
    let address = inspect(&engine, "web", "{{.NetworkSettings.Networks.lan.IPAddress}}");
    assert!(address.starts_with("10.93.0.1"), "{address}");
    has_line(&inside(&engine, "web", &["ip", "addr", "show", "eth0"]), &["inet", &format!("{address}/24")]);
    has_line(&inside(&engine, "web", &["ip", "link", "show", "eth0"]), &["mtu 1400"]);
    let routes = inside(&engine, "web", &["ip", "route"]);
    has_line(&routes, &["default via 10.93.0.1 dev eth0"]);
    has_line(&routes, &["10.66.0.0/16 via 10.93.0.66 dev eth0"]);
    has_line(&lan.leases(), &[&address, "web", "ff:"]);
    lan.host.run(&["busybox", "ping", "-c1", "-W2", &address]).ok();
    let resolv_conf = inside(&engine, "web", &["cat", "/etc/resolv.conf"]);
    has_line(&resolv_conf, &["search lan.example"]);
    has_line(&resolv_conf, &["# ExtServers: [10.93.0.1]"]);
    // The server has no IPv6 address for it, and says so in a way that nslookup calls a failure.
    let answer = engine.docker(&["exec", "web", "nslookup", "printer.lan"]);
    has_line(&answer.stdout, &["Address: 10.93.0.77"]);

    // Renewed by the daemon, and by the next one, which releases it when the container stops.
    lan.logs("DHCPACK", 2);
    engine.kill_daemon();
    engine.start_daemon();
    let acks = lan.log().matches("DHCPACK").count();
    lan.logs("DHCPACK", acks + 1);
    engine.docker(&["stop", "-t", "0", "web"]).ok();
    lan.logs("DHCPRELEASE", 1);
    assert_eq!(lan.leases(), "");
    engine.docker(&["start", "web"]).ok();
    assert_eq!(
        inspect(&engine, "web", "{{.NetworkSettings.Networks.lan.IPAddress}}"),
        address,
        "the same again"
    );
    engine.docker(&["rm", "-f", "web"]).ok();
    lan.logs("DHCPRELEASE", 2);
}

#[test]
fn a_new_address_of_the_lease_is_in_the_container_s_files_and_in_inspect() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "DHCP networks") {
        return;
    }
    let mut lan = Lan::new(&engine);
    engine.docker(&[&MACVLAN[..], &["lan"]].concat()).ok();
    let run = ["run", "-d", "--name", "web", "--hostname", "web", "--network", "lan"];
    engine.docker(&[&run[..], &["busybox", "sleep", "600"]].concat()).ok();
    let shown = || inspect(&engine, "web", "{{.NetworkSettings.Networks.lan.IPAddress}}");
    let before = shown();
    has_line(&inside(&engine, "web", &["cat", "/etc/hosts"]), &[&before, "web"]);
    inside(&engine, "web", &["sh", "-c", "echo 192.0.2.9 mine >>/etc/hosts"]);

    lan.forget_and_lend("10.93.0.200,10.93.0.210");
    let after = eventually("another address", 20, || Some(shown()).filter(|now| now.contains(".93.0.2")));
    let hosts = || inside(&engine, "web", &["cat", "/etc/hosts"]);
    eventually("the address in /etc/hosts", 5, || hosts().contains(&after).then_some(()));
    assert!(!hosts().contains(&before), "{}", hosts());
    has_line(&hosts(), &["192.0.2.9 mine"]);
    has_line(&inside(&engine, "web", &["ip", "addr", "show", "eth0"]), &["inet", &format!("{after}/24")]);
}

#[test]
fn an_unmanaged_bridge_and_a_second_network_can_have_it_too() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "DHCP networks") {
        return;
    }
    let lan = Lan::new(&engine);
    let host = engine.host();
    host.run(&["ip", "link", "add", "br-lan", "up", "type", "bridge"]).ok();
    host.run(&["ip", "address", "flush", "dev", "nic0"]).ok();
    host.run(&["ip", "link", "set", "nic0", "master", "br-lan"]).ok();
    let bridge = ["-o", "com.docker.network.bridge.name=br-lan", "-o", "portolan.unmanaged=true"];
    engine.docker(&[&["network", "create", "--ipam-driver", "dhcp"], &bridge[..], &["lan"]].concat()).ok();
    engine.docker(&["run", "-d", "--name", "web", "busybox", "sleep", "600"]).ok();
    engine.docker(&["network", "connect", "lan", "web"]).ok();
    let address = inspect(&engine, "web", "{{.NetworkSettings.Networks.lan.IPAddress}}");
    has_line(&inside(&engine, "web", &["ip", "addr", "show", "eth1"]), &[&address]);
    lan.host.run(&["busybox", "ping", "-c1", "-W2", &address]).ok();
    engine.docker(&["network", "disconnect", "lan", "web"]).ok();
    lan.logs("DHCPRELEASE", 1);
}

#[test]
fn a_lan_without_a_server_is_an_error_and_leaves_nothing() {
    let engine = Engine::start();
    if skip_on_docker(&engine, "DHCP networks") {
        return;
    }
    let other = Host::new("lan");
    engine.host().wire("nic0", "192.0.2.1/32", &other, "lan0", "10.93.0.1/24");
    engine.docker(&[&MACVLAN[..], &["lan"]].concat()).ok();
    let failed = engine.docker(&["run", "--name", "web", "--network", "lan", "busybox", "true"]);
    has_line(failed.fails(), &["no DHCP server gave an address to eth0 within 15 s"]);
    assert_eq!(engine.host().sh("ls /run/netns | wc -l").code, 0);
    assert_eq!(inspect(&engine, "web", "{{.State.Status}}"), "created");
}
