//! Namespaces wired up as a host with bridge networks, and a neighbour on its link. Each lab is one
//! thread with a network namespace of its own; the others are held by sleeping children, so that
//! nothing is pinned anywhere and all of it goes with the test.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use portolan_netcore::firewall::BridgePolicy;
use portolan_netcore::model::IfName;

/// How long a packet may take that arrives at all.
pub(crate) const PATIENCE: Duration = Duration::from_millis(400);

/// Link-local addresses are usable at once, or neighbours are not asked for in the first seconds.
const NO_DAD: &str =
    "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad";

/// Runs `body` in a thread with a network namespace of its own; says so if that is not allowed.
pub(crate) fn in_host(body: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: unshare takes no pointers and affects this thread only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!("skipped: needs root to make network namespaces");
            return;
        }
        sh(NO_DAD);
        sh(
            "ip link set lo up; echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
        );
        body();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a script in the calling thread's namespace.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").arg("-ec").arg(script).output().unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {text}");
    text
}

/// The bridge `name` with the gateway at `.1` of 172.`number`.0.0/16 and fd`number`::/64.
pub(crate) fn bridge(name: &str, number: u8) -> BridgePolicy {
    sh(&format!(
        "ip link add {name} type bridge; ip link set {name} up; ip address add 172.{number}.0.1/16 dev {name}
         ip address add fd{number}::1/64 dev {name} nodad
         echo 1 > /proc/sys/net/ipv4/conf/{name}/route_localnet"
    ));
    let subnets = [format!("172.{number}.0.0/16"), format!("fd{number}::/64")];
    let subnets = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
    BridgePolicy::new(IfName::new(name).unwrap(), subnets)
}

/// A namespace with `lo` up and one link, `eth0`.
pub(crate) struct Node {
    name: &'static str,
    child: Child,
}

impl Node {
    /// A node whose `eth0` has these addresses, the other end in the calling thread's namespace being
    /// a port of `bridge`, or named `eth0` with `host_addresses` if there is none.
    pub(crate) fn new(
        name: &'static str,
        bridge: Option<&str>,
        addresses: &[&str],
        host_addresses: &[&str],
    ) -> Self {
        let child =
            Command::new("unshare").args(["-n", "sleep", "600"]).stdin(Stdio::null()).spawn().unwrap();
        let node = Self { name, child };
        let pid = node.child.id();
        // The child is in its namespace once that is another than ours.
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == ours {
            std::thread::yield_now();
        }
        node.sh(NO_DAD);
        let outer = if bridge.is_some() { format!("veth-{name}") } else { "eth0".to_owned() };
        sh(&format!("ip link add {outer} type veth peer name eth0 netns {pid}; ip link set {outer} up"));
        if let Some(bridge) = bridge {
            sh(&format!("ip link set {outer} master {bridge}; bridge link set dev {outer} hairpin on"));
        }
        for address in host_addresses {
            sh(&format!(
                "ip address add {address} dev eth0 nodad 2>/dev/null || ip address add {address} dev eth0"
            ));
        }
        node.sh("ip link set lo up; ip link set eth0 up");
        for address in addresses {
            node.sh(&format!("ip address add {address} dev eth0 nodad"));
        }
        node
    }

    /// A process in this namespace.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a script in this namespace.
    pub(crate) fn sh(&self, script: &str) -> String {
        sh(&format!("nsenter -t {} -n sh -ec '{script}'", self.child.id()))
    }

    fn inside<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> T {
        let file = std::fs::File::open(format!("/proc/{}/ns/net", self.child.id())).unwrap();
        let enter = move || {
            // SAFETY: the descriptor is open; setns affects this thread only.
            assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            body()
        };
        std::thread::spawn(enter).join().unwrap()
    }

