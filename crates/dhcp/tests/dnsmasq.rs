//! The client against Debian's dnsmasq: two namespaces and a wire. Needs root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use portolan_dhcp::Dhcp;
use portolan_netcore::model::{DhcpLease, EndpointId, LeaseNews, LeaseRequest};
use portolan_testkit::Host;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A server at 10.91.0.1 and a client at the other end of its wire.
struct Lan {
    server: Host,
    client: Host,
    files: TempDir,
    dnsmasq: Option<Child>,
    runtime: Runtime,
}

impl Lan {
    fn new() -> Self {
        let (server, client) = (Host::new("dhcpd"), Host::new("dhcpc"));
        server.wire("lan0", "10.91.0.1/24", &client, "eth0", "127.0.0.2/32");
        client.run(&["ip", "address", "flush", "dev", "eth0"]).ok();
        let files = tempfile::Builder::new().prefix("pt-dhcp-").tempdir_in("/tmp").unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { server, client, files, dnsmasq: None, runtime: runtime.unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn serve(&mut self, range: &str, options: &[&str]) {
        self.stop();
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.server.name())).arg("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=lan0"]);
        command.args(["--dhcp-authoritative", "--no-ping", "--log-dhcp", "--user=root"]);
        command.arg(format!("--log-facility={}", self.file("log").display()));
        command.arg(format!("--dhcp-leasefile={}", self.file("leases").display()));
        command.arg(format!("--pid-file={}", self.file("pid").display()));
        command.arg(format!("--dhcp-range={range}")).args(options);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.dnsmasq = Some(child.expect("dnsmasq (scripts/packages.sh test)"));
        self.logs("sockets bound");
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.dnsmasq.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits until the server's log has this text.
    fn logs(&self, text: &str) -> String {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let log = std::fs::read_to_string(self.file("log")).unwrap_or_default();
            if log.contains(text) || (text == "sockets bound" && log.contains("started")) {
                return log;
            }
            assert!(Instant::now() < until, "no {text:?} in\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn leases(&self) -> String {
        std::fs::read_to_string(self.file("leases")).unwrap_or_default()
    }

    fn dhcp(&self) -> (Dhcp, Receiver<LeaseNews>) {
        let dhcp = Dhcp::new(self.runtime.handle().clone());
        let (sender, news) = mpsc::channel();
        let sender = std::sync::Mutex::new(sender);
        dhcp.listen(move |one| drop(sender.lock().unwrap().send(one)));
        (dhcp, news)
    }

    fn request(&self, previous: Option<Ipv4Addr>) -> LeaseRequest {
        LeaseRequest {
            endpoint: EndpointId::from_bytes([7; 32]),
            netns: format!("/run/netns/{}", self.client.name()).into(),
            ifname: "eth0".parse().unwrap(),
            client_id: vec![255, 1, 2, 3, 4, 0, 4, 9, 9],
            hostname: "web".to_owned(),
            previous,
        }
    }

    fn use_address(&self, lease: &DhcpLease) {
        self.client.run(&["ip", "address", "replace", &lease.address.to_string(), "dev", "eth0"]).ok();
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.stop();
    }
}

const RANGE: &str = "10.91.0.100,10.91.0.150,255.255.255.0,2m";

#[test]
fn an_address_comes_with_what_belongs_to_it_and_goes_back() {
    let mut lan = Lan::new();
    lan.serve(
        RANGE,
        &[
            "--dhcp-option=option:router,10.91.0.254",
            "--dhcp-option=option:dns-server,10.91.0.53",
            "--dhcp-option=option:mtu,1400",
            "--domain=lan.example",
        ],
    );
    let (dhcp, _news) = lan.dhcp();
    let lease = dhcp.acquire(lan.request(None)).unwrap();
    assert_eq!(lease.domains, ["lan.example"]);
    assert!((100..=150).contains(&lease.address.addr().octets()[3]), "{lease:?}");
    assert_eq!(lease.address.prefix_len(), 24);
    assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 91, 0, 254)));
    assert_eq!(lease.dns, [Ipv4Addr::new(10, 91, 0, 53)]);
    assert_eq!((lease.mtu, lease.server), (Some(1400), Ipv4Addr::new(10, 91, 0, 1)));
    let known = lan.leases();
    assert!(known.contains(" web ") && known.contains("ff:01:02:03:04:00:04:09:09"), "{known}");
    lan.use_address(&lease);
    dhcp.release(&lan.request(None).endpoint);
    lan.logs("DHCPRELEASE");
    assert_eq!(lan.leases(), "", "the server has nothing lent");
    let packets = lan.client.run(&["cat", "/proc/net/packet"]).ok().lines().count();
    assert!(packets <= 2, "no socket stays in the namespace");
}

