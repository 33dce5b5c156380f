use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use portolan_netcore::host::Host;
use portolan_netcore::model::{PortBinding, Proto};
use portolan_netcore::plan::{Proxied, Step};

use super::lab::{Lab, add_bridge};
use crate::ports::HeldPorts;

fn binding(proto: Proto, host_ip: &str, host_port: u16) -> PortBinding {
    PortBinding { proto, container_port: 0, host_ip: host_ip.parse().unwrap(), host_port }
}

#[test]
fn a_held_port_is_taken_for_everybody_else() {
    Lab::run("hold", |lab| {
        lab.execute(&add_bridge());
        let ports = [
            binding(Proto::Tcp, "0.0.0.0", 8080),
            binding(Proto::Tcp, "::", 8080),
            binding(Proto::Udp, "0.0.0.0", 8080),
            binding(Proto::Sctp, "0.0.0.0", 8080),
            binding(Proto::Tcp, "10.77.0.1", 8081),
        ];
        lab.execute(&ports.clone().map(Step::HoldPort));
        assert_eq!(lab.host.observe().unwrap().held_ports, ports.clone().into());
        for taken in ["0.0.0.0:8080", "127.0.0.1:8080", "[::]:8080", "10.77.0.1:8081"] {
            assert!(TcpListener::bind(taken).is_err(), "{taken}");
        }
        assert!(UdpSocket::bind("127.0.0.1:8080").is_err());
        TcpListener::bind("[::1]:8081").unwrap();
        let report = lab.host.execute(&[Step::HoldPort(ports[0].clone())]);
        assert_eq!(report.error.unwrap().errno, Some(libc::EADDRINUSE));

        lab.execute(&ports.map(Step::ReleasePort));
        TcpListener::bind("0.0.0.0:8080").unwrap();
        assert!(lab.host.observe().unwrap().held_ports.is_empty());
    });
}

#[test]
fn a_few_sockets_beyond_the_limit_are_not_put_away_one_by_one() {
    Lab::run("few-shelves", |lab| {
        lab.execute(&add_bridge());
        let ports = HeldPorts::with_most(1);
        for (number, at_hand) in (20_000..).zip([1, 2, 3, 4, 5, 6, 7, 0, 1]) {
            ports.hold(&binding(Proto::Tcp, "10.77.0.1", number)).unwrap();
            assert_eq!(ports.at_hand(), at_hand);
        }
    });
}

#[test]
fn ports_beyond_the_limit_are_held_without_a_descriptor_each() {
    Lab::run("shelves", |lab| {
        lab.execute(&add_bridge());
        let (ports, most) = (HeldPorts::with_most(70), 70);
        let all: Vec<PortBinding> =
            (20_000..20_300).map(|port| binding(Proto::Tcp, "10.77.0.1", port)).collect();
        let is_free = |port: &PortBinding| TcpListener::bind((port.host_ip, port.host_port)).is_ok();
        all.iter().for_each(|port| ports.hold(port).unwrap());
        assert!(ports.at_hand() <= most, "{}", ports.at_hand());
        assert!(!all.iter().any(is_free));

        // One that was put away can be listened on, and is not put away meanwhile.
        let socket = ports.socket(&all[3]).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
        TcpStream::connect("10.77.0.1:20003").unwrap();
        assert!(ports.at_hand() <= most, "{}", ports.at_hand());

        let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|port| port.host_port % 2 == 0);
        gone.iter().for_each(|port| ports.release(port));
        assert!(gone.iter().all(is_free));
        assert!(!kept.iter().any(is_free));
        assert_eq!(ports.list(), kept.into_iter().collect());
    });
}

/// As by the next process, which has the descriptors of the last.
#[test]
fn ports_are_taken_over_by_their_sockets() {
    Lab::run("adopt", |lab| {
        lab.execute(&add_bridge());
        let all = [
            binding(Proto::Tcp, "10.77.0.1", 8080),
            binding(Proto::Udp, "0.0.0.0", 8081),
            binding(Proto::Tcp, "::", 8082),
        ];
        let (last, next) = (HeldPorts::default(), HeldPorts::default());
        all.iter().for_each(|port| last.hold(port).unwrap());
        let left = last.names().map(|name| {
            let socket = last.descriptor(&name).unwrap().try_clone().unwrap();
            (name, socket)
        });
        let left: Vec<_> = left.collect();
        drop(last);
        let another = left[0].1.try_clone().unwrap();
        for (name, socket) in left {
            next.adopt(&name, socket).unwrap();
        }
        assert_eq!(next.list(), all.clone().into());
        for wrong in ["10.77.0.1:8083/tcp", "10.77.0.1:8080/tcp", "eth0"] {
            assert!(next.adopt(wrong, another.try_clone().unwrap()).is_err(), "{wrong}");
        }
        drop(another);
        assert!(TcpListener::bind("10.77.0.1:8080").is_err() && UdpSocket::bind("127.0.0.1:8081").is_err());
        all.iter().for_each(|port| next.release(port));
        TcpListener::bind("10.77.0.1:8080").unwrap();
        UdpSocket::bind("127.0.0.1:8081").unwrap();
    });
}

