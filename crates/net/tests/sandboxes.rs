//! Containers on networks: what they get, and what is left of them.

mod lab;

use lab::{Lab, address, attach, container, pool, port, spec};
use portolan_net::{DnsUpdate, ErrorKind, NetworkAction, NetworkSpec, PortChange, PortRequest, SandboxInfo};
use portolan_netcore::dns::{Answer, Upstreams};
use portolan_netcore::model::{PortBinding, PortRange, Proto};
use portolan_netcore::shared::Piece;
use portolan_netsim::Faults;

#[tokio::test]
async fn run_on_the_default_bridge() {
    let lab = Lab::open().await;
    let (before, from) = (lab.host.state(), lab.host.log().len());
    let info = lab.run(1, "bridge", Vec::new()).await.unwrap();
    assert_eq!(address(&info), "172.17.0.2/16");
    assert_eq!(info.endpoints[0].endpoint.mac.to_string(), "02:42:ac:11:00:02");
    assert!(!info.embedded_dns);
    assert_eq!(info.netns.as_ref().unwrap().to_str().unwrap(), format!("/run/lab/netns/{}", info.id.short()));
    assert_eq!(
        lab.log_from(from, &info),
        "\
[host] firewall change: +[endpoint VETH0]
netns add SANDBOX
[SANDBOX] sysctl net.ipv6.conf.default.disable_ipv6=1
[host] link add VETH0 master docker0 up type veth peer eth0 netns SANDBOX address 02:42:ac:11:00:02
[SANDBOX] addr add 172.17.0.2/16 dev eth0
[SANDBOX] link set eth0 up
[SANDBOX] route add default via 172.17.0.1 dev eth0"
    );
    assert_eq!(address(&lab.run(2, "bridge", Vec::new()).await.unwrap()), "172.17.0.3/16");
    let from = lab.host.log().len();
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    assert_eq!(
        lab.log_from(from, &info),
        "\
[host] bridge link set dev VETH0 state disabled
netns del SANDBOX
[host] firewall change: -[endpoint VETH0]"
    );
    lab.networks.settled(&info.id).await.unwrap();
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    let second = lab.networks.sandboxes().await.unwrap();
    lab.networks.remove_sandbox(&second[0].id).await.unwrap();
    assert_eq!(lab.host.state(), before);
}

#[tokio::test]
async fn publish_holds_opens_and_closes() {
    let lab = Lab::open().await;
    let from = lab.host.log().len();
    let info = lab.run(1, "bridge", vec![port(Some((8080, 8080)), 80)]).await.unwrap();
    let published: Vec<_> =
        info.ports.keys().map(|port| (port.host_ip.to_string(), port.host_port)).collect();
    assert_eq!(published, [("0.0.0.0".to_owned(), 8080), ("::".to_owned(), 8080)]);
    let log = lab.log_from(from, &info);
    let start = "\
[host] hold 0.0.0.0 8080/tcp
[host] hold :: 8080/tcp
[host] firewall change: +[endpoint VETH0] +[port 0.0.0.0 8080/tcp to 172.17.0.2 80] \
+[carried port :: 8080/tcp to docker0]
netns add SANDBOX";
    assert!(log.starts_with(start), "{log}");
    assert!(log.ends_with("[host] proxy :: 8080/tcp to 172.17.0.2:80"), "{log}");
    let from = lab.host.log().len();
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    assert_eq!(
        lab.log_from(from, &info),
        "\
[host] firewall change: -[port 0.0.0.0 8080/tcp to 172.17.0.2 80]
[host] release 0.0.0.0 8080/tcp
[host] release :: 8080/tcp
[host] bridge link set dev VETH0 state disabled
netns del SANDBOX
[host] firewall change: -[endpoint VETH0] -[carried port :: 8080/tcp to docker0]"
    );
}

