//! Address spaces against a model that any reader can check.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::{AddressSpace, IpamError};
use crate::model::{ContainerId, IpamConfig, SandboxId};

fn config(subnet: &str) -> IpamConfig {
    let subnet: ipnet::IpNet = subnet.parse().unwrap();
    IpamConfig {
        gateway: subnet.hosts().next(),
        subnet,
        ip_range: None,
        auxiliary: BTreeMap::new(),
        configured: true,
    }
}

fn space(subnet: &str) -> AddressSpace {
    AddressSpace::new(&config(subnet))
}

fn container(number: u8) -> ContainerId {
    ContainerId::from_bytes([number; 32])
}

fn sandbox(number: u8) -> SandboxId {
    SandboxId::from_bytes([number; 32])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Use {
    Active,
    Idle,
    Dying,
    /// Dying, and its container is removed.
    Ghost,
}

#[derive(Clone, Debug)]
enum Op {
    Lease(u8),
    /// As a start with `--ip` does; the number is the last byte.
    LeaseFixed(u8, u8),
    /// As a create with `--ip` does.
    Reserve(u8, u8),
    Deactivate(u8),
    Quarantine(u8),
    EndQuarantine(u8),
    Forget(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0_u8..9;
    let last = 2_u8..7;
    prop_oneof![
        4 => who.clone().prop_map(Op::Lease),
        1 => (who.clone(), last.clone()).prop_map(|(who, last)| Op::LeaseFixed(who, last)),
        3 => (who.clone(), last).prop_map(|(who, last)| Op::Reserve(who, last)),
        1 => who.clone().prop_map(Op::Deactivate),
        2 => who.clone().prop_map(Op::Quarantine),
        2 => who.clone().prop_map(Op::EndQuarantine),
        2 => who.prop_map(Op::Forget),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Held {
    who: u8,
    state: Use,
    fixed: bool,
}

/// Each address that is not free and who is on it, and who waits for which, first come first.
#[derive(Debug, Default)]
struct Model {
    held: BTreeMap<IpAddr, Held>,
    waiting: Vec<(u8, IpAddr)>,
}

impl Model {
    fn of(&self, who: u8) -> Option<(IpAddr, Held)> {
        let mut held = self.held.iter();
        held.find(|(_, held)| held.who == who && held.state != Use::Ghost).map(|(at, held)| (*at, *held))
    }

    fn waits_for(&self, at: IpAddr) -> bool {
        self.waiting.iter().any(|(_, wanted)| *wanted == at)
    }

    fn lendable(held: &Held) -> bool {
        held.state == Use::Idle && !held.fixed
    }

    /// What is free or lendable goes to who waits for it.
    fn settle(&mut self) {
        let available = |at: &IpAddr| self.held.get(at).is_none_or(Self::lendable);
        if let Some(next) = self.waiting.iter().position(|(_, at)| available(at)) {
            let (who, at) = self.waiting.remove(next);
            self.held.insert(at, Held { who, state: Use::Idle, fixed: true });
            self.settle();
        }
    }

    fn lease(&mut self, hosts: &[IpAddr], who: u8) -> Option<IpAddr> {
        let (at, fixed) = match self.of(who) {
            Some((_, Held { state: Use::Dying, .. })) => return None,
            Some((at, held)) => (at, held.fixed),
            None => {
                self.waiting.retain(|(other, _)| *other != who);
                let free = hosts.iter().find(|at| !self.held.contains_key(at));
                let lent = || hosts.iter().find(|at| self.held.get(at).is_some_and(Self::lendable));
                (*free.or_else(lent)?, false)
            }
        };
        self.held.insert(at, Held { who, state: Use::Active, fixed });
        Some(at)
    }

    fn lease_fixed(&mut self, who: u8, at: IpAddr) -> Option<IpAddr> {
        let had = self.of(who);
        let dying = had.is_some_and(|(_, held)| held.state == Use::Dying);
        let available = match self.held.get(&at) {
            None => true,
            Some(held) if held.who == who => held.state != Use::Ghost,
            Some(held) => Self::lendable(held),
        };
        if dying || !available {
            return None;
        }
        if let Some((had, _)) = had {
            self.held.remove(&had);
        }
        self.waiting.retain(|(other, _)| *other != who);
        self.held.insert(at, Held { who, state: Use::Active, fixed: true });
        Some(at)
    }

    fn reserve(&mut self, who: u8, at: IpAddr) {
        match self.of(who) {
            Some((had, held))
                if had == at && (held.fixed || held.state == Use::Active || !self.waits_for(at)) =>
            {
                self.held.insert(at, Held { fixed: true, ..held });
            }
            _ if self.waiting.contains(&(who, at)) => {}
            _ => {
                self.forget(who);
                self.waiting.push((who, at));
            }
        }
    }

    fn forget(&mut self, who: u8) {
        self.waiting.retain(|(other, _)| *other != who);
        match self.of(who) {
            Some((at, Held { state: Use::Dying, .. })) => {
                self.held.insert(at, Held { who, state: Use::Ghost, fixed: false });
            }
            Some((at, _)) => drop(self.held.remove(&at)),
            None => {}
        }
    }

    /// From in use to something else.
    fn stop(&mut self, who: u8, state: Use) -> bool {
        let Some((at, held @ Held { state: Use::Active, .. })) = self.of(who) else { return false };
        self.held.insert(at, Held { state, ..held });
        true
    }

    fn end_quarantine(&mut self, of: u8) {
        self.held.retain(|_, held| !(held.who == of && held.state == Use::Ghost));
        let dying = self.held.values_mut().filter(|held| held.who == of && held.state == Use::Dying);
        dying.for_each(|held| held.state = Use::Idle);
    }
}

proptest! {
    #[test]
    fn no_address_twice_none_lost_the_lowest_first(ops in prop::collection::vec(op(), 0..80)) {
        // Six hosts less the gateway: five addresses for nine containers.
        let mut space = space("10.0.0.0/29");
        let host = |last: u8| ip(&format!("10.0.0.{last}"));
        let hosts: Vec<IpAddr> = (2..=6).map(host).collect();
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Lease(who) => {
                    let got = space.lease(&container(who), None);
                    prop_assert_eq!(got.clone().ok(), model.lease(&hosts, who), "{:?}", got);
                }
                Op::LeaseFixed(who, last) => {
                    let got = space.lease(&container(who), Some(host(last)));
                    prop_assert_eq!(got.clone().ok(), model.lease_fixed(who, host(last)), "{:?}", got);
                }
                Op::Reserve(who, last) => {
                    let queued_behind = space.reserve(&container(who), host(last)).unwrap();
                    model.reserve(who, host(last));
                    model.settle();
                    let kept = model.of(who).is_some_and(|(at, _)| at == host(last));
                    let holder = model.held[&host(last)].who;
                    prop_assert_eq!(queued_behind, (!kept).then(|| container(holder)));
                }
                Op::Deactivate(who) => {
                    if model.stop(who, Use::Idle) {
                        space.deactivate(&container(who));
                    }
                }
                Op::Quarantine(who) => {
                    if model.stop(who, Use::Dying) {
                        space.quarantine(&container(who), &sandbox(who));
                    }
                }
                Op::EndQuarantine(who) => {
                    space.end_quarantine(&sandbox(who));
                    model.end_quarantine(who);
                }
                Op::Forget(who) => {
                    space.forget(&container(who));
                    model.forget(who);
                }
            }
            model.settle();
            for who in 0..9 {
                prop_assert_eq!(space.address_of(&container(who)), model.of(who).map(|(at, _)| at));
            }
            let usage = space.usage();
            prop_assert_eq!(usage.available, 5 - model.held.len() as u64);
            prop_assert_eq!(usage.in_use, 3 + model.held.len() as u64);
        }
        for who in 0..9 {
            space.forget(&container(who));
            space.end_quarantine(&sandbox(who));
        }
        prop_assert_eq!(space, self::space("10.0.0.0/29"), "everything came back");
    }
}

#[test]
fn who_waits_for_an_address_gets_it_in_turn() {
    let mut space = space("10.0.0.0/29");
    let wanted = ip("10.0.0.2");
    space.lease(&container(1), Some(wanted)).unwrap();
    assert_eq!(space.reserve(&container(2), wanted), Ok(Some(container(1))));
    assert_eq!(space.reserve(&container(3), wanted), Ok(Some(container(1))));
    let in_use = |holder| Err(IpamError::InUse { address: wanted, holder: Some(container(holder)) });
    assert_eq!(space.lease(&container(2), Some(wanted)), in_use(1));
    space.quarantine(&container(1), &sandbox(1));
    assert_eq!(space.lease(&container(2), Some(wanted)), in_use(1), "stopped, it keeps what it asked for");
    space.forget(&container(1));
    space.end_quarantine(&sandbox(1));
    assert_eq!(space.lease(&container(3), Some(wanted)), in_use(2), "first come, first served");
    assert_eq!(space.lease(&container(4), None), Ok(ip("10.0.0.3")), "not for who did not ask for it");
    assert_eq!(space.lease(&container(2), Some(wanted)), Ok(wanted));
    // Who merely had it loses it to who asked for it by number.
    assert_eq!(space.reserve(&container(5), ip("10.0.0.3")), Ok(Some(container(4))));
    space.deactivate(&container(4));
    assert_eq!(space.address_of(&container(5)), Some(ip("10.0.0.3")));
    assert_eq!(space.lease(&container(4), None), Ok(ip("10.0.0.4")));
    let own = IpamError::InUse { address: ip("10.0.0.1"), holder: None };
    assert_eq!(space.reserve(&container(6), ip("10.0.0.1")), Err(own));
}

#[test]
fn the_lowest_free_address_is_next() {
    let mut space = space("172.17.0.0/16");
    for last in 2..=4 {
        assert_eq!(space.lease(&container(last), None), Ok(ip(&format!("172.17.0.{last}"))));
    }
    space.forget(&container(3));
    assert_eq!(space.lease(&container(9), None), Ok(ip("172.17.0.3")));
}

#[test]
fn a_stopped_container_keeps_its_address_until_nothing_else_is_left() {
    let mut space = space("10.0.0.0/29");
    for number in 1..=5 {
        space.lease(&container(number), None).unwrap();
    }
    assert_eq!(
        space.lease(&container(6), None),
        Err(IpamError::Exhausted { subnet: "10.0.0.0/29".parse().unwrap() })
    );
    space.deactivate(&container(4));
    space.deactivate(&container(2));
    assert_eq!(space.lease(&container(4), None), Ok(ip("10.0.0.5")));
    assert_eq!(space.lease(&container(6), None), Ok(ip("10.0.0.3")), "lent to who needs it");
    assert_eq!(space.address_of(&container(2)), None);
}

#[test]
fn an_address_asked_for_by_number_is_kept() {
    let mut space = space("10.0.0.0/29");
    space.reserve(&container(1), ip("10.0.0.2")).unwrap();
    space.deactivate(&container(1));
    for number in 2..=5 {
        space.lease(&container(number), None).unwrap();
    }
    assert!(matches!(space.lease(&container(6), None), Err(IpamError::Exhausted { .. })));
    let refused = IpamError::InUse { address: ip("10.0.0.2"), holder: Some(container(1)) };
    assert_eq!(space.lease(&container(6), Some(ip("10.0.0.2"))), Err(refused));
    assert_eq!(space.lease(&container(1), Some(ip("10.0.0.2"))), Ok(ip("10.0.0.2")));
    assert!(matches!(
        space.lease(&container(6), Some(ip("10.0.0.1"))),
        Err(IpamError::InUse { holder: None, .. })
    ));
    assert!(matches!(space.lease(&container(6), Some(ip("10.9.0.1"))), Err(IpamError::OutOfRange { .. })));
}

#[test]
fn whose_clean_up_to_wait_for() {
    let mut space = space("10.0.0.0/30");
    space.lease(&container(1), None).unwrap();
    space.quarantine(&container(1), &sandbox(1));
    let waiting = IpamError::Quarantined { address: ip("10.0.0.2"), sandbox: sandbox(1) };
    assert_eq!(space.lease(&container(1), None), Err(waiting.clone()), "its own container waits too");
    assert_eq!(space.lease(&container(2), None), Err(waiting.clone()));
    space.forget(&container(1));
    assert_eq!(space.lease(&container(2), Some(ip("10.0.0.2"))), Err(waiting));
    space.end_quarantine(&sandbox(1));
    assert_eq!(space.lease(&container(2), None), Ok(ip("10.0.0.2")));
}

#[test]
fn ranges_auxiliary_addresses_and_small_subnets() {
    let mut ranged = config("172.28.0.0/16");
    ranged.ip_range = Some("172.28.5.0/30".parse().unwrap());
    ranged.auxiliary.insert("router".into(), ip("172.28.5.1"));
    let mut space = AddressSpace::new(&ranged);
    let given: BTreeSet<_> = (1..=3).map(|number| space.lease(&container(number), None).unwrap()).collect();
    assert_eq!(given, [ip("172.28.5.0"), ip("172.28.5.2"), ip("172.28.5.3")].into());
    assert!(space.lease(&container(4), None).is_err());
    assert_eq!(
        space.lease(&container(4), Some(ip("172.28.9.9"))),
        Ok(ip("172.28.9.9")),
        "beyond the range by number"
    );
    let both = IpamConfig { gateway: None, ..config("10.0.0.0/31") };
    let mut pair = AddressSpace::new(&both);
    assert_eq!(pair.lease(&container(1), None), Ok(ip("10.0.0.0")));
    assert_eq!(pair.lease(&container(2), None), Ok(ip("10.0.0.1")));
}

#[test]
fn ipv6_is_the_same_and_never_the_anycast_address() {
    let mut space = AddressSpace::new(&IpamConfig { gateway: None, ..config("fd00::/64") });
    assert_eq!(space.lease(&container(1), None), Ok(ip("fd00::1")));
    assert_eq!(space.usage().available, u64::MAX - 1);
    let mut everything = AddressSpace::new(&IpamConfig { gateway: None, ..config("::/0") });
    assert_eq!(everything.usage().available, u64::MAX);
    assert_eq!(everything.lease(&container(1), None), Ok(ip("::1")));
}

#[test]
fn serial_addresses_come_round_only_at_the_end() {
    let mut space = AddressSpace::new(&config("10.0.0.0/29")).serial(true);
    let mut given = Vec::new();
    for number in 0..7 {
        let id = ContainerId::from_bytes([number; 32]);
        given.push(space.lease(&id, None).unwrap().to_string());
        space.forget(&id);
    }
    let want = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2", "10.0.0.3"];
    assert_eq!(given, want);
}
