//! Properties of plans, on worlds small enough to collide: names repeat, addresses move, an endpoint
//! changes its network, two pairs swap their peers, ports change hands.

mod world;

use std::collections::BTreeSet;

use portolan_netcore::host::Host;
use portolan_netcore::model::IfName;
use portolan_netcore::plan::{HostState, LinkKey, LinkKind, Ns, Proxied, Step, change, compile, diff, undo};
use portolan_netsim::{Faults, SimHost};
use proptest::prelude::*;
use world::{touched, world};

fn run(state: &HostState, steps: &[Step]) -> HostState {
    let host = SimHost::new(state.clone());
    let report = host.execute(steps);
    assert_eq!(report.error, None, "plan:\n{}", text(steps));
    host.state()
}

/// Carries out what can be, as a way back is.
fn run_whatever_fails(host: &SimHost, steps: &[Step]) {
    let mut rest = steps;
    loop {
        let report = host.execute(rest);
        if report.error.is_none() {
            return;
        }
        rest = &rest[report.done + 1..];
    }
}

/// The links of the host that a plan makes.
fn made(steps: &[Step]) -> BTreeSet<IfName> {
    let made = |step: &Step| match step {
        Step::AddBridge(key, _) | Step::AddLink(key, _) | Step::AddVeth { host: key, .. } => {
            Some(key.clone())
        }
        _ => None,
    };
    steps.iter().filter_map(made).filter(|key| key.0 == Ns::Host).map(|key| key.1).collect()
}

