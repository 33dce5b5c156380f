//! The firewall as the set of items in force.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use portolan_netcore::firewall::{FirewallPolicy, PolicyItem, PublishedPort, Transaction};
use portolan_netcore::plan::HostState;

use crate::host::{EEXIST, ENOENT, Errno};

/// All of it or nothing.
pub(crate) fn apply(state: &mut HostState, transaction: &Transaction) -> Result<(), Errno> {
    match transaction {
        Transaction::Replace(policy) => state.firewall = Some(policy.clone()),
        Transaction::Clear => state.firewall = None,
        Transaction::Change { remove, add } => {
            let mut next = state.firewall.clone().unwrap_or_default();
            for item in remove {
                take_out(&mut next, item)?;
            }
            for item in add {
                put_in(&mut next, item)?;
            }
            state.firewall = Some(next);
        }
    }
    Ok(())
}

fn take_out(policy: &mut FirewallPolicy, item: &PolicyItem) -> Result<(), Errno> {
    let was_there = match item {
        PolicyItem::Bridge(bridge) => policy.bridges.remove(&bridge.bridge).as_ref() == Some(bridge),
        PolicyItem::Endpoint(endpoint) => policy.endpoints.remove(&endpoint.id).as_ref() == Some(endpoint),
        PolicyItem::Port(port) => policy.published.remove(port),
        PolicyItem::Carried(port) => policy.carried.remove(port),
    };
    if was_there { Ok(()) } else { Err(ENOENT) }
}

fn put_in(policy: &mut FirewallPolicy, item: &PolicyItem) -> Result<(), Errno> {
    match item {
        PolicyItem::Bridge(bridge) => insert(&mut policy.bridges, bridge.bridge.clone(), bridge.clone()),
        PolicyItem::Endpoint(endpoint) => {
            insert(&mut policy.endpoints, endpoint.id.clone(), endpoint.clone())
        }
        PolicyItem::Port(port) => {
            // What has no place on the host is nowhere in another's way.
            let place = |port: &PublishedPort| {
                let binding = &port.binding;
                (binding.host_port != 0).then_some((binding.proto, binding.host_ip, binding.host_port))
            };
            let wanted = place(port);
            let taken = wanted.is_some() && policy.published.iter().any(|other| place(other) == wanted);
            if taken {
                return Err(EEXIST);
            }
            policy.published.insert(port.clone());
            Ok(())
        }
        PolicyItem::Carried(port) => {
            if policy.carried.iter().any(|other| other.binding == port.binding) {
                return Err(EEXIST);
            }
            policy.carried.insert(port.clone());
            Ok(())
        }
    }
}

fn insert<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<(), Errno> {
    match map.entry(key) {
        Entry::Occupied(_) => Err(EEXIST),
        Entry::Vacant(slot) => {
            slot.insert(value);
            Ok(())
        }
    }
}
