//! What survives the daemon, and the machine.

mod lab;

use std::sync::Arc;

use lab::{Lab, address, attach, config, container, pool, port, spec as spec_of};
use portolan_net::{AttachSpec, NetConfig, NetworkSpec, SandboxSpec};
use portolan_netcore::host::Host;
use portolan_netcore::model::{IfName, SandboxId};
use portolan_netcore::plan::Step;

#[tokio::test]
async fn a_restart_adopts_what_lives_and_changes_nothing() {
    let lab = Lab::open().await;
    lab.user_network("front").await;
    let info = lab.run(1, "front", vec![port(Some((80, 80)), 80)]).await.unwrap();
    let (before, listed) = (lab.host.state(), lab.networks.list().await.unwrap());
    let from = lab.host.log().len();
    let lab = lab.restart().await;
    assert_eq!(lab.host.state(), before);
    assert_eq!(lab.networks.list().await.unwrap(), listed);
    assert_eq!(lab.networks.sandbox(&info.id).await.unwrap().unwrap(), info);
    assert!(lab.names.serving.lock().unwrap().contains(&info.id));
    assert_eq!(
        lab.host.log()[from..],
        [
            "[host] hold 0.0.0.0 80/tcp",
            "[host] hold :: 80/tcp",
            "[host] firewall replace: 2 bridges, 1 endpoints, 1 ports",
            "[host] proxy :: 80/tcp to 172.18.0.2:80"
        ]
    );
    assert!(lab.run(2, "front", vec![port(Some((80, 80)), 80)]).await.is_err(), "the port is still taken");
    assert_eq!(address(&lab.run(2, "front", Vec::new()).await.unwrap()), "172.18.0.3/16");
}

#[tokio::test]
async fn after_a_reboot_networks_and_addresses_are_as_before() {
    let lab = Lab::open().await;
    lab.user_network("front").await;
    let info = lab.run(1, "front", Vec::new()).await.unwrap();
    lab.host.reboot();
    let lab = lab.restart().await;
    assert_eq!(lab.networks.sandbox(&info.id).await.unwrap(), None);
    assert_eq!(
        address(&lab.run(2, "front", Vec::new()).await.unwrap()),
        "172.18.0.3/16",
        "container 1 still has .2"
    );
    assert_eq!(address(&lab.run(1, "front", Vec::new()).await.unwrap()), "172.18.0.2/16");
    lab.networks.forget(&container(9)).await.unwrap();
}

#[tokio::test]
async fn who_waits_for_an_address_waits_over_a_restart() {
    let lab = Lab::open().await;
    let spec = NetworkSpec { name: "own".into(), ipam: vec![pool("10.5.0.0/24")], ..NetworkSpec::default() };
    lab.networks.create(spec).await.unwrap();
    let asking = |number| {
        let ipv4 = Some("10.5.0.2".parse().unwrap());
        SandboxSpec {
            attach: vec![AttachSpec { ipv4, ..attach(number, "own") }],
            ..spec_of(number, "own", Vec::new())
        }
    };
    // The first has it without having asked for it by number, the others wait.
    let first = lab.run(1, "own", Vec::new()).await.unwrap();
    assert_eq!(address(&first), "10.5.0.2/24");
    for number in [3, 2] {
        lab.networks.reserve(&container(number), asking(number).attach[0].clone()).await.unwrap();
    }
    let lab = lab.restart().await;
    let error = lab.networks.create_sandbox(asking(3)).await.unwrap_err();
    assert!(error.message().ends_with("10.5.0.2 belongs to container c1 (010101010101)"), "{error}");
    lab.networks.remove_sandbox(&first.id).await.unwrap();
    lab.networks.settled(&first.id).await.unwrap();
    let lab = lab.restart().await;
    let error = lab.networks.create_sandbox(asking(2)).await.unwrap_err();
    assert!(error.message().contains("(030303030303)"), "first come, first served: {error}");
    assert_eq!(address(&lab.run(1, "own", Vec::new()).await.unwrap()), "10.5.0.3/24");
    let third = lab.networks.create_sandbox(asking(3)).await.unwrap();
    assert_eq!(address(&third), "10.5.0.2/24");
    let lab = lab.restart().await;
    lab.networks.remove_sandbox(&third.id).await.unwrap();
    lab.networks.forget(&container(3)).await.unwrap();
    assert_eq!(address(&lab.networks.create_sandbox(asking(2)).await.unwrap()), "10.5.0.2/24");
}

