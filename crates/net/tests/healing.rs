//! Self-healing on a simulated host.

#![allow(clippy::unwrap_used, reason = "a test")]

mod lab;

use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::Lab;
use portolan_netcore::host::Disturbance;
use portolan_netcore::model::IfName;
use portolan_netcore::plan::{Link, Ns};
use portolan_netsim::SimHost;

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn a_link_does_not_wait_for_a_repair_of_the_rules() {
    let host = Arc::new(SimHost::default());
    let tell = host.watched();
    let lab = Lab::open_on(Arc::clone(&host), Arc::default()).await.unwrap();
    let docker0 = (Ns::Host, IfName::new("docker0").unwrap());
    let bridge = || -> Link { host.state().links[&docker0].clone() };
    let alias = bridge().alias.unwrap();

    // As long as this is held, the repair of the rules goes on.
    let mut flushed = host.flushed();
    *flushed = true;
    tell.send(vec![Disturbance::Ruleset { by: "nft (pid 7)".to_owned(), ours: true }]).unwrap();
    host.alter(|state| state.links.get_mut(&docker0).unwrap().up = false);
    let name = docker0.1.clone();
    tell.send(vec![Disturbance::Link { name, alias, found: Some(Box::new(bridge())) }]).unwrap();
    until("the bridge is up again", || bridge().up);
    until("the repair is counted", || lab.networks.healing().links > 0);
    assert_eq!(lab.networks.healing().firewall, 0, "the rules are not back yet");

    drop(flushed);
    until("the rules are back", || lab.networks.healing().firewall == 1);
    assert_eq!(lab.networks.healing().failures, 0);
}