#[tokio::test]
async fn a_port_beside_many_is_one_transaction_of_its_own() {
    let [add, remove] = one_port_beside(0, &[]).await;
    assert_eq!(
        add,
        "\
[host] hold 0.0.0.0 8080/tcp
[host] hold :: 8080/tcp
[host] firewall change: +[port 0.0.0.0 8080/tcp to 172.17.0.2 81] +[carried port :: 8080/tcp to docker0]
[host] proxy :: 8080/tcp to 172.17.0.2:81"
    );
    assert_eq!(
        remove,
        "\
[host] firewall change: -[port 0.0.0.0 8080/tcp to 172.17.0.2 81]
[host] release 0.0.0.0 8080/tcp
[host] release :: 8080/tcp
[host] firewall change: -[carried port :: 8080/tcp to docker0]"
    );
    for sources in [&[][..], &["10.0.0.0/8"]] {
        let beside_none = one_port_beside(0, sources).await;
        assert_eq!(one_port_beside(1, sources).await, beside_none);
        assert_eq!(one_port_beside(500, sources).await, beside_none);
    }
}

/// A piece of a list, and those in it.
fn pieces(piece: &Piece<PortBinding, ()>, all: &mut Vec<*const Piece<PortBinding, ()>>) {
    all.push(piece);
    piece.pieces().for_each(|piece| pieces(piece, all));
}

/// The steps that publish a port beside so many, and those that take it back.
async fn one_port_beside(many: u16, sources: &[&str]) -> [String; 2] {
    let lab = Lab::open().await;
    let port = |number, inside| PortRequest {
        from: sources.iter().map(|net| net.parse().expect("a network")).collect(),
        ..port(Some((number, number)), inside)
    };
    let before: Vec<_> = (1..=many).map(|number| port(number, 80)).collect();
    let info = lab.run(1, "bridge", before).await.expect("the host takes all");
    let from = lab.host.log().len();
    let one = port(8080, 81);
    let (add, asks) = (vec![one.clone()], vec![one.clone()]);
    let change = PortChange { add, asks, ..PortChange::default() };
    let after = lab.networks.change_ports(&info.id, change).await.expect("the host takes all");
    assert_eq!(after.ports.len(), 2 * (usize::from(many) + 1));
    let (mut had, mut has) = (Vec::new(), Vec::new());
    info.ports.root().into_iter().for_each(|root| pieces(root, &mut had));
    after.ports.root().into_iter().for_each(|root| pieces(root, &mut has));
    let new = has.iter().filter(|piece| !had.contains(*piece)).count();
    assert!(new <= 6, "the list that was there is shared, but for the way to the port: {new} pieces are new");
    let add = lab.log_from(from, &info);
    let from = lab.host.log().len();
    let remove = after.ports.keys().filter(|binding| binding.host_port == 8080).cloned().collect();
    let change = PortChange { remove, asks_no_more: vec![one], ..PortChange::default() };
    lab.networks.change_ports(&info.id, change).await.expect("the host takes all");
    [add, lab.log_from(from, &info)]
}

#[tokio::test]
async fn tcp_and_udp_cross_families_and_sctp_does_not() {
    let lab = Lab::open().await;
    let of = |proto| portolan_net::PortRequest { proto, ..port(Some((53, 53)), 53) };
    let info = lab.run(1, "bridge", vec![of(Proto::Udp), of(Proto::Sctp)]).await.unwrap();
    let bindings = |proto| info.ports.keys().filter(|port| port.proto == proto).count();
    assert_eq!((bindings(Proto::Udp), bindings(Proto::Sctp)), (2, 1));
    let on_v6 = portolan_net::PortRequest { host_ip: Some("::1".parse().unwrap()), ..of(Proto::Sctp) };
    let error = lab.run(2, "bridge", vec![on_v6]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("cannot publish port 53/sctp on ::1"), "{error}");
    let facts = portolan_netcore::host::HostFacts { ipv6: false, ..Default::default() };
    lab.host.set_facts(facts);
    assert_eq!(lab.run(3, "bridge", vec![port(Some((80, 80)), 80)]).await.unwrap().ports.len(), 1);
}

