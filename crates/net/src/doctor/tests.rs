use std::time::Instant;

use portolan_netcore::host::StepError;
use portolan_netcore::model::{IfName, PortBinding, Proto};
use portolan_netcore::plan::{LinkKind, Step};
use portolan_netsim::SimHost;

use super::*;
use crate::failing::Failing;

/// A host of nothing.
fn host() -> SimHost {
    SimHost::new(Default::default())
}

fn problem(diagnosis: &Diagnosis) -> (&str, &[String]) {
    assert_eq!(diagnosis.verdict, Verdict::Problem, "{diagnosis:?}");
    assert!(!diagnosis.why.is_empty(), "{diagnosis:?}");
    (&diagnosis.what, &diagnosis.fix)
}

#[test]
fn a_feature_that_the_kernel_lacks_is_named_with_its_module() {
    let host = host();
    host.add_feature("bridges", None);
    assert_eq!(features(&host)[0].verdict, Verdict::Fine);
    host.add_feature("nf_tables", Some("protocol not supported"));
    host.add_feature("connection tracking", Some("no such file or directory"));
    let found = features(&host);
    assert_eq!(found.len(), 2);
    let (what, fix) = problem(&found[0]);
    assert_eq!(what, "the kernel has no nf_tables: protocol not supported");
    assert_eq!(fix, ["modprobe nf_tables"]);
    assert_eq!(problem(&found[1]).1, ["modprobe nf_conntrack"]);
}

#[test]
fn a_kernel_that_queues_no_packets_is_worth_knowing_only() {
    let host = host();
    host.add_feature("queue of packets", Some("not supported by this kernel"));
    let found = features(&host);
    assert_eq!([found[0].verdict, found[1].verdict], [Verdict::Fine, Verdict::Note]);
    assert!(found[1].what.ends_with("not supported by this kernel"), "{}", found[1].what);
}

#[test]
fn a_table_of_connections_is_full_from_ninety_per_cent() {
    let host = host();
    let judge = |count: &str| {
        host.set_setting("net/netfilter/nf_conntrack_count", count);
        connections(&host)
    };
    assert_eq!(judge("900").verdict, Verdict::Fine, "the most is not known");
    host.set_setting("net/netfilter/nf_conntrack_max", "1000");
    assert_eq!(judge("899").verdict, Verdict::Fine);
    let full = judge("900");
    let (what, fix) = problem(&full);
    assert_eq!(what, "900 of 1000 connections are in use");
    assert_eq!(fix, ["sysctl -w net.netfilter.nf_conntrack_max=2000"]);
}

#[test]
fn strict_return_paths_matter_with_several_uplinks() {
    let host = host();
    for name in ["up0", "up1"] {
        host.set_setting(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
    }
    host.set_setting("net/ipv4/conf/up1/rp_filter", "1");
    host.add_uplink(IfName::new("up1").unwrap());
    assert_eq!(return_paths(&host).unwrap().verdict, Verdict::Fine, "there is one way only");
    host.add_uplink(IfName::new("up0").unwrap());
    let strict = return_paths(&host).unwrap();
    let (what, fix) = problem(&strict);
    assert_eq!(what, "up1 filters by the strict reverse path, and there are 2 default routes");
    assert_eq!(fix, ["sysctl -w net.ipv4.conf.up1.rp_filter=2"]);
    // The kernel takes the larger of a link's and that of all: loose wins.
    host.set_setting("net/ipv4/conf/all/rp_filter", "2");
    assert_eq!(return_paths(&host).unwrap().verdict, Verdict::Fine);
}

#[test]
fn what_is_off_is_told_with_its_sysctl() {
    let host = host();
    host.set_setting("net/ipv4/ip_forward", "0");
    let found = forwarding(&host, &Desired::default());
    assert_eq!(problem(&found[0]).1, ["sysctl -w net.ipv4.ip_forward=1"]);
    host.set_setting("net/bridge/bridge-nf-call-iptables", "1");
    let note = bridge_netfilter(&host);
    assert_eq!(note.verdict, Verdict::Note);
    assert_eq!(note.fix, ["sysctl -w net.bridge.bridge-nf-call-iptables=0"]);
}

#[test]
fn a_resolver_that_does_not_answer_is_a_problem() {
    assert_eq!(resolver(Ok(())).verdict, Verdict::Fine);
    let silent = resolver(Err(std::io::ErrorKind::TimedOut.into()));
    assert_eq!(problem(&silent).0, "the resolver does not answer: timed out");
}

#[test]
fn what_cannot_be_put_right_is_told_as_what_it_is() {
    let trouble = |step: &Step, reason: &str, errno| {
        let mut failing = Failing::default();
        let error = StepError { step: step.into(), reason: reason.to_owned(), errno, transient: false };
        failing.failed(&error, Instant::now());
        repairs(&failing.list()).remove(0)
    };
    let port = PortBinding {
        proto: Proto::Tcp,
        container_port: 0,
        host_ip: std::net::Ipv4Addr::UNSPECIFIED.into(),
        host_port: 80,
    };
    let held = trouble(&Step::HoldPort(port), "address already in use by nginx", Some(98));
    assert_eq!((held.check, problem(&held).0), ("ports", "address already in use by nginx (1 times so far)"));

    let key = (Ns::Host, IfName::new("br-n").unwrap());
    let bridge = Step::AddBridge(key.clone(), Box::new(Link::bare(LinkKind::Bridge)));
    let taken = trouble(&bridge, "file exists", Some(EEXIST));
    let (what, fix) = problem(&taken);
    assert_eq!(what, "[host] link add br-n type bridge: file exists (1 times so far)");
    assert_eq!((taken.check, fix), ("repairs", &["ip link del br-n".to_owned()][..]));
    assert!(trouble(&bridge, "operation not permitted", Some(1)).fix.is_empty(), "nobody has it");
    let renamed = trouble(&Step::SetUp(key, true), "file exists", Some(EEXIST));
    assert!(renamed.fix.is_empty(), "that makes no link");
}
