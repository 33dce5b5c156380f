use super::*;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 77);
const START: Duration = Duration::from_secs(1_000_000);

fn at(seconds: u64) -> Duration {
    START + Duration::from_secs(seconds)
}

fn reply(verdict: Verdict, xid: u32) -> Reply {
    Reply {
        verdict,
        xid,
        address: ADDRESS,
        server: Some(SERVER),
        server_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        routers: vec![SERVER],
        routes: Vec::new(),
        dns: vec![OTHER],
        domains: vec!["lan.example".to_owned()],
        mtu: Some(1400),
        lease: Some(1000),
        t1: None,
        t2: None,
    }
}

fn sent(machine: &mut Machine) -> Ask {
    match machine.next_output() {
        Some(Output::Send(ask)) => ask,
        other => panic!("{other:?} is no message"),
    }
}

/// The lease that the machine has now; nobody answers its probes.
fn bound(machine: &mut Machine) -> DhcpLease {
    loop {
        match machine.next_output() {
            Some(Output::Bound(lease)) => return lease,
            Some(Output::Probe(_)) => machine.handle_timeout(machine.deadline().unwrap()),
            other => panic!("{other:?} is no lease"),
        }
    }
}

/// A machine with a lease of 1000 seconds from [`START`].
fn with_lease() -> (Machine, DhcpLease) {
    let mut machine = Machine::start(None, 1, START);
    let discover = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Offer, discover.xid), START);
    let request = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Ack, request.xid), START);
    let lease = bound(&mut machine);
    assert!(machine.next_output().is_none() && !machine.is_waiting());
    (machine, lease)
}

#[test]
fn discover_offer_request_ack() {
    let mut machine = Machine::start(None, 1, START);
    let discover = sent(&mut machine);
    assert_eq!((discover.kind, discover.requested, discover.to), (Kind::Discover, None, None));
    machine.handle_reply(&reply(Verdict::Offer, discover.xid), START);
    let request = sent(&mut machine);
    assert_eq!(request.xid, discover.xid, "one exchange, one number");
    assert_eq!((request.requested, request.server), (Some(ADDRESS), Some(SERVER)));
    assert_eq!(request.ciaddr, Ipv4Addr::UNSPECIFIED);
    machine.handle_reply(&reply(Verdict::Ack, request.xid), START);
    let lease = bound(&mut machine);
    assert_eq!(lease.address, "10.1.0.77/24".parse().unwrap());
    assert_eq!((lease.gateway, lease.mtu), (Some(SERVER), Some(1400)));
    assert_eq!(
        [lease.renew_at, lease.rebind_at, lease.expires_at],
        [at(500), at(874), at(1000)].map(|t| t.as_secs())
    );
    assert_eq!(machine.deadline(), Some(at(500)));
}

#[test]
fn silence_is_answered_by_asking_again_more_slowly() {
    let mut machine = Machine::start(None, 99, START);
    let mut now = START;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        assert_eq!(sent(&mut machine).kind, Kind::Discover);
        let next = machine.deadline().unwrap();
        pauses.push((next - now).as_secs_f64());
        machine.handle_timeout(next - Duration::from_millis(1));
        assert!(machine.next_output().is_none(), "not before its time");
        machine.handle_timeout(next);
        now = next;
    }
    let wanted = [1.0, 2.0, 4.0, 4.0, 4.0, 16.0, 16.0, 16.0];
    assert!(
        pauses.iter().zip(wanted).all(|(got, want): (&f64, f64)| (got - want).abs() <= 0.26),
        "{pauses:?}"
    );
}

#[test]
fn answers_to_others_are_not_heard() {
    let mut machine = Machine::start(None, 1, START);
    let discover = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Offer, discover.xid ^ 1), START);
    machine.handle_reply(&reply(Verdict::Ack, discover.xid), START);
    machine.handle_reply(&Reply { server: None, ..reply(Verdict::Offer, discover.xid) }, START);
    machine
        .handle_reply(&Reply { address: Ipv4Addr::BROADCAST, ..reply(Verdict::Offer, discover.xid) }, START);
    assert!(machine.next_output().is_none());
    machine.handle_reply(&reply(Verdict::Offer, discover.xid), START);
    sent(&mut machine);
    // A second server's word does not count for the first one's offer.
    for verdict in [Verdict::Nak, Verdict::Ack] {
        machine.handle_reply(&Reply { server: Some(OTHER), ..reply(verdict, discover.xid) }, START);
    }
    machine.handle_reply(&Reply { lease: None, ..reply(Verdict::Ack, discover.xid) }, START);
    assert!(machine.next_output().is_none());
}