#[tokio::test]
async fn ports_in_use_name_their_holder_and_leave_nothing() {
    let lab = Lab::open().await;
    lab.host.add_foreign_port(Proto::Tcp, "0.0.0.0".parse().unwrap(), 9090);
    lab.run(1, "bridge", vec![port(Some((80, 80)), 80)]).await.unwrap();
    let before = lab.host.state();
    let error =
        lab.run(2, "bridge", vec![port(Some((81, 81)), 81), port(Some((80, 80)), 80)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(
        error.message().starts_with("driver failed programming external connectivity on endpoint c2 ("),
        "{error}"
    );
    assert!(
        error.message().ends_with(
            "Bind for 0.0.0.0:80 failed: port is already allocated (container \"c1\" publishes it)"
        ),
        "{error}"
    );
    let error = lab.run(2, "bridge", vec![port(Some((9090, 9090)), 80)]).await.unwrap_err();
    assert!(
        error.message().ends_with(
            "failed to bind host port 0.0.0.0:9090/tcp: address already in use by nginx (pid 123)"
        ),
        "{error}"
    );
    assert_eq!(lab.host.state(), before);
    assert_eq!(
        address(&lab.run(3, "bridge", Vec::new()).await.unwrap()),
        "172.17.0.3/16",
        "no address was lost"
    );
}

#[tokio::test]
async fn ranges_and_ephemeral_ports_go_round_what_is_taken() {
    let lab = Lab::open().await;
    lab.host.add_foreign_port(Proto::Tcp, "127.0.0.1".parse().unwrap(), 7001);
    let facts = portolan_netcore::host::HostFacts {
        ephemeral: PortRange { first: 50_000, last: 50_003 },
        reserved: vec![PortRange { first: 50_001, last: 50_001 }],
        ..Default::default()
    };
    lab.host.set_facts(facts);
    let host_port = |info: &portolan_net::SandboxInfo| info.ports.keys().next().expect("one").host_port;
    assert_eq!(host_port(&lab.run(1, "bridge", vec![port(Some((7000, 7002)), 80)]).await.unwrap()), 7000);
    assert_eq!(host_port(&lab.run(2, "bridge", vec![port(Some((7000, 7002)), 80)]).await.unwrap()), 7002);
    let error = lab.run(3, "bridge", vec![port(Some((7000, 7002)), 80)]).await.unwrap_err();
    assert!(error.message().contains("all ports are allocated (7000-7002)"), "{error}");
    let info = lab.run(4, "bridge", vec![port(None, 80)]).await.unwrap();
    assert_eq!(host_port(&info), 50_000);
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    assert_eq!(host_port(&lab.run(5, "bridge", vec![port(None, 80)]).await.unwrap()), 50_002);
    let both = lab.run(6, "bridge", vec![port(None, 80), port(Some((50_003, 50_003)), 81)]).await.unwrap();
    let v4 = both.ports.keys().filter(|port| port.host_ip.is_ipv4());
    let ports: Vec<_> = v4.map(|port| (port.container_port, port.host_port)).collect();
    assert_eq!(ports, [(80, 50_000), (81, 50_003)], "exact ones are taken first");
}

#[tokio::test]
async fn names_are_known_on_user_networks() {
    let lab = Lab::open().await;
    lab.user_network("front").await;
    let web = lab.run(1, "front", Vec::new()).await.unwrap();
    let db = lab.run(2, "front", Vec::new()).await.unwrap();
    assert!(web.embedded_dns);
    assert_eq!(address(&web), "172.18.0.2/16");
    let found = |who: &SandboxInfo, name: &str| lab.names.address(&who.id, name);
    assert_eq!(found(&web, "c1.front").as_deref(), Some("172.18.0.2"));
    assert_eq!(found(&web, "c2").as_deref(), Some("172.18.0.3"));
    assert_eq!(lab.host.state().dns_redirects[&db.id], (40_001, 40_002));
    lab.networks.rename(&db.container, "Database").await.unwrap();
    lab.networks.remove_sandbox(&web.id).await.unwrap();
    assert!(!lab.names.serving.lock().unwrap().contains(&web.id));
    assert_eq!(found(&db, "database").as_deref(), Some("172.18.0.3"));
    assert_eq!((found(&db, "c1"), found(&db, "c2")), (None, None));
    assert_eq!(lab.names.ask(&web.id, "database"), Answer::Refused);
}

#[tokio::test]
async fn one_who_is_not_ready_leaves_the_answer_to_others() {
    let lab = Lab::open().await;
    lab.user_network("front").await;
    let mut sandboxes = Vec::new();
    for number in [1, 2] {
        let mut replica = lab::spec(number, "front", Vec::new());
        replica.attach[0].dns_names.push("svc".to_owned());
        sandboxes.push(lab.networks.create_sandbox(replica).await.unwrap());
    }
    let all = || match lab.names.ask(&sandboxes[0].id, "svc") {
        Answer::Known(records) => records.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(all(), 2);
    lab.networks.set_ready(&sandboxes[1].id, false).await.unwrap();
    assert_eq!(all(), 1);
    lab.networks.set_ready(&sandboxes[1].id, true).await.unwrap();
    assert_eq!(all(), 2);
}

#[tokio::test]
async fn a_network_s_own_resolvers_change_while_it_is_in_use() {
    let lab = Lab::open().await;
    let options = [("portolan.dns".to_owned(), "192.0.2.1".to_owned())].into();
    let spec = NetworkSpec { name: "front".to_owned(), options, ..NetworkSpec::default() };
    lab.networks.create(spec).await.unwrap();
    let web = lab.run(1, "front", Vec::new()).await.unwrap();
    let servers = |lab: &Lab| match &lab.names.zones.lock().unwrap().view(&web.id).unwrap().upstreams {
        Upstreams::Own(servers) => servers.iter().map(|server| server.ip().to_string()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(servers(&lab), ["192.0.2.1"]);
    let add = |text: &str| DnsUpdate { add: vec![text.parse().unwrap()], remove: Vec::new() };
    lab.networks.update_dns("front", add("2001:db8::53")).await.unwrap();
    assert_eq!(servers(&lab), ["192.0.2.1", "2001:db8::53"]);
    let gone = DnsUpdate { add: Vec::new(), remove: vec!["192.0.2.1".parse().unwrap()] };
    lab.networks.update_dns("front", gone.clone()).await.unwrap();
    let error = lab.networks.update_dns("front", gone).await.unwrap_err();
    assert!(error.message().contains("192.0.2.1"), "{error}");
    assert!(lab.networks.update_dns("bridge", add("192.0.2.9")).await.is_err());
    let lab = lab.restart().await;
    assert_eq!(servers(&lab), ["2001:db8::53"], "and is kept");
}

#[tokio::test]
async fn a_start_that_fails_anywhere_leaves_nothing() {
    let lab = Lab::open().await;
    lab.user_network("front").await;
    let before = lab.host.state();
    for prefix in ["[host] firewall", "netns add", "[host] link add veth", "[", "netns"] {
        lab.host.set_faults(Faults { refuse: vec![(prefix.to_owned(), 5)], ..Faults::default() });
        assert!(lab.run(1, "front", vec![port(Some((80, 80)), 80)]).await.is_err(), "{prefix}");
        lab.host.set_faults(Faults::default());
        assert_eq!(lab.host.state(), before, "{prefix}");
    }
    *lab.names.broken.lock().unwrap() = true;
    let error = lab.run(1, "front", vec![port(Some((80, 80)), 80)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(lab.host.state(), before);
    *lab.names.broken.lock().unwrap() = false;
    lab.networks.forget(&container(1)).await.unwrap();
    // Network, gateway and broadcast address: the last quarantine is over.
    while lab.networks.find("front").await.unwrap().usage[0].in_use > 3 {
        tokio::task::yield_now().await;
    }
    let info = lab.run(2, "front", vec![port(Some((80, 80)), 80)]).await.unwrap();
    assert_eq!(address(&info), "172.18.0.2/16");
}

#[tokio::test]
async fn addresses_are_sticky_and_static_ones_are_kept() {
    let lab = Lab::open().await;
    let spec = NetworkSpec { name: "own".into(), ipam: vec![pool("10.5.0.0/29")], ..NetworkSpec::default() };
    lab.networks.create(spec).await.unwrap();
    let fixed = portolan_net::AttachSpec { ipv4: Some("10.5.0.2".parse().unwrap()), ..attach(1, "own") };
    lab.networks.reserve(&container(1), fixed.clone()).await.unwrap();
    let other = lab.run(2, "own", Vec::new()).await.unwrap();
    assert_eq!(address(&other), "10.5.0.3/29", "the reserved one is not for others");
    let taken = portolan_net::AttachSpec { ipv4: Some("10.5.0.2".parse().unwrap()), ..attach(3, "own") };
    lab.networks.reserve(&container(3), taken.clone()).await.unwrap();
    let mut third = lab::spec(3, "own", Vec::new());
    third.attach = vec![taken];
    // Though it does not run, its address is known to be of the container's new name.
    lab.networks.rename(&container(1), "renamed").await.unwrap();
    let error = lab.networks.create_sandbox(third).await.unwrap_err();
    assert!(
        error.message().starts_with("Address already in use: 10.5.0.2 belongs to container renamed"),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    lab.networks.forget(&container(3)).await.unwrap();
    lab.networks.remove_sandbox(&other.id).await.unwrap();
    assert_eq!(
        address(&lab.run(4, "own", Vec::new()).await.unwrap()),
        "10.5.0.4/29",
        "a stopped container's is kept while there are others"
    );
    assert_eq!(address(&lab.run(2, "own", Vec::new()).await.unwrap()), "10.5.0.3/29");
    let mut first = lab::spec(1, "own", Vec::new());
    first.attach = vec![fixed];
    assert_eq!(address(&lab.networks.create_sandbox(first).await.unwrap()), "10.5.0.2/29");
    for number in 5..=6 {
        lab.run(number, "own", Vec::new()).await.unwrap();
    }
    let error = lab.run(7, "own", Vec::new()).await.unwrap_err();
    assert!(
        error.message().starts_with("no available IPv4 addresses on this network's address pools: own ("),
        "{error}"
    );
}

#[tokio::test]
async fn connect_and_disconnect_move_gateway_and_ports() {
    let lab = Lab::open().await;
    lab.user_network("back").await;
    lab.user_network("front").await;
    let info = lab.run(1, "front", vec![port(Some((80, 80)), 80)]).await.unwrap();
    let before = lab.host.state();
    let from = lab.host.log().len();
    let both = lab.networks.connect(&info.id, attach(1, "back")).await.unwrap();
    assert_eq!(both.endpoints.len(), 2);
    let (front, back) = (&both.endpoints[0].endpoint, &both.endpoints[1].endpoint);
    assert!(back.is_gateway && !front.is_gateway, "the lower name wins");
    assert_eq!((back.ifname.as_str(), back.published.len(), front.published.len()), ("eth1", 2, 0));
    let [front, back] = [front, back].map(|endpoint| format!("br-{}", endpoint.network.short()));
    assert_eq!(
        lab.log_from(from, &both).replace(&back, "BACK").replace(&front, "FRONT"),
        "\
[host] unproxy :: 80/tcp
[host] firewall change: -[port 0.0.0.0 80/tcp to 172.19.0.2 80] -[carried port :: 80/tcp to FRONT] \
+[endpoint VETH1] +[port 0.0.0.0 80/tcp to 172.18.0.2 80] +[carried port :: 80/tcp to BACK]
[host] link add VETH1 master BACK up type veth peer eth1 netns SANDBOX address 02:42:ac:12:00:02
[SANDBOX] addr add 172.18.0.2/16 dev eth1
[SANDBOX] link set eth1 up
[SANDBOX] route add default via 172.18.0.1 dev eth1
[host] proxy :: 80/tcp to 172.18.0.2:80"
    );
    let error = lab.networks.connect(&info.id, attach(1, "back")).await.unwrap_err();
    assert_eq!(error.message(), "endpoint with name c1 already exists in network back");
    let one = lab.networks.disconnect(&info.id, "back").await.unwrap();
    assert!(one.endpoints[0].endpoint.is_gateway);
    assert_eq!(one.ports, info.ports);
    assert_eq!(lab.host.state(), before);
    let error = lab.networks.disconnect(&info.id, "back").await.unwrap_err();
    assert!(error.message().ends_with("is not connected to network back"), "{error}");
    let none = lab.networks.disconnect(&info.id, "front").await.unwrap();
    assert!(none.endpoints.is_empty() && none.ports.is_empty());
    assert!(lab.host.state().held_ports.is_empty());
    let again = lab.networks.connect(&info.id, attach(1, "front")).await.unwrap();
    assert_eq!(again.ports, info.ports, "ports come back with a gateway");
}

#[tokio::test]
async fn a_connect_that_fails_changes_nothing() {
    let lab = Lab::open().await;
    lab.user_network("back").await;
    let info = lab.run(1, "bridge", vec![port(Some((80, 80)), 80)]).await.unwrap();
    let before = lab.host.state();
    lab.host.set_faults(Faults {
        refuse: vec![(format!("[{}] addr add", info.id.short()), 5)],
        ..Faults::default()
    });
    lab.networks.connect(&info.id, attach(1, "back")).await.unwrap_err();
    lab.host.set_faults(Faults::default());
    assert_eq!(lab.host.state(), before);
    assert_eq!(lab.networks.sandbox(&info.id).await.unwrap().unwrap(), info);
    assert_eq!(lab.networks.connect(&info.id, attach(1, "back")).await.unwrap().endpoints.len(), 2);
}

#[tokio::test]
async fn host_and_none() {
    let lab = Lab::open().await;
    let before = lab.host.state();
    let host = lab.run(1, "host", vec![port(Some((80, 80)), 80)]).await.unwrap();
    assert_eq!((host.netns.as_ref(), host.ports.len()), (None, 0));
    assert_eq!(lab.host.state(), before);
    let listed = lab.networks.find("host").await.unwrap();
    assert_eq!((listed.endpoints[0].container_name.as_str(), listed.endpoints[0].mac), ("c1", None));
    let none = lab.run(2, "none", Vec::new()).await.unwrap();
    assert_eq!(lab.host.state().namespaces.len(), 1);
    assert!(none.endpoints[0].endpoint.ipv4.is_none() && none.netns.is_some());
    let error = lab.networks.connect(&none.id, attach(2, "bridge")).await.unwrap_err();
    assert!(error.message().contains("private (none) mode"), "{error}");
    let mut private = spec(3, "bridge", Vec::new());
    private.attach[0].network = "host".into();
    assert!(lab.networks.create_sandbox(private).await.unwrap_err().message().contains("host network mode"));
}

#[tokio::test]
async fn fifty_at_once_get_fifty_addresses() {
    let lab = Lab::open().await;
    lab.user_network("front").await;
    let mut runs = tokio::task::JoinSet::new();
    for number in 1..=50 {
        let networks = lab.networks.clone();
        runs.spawn(async move {
            networks.create_sandbox(spec(number, "front", vec![port(None, 80)])).await.unwrap()
        });
    }
    let infos = runs.join_all().await;
    let addresses: std::collections::BTreeSet<_> = infos.iter().map(address).collect();
    let ports: std::collections::BTreeSet<_> =
        infos.iter().map(|info| info.ports.keys().next().expect("one").host_port).collect();
    assert_eq!((addresses.len(), ports.len()), (50, 50));
    let mut removals = tokio::task::JoinSet::new();
    for info in infos {
        let networks = lab.networks.clone();
        removals.spawn(async move {
            networks.remove_sandbox(&info.id).await.unwrap();
            networks.settled(&info.id).await.unwrap();
            networks.forget(&info.container).await.unwrap();
        });
    }
    removals.join_all().await;
    let usage = &lab.networks.find("front").await.unwrap().usage[0];
    assert_eq!(usage.in_use, 3, "network, gateway and broadcast address");
    assert!(lab.host.state().namespaces.is_empty() && lab.host.state().held_ports.is_empty());
}

#[tokio::test]
async fn events_tell_what_happened() {
    let lab = Lab::open().await;
    let mut events = lab.networks.events();
    lab.user_network("front").await;
    let info = lab.run(1, "front", Vec::new()).await.unwrap();
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    lab.networks.remove("front").await.unwrap();
    for want in
        [NetworkAction::Create, NetworkAction::Connect, NetworkAction::Disconnect, NetworkAction::Destroy]
    {
        let event = events.try_recv().unwrap();
        assert_eq!((event.action, event.name.as_str(), event.driver), (want, "front", "bridge"));
        assert_eq!(
            event.container.is_some(),
            matches!(want, NetworkAction::Connect | NetworkAction::Disconnect)
        );
    }
    assert!(events.try_recv().is_err());
}