fn text(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

/// `state` without what a plan cannot take back: sysctls, and sizes that are left to the kernel.
fn comparable(state: &HostState, wanted: &HostState) -> HostState {
    let mut state = state.clone();
    state.sysctls.retain(|key, _| wanted.sysctls.contains_key(key));
    // Somebody else's bridge stays where it was, without an address of ours.
    state.links.retain(|key, link| {
        link.kind != LinkKind::Adopted || !link.addresses.is_empty() || wanted.links.contains_key(key)
    });
    for (key, link) in &mut state.links {
        if wanted.links.get(key).is_some_and(|wanted| wanted.mtu.is_none()) {
            link.mtu = None;
        } else if key.0 == Ns::Host {
            // What the kernel gives, and nobody has to set.
            link.mtu = link.mtu.or(Some(1500));
        }
    }
    state
}

/// Everything that lets packets through, or would if nobody closed it.
fn openings(state: &HostState) -> BTreeSet<String> {
    let policy = state.firewall.clone().unwrap_or_default();
    let mut open = BTreeSet::new();
    for ((ns, name), link) in &state.links {
        let guarded = match (&link.kind, ns) {
            (LinkKind::Bridge, Ns::Host) => policy.bridges.contains_key(name),
            (LinkKind::Veth { .. }, Ns::Host) => {
                policy.endpoints.values().any(|endpoint| endpoint.host_ifname == *name)
            }
            _ => true,
        };
        if link.up && !guarded {
            open.insert(format!("{name} is up without rules"));
        }
    }
    for port in &policy.published {
        let binding = &port.binding;
        open.insert(format!("{binding:?} to {}", port.target));
        let held = |other: &portolan_netcore::model::PortBinding| {
            (other.proto, other.host_ip, other.host_port)
                == (binding.proto, binding.host_ip, binding.host_port)
        };
        if !state.held_ports.iter().any(held) {
            open.insert(format!("{binding:?} leads somewhere and is not held"));
        }
    }
    for (port, Proxied { target, from }) in &state.proxied_ports {
        let everybody = [String::from("everybody")];
        let clients: Vec<String> = from.iter().map(ToString::to_string).collect();
        let clients = if clients.is_empty() { &everybody[..] } else { &clients };
        if state.firewall.is_some() {
            let rules = policy.carried.iter().find(|carried| carried.binding == *port);
            let rules = rules.map_or("no rules", |carried| carried.bridge.as_str());
            open.insert(format!("{port:?} is proxied to {target} under those of {rules}"));
        }
        open.extend(clients.iter().map(|client| format!("{port:?} is proxied to {target} for {client}")));
    }
    for ((ns, key), value) in &state.sysctls {
        let guarded =
            match key.strip_prefix("net/ipv4/conf/").and_then(|key| key.strip_suffix("/route_localnet")) {
                Some(bridge) => policy.bridges.keys().any(|name| name.as_str() == bridge),
                None => key != "net/ipv4/ip_forward" || state.firewall.is_some(),
            };
        if *ns == Ns::Host && value == "1" && !guarded {
            open.insert(format!("{key} without rules"));
        }
    }
    open
}

/// The link that a step makes in a sandbox.
fn made_in_sandbox(step: &Step) -> Option<LinkKey> {
    match step {
        Step::AddVeth { container: key, .. } | Step::AddLink(key, _) => {
            Some(key.clone()).filter(|key| key.0 != Ns::Host)
        }
        _ => None,
    }
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 48)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_to_do_when_the_host_is_as_wanted(a in choices()) {
        let wanted = compile(&world(&a));
        prop_assert_eq!(diff(&wanted, &wanted), vec![]);
    }

    #[test]
    fn one_plan_takes_any_state_to_any_other(a in choices(), b in choices()) {
        let (from, to) = (compile(&world(&a)), compile(&world(&b)));
        let steps = diff(&from, &to);
        prop_assert_eq!(comparable(&run(&from, &steps), &to), to, "{}", text(&steps));
    }

    #[test]
    fn the_incremental_plan_gets_there_too(a in choices(), b in choices(), reversed in any::<bool>()) {
        let (before, after) = (world(&a), world(&b));
        let mut touched = touched(&before, &after);
        if reversed {
            touched.endpoints.reverse();
        }
        let steps = change(&before.slice(&touched), &after, &touched);
        let (from, to) = (compile(&before), compile(&after));
        let reached = run(&from, &steps);
        prop_assert_eq!(comparable(&reached, &to), to, "{}", text(&steps));
        let mut imagined = from;
        steps.iter().for_each(|step| imagined.take_effect(step));
        prop_assert_eq!(imagined, reached, "{}", text(&steps));
        let made: Vec<LinkKey> = steps.iter().filter_map(made_in_sandbox).collect();
        let wanted = touched.endpoints.iter().filter_map(|id| after.endpoints.get(id));
        let wanted = wanted.map(|one| (Ns::Sandbox(one.sandbox.clone()), one.ifname.clone()));
        let wanted: Vec<_> = wanted.filter(|key| made.contains(key)).collect();
        prop_assert_eq!(made, wanted, "the order of interfaces\n{}", text(&steps));
    }

    #[test]
    fn a_plan_that_stops_anywhere_is_taken_back(a in choices(), b in choices()) {
        let (before, after) = (world(&a), world(&b));
        let touched = touched(&before, &after);
        let steps = change(&before.slice(&touched), &after, &touched);
        let from = compile(&before);
        for cut in 0..=steps.len() {
            let host = SimHost::new(run(&from, &steps[..cut]));
            let back = undo(&before.slice(&touched), &touched, &steps[..cut], &steps[cut..]);
            run_whatever_fails(&host, &back);
            prop_assert_eq!(
                comparable(&host.state(), &from), from.clone(),
                "{} of\n{}back\n{}", cut, text(&steps), text(&back)
            );
        }
    }

    #[test]
    fn what_is_somebody_elses_stays_when_it_is_in_the_way(a in choices(), b in choices()) {
        let (before, after) = (world(&a), world(&b));
        let touched = touched(&before, &after);
        let steps = change(&before.slice(&touched), &after, &touched);
        let from = compile(&before);
        for name in made(&steps) {
            if from.links.contains_key(&(Ns::Host, name.clone())) {
                continue;
            }
            let host = SimHost::new(from.clone());
            host.add_foreign_link(name.clone());
            let done = host.execute(&steps).done;
            let back = undo(&before.slice(&touched), &touched, &steps[..done], &steps[done..]);
            run_whatever_fails(&host, &back);
            prop_assert!(host.foreign_links().contains(&name), "{}back\n{}", text(&steps), text(&back));
            prop_assert_eq!(comparable(&host.state(), &from), from.clone(), "{}", text(&back));
        }
    }

    #[test]
    fn no_prefix_is_more_open_than_both_ends(a in choices(), b in choices()) {
        let (from, to) = (compile(&world(&a)), compile(&world(&b)));
        let steps = diff(&from, &to);
        let allowed: BTreeSet<String> = openings(&from).union(&openings(&to)).cloned().collect();
        for cut in 0..=steps.len() {
            let open = openings(&run(&from, &steps[..cut]));
            let more: Vec<_> = open.difference(&allowed).collect();
            prop_assert!(more.is_empty(), "after {} steps: {:?}\n{}", cut, more, text(&steps));
        }
    }

    #[test]
    fn a_crash_after_any_step_heals(a in choices(), b in choices()) {
        let (from, to) = (compile(&world(&a)), compile(&world(&b)));
        let steps = diff(&from, &to);
        for cut in 0..=steps.len() {
            let host = SimHost::new(run(&from, &steps[..cut]));
            host.crash();
            let left = host.state();
            let healing = diff(&left, &to);
            prop_assert_eq!(comparable(&run(&left, &healing), &to), to.clone(), "cut {}\n{}", cut, text(&healing));
        }
    }

    #[test]
    fn it_converges_while_steps_fail(a in choices(), b in choices(), seed in 1_u64..) {
        let (from, to) = (compile(&world(&a)), compile(&world(&b)));
        let host = SimHost::new(from);
        host.set_faults(Faults { fail_percent: 20, seed, ..Faults::default() });
        let mut rounds = 0;
        loop {
            let steps = diff(&host.state(), &to);
            if steps.is_empty() {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 300, "still to do:\n{}", text(&steps));
            host.execute(&steps);
        }
        prop_assert_eq!(comparable(&host.state(), &to), to);
    }
}

#[test]
fn a_network_costs_the_same_among_a_thousand() {
    let mut desired = world(&[0xff; 48]);
    let template = desired.networks.values().next().expect("the full world has networks").clone();
    for number in 0..1000_u32 {
        let mut bytes = [9; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let id = portolan_netcore::model::NetworkId::from_bytes(bytes);
        desired
            .networks
            .insert(id.clone(), portolan_netcore::model::Network { id, ..(*template).clone() }.into());
    }
    let one = template.id.clone();
    let mut without = desired.clone();
    without.networks.remove(&one);
    let steps = change(&without, &desired, &portolan_netcore::plan::Touched::network(&one));
    assert!(steps.len() < 10, "{}", text(&steps));
}