#[test]
fn a_lease_is_renewed_in_time_and_its_new_options_are_told() {
    let mut lan = Lan::new();
    lan.serve(RANGE, &["--dhcp-option-force=58,3", "--dhcp-option-force=59,100"]);
    let (dhcp, news) = lan.dhcp();
    let lease = dhcp.acquire(lan.request(None)).unwrap();
    lan.use_address(&lease);
    let renewed = news.recv_timeout(Duration::from_secs(10)).unwrap().lease.unwrap();
    assert!(renewed.same_but_for_time(&lease), "{renewed:?}");
    assert!(renewed.expires_at > lease.expires_at);
    lan.serve(
        RANGE,
        &["--dhcp-option-force=58,3", "--dhcp-option-force=59,100", "--dhcp-option=option:router,10.91.0.9"],
    );
    let until = Instant::now() + Duration::from_secs(15);
    while news.recv_timeout(until - Instant::now()).unwrap().lease.unwrap().gateway
        != Some(Ipv4Addr::new(10, 91, 0, 9))
    {}
    dhcp.release(&lan.request(None).endpoint);
}

#[test]
fn a_lease_that_is_refused_is_lost_and_another_one_found() {
    let mut lan = Lan::new();
    lan.serve(RANGE, &["--dhcp-option-force=58,3", "--dhcp-option-force=59,100"]);
    let (dhcp, news) = lan.dhcp();
    let lease = dhcp.acquire(lan.request(None)).unwrap();
    lan.use_address(&lease);
    lan.stop();
    std::fs::write(lan.file("leases"), "").unwrap();
    lan.serve("10.91.0.200,10.91.0.210,255.255.255.0,2m", &[]);
    assert_eq!(news.recv_timeout(Duration::from_secs(10)).unwrap().lease, None);
    let found = news.recv_timeout(Duration::from_secs(10)).unwrap().lease.unwrap();
    assert!((200..=210).contains(&found.address.addr().octets()[3]), "{found:?}");
}

#[test]
fn the_next_process_goes_on_with_a_lease_and_a_restart_asks_for_the_same_address() {
    let mut lan = Lan::new();
    lan.serve(RANGE, &["--dhcp-option-force=58,3", "--dhcp-option-force=59,100"]);
    let (dhcp, _news) = lan.dhcp();
    let lease = dhcp.acquire(lan.request(None)).unwrap();
    lan.use_address(&lease);
    drop(dhcp);
    let (dhcp, news) = lan.dhcp();
    dhcp.resume(lan.request(None), Some(lease.clone()));
    let renewed = news.recv_timeout(Duration::from_secs(10)).unwrap().lease.unwrap();
    assert!(renewed.same_but_for_time(&lease));
    dhcp.release(&lan.request(None).endpoint);
    lan.logs("DHCPRELEASE");
    let wanted = Ipv4Addr::new(10, 91, 0, 133);
    let again = dhcp.acquire(lan.request(Some(wanted))).unwrap();
    assert_eq!(again.address.addr(), wanted);
}

#[test]
fn an_address_that_a_neighbour_has_is_declined() {
    let mut lan = Lan::new();
    // The server does not see it: `--no-ping`. It has many others to lend.
    let taken = Ipv4Addr::new(10, 91, 0, 20);
    let neighbour = Host::new("dhcpn");
    let link = ["ip", "link", "add", "link", "lan0", "name", "eth0", "netns", neighbour.name()];
    lan.server.run(&[&link[..], &["type", "macvlan", "mode", "bridge"]].concat()).ok();
    neighbour.run(&["ip", "address", "add", &format!("{taken}/24"), "dev", "eth0"]).ok();
    neighbour.run(&["ip", "link", "set", "eth0", "up"]).ok();
    let search = "--dhcp-option=option:domain-search,eng.lan.example,lan.example";
    lan.serve("10.91.0.20,10.91.0.250,255.255.255.0,2m", &[search]);
    let (dhcp, _news) = lan.dhcp();
    let lease = dhcp.acquire(lan.request(Some(taken))).unwrap();
    assert_ne!(lease.address.addr(), taken);
    assert_eq!(lease.domains, ["eng.lan.example", "lan.example"]);
    lan.logs("DHCPDECLINE(lan0) 10.91.0.20");
    let packets = lan.client.run(&["cat", "/proc/net/packet"]).ok().lines().count();
    assert!(packets <= 3, "no socket stays in the namespace");
}

#[test]
fn silence_is_an_error_that_names_the_link() {
    let lan = Lan::new();
    let (dhcp, _news) = lan.dhcp();
    let begun = Instant::now();
    let error = dhcp.acquire(lan.request(None)).unwrap_err();
    assert!(error.to_string().contains("no DHCP server gave an address to eth0"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(17));
}
