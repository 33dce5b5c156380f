//! What survives the daemon, and the machine.

mod lab;

use std::sync::Arc;

use lab::{Lab, address, container, port};
use portolan_netcore::host::Host;
use portolan_netcore::model::SandboxId;
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