#[test]
fn a_server_that_forgets_its_offer_is_left() {
    let mut machine = Machine::start(None, 1, START);
    let discover = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Offer, discover.xid), START);
    for _ in 0..MAX_REQUESTS {
        assert_eq!(sent(&mut machine).kind, Kind::Request);
        machine.handle_timeout(machine.deadline().unwrap());
    }
    let again = sent(&mut machine);
    assert_eq!(again.kind, Kind::Discover);
    assert_ne!(again.xid, discover.xid);
}

#[test]
fn the_old_address_is_asked_for_first() {
    let mut machine = Machine::start(Some(ADDRESS), 1, START);
    let request = sent(&mut machine);
    assert_eq!((request.kind, request.requested, request.server), (Kind::Request, Some(ADDRESS), None));
    machine.handle_reply(&reply(Verdict::Ack, request.xid), START);
    assert_eq!(bound(&mut machine).address.addr(), ADDRESS);

    let mut machine = Machine::start(Some(ADDRESS), 1, START);
    let request = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Nak, request.xid), START);
    let discover = sent(&mut machine);
    assert_eq!((discover.kind, discover.requested), (Kind::Discover, None), "it is not to be had");

    let mut machine = Machine::start(Some(ADDRESS), 1, START);
    for _ in 0..MAX_REBOOTS {
        assert_eq!(sent(&mut machine).kind, Kind::Request);
        machine.handle_timeout(machine.deadline().unwrap());
    }
    let discover = sent(&mut machine);
    assert_eq!((discover.kind, discover.requested), (Kind::Discover, Some(ADDRESS)), "nobody said no");
}

#[test]
fn a_lease_is_renewed_by_its_server() {
    let (mut machine, lease) = with_lease();
    machine.handle_timeout(at(500));
    let request = sent(&mut machine);
    assert_eq!((request.ciaddr, request.requested, request.server), (ADDRESS, None, None));
    assert_eq!(request.to, Some((SERVER, lease.server_mac)));
    machine.handle_reply(&Reply { server: None, ..reply(Verdict::Ack, request.xid) }, at(501));
    let renewed = bound(&mut machine);
    assert!(renewed.same_but_for_time(&lease));
    assert_eq!((renewed.expires_at, renewed.server), (at(1501).as_secs(), SERVER));
    assert!(!machine.is_waiting());
}

#[test]
fn then_by_any_and_then_it_is_lost() {
    let (mut machine, _) = with_lease();
    let (mut kinds, mut lost) = (Vec::new(), None);
    while lost.is_none() {
        let now = machine.deadline().unwrap();
        machine.handle_timeout(now);
        while let Some(output) = machine.next_output() {
            match output {
                Output::Send(ask) if ask.kind == Kind::Request => kinds.push((now - START, ask.to.is_some())),
                Output::Send(ask) => assert_eq!(ask.requested, Some(ADDRESS)),
                Output::Lost => lost = Some(now),
                Output::Bound(_) | Output::Probe(_) => panic!("nobody answered"),
            }
        }
    }
    assert_eq!(lost, Some(at(1000)), "not a second longer");
    let unicast = kinds.iter().filter(|(_, unicast)| *unicast);
    assert!(unicast.clone().count() >= 2 && unicast.clone().all(|(when, _)| when.as_secs() < 874));
    let broadcast = kinds.iter().filter(|(_, unicast)| !*unicast);
    assert!(broadcast.clone().count() >= 1 && broadcast.clone().all(|(when, _)| when.as_secs() >= 874));
    assert!(machine.is_waiting(), "it goes on asking");
}

#[test]
fn a_refused_renewal_loses_the_address_at_once() {
    let (mut machine, _) = with_lease();
    machine.handle_timeout(at(500));
    let request = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Nak, request.xid), at(500));
    assert_eq!(machine.next_output(), Some(Output::Lost));
    assert_eq!(sent(&mut machine).requested, None);
}

#[test]
fn a_stored_lease_goes_on_where_it_is() {
    let (_, lease) = with_lease();
    let mut early = Machine::resume(lease.clone(), 7, at(10));
    assert!(early.next_output().is_none() && early.deadline() == Some(at(500)));
    let mut due = Machine::resume(lease.clone(), 7, at(600));
    assert!(sent(&mut due).to.is_some());
    let mut late = Machine::resume(lease.clone(), 7, at(900));
    assert!(sent(&mut late).to.is_none());
    let mut over = Machine::resume(lease, 7, at(2000));
    assert_eq!(over.next_output(), Some(Output::Lost));
    assert_eq!(sent(&mut over).requested, Some(ADDRESS));
}

