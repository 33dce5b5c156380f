use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use portolan_netcore::firewall::{BridgePolicy, CarriedPort, FirewallPolicy, Transaction};
use portolan_netcore::host::Host;
use portolan_netcore::model::{PortBinding, Proto};
use portolan_netcore::plan::{Proxied, Step};

use super::lab::{Lab, add_bridge, bridge, open_with};
use crate::FirewallBackend;

fn port() -> PortBinding {
    PortBinding { proto: Proto::Tcp, container_port: 0, host_ip: "::".parse().unwrap(), host_port: 8080 }
}

fn proxied(target: &str) -> Step {
    Step::ProxyPort(port(), Proxied { target: target.parse().unwrap(), from: Vec::new() })
}

fn publish(lab: &Lab) {
    let bridge = BridgePolicy::new(bridge().1, vec!["10.77.0.0/16".parse().unwrap()]);
    let carried = CarriedPort { binding: port(), bridge: bridge.bridge.clone(), from: Vec::new() };
    let policy = FirewallPolicy {
        bridges: [(bridge.bridge.clone(), bridge)].into(),
        carried: [carried].into(),
        ..FirewallPolicy::default()
    };
    lab.execute(&add_bridge());
    let rules = Step::Firewall(Transaction::Replace(policy));
    lab.execute(&[Step::HoldPort(port()), rules, proxied("10.77.0.1:80")]);
}

/// The kernel can be told; says so if not.
fn is_told(lab: &Lab) -> bool {
    let unasked = lab.host.unasked.as_ref();
    unasked.inspect(|why| println!("skipped: no queue of packets: {why}")).is_none()
}

fn try_to_connect() -> Result<TcpStream, ErrorKind> {
    let address = "[::1]:8080".parse().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(|error| error.kind())
}

/// The server hears of as many as came, and of no more.
fn serve(server: &TcpListener, client: &mut TcpStream) {
    let (mut accepted, _) = server.accept().unwrap();
    accepted.write_all(b"answer").unwrap();
    drop(accepted);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "answer");
}

#[test]
fn a_client_is_accepted_if_the_endpoint_accepts_and_refused_if_not() {
    Lab::run_with("ask", FirewallBackend::Nftables, |lab| {
        publish(lab);
        if !is_told(lab) {
            return;
        }
        for _ in 0..20 {
            assert_eq!(try_to_connect().unwrap_err(), ErrorKind::ConnectionRefused);
            let server = TcpListener::bind("10.77.0.1:80").unwrap();
            let mut clients: Vec<TcpStream> = (0..5).map(|_| try_to_connect().unwrap()).collect();
            clients.iter_mut().for_each(|client| serve(&server, client));
            server.set_nonblocking(true).unwrap();
            assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        // One that nobody answers for is neither accepted nor refused.
        lab.execute(&[proxied("10.77.0.9:80")]);
        let (begun, result) = (Instant::now(), try_to_connect().unwrap_err());
        assert!(
            result == ErrorKind::ConnectionRefused || begun.elapsed() > Duration::from_secs(4),
            "{result}"
        );
        lab.execute(&[Step::UnproxyPort(port())]);
        assert_eq!(
            try_to_connect().unwrap_err(),
            ErrorKind::ConnectionRefused,
            "after the start it is known"
        );
    });
}

/// Beyond a bound the host accepts at once, as where it is not told.
#[test]
fn a_flood_is_accepted_by_the_host_itself() {
    Lab::run_with("flood", FirewallBackend::Nftables, |lab| {
        publish(lab);
        if !is_told(lab) {
            return;
        }
        // Nobody has this address: to find that out takes a second at least.
        lab.execute(&[proxied("10.77.0.9:80")]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accepted = runtime.block_on(async {
            let connect = || {
                let address: std::net::SocketAddr = "[::1]:8080".parse().unwrap();
                tokio::time::timeout(Duration::from_millis(600), tokio::net::TcpStream::connect(address))
            };
            let all: Vec<_> = (0..crate::ask::MOST_OF_A_PORT + 20).map(|_| tokio::spawn(connect())).collect();
            let mut accepted = 0;
            for one in all {
                accepted += usize::from(matches!(one.await, Ok(Ok(Ok(_)))));
            }
            accepted
        });
        assert_eq!(accepted, 20);
    });
}

/// What was taken for a client who does not come is let go of: when the port is cut, and after a while.
#[test]
fn nothing_is_kept_for_a_client_who_does_not_come() {
    Lab::run_with("kept", FirewallBackend::Nftables, |lab| {
        publish(lab);
        if !is_told(lab) {
            return;
        }
        // The host's answers get lost.
        let lost = "table inet t { chain c { type filter hook output priority 0; tcp sport 8080 drop; }; }";
        match std::process::Command::new("nft").arg(lost).status() {
            Ok(status) => assert!(status.success()),
            Err(error) => return println!("skipped kept: no nft: {error}"),
        }
        let server = TcpListener::bind("10.77.0.1:80").unwrap();
        let come = || {
            let address = "[::1]:8080".parse().unwrap();
            assert!(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err());
            let (accepted, _) = server.accept().unwrap();
            accepted.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            accepted
        };
        let ended = |mut accepted: TcpStream| accepted.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(ended(come()), Err(ErrorKind::WouldBlock), "it is kept");
        let cut = come();
        lab.execute(&[Step::ForgetFlows(vec![port()])]);
        assert_eq!(ended(cut), Ok(0));
        let forgotten = come();
        lab.execute(&[Step::ForgetAddresses(vec!["10.77.0.1".parse().unwrap()])]);
        assert_eq!(ended(forgotten), Ok(0));
        let late = come();
        late.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        assert_eq!(ended(late), Ok(0));
    });
}

/// Where it is not told, the rules are not there.
#[test]
fn without_a_queue_the_host_accepts_as_ever() {
    Lab::run_with("unasked", FirewallBackend::Nftables, |lab| {
        if !is_told(lab) {
            return;
        }
        let taken: Vec<_> = std::iter::from_fn(|| crate::packets::PacketQueue::open().ok()).collect();
        let without = open_with(&lab.exec_root, FirewallBackend::Nftables);
        assert!(without.unasked.as_ref().unwrap().contains("other programs"), "{:?}", without.unasked);
        let features = without.features();
        assert!(features.iter().any(|one| one.name == "queue of packets" && one.missing.is_some()));
        drop(taken);
        let again = open_with(&lab.exec_root, FirewallBackend::Nftables);
        assert_eq!(again.unasked, None);
    });
}