#[test]
fn a_refusal_says_who_has_the_port() {
    Lab::run("holder", |lab| {
        lab.execute(&add_bridge());
        let _server = TcpListener::bind("0.0.0.0:8080").unwrap();
        let error = lab.host.execute(&[Step::HoldPort(binding(Proto::Tcp, "0.0.0.0", 8080))]).error.unwrap();
        let who = format!("(pid {})", std::process::id());
        assert!(
            error.reason.starts_with("failed to bind host port 0.0.0.0:8080/tcp: address already in use by ")
        );
        assert!(error.reason.ends_with(&who), "{}", error.reason);

        let absent = binding(Proto::Tcp, "192.0.2.1", 8080);
        let error = lab.host.execute(&[Step::HoldPort(absent)]).error.unwrap();
        assert_eq!(error.errno, Some(libc::EADDRNOTAVAIL));
        assert!(error.reason.ends_with("cannot assign requested address"), "{}", error.reason);
    });
}

#[test]
fn connections_in_time_wait_do_not_keep_a_port_from_being_held() {
    Lab::run("timewait", |lab| {
        lab.execute(&add_bridge());
        let server = TcpListener::bind("10.77.0.1:8080").unwrap();
        let client = TcpStream::connect("10.77.0.1:8080").unwrap();
        let (accepted, _) = server.accept().unwrap();
        // The side that closes first waits.
        drop(accepted);
        drop(client);
        drop(server);
        lab.execute(&[Step::HoldPort(binding(Proto::Tcp, "0.0.0.0", 8080))]);
        // A program that sets SO_REUSEADDR, as std does, cannot listen beside us.
        assert!(TcpListener::bind("10.77.0.1:8080").is_err());
    });
}

#[test]
fn flows_of_a_port_are_forgotten_and_no_others() {
    Lab::run("flows", |lab| {
        lab.execute(&add_bridge());
        // Without a rule that needs it the kernel tracks nothing; that there is nothing is no failure.
        lab.execute(&[Step::ForgetFlows(vec![binding(Proto::Udp, "0.0.0.0", 53)])]);
        let rules =
            "table inet t { chain c { type filter hook output priority 0; ct state new accept\n }\n }";
        match std::process::Command::new("nft").arg(rules).status() {
            Ok(status) => assert!(status.success()),
            Err(error) => return println!("skipped flows: no nft to make the kernel track them: {error}"),
        }
        let client = UdpSocket::bind("10.77.0.1:9").unwrap();
        let client6 = UdpSocket::bind("[fd77::1]:9").unwrap();
        for port in [53, 54] {
            client.send_to(b"x", ("10.77.0.1", port)).unwrap();
            client6.send_to(b"x", ("fd77::1", port)).unwrap();
        }
        let udp = |address, port| binding(Proto::Udp, address, port);
        let forget = |bindings: &[PortBinding]| crate::conntrack::forget(bindings).unwrap();
        assert_eq!(forget(&[binding(Proto::Tcp, "0.0.0.0", 53)]), 0);
        assert_eq!(forget(&[udp("10.77.0.2", 53)]), 0);
        assert_eq!(forget(&[udp("10.77.0.1", 53)]), 1);
        assert_eq!(forget(&[udp("0.0.0.0", 53)]), 0);
        let many = [udp("0.0.0.0", 54), udp("::", 53), udp("0.0.0.0", 55), udp("fd77::1", 54)];
        assert_eq!(forget(&many), 3, "by one look");

        // From it and to it; the kernel says nothing of its own from these.
        let sockets = ["127.0.0.2:60", "127.0.0.3:60", "127.0.0.4:60"].map(|at| UdpSocket::bind(at).unwrap());
        for (from, to) in [(0, "127.0.0.3:60"), (1, "127.0.0.4:60"), (2, "127.0.0.2:61")] {
            sockets[from].send_to(b"x", to).unwrap();
        }
        let gone = |address: &str| crate::conntrack::forget_addresses(&[address.parse().unwrap()]).unwrap();
        let mut socket = crate::netlink::Socket::open(crate::netlink::Protocol::Netfilter).unwrap();
        let mut found = |at_once: bool| {
            let two = ["127.0.0.2", "127.0.0.4"].map(|address| address.parse().unwrap());
            let mut flows = crate::conntrack::flows_of(&mut socket, &two, at_once).unwrap();
            flows.sort();
            flows
        };
        assert_eq!((found(true).len(), found(true)), (3, found(false)), "either way");
        assert_eq!(gone("127.0.0.9"), 0);
        assert_eq!(gone("127.0.0.2"), 2);
        assert_eq!(gone("127.0.0.2"), 0);
        assert_eq!(gone("127.0.0.4"), 1, "the others stay");
    });
}