#[tokio::test]
async fn an_address_lent_to_another_stays_that_ones_over_a_restart() {
    let lab = Lab::open().await;
    let spec = NetworkSpec { name: "own".into(), ipam: vec![pool("10.5.0.0/29")], ..NetworkSpec::default() };
    lab.networks.create(spec).await.unwrap();
    let first = lab.run(1, "own", Vec::new()).await.unwrap();
    for number in 2..=5 {
        lab.run(number, "own", Vec::new()).await.unwrap();
    }
    lab.networks.remove_sandbox(&first.id).await.unwrap();
    lab.networks.settled(&first.id).await.unwrap();
    assert_eq!(address(&lab.run(6, "own", Vec::new()).await.unwrap()), "10.5.0.2/29");
    let lab = lab.restart().await;
    let error = lab.run(1, "own", Vec::new()).await.unwrap_err();
    assert!(error.message().starts_with("no available IPv4 addresses"), "{error}");
}

#[tokio::test]
async fn serial_addresses_go_on_where_they_were() {
    let lab = Lab::open().await;
    let ipam_options = [("com.docker.network.ipam.serial".to_owned(), "true".to_owned())].into();
    let spec = NetworkSpec {
        name: "own".into(),
        ipam: vec![pool("10.5.0.0/24")],
        ipam_options: Some(ipam_options),
        ..NetworkSpec::default()
    };
    lab.networks.create(spec).await.unwrap();
    for number in 1..=2 {
        let info = lab.run(number, "own", Vec::new()).await.unwrap();
        lab.networks.remove_sandbox(&info.id).await.unwrap();
        lab.networks.forget(&info.container).await.unwrap();
    }
    let lab = lab.restart().await;
    assert_eq!(address(&lab.run(3, "own", Vec::new()).await.unwrap()), "10.5.0.4/24");
}

#[tokio::test]
async fn a_strangers_link_by_a_bridges_name_gets_nothing_of_it() {
    let lab = Lab::open().await;
    let options = [("com.docker.network.bridge.name".to_owned(), "br-app".to_owned())].into();
    let spec = NetworkSpec { name: "app".into(), ipv6: Some(true), options, ..NetworkSpec::default() };
    lab.networks.create(spec).await.unwrap();
    lab.host.reboot();
    lab.host.add_foreign_link(IfName::new("br-app").unwrap());
    let from = lab.host.log().len();
    let lab = lab.restart().await;
    let log = lab.host.log()[from..].to_vec();
    let touching: Vec<&String> =
        log.iter().filter(|step| step.contains("br-app") && !step.ends_with("errno 17")).collect();
    assert_eq!(touching, Vec::<&String>::new());
    assert!(log.iter().any(|step| step == "[host] link set docker0 up"), "the others are served: {log:?}");
}

#[tokio::test]
async fn a_namespace_nobody_knows_is_removed() {
    let lab = Lab::open().await;
    let before = lab.host.state();
    let report = lab.host.execute(&[Step::AddNamespace(SandboxId::from_bytes([7; 32]))]);
    assert_eq!(report.error, None);
    let lab = lab.restart().await;
    assert_eq!(lab.host.state(), before);
}

