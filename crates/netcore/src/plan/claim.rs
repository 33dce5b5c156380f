//! Which links without our alias are ours.
//!
//! The alias says whose a link is, and anybody may change it. A link is ours without it if we have seen it
//! with it before; or if it is what only we make under that name: a bridge with the hardware address that
//! follows from its network's id, a veth whose other end is in the right sandbox. A link that merely has the
//! name of one of ours is not: it stays, and stands in the way.
//!
//! A bridge that a network adopted is known by its name alone, and none of ours: of it, our addresses are.

use std::borrow::Cow;

use super::{HostState, Link, LinkKey, LinkKind, Ns, Stray};
use crate::model::IfName;

/// What begins an alias of ours.
pub const ALIAS_PREFIX: &str = "portolan:";

/// Without an alias of ours.
pub(super) fn is_foreign(link: &Link) -> bool {
    !link.alias.as_ref().is_some_and(|alias| alias.starts_with(ALIAS_PREFIX))
}

/// The observed state with the strays that are wanted links among its links. One that has another name
/// by now has its alias back there, too: that is how what is ours and misplaced looks.
pub(super) fn claim<'a>(observed: &'a HostState, wanted: &HostState) -> Cow<'a, HostState> {
    if observed.strays.is_empty() {
        return Cow::Borrowed(observed);
    }
    let mut claimed = observed.clone();
    for (name, stray) in std::mem::take(&mut claimed.strays) {
        let mut candidates = wanted.links.iter().filter(|((ns, _), _)| *ns == Ns::Host);
        let Some((key, link)) = candidates.find(|(key, link)| is_it(&name, &stray, &key.1, link)) else {
            continue;
        };
        let mut found = stray.link;
        if link.kind == LinkKind::Adopted {
            found = as_adopted(found, link);
        } else if key.1 != name {
            found.alias.clone_from(&link.alias);
        }
        let key: LinkKey = (Ns::Host, name);
        if let Some((end, link)) = stray.end {
            found.kind = LinkKind::Veth { peer: end.clone() };
            let kind = LinkKind::Veth { peer: key.clone() };
            claimed.links.insert(end, Link { kind, ..link });
        }
        claimed.links.entry(key).or_insert(found);
    }
    Cow::Owned(claimed)
}

/// What is to be seen of somebody else's bridge: kernels before 5.18 do not say whose an address is.
fn as_adopted(found: Link, wanted: &Link) -> Link {
    let addresses = found.addresses.intersection(&wanted.addresses).copied().collect();
    Link { addresses, up: found.up, ..wanted.clone() }
}

fn is_it(name: &IfName, stray: &Stray, wanted_name: &IfName, wanted: &Link) -> bool {
    if stray.once.is_some() {
        return stray.once == wanted.alias;
    }
    let made_by_us = match &wanted.kind {
        LinkKind::Bridge => {
            stray.link.kind == LinkKind::Bridge && wanted.mac.is_some() && stray.link.mac == wanted.mac
        }
        LinkKind::Adopted => stray.link.kind == LinkKind::Bridge,
        LinkKind::Veth { peer } => stray.end.as_ref().is_some_and(|(end, _)| end == peer),
        _ => false,
    };
    name == wanted_name && made_by_us
}