    /// Serves TCP on a port of every address: whoever connects is told the address it came from.
    pub(crate) fn serve(&self, port: u16) -> &Self {
        let listener = self.inside(move || TcpListener::bind(("::", port)).unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                let _ = stream.write_all(peer.to_string().as_bytes());
            }
        });
        self
    }

    /// The same for UDP.
    pub(crate) fn serve_udp(&self, port: u16) -> &Self {
        let socket = self.inside(move || UdpSocket::bind(("::", port)).unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(peer.ip().to_canonical().to_string().as_bytes(), peer);
            }
        });
        self
    }

    /// Listens for datagrams: the address that each came from.
    pub(crate) fn hear(&self, port: u16) -> Receiver<IpAddr> {
        let socket = self.inside(move || UdpSocket::bind(("::", port)).unwrap());
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((_, peer)) = socket.recv_from(&mut [0; 8]) {
                let _ = send.send(peer.ip().to_canonical());
            }
        });
        receive
    }

    /// Sends a datagram and waits for nothing.
    pub(crate) fn tell(&self, to: &str) {
        let to: SocketAddr = to.parse().unwrap();
        self.inside(move || {
            let local = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            // Refusal by our own kernel is as good as silence.
            let _ = UdpSocket::bind(local).unwrap().send_to(b"!", to);
        });
    }

    /// Connects from here: the address that the server saw, or nothing.
    pub(crate) fn connect(&self, to: &str) -> Option<IpAddr> {
        let to: SocketAddr = to.parse().unwrap();
        self.inside(move || connect(to))
    }

    /// Connects from here.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn connects(&self, to: &str) -> std::io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        self.inside(move || TcpStream::connect_timeout(&to, PATIENCE))
    }

    /// On a busy machine the first packet may be lost, or late.
    fn tries(&self, to: &str) -> Option<IpAddr> {
        (0..3).find_map(|_| self.connect(to))
    }

    /// Asserts that the server behind `to` sees `from`.
    #[track_caller]
    pub(crate) fn reaches(&self, to: &str, from: &str) {
        assert_eq!(self.tries(to), Some(from.parse().unwrap()), "{} to {to}", self.name);
    }

    /// At `.host` of a bridge of 172.`number`.0.0/16 and fd`number`::/64.
    pub(crate) fn container(name: &'static str, bridge: &BridgePolicy, number: u8, host: u8) -> Self {
        let addresses = [format!("172.{number}.0.{host}/16"), format!("fd{number}::{host}/64")];
        let node = Self::new(name, Some(bridge.bridge.as_str()), &[&addresses[0], &addresses[1]], &[]);
        let gateways = format!("default via 172.{number}.0.1; ip -6 route add default via fd{number}::1");
        node.sh(&format!("ip route add {gateways}"));
        node
    }

    /// Another host on the host's link, which knows the way to containers' addresses.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn neighbour() -> Self {
        let link = [["192.168.1.2/24", "fd01::2/64"], ["192.168.1.1/24", "fd01::1/64"]];
        let node = Self::new("neighbour", None, &link[0], &link[1]);
        node.sh("ip route add 172.16.0.0/12 via 192.168.1.1; ip -6 route add fd00::/8 via fd01::1");
        node
    }

    /// Asserts that somebody answers at `to`.
    #[track_caller]
    pub(crate) fn gets_through(&self, to: &str) {
        assert!(self.tries(to).is_some(), "{} to {to}", self.name);
    }

    /// Asserts that `to` refuses connections.
    #[allow(dead_code, reason = "not every test needs it")]
    #[track_caller]
    pub(crate) fn refused(&self, to: &str) {
        let to: SocketAddr = to.parse().unwrap();
        let result = self.inside(move || TcpStream::connect_timeout(&to, PATIENCE));
        let refusal = result.expect_err("refused").kind();
        assert_eq!(refusal, std::io::ErrorKind::ConnectionRefused, "{} to {to}", self.name);
    }

    /// Asserts that nobody answers at `to`.
    #[track_caller]
    pub(crate) fn misses(&self, to: &str) {
        assert_eq!(self.connect(to), None, "{} to {to}", self.name);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects from the calling thread's namespace.
pub(crate) fn connect(to: SocketAddr) -> Option<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.parse().ok()
}

/// Asserts that the host itself reaches `to`, the server seeing `from`.
#[track_caller]
pub(crate) fn host_reaches(to: &str, from: &str) {
    assert_eq!(connect(to.parse().unwrap()), Some(from.parse().unwrap()), "host to {to}");
}

/// One datagram and its answer from the calling thread's namespace.
pub(crate) fn ask_udp(to: &str) -> Option<IpAddr> {
    let to: SocketAddr = to.parse().unwrap();
    let local = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Connected, so that an answer from another address is none.
    socket.connect(to).ok()?;
    socket.send(b"?").ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    String::from_utf8_lossy(&buffer[..length]).parse().ok()
}
