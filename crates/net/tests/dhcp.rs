//! Networks whose addresses a DHCP server lends.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lab;

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::{Lab, attach, container, pool, spec};
use portolan_net::NetworkSpec;
use portolan_netcore::model::{DhcpLease, DhcpRoute, MacAddr};

fn lease(address: &str) -> DhcpLease {
    DhcpLease {
        address: address.parse().unwrap(),
        server: Ipv4Addr::new(10, 9, 0, 1),
        server_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        gateway: Some(Ipv4Addr::new(10, 9, 0, 254)),
        routes: vec![DhcpRoute {
            destination: "10.66.0.0/16".parse().unwrap(),
            gateway: Some(Ipv4Addr::new(10, 9, 0, 66)),
        }],
        dns: vec![Ipv4Addr::new(10, 9, 0, 53)],
        domains: vec!["lan.example".to_owned()],
        mtu: Some(1400),
        renew_at: 1,
        rebind_at: 2,
        expires_at: 3,
    }
}

fn lan() -> NetworkSpec {
    NetworkSpec {
        name: "lan".into(),
        driver: "macvlan".into(),
        ipam_driver: "dhcp".into(),
        options: [("parent".to_owned(), "eth0".to_owned())].into(),
        ..NetworkSpec::default()
    }
}

async fn lab() -> Lab {
    let lab = Lab::open().await;
    lab.host.add_host_link("eth0", 1500, true);
    lab.networks.create(lan()).await.unwrap();
    *lab.lender.lease.lock().unwrap() = Some(lease("10.9.0.9/24"));
    lab
}

