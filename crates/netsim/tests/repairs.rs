//! Repairs of what strangers do to the host, on any world and whatever they do.

#[allow(dead_code, reason = "each test has its part of it")]
mod world;

use portolan_netcore::host::Host;
use portolan_netcore::model::{IfName, MacAddr};
use portolan_netcore::plan::{
    Attribute, Desired, HostState, LinkKey, LinkKind, Ns, Step, Stray, Touched, compile, introduce,
    is_altered, repair,
};
use portolan_netsim::SimHost;
use proptest::prelude::*;
use world::world;

/// What a stranger does to one link. True if the kernel makes a message of the link of it.
fn disturb(state: &mut HostState, key: &LinkKey, how: u8) -> bool {
    let Some(link) = state.links.get_mut(key) else { return false };
    let is_bridge = link.kind == LinkKind::Bridge;
    let altered = &mut link.altered;
    match how % 12 {
        0 => link.up = false,
        1 => link.alias = Some("somebody's".to_owned()),
        2 => link.alias = None,
        3 => link.mtu = Some(1234),
        4 if is_bridge => link.mac = Some(MacAddr([2, 1, 1, 1, 1, 1])),
        5 if is_bridge => drop(altered.attributes.insert(Attribute::SpanningTree)),
        6 if link.master.is_some() => {
            altered.attributes.extend([Attribute::Isolated, Attribute::Flood, Attribute::Blocked])
        }
        7 if !is_bridge => {
            link.master = None;
            altered.attributes.clear();
            (link.hairpin, link.vlan) = (false, None);
        }
        8 => {
            altered.unrouted.clone_from(&link.addresses);
            return false;
        }
        9 => {
            // To another namespace; a pair's other end stays where it is.
            state.links.remove(key);
        }
        10 => {
            let mut moved = state.links.remove(key).expect("it is there");
            (moved.alias, moved.up) = (None, false);
            state.links.insert((Ns::Host, IfName::new("stolen0").expect("a name")), moved);
        }
        _ => return false,
    }
    true
}

/// What a look at the host's namespace alone sees: held ports, links with an alias of ours, and those that once had it.
fn observed(state: &HostState, before: &HostState, name_was: impl Fn(&IfName) -> IfName) -> HostState {
    let mut seen = HostState {
        routes: state.routes.clone(),
        sysctls: state.sysctls.clone(),
        held_ports: state.held_ports.clone(),
        proxied_ports: state.proxied_ports.clone(),
        ..HostState::default()
    };
    for (key, link) in state.links.iter().filter(|(key, _)| key.0 == Ns::Host) {
        let once = before.links.get(&(Ns::Host, name_was(&key.1))).and_then(|link| link.alias.clone());
        if link.alias == once {
            seen.links.insert(key.clone(), link.clone());
        } else {
            seen.strays.insert(key.1.clone(), Stray { link: link.clone(), once, end: None });
        }
    }
    seen
}

fn all(desired: &Desired) -> Touched {
    Touched {
        networks: desired.networks.keys().cloned().collect(),
        sandboxes: desired.sandboxes.keys().cloned().collect(),
        endpoints: desired.endpoints.keys().cloned().collect(),
    }
}

fn text(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_done_to_a_link_is_put_right(
        choices in prop::collection::vec(any::<u8>(), 48),
        which in any::<prop::sample::Index>(),
        hows in prop::collection::vec(any::<u8>(), 1..4),
    ) {
        let desired = world(&choices);
        let wanted = compile(&desired);
        let made = |link: &portolan_netcore::plan::Link| {
            matches!(link.kind, LinkKind::Bridge | LinkKind::Veth { .. })
        };
        let ours: Vec<&LinkKey> =
            wanted.links.iter().filter(|(key, link)| key.0 == Ns::Host && made(link)).map(|(key, _)| key).collect();
        prop_assume!(!ours.is_empty());
        let key = which.get(&ours);
        let link = &wanted.links[*key];
        let alias = link.alias.clone().expect("it is ours");
        prop_assert!(!is_altered(&desired, &alias, &key.1, Some(link)), "as it should be");

        let mut state = wanted.clone();
        // One that somebody had when the daemon came back.
        if hows.len() == 1
            && let Some(port) = state.held_ports.pop_first()
        {
            state.proxied_ports.remove(&port);
        }
        for how in hows {
            if disturb(&mut state, key, how) {
                prop_assert!(is_altered(&desired, &alias, &key.1, state.links.get(*key)), "{how} is heard");
            }
        }
        let was = |name: &IfName| if name.as_str() == "stolen0" { key.1.clone() } else { name.clone() };
        let steps = repair(&desired, &all(&desired), &observed(&state, &wanted, was));
        let host = SimHost::new(state);
        let report = host.execute(&steps);
        prop_assert_eq!(report.error, None, "plan:\n{}", text(&steps));
        let introduced = introduce(&desired, &steps);
        prop_assert_eq!(host.execute(&introduced).error, None, "plan:\n{}", text(&introduced));
        let back = |step: &Step| matches!(step, Step::SetUp(repaired, true) if repaired == *key);
        if steps.iter().any(back) {
            let of_it = |step: &&Step| matches!(step, Step::Introduce { link, .. } if link == *key);
            prop_assert_eq!(introduced.iter().filter(of_it).count(), 1, "plan:\n{}", text(&introduced));
        }
        let mut after = host.state();
        for (key, link) in &mut after.links {
            let left_to_the_kernel = wanted.links.get(key).is_some_and(|wanted| wanted.mtu.is_none());
            link.mtu = link.mtu.filter(|mtu| !(left_to_the_kernel && *mtu == 1500));
        }
        prop_assert_eq!(after, wanted, "{}", text(&steps));
    }
}
