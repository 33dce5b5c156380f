//! Published ports that go elsewhere: to another place on the host, or through another network.

mod lab;

use std::collections::BTreeSet;

use lab::{Lab, attach, port};
use portolan_net::{NetworkSpec, PortChange, PortRequest, SandboxInfo};
use portolan_netcore::model::Proto;
use portolan_netsim::Faults;

async fn network(lab: &Lab, name: &str, options: &[(&str, &str)]) {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let spec = NetworkSpec { name: name.to_owned(), options, ..NetworkSpec::default() };
    lab.networks.create(spec).await.expect("it can be made");
}

fn on(address: &str, request: PortRequest) -> PortRequest {
    PortRequest { host_ip: Some(address.parse().expect("an address")), ..request }
}

fn exact(number: u16, inside: u16) -> PortRequest {
    port(Some((number, number)), inside)
}

/// `address:port` of each, and the container's port.
fn published(info: &SandboxInfo) -> BTreeSet<String> {
    let text = |one: &portolan_netcore::model::PortBinding| {
        format!("{}:{}->{}", one.host_ip, one.host_port, one.container_port)
    };
    info.ports.keys().map(text).collect()
}

fn held(lab: &Lab) -> BTreeSet<String> {
    lab.host.state().held_ports.iter().map(|one| format!("{}:{}", one.host_ip, one.host_port)).collect()
}

fn set<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.map(str::to_owned).into()
}

/// All ports of a container that has asked for those of `before` are instead to be those of `after`.
async fn exchange(
    lab: &Lab,
    info: &SandboxInfo,
    before: &[PortRequest],
    after: &[PortRequest],
) -> Result<SandboxInfo, portolan_net::Error> {
    let change = PortChange {
        add: after.to_vec(),
        remove: info.ports.keys().cloned().collect(),
        asks: after.to_vec(),
        asks_no_more: before.to_vec(),
        cut: false,
    };
    lab.networks.change_ports(&info.id, change).await
}