/// Waits for the steps that news of a lease leads to.
async fn steps_with(lab: &Lab, text: &str) -> String {
    for _ in 0..500 {
        let log = lab.host.log().join("\n");
        if log.contains(text) {
            return log;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no {text} in\n{}", lab.host.log().join("\n"));
}

#[tokio::test]
async fn an_address_comes_once_the_link_is_there_and_goes_before_it() {
    let lab = lab().await;
    let from = lab.host.log().len();
    let info = lab.networks.create_sandbox(spec(1, "lan", Vec::new())).await.unwrap();
    let mac = info.endpoints[0].endpoint.mac;
    let steps = lab.log_from(from, &info).replace(&mac.to_string(), "MAC");
    let wanted = "\
netns add SANDBOX
[SANDBOX] sysctl net.ipv6.conf.default.disable_ipv6=1
[SANDBOX] link add eth0 address MAC link eth0 type macvlan mode bridge
[SANDBOX] link set eth0 up
[SANDBOX] dns 127.0.0.11:53 to udp 40001 tcp 40002
[SANDBOX] link set eth0 mtu 1400
[SANDBOX] addr add 10.9.0.9/24 dev eth0
[SANDBOX] route add default via 10.9.0.254 dev eth0
[SANDBOX] route add 10.66.0.0/16 via 10.9.0.66 dev eth0";
    assert_eq!(steps, wanted);
    assert_eq!(info.endpoints[0].endpoint.ipv4, Some("10.9.0.9/24".parse().unwrap()));
    lab.networks.remove_sandbox(&info.id).await.unwrap();
    assert_eq!(*lab.lender.log.lock().unwrap(), ["acquire host1 None", "release"]);

    let again = lab.networks.create_sandbox(spec(1, "lan", Vec::new())).await.unwrap();
    assert_eq!(again.endpoints[0].endpoint.mac, mac, "it is known by its hardware address");
    assert_eq!(lab.lender.log.lock().unwrap()[2], "acquire host1 Some(10.9.0.9)");
    lab.networks.remove_sandbox(&again.id).await.unwrap();
    lab.networks.forget(&container(1)).await.unwrap();
    lab.networks.create_sandbox(spec(1, "lan", Vec::new())).await.unwrap();
    assert_eq!(lab.lender.log.lock().unwrap()[4], "acquire host1 None", "the container was removed");
}

#[tokio::test]
async fn without_a_server_there_is_no_sandbox() {
    let lab = lab().await;
    *lab.lender.lease.lock().unwrap() = None;
    let before = lab.host.state();
    let error = lab.networks.create_sandbox(spec(1, "lan", Vec::new())).await.unwrap_err();
    assert_eq!(error.message(), "no DHCP server answered");
    assert_eq!(lab.host.state(), before);
    assert!(lab.networks.sandboxes().await.unwrap().is_empty());

    let info = lab.run(2, "bridge", Vec::new()).await.unwrap();
    lab.networks.connect(&info.id, attach(2, "lan")).await.unwrap_err();
    assert_eq!(lab.networks.sandbox(&info.id).await.unwrap().unwrap().endpoints.len(), 1);
}

#[tokio::test]
async fn what_the_server_changes_is_followed() {
    let lab = lab().await;
    let info = lab.networks.create_sandbox(spec(1, "lan", Vec::new())).await.unwrap();
    let id = info.endpoints[0].endpoint.id.clone();
    lab.lender.tell(&id, None);
    steps_with(&lab, "addr del 10.9.0.9/24").await;
    lab.lender.tell(&id, Some(lease("10.9.0.10/24")));
    steps_with(&lab, "addr add 10.9.0.10/24").await;
    let now = lab.networks.sandbox(&info.id).await.unwrap().unwrap();
    assert_eq!(now.endpoints[0].endpoint.ipv4, Some("10.9.0.10/24".parse().unwrap()));
    let steps = lab.host.log().len();
    let renewed = DhcpLease { expires_at: 99, ..lease("10.9.0.10/24") };
    lab.lender.tell(&id, Some(renewed));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(lab.host.log().len(), steps, "a renewal changes nothing on the host");

    let lab = lab.restart().await;
    assert_eq!(*lab.lender.log.lock().unwrap(), ["resume Some(10.9.0.10/24)"]);
    lab.lender.tell(&id, None);
    steps_with(&lab, "addr del 10.9.0.10/24").await;
    let lab = lab.restart().await;
    assert_eq!(*lab.lender.log.lock().unwrap(), ["resume None"]);
}

#[tokio::test]
async fn the_gateway_follows_what_is_lent() {
    let lab = lab().await;
    let back = NetworkSpec { name: "back".into(), ipam: vec![pool("10.8.0.0/24")], ..NetworkSpec::default() };
    lab.networks.create(back).await.unwrap();
    *lab.lender.lease.lock().unwrap() = Some(DhcpLease { gateway: None, ..lease("10.9.0.9/24") });
    let mut spec = spec(1, "lan", Vec::new());
    spec.attach[0].gw_priority = 5;
    spec.attach.push(attach(1, "back"));
    let info = lab.networks.create_sandbox(spec).await.unwrap();
    let mut changes = lab.networks.lease_changes();
    let lent = info.endpoints.iter().find(|info| info.network_name == "lan").unwrap().endpoint.id.clone();
    let gateway = |info: &portolan_net::SandboxInfo| {
        let found = info.endpoints.iter().find(|info| info.endpoint.is_gateway);
        found.map(|info| info.network_name.clone())
    };
    assert_eq!(gateway(&info).as_deref(), Some("back"), "the lease has none");
    let cases = [
        (Some(lease("10.9.0.9/24")), "lan", "route add default via 10.9.0.254 dev eth0"),
        (None, "back", "route add default via 10.8.0.1 dev eth1"),
        (Some(lease("10.9.0.9/24")), "lan", "route add default via 10.9.0.254 dev eth0"),
        (Some(DhcpLease { gateway: None, ..lease("10.9.0.9/24") }), "back", "default via 10.8.0.1 dev eth1"),
    ];
    for (lease, wanted, step) in cases {
        let from = lab.host.log().len();
        lab.lender.tell(&lent, lease);
        assert_eq!(changes.recv().await.unwrap(), info.id);
        let now = lab.networks.sandbox(&info.id).await.unwrap().unwrap();
        assert_eq!(gateway(&now).as_deref(), Some(wanted));
        let steps = lab.host.log()[from..].join("\n");
        assert!(steps.contains(step), "no {step} in\n{steps}");
    }
}

#[tokio::test]
async fn it_is_for_links_that_lead_to_a_server() {
    let lab = lab().await;
    lab.host.add_host_bridge("br-lan", &[]);
    let refused = |spec: NetworkSpec, part: &'static str| {
        let networks = lab.networks.clone();
        async move {
            let error = networks.create(NetworkSpec { name: "no".into(), ..spec }).await.unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
    };
    let bridge = NetworkSpec { driver: "bridge".into(), options: Default::default(), ..lan() };
    refused(bridge.clone(), "macvlan networks and unmanaged bridges").await;
    refused(NetworkSpec { ipam: vec![pool("10.1.0.0/24")], ..lan() }, "the server's to say").await;
    refused(NetworkSpec { ipv6: Some(true), ..lan() }, "IPv4 addresses only").await;
    let mut access = lan();
    access.options.insert("portolan.host_access".into(), "true".into());
    refused(access, "leave portolan.host_access out").await;
    let unmanaged = [("com.docker.network.bridge.name", "br-lan"), ("portolan.unmanaged", "true")];
    let options = unmanaged.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    lab.networks.create(NetworkSpec { name: "ok".into(), options, ..bridge }).await.unwrap();
    let info = lab.networks.create_sandbox(spec(1, "ok", Vec::new())).await.unwrap();
    assert_eq!(info.endpoints[0].endpoint.ipv4, Some("10.9.0.9/24".parse().unwrap()));
}
