//! Putting right what a stranger did to the host's own namespace.

use std::collections::BTreeSet;

use super::claim::{ALIAS_PREFIX, claim};
use super::compile::{alias, link_of_endpoint, link_of_network};
use super::diff::{can_stay, diff_link};
use super::order::{Unordered, order_interfaces};
use super::{Desired, HostState, Link, LinkKind, Ns, Step, Touched, compile_touched, diff};
use crate::model::IfName;

/// The steps that make the host's namespace be again what the touched entries want of it. `observed`
/// needs no sandboxes ([`Host::observe_own`](crate::host::Host::observe_own)): what is in them is taken
/// to be as wanted, unless its other end on the host is gone. What others have put on the host beside
/// ours stays, and so do entries that are not touched: somebody is at work on them.
///
/// The firewall is not part of it: its backend knows what is in force
/// ([`Host::restore_firewall`](crate::host::Host::restore_firewall)).
pub fn repair(desired: &Desired, touched: &Touched, observed: &HostState) -> Vec<Step> {
    let mut wanted = compile_touched(desired, touched);
    wanted.firewall = None;
    if desired.settings.ip_forward {
        wanted.sysctls.insert((Ns::Host, "net/ipv4/ip_forward".to_owned()), "1".to_owned());
    }
    let mut steps = diff(&seen(&wanted, touched, &claim(observed, &wanted)), &wanted);
    order_interfaces(&mut steps, desired, touched);
    steps
}

/// Whether the host's link that has, or had, this alias is not as `desired` wants it, as far as the link
/// itself can tell: its addresses aside. `found` is none if it is gone. A link whose looks the desired state
/// does not say all of (a VLAN, a macvlan link) may be.
pub fn is_altered(desired: &Desired, alias: &str, name: &IfName, found: Option<&Link>) -> bool {
    let id = alias.strip_prefix(ALIAS_PREFIX).unwrap_or_default();
    let of_network = || link_of_network(desired, &id.parse().ok()?);
    let of_endpoint = || link_of_endpoint(desired, &id.parse().ok()?);
    let Some((found, (key, wanted))) = found.zip(of_endpoint().or_else(of_network)) else { return true };
    let wanted = Link { addresses: BTreeSet::new(), ..wanted };
    let mut seen = HostState::default();
    if let LinkKind::Veth { peer } = &wanted.kind {
        seen.links.insert(peer.clone(), wanted.clone());
    }
    let found = found_as(&wanted, found);
    let mut plan = Unordered::default();
    diff_link(&key, &wanted, Some(&found), &seen, &mut plan);
    *name != key.1 || !can_stay(&found, Some(&wanted), &seen) || !plan.sort().is_empty()
}

/// What is wanted, as far as it is there.
fn seen(wanted: &HostState, touched: &Touched, observed: &HostState) -> HostState {
    let mut seen = wanted.clone();
    for (key, link) in wanted.links.iter().filter(|(key, _)| key.0 == Ns::Host) {
        match observed.links.get(key) {
            Some(found) => {
                seen.links.insert(key.clone(), found_as(link, found));
            }
            // Its other end may be there still, its peer in somebody else's namespace: it is removed
            // before there is a new one.
            None => {
                seen.links.remove(key);
                seen.forget_link(key);
            }
        }
    }
    let aliases: BTreeSet<String> =
        touched.networks.iter().map(alias).chain(touched.endpoints.iter().map(alias)).collect();
    let renamed = observed.links.iter().filter(|(key, link)| {
        key.0 == Ns::Host
            && !wanted.links.contains_key(key)
            && link.alias.as_ref().is_some_and(|alias| aliases.contains(alias))
    });
    seen.links.extend(renamed.map(|(key, link)| (key.clone(), link.clone())));
    seen.routes.retain(|route| route.0 != Ns::Host || observed.routes.contains(route));
    // One that could not be held when the daemon came back is not.
    seen.held_ports.retain(|port| observed.held_ports.contains(port));
    seen.proxied_ports.retain(|port, _| observed.proxied_ports.contains_key(port));
    let mut sysctls = std::mem::take(&mut seen.sysctls);
    sysctls.retain(|key, value| {
        if key.0 == Ns::Host {
            match observed.sysctls.get(key) {
                Some(found) => value.clone_from(found),
                None => return false,
            }
        }
        true
    });
    seen.sysctls = sysctls;
    seen
}

/// A link of ours as it was found. Of a veth pair only this end was looked at, and its VLAN was not; addresses
/// beyond ours are not ours to take away.
fn found_as(wanted: &Link, found: &Link) -> Link {
    let same_kind = std::mem::discriminant(&wanted.kind) == std::mem::discriminant(&found.kind);
    let pair = same_kind && matches!(wanted.kind, LinkKind::Veth { .. });
    Link {
        kind: if pair { wanted.kind.clone() } else { found.kind.clone() },
        addresses: found.addresses.intersection(&wanted.addresses).copied().collect(),
        vlan: if pair { wanted.vlan } else { found.vlan },
        ..found.clone()
    }
}