#[tokio::test]
async fn a_port_changes_its_address_or_places_with_another() {
    let lab = Lab::open().await;
    let (wide, narrow) = ([exact(8110, 80)], [on("127.0.0.1", exact(8110, 80))]);
    let info = lab.run(1, "bridge", wide.to_vec()).await.unwrap();
    let info = exchange(&lab, &info, &wide, &narrow).await.unwrap();
    assert_eq!(published(&info), set(["127.0.0.1:8110->80"]));
    assert_eq!(held(&lab), set(["127.0.0.1:8110"]));
    let two = [exact(8120, 80), exact(8121, 81)];
    let info = exchange(&lab, &info, &narrow, &two).await.unwrap();
    let from = lab.host.log().len();
    let swapped = [exact(8120, 81), exact(8121, 80)];
    let after = exchange(&lab, &info, &two, &swapped).await.unwrap();
    assert_eq!(
        published(&after),
        set(["0.0.0.0:8120->81", "0.0.0.0:8121->80", ":::8120->81", ":::8121->80"])
    );
    let log = lab.host.log()[from..].join("\n");
    assert!(!log.contains(" hold ") && !log.contains(" release "), "nobody gets a word in: {log}");
    assert!(log.contains("proxy :: 8120/tcp to 172.17.0.2:81"), "{log}");
    lab.networks.remove_sandbox(&after.id).await.unwrap();
    assert!(held(&lab).is_empty());
    lab.run(2, "bridge", two.to_vec()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_exchanged_stays_as_it_was() {
    let lab = Lab::open().await;
    lab.host.add_foreign_port(Proto::Tcp, "10.0.0.1".parse().unwrap(), 8110);
    let narrow = [on("127.0.0.1", exact(8110, 80)), exact(8111, 81)];
    let info = lab.run(1, "bridge", narrow.to_vec()).await.unwrap();
    let before = lab.host.state();
    let wide = [exact(8110, 80), on("127.0.0.1", exact(8111, 81))];
    let error = exchange(&lab, &info, &narrow, &wide).await.unwrap_err();
    assert!(error.message().contains("failed to bind host port 0.0.0.0:8110/tcp"), "{error}");
    assert_eq!(lab.host.state(), before, "held, led and carried over as before");
    let elsewhere = [on("127.0.0.2", exact(8110, 80)), on("127.0.0.1", exact(8111, 81))];
    let refuse = vec![("[host] firewall".to_owned(), 5)];
    lab.host.set_faults(Faults { refuse, ..Faults::default() });
    exchange(&lab, &info, &narrow, &elsewhere).await.unwrap_err();
    lab.host.set_faults(Faults::default());
    assert_eq!(lab.host.state(), before);
    let error = lab.run(2, "bridge", vec![exact(8111, 80)]).await.unwrap_err();
    assert!(error.message().contains("container \"c1\" publishes it"), "{error}");
}

#[tokio::test]
async fn the_gateways_network_says_where_ports_are() {
    let lab = Lab::open().await;
    network(&lab, "front", &[]).await;
    network(&lab, "back", &[("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1")]).await;
    let info = lab.run(1, "front", vec![exact(80, 80), port(None, 81)]).await.unwrap();
    let ephemeral = info.ports.keys().find(|one| one.container_port == 81).unwrap().host_port;
    let before = lab.host.state();
    let back = lab.networks.connect(&info.id, attach(1, "back")).await.unwrap();
    let wanted = ["127.0.0.1:80->80".to_owned(), format!("127.0.0.1:{ephemeral}->81")];
    assert_eq!(published(&back), wanted.into());
    assert_eq!(held(&lab).len(), 2);
    let front = lab.networks.disconnect(&info.id, "back").await.unwrap();
    assert_eq!((front.ports, lab.host.state()), (info.ports, before));
    // What is in the way there keeps it from going there, and leaves it as it is.
    lab.networks.connect(&info.id, attach(1, "back")).await.unwrap();
    let narrow = lab.host.state();
    lab.host.add_foreign_port(Proto::Tcp, "10.0.0.1".parse().unwrap(), 80);
    lab.networks.disconnect(&info.id, "back").await.unwrap_err();
    assert_eq!(lab.host.state(), narrow);
}

#[tokio::test]
async fn a_default_of_0_0_0_0_is_every_address_of_both_families() {
    let lab = Lab::open().await;
    network(&lab, "any", &[("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0")]).await;
    let info = lab.run(1, "any", vec![exact(80, 80)]).await.unwrap();
    assert_eq!(published(&info), set(["0.0.0.0:80->80", ":::80->80"]));
}

#[tokio::test]
async fn in_mode_routed_ports_are_opened_and_none_of_the_host_is_taken() {
    let lab = Lab::open().await;
    let routed = [
        ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
        ("com.docker.network.bridge.gateway_mode_ipv6", "routed"),
    ];
    network(&lab, "routed", &routed).await;
    let asked = vec![exact(80, 80), exact(8080, 80), exact(81, 81)];
    let info = lab.run(1, "routed", asked).await.unwrap();
    assert_eq!(published(&info), set(["0.0.0.0:0->80", "0.0.0.0:0->81"]));
    lab.run(2, "routed", vec![exact(80, 80)]).await.unwrap();
    assert_eq!(held(&lab), set([]));
    let opened = |lab: &Lab| lab.host.state().firewall.map_or(0, |policy| policy.published.len());
    assert_eq!(opened(&lab), 3);
    let lab = lab.restart().await;
    assert_eq!((held(&lab), opened(&lab)), (set([]), 3));
    // It is open as long as anything asks for it.
    let gone = |request: PortRequest| PortChange { asks_no_more: vec![request], ..PortChange::default() };
    let after = lab.networks.change_ports(&info.id, gone(exact(80, 80))).await.unwrap();
    assert_eq!(published(&after).len(), 2);
    let after = lab.networks.change_ports(&info.id, gone(exact(8080, 80))).await.unwrap();
    assert_eq!(published(&after), set(["0.0.0.0:0->81"]));
    assert_eq!(opened(&lab), 2);
    // Through another network it has its places on the host.
    lab.user_network("back").await;
    let after = lab.networks.connect(&info.id, attach(1, "back")).await.unwrap();
    assert_eq!(published(&after), set(["0.0.0.0:81->81", ":::81->81"]));
}