#[test]
fn a_new_address_is_asked_for_by_arp_and_an_old_one_is_not() {
    let mut machine = Machine::start(None, 1, START);
    let discover = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Offer, discover.xid), START);
    let request = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Ack, request.xid), START);
    for _ in 0..PROBES {
        assert_eq!((machine.next_output(), machine.probed()), (Some(Output::Probe(ADDRESS)), Some(ADDRESS)));
        assert!(machine.next_output().is_none() && machine.is_waiting(), "not to be used yet");
        // Servers have said all they can say.
        machine.handle_reply(&reply(Verdict::Nak, request.xid), START);
        machine.handle_timeout(machine.deadline().unwrap());
    }
    let lease = bound(&mut machine);
    assert_eq!((lease.domains.as_slice(), machine.probed()), (&["lan.example".to_owned()][..], None));
    machine.handle_conflict(at(1));
    assert!(machine.next_output().is_none(), "nobody asked");
    machine.handle_timeout(at(500));
    let request = sent(&mut machine);
    machine.handle_reply(&reply(Verdict::Ack, request.xid), at(500));
    assert!(matches!(machine.next_output(), Some(Output::Bound(_))));
}

#[test]
fn an_address_that_somebody_has_is_declined_and_another_one_asked_for() {
    let mut machine = Machine::start(Some(ADDRESS), 1, START);
    let mut now = START;
    for conflict in 0..6 {
        let mut request = sent(&mut machine);
        if request.kind == Kind::Discover {
            machine.handle_reply(&reply(Verdict::Offer, request.xid), now);
            request = sent(&mut machine);
        }
        machine.handle_reply(&reply(Verdict::Ack, request.xid), now);
        assert_eq!(machine.next_output(), Some(Output::Probe(ADDRESS)));
        machine.handle_conflict(now);
        let decline = sent(&mut machine);
        assert_eq!((decline.kind, decline.requested), (Kind::Decline, Some(ADDRESS)));
        assert_eq!((decline.server, decline.ciaddr, decline.to), (Some(SERVER), Ipv4Addr::UNSPECIFIED, None));
        machine.handle_conflict(now);
        machine.handle_reply(&reply(Verdict::Ack, request.xid), now);
        assert!(machine.next_output().is_none() && machine.release().is_none(), "nothing is lent");
        let pause = machine.deadline().unwrap() - now;
        assert_eq!(pause, if conflict < FEW_CONFLICTS { SHORT_DECLINE_PAUSE } else { DECLINE_PAUSE });
        now += pause;
        machine.handle_timeout(now - Duration::from_millis(1));
        assert!(machine.next_output().is_none());
        machine.handle_timeout(now);
    }
    assert_eq!(sent(&mut machine).requested, None, "any other one");
}

#[test]
fn what_was_lent_is_given_back_once() {
    let (mut machine, lease) = with_lease();
    let release = machine.release().unwrap();
    assert_eq!((release.kind, release.ciaddr, release.server), (Kind::Release, ADDRESS, Some(SERVER)));
    assert_eq!(release.to, Some((SERVER, lease.server_mac)));
    assert_eq!(machine.release(), None);
}

#[test]
fn a_lease_without_end_is_never_renewed() {
    let mut machine = Machine::start(Some(ADDRESS), 1, START);
    let request = sent(&mut machine);
    machine.handle_reply(&Reply { lease: Some(u32::MAX), ..reply(Verdict::Ack, request.xid) }, START);
    assert_eq!(bound(&mut machine).expires_at, DhcpLease::NEVER);
    assert_eq!(machine.deadline(), None);
}

#[test]
fn times_are_in_order_whatever_the_server_says() {
    for seconds in [0, 1, 4, 5, 17, 3600, u32::MAX - 1] {
        for (t1, t2) in [(None, None), (Some(0), Some(0)), (Some(9000), Some(1)), (Some(3), Some(3500))] {
            let [renew, rebind, end] = times(seconds, t1, t2, START);
            assert!(START.as_secs() < renew && renew < rebind && rebind < end, "{seconds} {t1:?} {t2:?}");
        }
    }
    assert_eq!(times(3600, Some(3), Some(3500), START)[..2], [at(3), at(3500)].map(|t| t.as_secs()));
}

#[test]
fn routes_take_the_place_of_routers() {
    let routes = vec![
        ("10.9.0.0/16".parse().unwrap(), OTHER),
        ("169.254.0.0/16".parse().unwrap(), Ipv4Addr::UNSPECIFIED),
        (Ipv4Net::default(), OTHER),
    ];
    let (gateway, others) = ways(&Reply { routes, ..reply(Verdict::Ack, 1) });
    assert_eq!(gateway, Some(OTHER));
    assert_eq!(others.len(), 2);
    assert_eq!(others[1].gateway, None);
}

#[test]
fn a_missing_mask_is_that_of_the_class() {
    for (address, prefix) in [("10.0.0.1", 8), ("172.16.0.1", 16), ("192.0.2.1", 24)] {
        assert_eq!(with_prefix(address.parse().unwrap(), None).prefix_len(), prefix);
    }
}
