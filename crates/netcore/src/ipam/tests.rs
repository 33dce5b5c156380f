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
    Deactivate(u8),
    Quarantine(u8),
    EndQuarantine(u8),
    Forget(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0_u8..9;
    prop_oneof![
        4 => who.clone().prop_map(Op::Lease),
        1 => who.clone().prop_map(Op::Deactivate),
        2 => who.clone().prop_map(Op::Quarantine),
        2 => who.clone().prop_map(Op::EndQuarantine),
        2 => who.prop_map(Op::Forget),
    ]
}

/// Each address of the range, and who is on it.
type Model = BTreeMap<IpAddr, (u8, Use)>;

fn of(model: &Model, who: u8) -> Option<(IpAddr, Use)> {
    model
        .iter()
        .find(|(_, (other, state))| *other == who && *state != Use::Ghost)
        .map(|(at, (_, state))| (*at, *state))
}

fn expected(model: &Model, hosts: &[IpAddr], who: u8) -> Result<IpAddr, ()> {
    match of(model, who) {
        Some((_, Use::Dying)) => Err(()),
        Some((at, _)) => Ok(at),
        None => {
            let free = hosts.iter().find(|at| !model.contains_key(at));
            let idle = || hosts.iter().find(|at| matches!(model.get(at), Some((_, Use::Idle))));
            free.or_else(idle).copied().ok_or(())
        }
    }
}

proptest! {
    #[test]
    fn no_address_twice_none_lost_the_lowest_first(ops in prop::collection::vec(op(), 0..80)) {
        // Six hosts less the gateway: five addresses for nine containers.
        let mut space = space("10.0.0.0/29");
        let hosts: Vec<IpAddr> = (2..=6).map(|last| ip(&format!("10.0.0.{last}"))).collect();
        let mut model = Model::new();
        for op in ops {
            match op {
                Op::Lease(who) => {
                    let got = space.lease(&container(who), None);
                    prop_assert_eq!(got.clone().map_err(|_| ()), expected(&model, &hosts, who), "{:?}", got);
                    if let Ok(at) = got {
                        model.insert(at, (who, Use::Active));
                    }
                }
                Op::Deactivate(who) => {
                    if let Some((at, Use::Active)) = of(&model, who) {
                        space.deactivate(&container(who));
                        model.insert(at, (who, Use::Idle));
                    }
                }
                Op::Quarantine(who) => {
                    if let Some((at, Use::Active)) = of(&model, who) {
                        space.quarantine(&container(who), &sandbox(who));
                        model.insert(at, (who, Use::Dying));
                    }
                }
                Op::EndQuarantine(who) => {
                    space.end_quarantine(&sandbox(who));
                    model.retain(|_, (other, state)| !(*other == who && *state == Use::Ghost));
                    model.values_mut().filter(|(other, state)| *other == who && *state == Use::Dying)
                        .for_each(|(_, state)| *state = Use::Idle);
                }
                Op::Forget(who) => {
                    space.forget(&container(who));
                    match of(&model, who) {
                        Some((at, Use::Dying)) => { model.insert(at, (who, Use::Ghost)); }
                        Some((at, _)) => { model.remove(&at); }
                        None => {}
                    }
                }
            }
            let usage = space.usage();
            prop_assert_eq!(usage.available, 5 - model.len() as u64);
            prop_assert_eq!(usage.in_use, 3 + model.len() as u64);
        }
        for who in 0..9 {
            space.forget(&container(who));
            space.end_quarantine(&sandbox(who));
        }
        prop_assert_eq!(space, self::space("10.0.0.0/29"), "everything came back");
    }
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