#[test]
fn a_proxied_port_leads_ipv6_clients_to_an_ipv4_server() {
    Lab::run("proxy", |lab| {
        lab.execute(&add_bridge());
        let server = TcpListener::bind("10.77.0.1:80").unwrap();
        let proxied = |from: &str| {
            let from = from.split_whitespace().map(|net| net.parse().unwrap()).collect();
            Proxied { target: "10.77.0.1:80".parse().unwrap(), from }
        };
        let port = binding(Proto::Tcp, "::", 8080);
        let unheld = lab.host.execute(&[Step::ProxyPort(port.clone(), proxied(""))]).error.unwrap();
        assert!(unheld.reason.ends_with("is not held"), "{}", unheld.reason);

        lab.execute(&[Step::HoldPort(port.clone()), Step::ProxyPort(port.clone(), proxied(""))]);
        assert_eq!(lab.host.observe().unwrap().proxied_ports, [(port.clone(), proxied(""))].into());
        let mut client = TcpStream::connect("[::1]:8080").unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        let mut text = String::new();
        accepted.read_to_string(&mut text).unwrap();
        accepted.write_all(b"answer").unwrap();
        drop(accepted);
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "questionanswer");

        lab.execute(&[Step::UnproxyPort(port.clone())]);
        assert!(TcpStream::connect("[::1]:8080").is_err());
        assert!(TcpListener::bind("[::]:8080").is_err(), "still held");
        lab.execute(&[Step::ProxyPort(port.clone(), proxied(""))]);
        TcpStream::connect("[::1]:8080").unwrap();
        drop(server.accept().unwrap());

        lab.execute(&[Step::ProxyPort(port.clone(), proxied("2001:db8::/32 10.0.0.0/8"))]);
        let mut stranger = TcpStream::connect("[::1]:8080").unwrap();
        assert_eq!(stranger.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        lab.execute(&[Step::ProxyPort(port.clone(), proxied("10.0.0.0/8 ::1/128"))]);
        let client = TcpStream::connect("[::1]:8080").unwrap();
        let (mut accepted, _) = server.accept().unwrap();
        drop(client);
        assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
        drop(accepted);
        // Whoever was refused has not come as far as the server.
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

        lab.execute(&[Step::ReleasePort(port.clone())]);
        let state = lab.host.observe().unwrap();
        assert!(state.proxied_ports.is_empty() && state.held_ports.is_empty());
        TcpListener::bind("[::]:8080").unwrap();
    });
}

/// The kernel makes an IPv6 address and the route to it some time after it was told, and datagrams to it
/// go elsewhere until then.
fn hears_itself(address: Ipv6Addr) -> bool {
    let Ok(socket) = UdpSocket::bind((address, 0)) else { return false };
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket.send_to(b"x", socket.local_addr().unwrap()).is_ok() && socket.recv_from(&mut [0; 1]).is_ok()
}

#[test]
fn a_proxied_port_leads_ipv6_datagrams_to_an_ipv4_server() {
    Lab::run("proxyudp", |lab| {
        lab.execute(&add_bridge());
        let bridge = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
        while !hears_itself(bridge) {}
        let server = UdpSocket::bind("10.77.0.1:53").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let port = binding(Proto::Udp, "::", 5353);
        let target = "10.77.0.1:53".parse().unwrap();
        let proxied = |from: Vec<IpNet>| Step::ProxyPort(port.clone(), Proxied { target, from });
        lab.execute(&[Step::HoldPort(port.clone()), proxied(Vec::new())]);
        // Two addresses of one host: the answer comes from the one that was asked.
        let mut clients = Vec::new();
        for asked in ["[::1]:5353", "[fd77::1]:5353"] {
            let client = UdpSocket::bind("[::]:0").unwrap();
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            for text in ["one", "two"] {
                client.send_to(text.as_bytes(), asked).unwrap();
                let mut buffer = [0; 64];
                let (length, whom) = server.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], text.as_bytes());
                server.send_to(b"answer", whom).unwrap();
                let (length, by) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], by), (&b"answer"[..], asked.parse().unwrap()));
            }
            clients.push(client);
        }
        let silence = |server: &UdpSocket| {
            clients[0].send_to(b"x", "[::1]:5353").unwrap();
            server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            server.recv_from(&mut [0; 64]).unwrap_err().kind()
        };
        lab.execute(&[proxied(vec!["2001:db8::/32".parse().unwrap()])]);
        assert_eq!(silence(&server), ErrorKind::WouldBlock, "not of those who may");
        lab.execute(&[proxied(Vec::new()), Step::UnproxyPort(port.clone())]);
        assert_eq!(silence(&server), ErrorKind::WouldBlock, "no proxy any more");
        assert!(UdpSocket::bind("[::]:5353").is_err(), "still held");
        lab.execute(&[Step::ReleasePort(port.clone())]);
        UdpSocket::bind("[::]:5353").unwrap();
    });
}
