//! Networks as users make and remove them.

mod lab;

use lab::{Lab, attach, config, container, pool};
use portolan_net::{ErrorKind, IpamPoolSpec, MemoryStore, NetworkSpec, Networks, NoLeases, NoNames};
use portolan_netcore::model::IfName;
use portolan_netsim::SimHost;
use std::sync::Arc;

fn named(name: &str) -> NetworkSpec {
    NetworkSpec { name: name.to_owned(), ..NetworkSpec::default() }
}

#[tokio::test]
async fn a_new_host_has_the_three_networks_and_docker0() {
    let lab = Lab::open().await;
    let all = lab.networks.list().await.unwrap();
    let rows: Vec<_> =
        all.iter().map(|info| (info.network.name.as_str(), info.network.driver.name())).collect();
    assert_eq!(rows, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
    let config = &all[0].network.ipam[0];
    assert_eq!(
        (config.subnet.to_string(), config.gateway.unwrap().to_string()),
        ("172.17.0.0/16".into(), "172.17.0.1".into())
    );
    let log = lab.host.log().join("\n");
    let id = &all[0].network.id.as_str()[..8];
    let mac = format!("02:50:{}:{}:{}:{}", &id[..2], &id[2..4], &id[4..6], &id[6..]);
    assert_eq!(
        log.replace(&mac, "MAC"),
        "\
[host] firewall replace: 1 bridges, 0 endpoints, 0 ports
[host] link add docker0 address MAC type bridge
[host] sysctl net.ipv4.conf.docker0.forwarding=1
[host] sysctl net.ipv4.conf.docker0.route_localnet=1
[host] sysctl net.ipv4.ip_forward=1
[host] sysctl net.ipv6.conf.docker0.accept_ra=0
[host] addr add 172.17.0.1/16 dev docker0
[host] link set docker0 up"
    );
}

#[tokio::test]
async fn create_plans_these_steps_and_remove_takes_them_back() {
    let lab = Lab::open().await;
    let (before, from) = (lab.host.state(), lab.host.log().len());
    let network = lab.networks.create(named("front")).await.unwrap();
    let bridge = format!("br-{}", network.id.short());
    let mac =
        lab.host.state().links.iter().find(|((_, name), _)| name.as_str() == bridge).unwrap().1.mac.unwrap();
    let log = lab.host.log()[from..].join("\n").replace(&bridge, "BR").replace(&mac.to_string(), "MAC");
    assert_eq!(
        log,
        "\
[host] firewall change: +[bridge BR]
[host] link add BR address MAC type bridge
[host] sysctl net.ipv4.conf.BR.forwarding=1
[host] sysctl net.ipv4.conf.BR.route_localnet=1
[host] sysctl net.ipv6.conf.BR.accept_ra=0
[host] addr add 172.18.0.1/16 dev BR
[host] link set BR up"
    );
    let from = lab.host.log().len();
    lab.networks.remove("front").await.unwrap();
    let log = lab.host.log()[from..].join("\n").replace(&bridge, "BR");
    assert_eq!(log, "[host] link del BR\n[host] firewall change: -[bridge BR]");
    assert_eq!(lab.host.state(), before);
    assert_eq!(lab.networks.find("front").await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// The kernel forgets what advertisements taught it when it begins to forward, unless it is told not to.
#[tokio::test]
async fn routes_that_the_host_learns_outlive_forwarding() {
    let lab = Lab::open().await;
    lab.host.add_advertised(IfName::new("eth7").unwrap());
    let from = lab.host.log().len();
    lab.networks.create(named("four")).await.unwrap();
    assert!(!lab.host.log()[from..].iter().any(|step| step.contains("eth7")), "nothing is forwarded for it");
    lab.networks.create(NetworkSpec { ipv6: Some(true), ..named("six") }).await.unwrap();
    let log = lab.host.log();
    let at = |text: &str| log.iter().rposition(|step| step.ends_with(text)).unwrap();
    assert!(at("net.ipv6.conf.eth7.accept_ra=2") < at("net.ipv6.conf.all.forwarding=1"), "{log:?}");
}

#[tokio::test]
async fn refusals_have_dockers_words() {
    let lab = Lab::open().await;
    let front = lab.networks.create(named("front")).await.unwrap();
    let overlapping = NetworkSpec { ipam: vec![pool("172.18.4.0/24")], ..named("other") };
    let driver = |driver: &str| NetworkSpec { driver: driver.to_owned(), ..named("other") };
    let option = NetworkSpec { options: [("com.example.x".into(), "1".into())].into(), ..named("other") };
    let two = NetworkSpec { ipam: vec![pool("10.1.0.0/24"), pool("10.2.0.0/24")], ..named("other") };
    for (spec, kind, text) in [
        (named("front"), ErrorKind::Conflict, "network with name front already exists"),
        (named("bridge"), ErrorKind::Forbidden, "operation is not permitted on predefined bridge network "),
        (named(""), ErrorKind::Invalid, "invalid name: name is empty"),
        (
            overlapping,
            ErrorKind::Forbidden,
            "invalid pool request: Pool overlaps with other one on this address space: \
             172.18.4.0/24 overlaps with 172.18.0.0/16 of network front",
        ),
        (driver("weave"), ErrorKind::NotFound, "plugin \"weave\" not found"),
        (driver("host"), ErrorKind::Forbidden, "only one instance of \"host\" network is allowed"),
        (option, ErrorKind::Invalid, "unknown option \"com.example.x\" of the bridge driver"),
        (two, ErrorKind::Forbidden, "bridge driver doesn't support multiple subnets"),
    ] {
        let error = lab.networks.create(spec).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (kind, text));
    }
    let error = lab.networks.remove("bridge").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert_eq!(error.message(), "bridge is a pre-defined network and cannot be removed");
    let info = lab.run(1, "front", Vec::new()).await.unwrap();
    let endpoint = &info.endpoints[0].endpoint.id;
    let error = lab.networks.remove(front.id.short()).await.unwrap_err();
    let text = "error while removing network: network front has active endpoints (name:\"c1\" id:\"ID\")";
    assert_eq!(error.message().replace(endpoint.short(), "ID"), text);
}

#[tokio::test]
async fn all_mistakes_of_an_ipam_configuration_at_once() {
    let lab = Lab::open().await;
    let entry = IpamPoolSpec {
        subnet: "10.0.0.1/24".into(),
        ip_range: "10.0.0.0/16".into(),
        gateway: "10.0.1.1".into(),
        auxiliary: [("dns".to_owned(), "fd00::1".to_owned())].into(),
    };
    let error = lab.networks.create(NetworkSpec { ipam: vec![entry], ..named("x") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.message(),
        "invalid network config:\n\
         * invalid subnet 10.0.0.1/24: it should be 10.0.0.0/24\n\
         * invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.1/24\n\
         * invalid gateway 10.0.1.1: parent subnet 10.0.0.1/24 doesn't contain this address\n\
         * invalid auxiliary address dns: parent subnet is an IPv4 block"
    );
}

#[tokio::test]
async fn addresses_that_cannot_be_anybodys_are_refused() {
    let lab = Lab::open().await;
    let aux = |entries: &[(&str, &str)]| {
        entries.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect()
    };
    for (subnet, gateway, auxiliary, why) in [
        ("10.2.0.0/24", "10.2.0.0", aux(&[]), "invalid gateway 10.2.0.0: it is the address of the subnet"),
        ("10.2.0.0/24", "10.2.0.255", aux(&[]), "invalid gateway 10.2.0.255: it is the broadcast address"),
        ("10.2.0.0/24", "10.2.0.1", aux(&[("x", "10.2.0.1")]), "address 10.2.0.1 is the gateway's already"),
        ("10.2.0.0/24", "", aux(&[("x", "10.2.0.9"), ("y", "10.2.0.9")]), "address 10.2.0.9 is x's already"),
        ("ff02::/64", "", aux(&[]), "invalid subnet ff02::/64: multicast subnets are not allowed"),
    ] {
        let entry = IpamPoolSpec {
            subnet: subnet.into(),
            gateway: gateway.into(),
            auxiliary,
            ..IpamPoolSpec::default()
        };
        let spec = NetworkSpec { ipam: vec![entry], ipv6: Some(subnet.contains(':')), ..named("x") };
        let error = lab.networks.create(spec).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{subnet} {gateway}");
        assert!(error.message().contains(why), "{error}");
    }
    // Two hosts of a /31 are all that it has (RFC 3021).
    let entry =
        IpamPoolSpec { subnet: "10.3.0.0/31".into(), gateway: "10.3.0.0".into(), ..IpamPoolSpec::default() };
    lab.networks.create(NetworkSpec { ipam: vec![entry], ..named("two") }).await.unwrap();
}

#[tokio::test]
async fn a_network_the_host_refuses_leaves_nothing() {
    let lab = Lab::open().await;
    lab.host.add_foreign_link(IfName::new("taken0").unwrap());
    let before = lab.host.state();
    let options = [("com.docker.network.bridge.name".to_owned(), "taken0".to_owned())].into();
    let error = lab.networks.create(NetworkSpec { options, ..named("front") }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("taken0"), "{error}");
    assert_eq!(lab.host.state(), before);
    assert_eq!(lab.host.foreign_links().len(), 1, "it was taken away:\n{}", lab.host.log().join("\n"));
    lab.networks.create(named("front")).await.unwrap();
}

#[tokio::test]
async fn a_foreign_docker0_is_left_alone_and_the_way_out_is_named() {
    let host = Arc::new(SimHost::default());
    host.add_foreign_link(IfName::new("docker0").unwrap());
    let store = Arc::new(MemoryStore::default());
    let error =
        Networks::open(config(), host, store, Arc::new(NoNames), Arc::new(NoLeases)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("--bridge"), "{error}");
}

#[tokio::test]
async fn subnets_avoid_foreign_routes_and_go_on_where_docker_has_no_more() {
    let host = Arc::new(SimHost::default());
    host.add_foreign_route("172.18.5.0/24".parse().unwrap());
    host.add_foreign_route("0.0.0.0/0".parse().unwrap());
    let lab = Lab::open_on(host, Arc::default()).await.unwrap();
    let first = lab.networks.create(named("n0")).await.unwrap();
    assert_eq!(first.ipam[0].subnet.to_string(), "172.19.0.0/16");
    for number in 1..29 {
        lab.networks.create(named(&format!("n{number}"))).await.unwrap();
    }
    // 31 less docker0's and the one that the route is in: Docker would end here.
    for (number, subnet) in [(29, "10.64.0.0/24"), (30, "10.64.1.0/24")] {
        let network = lab.networks.create(named(&format!("n{number}"))).await.unwrap();
        assert_eq!(network.ipam[0].subnet.to_string(), subnet);
    }
}

#[tokio::test]
async fn a_vpn_that_claims_everything_leaves_networks_and_shows() {
    let host = Arc::new(SimHost::default());
    for half in ["0.0.0.0/1", "128.0.0.0/1"] {
        host.add_foreign_gateway_route(half.parse().unwrap());
    }
    host.add_foreign_route("172.18.0.0/24".parse().unwrap());
    let lab = Lab::open_on(host, Arc::default()).await.unwrap();
    let bridge = lab.networks.find("bridge").await.unwrap();
    assert_eq!(bridge.network.ipam[0].subnet.to_string(), "172.17.0.0/16");
    let first = lab.networks.create(named("n0")).await.unwrap();
    assert_eq!(first.ipam[0].subnet.to_string(), "172.19.0.0/16");
    let shown = lab.networks.find("n0").await.unwrap().overlaps;
    assert_eq!(shown, ["128.0.0.0/1".parse().unwrap()]);
}

#[tokio::test]
async fn configured_pools_run_out() {
    let pools = vec![("10.9.0.0/22".parse().unwrap(), 24)];
    let config = portolan_net::NetConfig { address_pools: pools, ..config() };
    let host = Arc::new(SimHost::default());
    let networks =
        Networks::open(config, host, Arc::new(MemoryStore::default()), Arc::new(NoNames), Arc::new(NoLeases))
            .await
            .unwrap();
    for number in 0..3 {
        networks.create(named(&format!("n{number}"))).await.unwrap();
    }
    let error = networks.create(named("n3")).await.unwrap_err();
    assert_eq!(error.message(), "all predefined address pools have been fully subnetted");
}

#[tokio::test]
async fn found_by_name_id_and_unique_prefix() {
    let lab = Lab::open().await;
    let network = lab.networks.create(named("front")).await.unwrap();
    for reference in ["front", network.id.as_str(), network.id.short()] {
        assert_eq!(lab.networks.find(reference).await.unwrap().network.id, network.id);
    }
    for number in 0..17 {
        let spec =
            NetworkSpec { ipam: vec![pool(&format!("10.0.{number}.0/24"))], ..named(&format!("m{number}")) };
        lab.networks.create(spec).await.unwrap();
    }
    // Twenty-one ids and sixteen digits.
    let errors = "0123456789abcdef".chars().map(|digit| digit.to_string());
    let mut ambiguous = false;
    for prefix in errors {
        if let Err(error) = lab.networks.find(&prefix).await {
            ambiguous |= error.kind() == ErrorKind::Invalid && error.message().contains("is ambiguous");
        }
    }
    assert!(ambiguous);
    assert_eq!(lab.networks.find("nope").await.unwrap_err().message(), "network nope not found");
}

#[tokio::test]
async fn prune_takes_unused_user_networks_only() {
    let lab = Lab::open().await;
    for name in ["used", "free", "kept"] {
        lab.user_network(name).await;
    }
    lab.run(1, "used", Vec::new()).await.unwrap();
    let removed = lab.networks.prune(|network| network.name != "kept").await.unwrap();
    assert_eq!(removed.iter().map(|network| network.name.as_str()).collect::<Vec<_>>(), ["free"]);
    assert_eq!(lab.networks.list().await.unwrap().len(), 5);
}

#[tokio::test]
async fn what_is_asked_of_a_network_is_checked() {
    let lab = Lab::open().await;
    lab.user_network("auto").await;
    let spec = NetworkSpec { ipam: vec![pool("10.5.0.0/24")], ..named("own") };
    lab.networks.create(spec).await.unwrap();
    let asks = |network: &str, ip: &str| {
        let mut attach = attach(1, network);
        attach.ipv4 = Some(ip.parse().unwrap());
        attach
    };
    for (attach, text) in [
        (
            asks("bridge", "172.17.0.9"),
            "invalid config for network bridge: invalid endpoint settings:\nuser specified IP address is supported on user defined networks only",
        ),
        (
            asks("auto", "172.18.0.9"),
            "invalid config for network auto: invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        (
            asks("own", "10.6.0.1"),
            "invalid config for network own: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.6.0.1",
        ),
    ] {
        assert_eq!(lab.networks.reserve(&container(1), attach).await.unwrap_err().message(), text);
    }
    let error = lab.networks.reserve(&container(1), asks("own", "10.5.0.1")).await.unwrap_err();
    assert_eq!(
        error.message(),
        "Address already in use: 10.5.0.1 belongs to the network itself: it is its gateway"
    );
    assert_eq!(error.kind(), ErrorKind::Forbidden);
}