#[tokio::test]
async fn our_docker0_is_adopted_even_if_the_store_is_lost() {
    let lab = Lab::open().await;
    let id = lab.networks.find("bridge").await.unwrap().network.id;
    let host = lab.host.clone();
    drop(lab);
    host.crash();
    let lab = Lab::open_on(host, Arc::default()).await.unwrap();
    assert_eq!(lab.networks.find("bridge").await.unwrap().network.id, id);
    assert!(!lab.host.log().iter().any(|step| step.contains("link del")));
}

/// The default bridge's subnets.
async fn subnets(lab: &Lab) -> Vec<String> {
    let bridge = lab.networks.find("bridge").await.expect("the default bridge").network;
    bridge.ipam.iter().map(|config| config.subnet.to_string()).collect()
}

#[tokio::test]
async fn the_default_bridge_keeps_its_subnets_unless_told_others() {
    let lab = Lab::open().await;
    let six = NetworkSpec { ipv6: Some(true), name: "six".into(), ..NetworkSpec::default() };
    let six = lab.networks.create(six).await.unwrap().ipam[1].subnet;
    let ipv6 = || NetConfig { ipv6: true, ..config() };
    let lab = lab.restart_with(ipv6()).await.unwrap();
    let chosen = subnets(&lab).await;
    assert_ne!(chosen[1], six.to_string());
    lab.networks.remove("six").await.unwrap();
    let lab = lab.restart_with(ipv6()).await.unwrap();
    assert_eq!(subnets(&lab).await, chosen, "the first /64 is free again, and nobody asked for it");
    // Containers hold both families, and the bridge's address.
    let info = lab.run(1, "bridge", Vec::new()).await.unwrap();
    let moved = || NetConfig {
        bip: Some("172.17.0.9/16".parse().unwrap()),
        fixed_cidr_v6: Some("fd99::/64".parse().unwrap()),
        ..ipv6()
    };
    let lab = lab.restart_with(moved()).await.unwrap();
    assert_eq!(subnets(&lab).await, chosen);
    let bridge = lab.networks.find("bridge").await.unwrap().network;
    assert_eq!(bridge.ipam[0].gateway, Some("172.17.0.1".parse().unwrap()));
    let lab = lab.restart().await;
    assert_eq!(subnets(&lab).await, chosen, "IPv6 is switched off once nobody uses it");
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    let lab = lab.restart_with(moved()).await.unwrap();
    assert_eq!(subnets(&lab).await, ["172.17.0.0/16", "fd99::/64"]);
    let pools = || NetConfig { address_pools: vec![("10.9.0.0/16".parse().unwrap(), 24)], ..config() };
    let lab = lab.restart_with(pools()).await.unwrap();
    assert_eq!(subnets(&lab).await, ["10.9.0.0/24"]);
    lab.user_network("next").await;
    let lab = lab.restart_with(pools()).await.unwrap();
    assert_eq!(subnets(&lab).await, ["10.9.0.0/24"]);
}

#[tokio::test]
async fn a_range_within_the_default_bridge_s_subnet_leaves_it_and_one_beyond_is_it() {
    let ranged = |range: &str| NetConfig { fixed_cidr: Some(range.parse().unwrap()), ..config() };
    let lab = Lab::open().await.restart_with(ranged("172.17.5.0/24")).await.unwrap();
    assert_eq!(subnets(&lab).await, ["172.17.0.0/16"]);
    let info = lab.run(1, "bridge", Vec::new()).await.unwrap();
    assert_eq!(address(&info), "172.17.5.0/16");
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    let lab = lab.restart_with(ranged("10.60.0.0/16")).await.unwrap();
    assert_eq!(subnets(&lab).await, ["10.60.0.0/16"]);
    let spec = NetworkSpec { name: "own".into(), ipam: vec![pool("10.61.0.0/24")], ..NetworkSpec::default() };
    lab.networks.create(spec).await.unwrap();
    let error = lab.restart_with(ranged("10.61.0.0/16")).await.err().expect("it overlaps");
    assert!(error.message().contains("overlaps with 10.61.0.0/24 of network own"), "{error}");
}
