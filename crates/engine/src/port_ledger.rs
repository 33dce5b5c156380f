//! The ports that a container asks for and those that it has, while some of them are changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use portolan_net::{PortChange, PortRequest, SandboxInfo};
use portolan_netcore::model::{PortBinding, PortRange, bindings_of};

use crate::container::record::Definition;
use crate::error::{EngineError, Result};
use crate::host_ports::near;
use crate::live_ports::{PortMove, PortSelector};
use crate::model::{Bindings, ContainerPort, HostPort};
use crate::network::requests_for;

/// What is asked for, what there is, and how far both have been changed.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    definition: &'a Definition,
    sandbox: Option<&'a SandboxInfo>,
    /// `PortBindings` as they are to be.
    pub(crate) bindings: Bindings,
    /// `PublishAllPorts`: written out as `bindings` once one of its ports is changed.
    pub(crate) publish_all: bool,
    /// To be published besides.
    pub(crate) added: BTreeMap<ContainerPort, Vec<HostPort>>,
    /// To be unpublished.
    pub(crate) removed: BTreeSet<PortBinding>,
}

/// One thing that was asked for and is no longer.
#[derive(Debug)]
struct Piece {
    port: ContainerPort,
    asked: HostPort,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(definition: &'a Definition, sandbox: Option<&'a SandboxInfo>) -> Self {
        Self {
            definition,
            sandbox,
            bindings: definition.host_config.port_bindings.clone(),
            publish_all: definition.host_config.publish_all_ports,
            added: BTreeMap::new(),
            removed: BTreeSet::new(),
        }
    }

    /// Asks for ports besides.
    pub(crate) fn add(&mut self, ports: &BTreeMap<ContainerPort, Vec<HostPort>>) {
        // One without a place asks for nothing, as in Docker.
        for (port, hosts) in ports.iter().filter(|(_, hosts)| !hosts.is_empty()) {
            self.write_out(port);
            hosts.iter().for_each(|host| self.add_one(*port, host.clone()));
        }
    }

    fn add_one(&mut self, port: ContainerPort, host: HostPort) {
        self.bindings.get_or_insert_with(port, Vec::new).push(host.clone());
        self.added.entry(port).or_default().push(host);
    }

    /// Takes ports out.
    ///
    /// # Errors
    /// `NotFound`: one of them is not published.
    pub(crate) fn remove(&mut self, selector: &PortSelector) -> Result<()> {
        self.take_out(selector).map(drop)
    }

    /// Takes ports out, to be published elsewhere. All are taken out before the first is put in, so that they
    /// may change places.
    ///
    /// # Errors
    /// `NotFound`: one of them is not published. `Invalid`: as many ports do not go there.
    pub(crate) fn relocate(&mut self, moves: &[PortMove]) -> Result<()> {
        let mut new: Vec<(ContainerPort, HostPort)> = Vec::new();
        for PortMove { from, to } in moves {
            let invalid =
                |why: &str| Err(EngineError::invalid(format!("host port {from} cannot move to {to}: {why}")));
            if from.proto != to.proto {
                return invalid("the protocol is the container's");
            }
            if from.ports.last - from.ports.first != to.ports.last - to.ports.first {
                return invalid("these are not as many ports");
            }
            for (here, there) in each(from.ports).zip(each(to.ports)) {
                let here = PortSelector { ports: PortRange::one(here), ..*from };
                for Piece { port, asked } in self.take_out(&here)? {
                    let host =
                        HostPort { ip: to.ip.or(asked.ip), ports: Some(PortRange::one(there)), ..asked };
                    // What was on several addresses goes to one.
                    if !new.contains(&(port, host.clone())) {
                        new.push((port, host));
                    }
                }
            }
        }
        for (port, host) in new {
            self.add_one(port, host);
        }
        Ok(())
    }

    /// Asks for these ports and no others.
    pub(crate) fn set(&mut self, wanted: Bindings) {
        let before = std::mem::replace(&mut self.bindings, wanted);
        let changed: BTreeSet<ContainerPort> = {
            let come = self.bindings.changes_from(&before);
            come.chain(before.changes_from(&self.bindings)).map(|(port, _)| *port).collect()
        };
        for port in changed {
            let asked = self.asks(&before, &port);
            let mut new = self.asks(&self.bindings, &port);
            let mut goes = vec![false; asked.len()];
            for (at, ask) in asked.iter().enumerate() {
                match new.iter().position(|other| other == ask) {
                    Some(same) => drop(new.remove(same)),
                    None => goes[at] = true,
                }
            }
            let live = self.live(&port);
            let owned = self.owned(&port, &asked, &live);
            let gone = owned.into_iter().zip(goes).filter(|(_, goes)| *goes);
            self.removed.extend(gone.flat_map(|(own, _)| own));
            if !new.is_empty() {
                self.added.insert(port, new);
            }
        }
    }

    /// What is asked for one port, also by `--publish-all`.
    fn asks(&self, bindings: &Bindings, port: &ContainerPort) -> Vec<HostPort> {
        match bindings.get(port).filter(|hosts| !hosts.is_empty()) {
            Some(hosts) => hosts.clone(),
            None if self.publish_all && self.definition.config.exposed_ports.contains(port) => {
                vec![HostPort::default()]
            }
            None => Vec::new(),
        }
    }

    /// The bindings that a port of the container has and is to keep so far.
    fn live(&self, port: &ContainerPort) -> Vec<PortBinding> {
        let (proto, container_port) = (port.proto, port.port);
        let least =
            PortBinding { proto, container_port, host_ip: Ipv4Addr::UNSPECIFIED.into(), host_port: 0 };
        let from = |sandbox: &'a SandboxInfo| sandbox.ports.iter_from(&least).map(|(binding, ())| binding);
        self.sandbox
            .into_iter()
            .flat_map(from)
            .take_while(|binding| (binding.proto, binding.container_port) == (proto, container_port))
            .filter(|binding| !self.removed.contains(*binding))
            .cloned()
            .collect()
    }

    /// Which of them came of what was asked for.
    fn owned(&self, port: &ContainerPort, asked: &[HostPort], live: &[PortBinding]) -> Vec<Vec<PortBinding>> {
        let bindings: Bindings = [(*port, asked.to_vec())].into_iter().collect();
        let requests = requests_for(self.definition, &bindings, false, [port]);
        let asks: Vec<_> = requests.iter().map(PortRequest::as_ask).collect();
        let endpoints = || self.sandbox.into_iter().flat_map(|sandbox| &sandbox.endpoints);
        let sources = |binding: &PortBinding| {
            let published = endpoints().find(|info| info.endpoint.published.contains(binding));
            published.map_or(&[][..], |info| info.endpoint.sources(binding))
        };
        let live: Vec<_> = live.iter().map(|binding| (binding, sources(binding))).collect();
        let owned = bindings_of(&asks, &live);
        owned.into_iter().map(|own| own.into_iter().cloned().collect()).collect()
    }

    /// Makes explicit what `--publish-all` asks for, if it asks for this port: its other ports stay as they are
    /// whatever becomes of this one.
    fn write_out(&mut self, port: &ContainerPort) {
        let exposed = &self.definition.config.exposed_ports;
        if !self.publish_all || !exposed.contains(port) {
            return;
        }
        self.publish_all = false;
        for port in exposed.keys() {
            let hosts = self.bindings.get_or_insert_with(*port, Vec::new);
            if hosts.is_empty() {
                hosts.push(HostPort::default());
            }
        }
    }

    /// What the networks are to do.
    pub(crate) fn change(&self, cut: bool) -> PortChange {
        let host = &self.definition.host_config;
        let before = &host.port_bindings;
        // Whatever there is beside them is not looked at.
        let come = self.bindings.changes_from(before).map(|(port, _)| port);
        let mut changed: BTreeSet<&ContainerPort> =
            come.chain(before.changes_from(&self.bindings).map(|(port, _)| port)).collect();
        if self.publish_all != host.publish_all_ports {
            changed.extend(self.definition.config.exposed_ports.keys());
        }
        let requests = |bindings, publish_all| {
            requests_for(self.definition, bindings, publish_all, changed.iter().copied())
        };
        let added: Bindings = self.added.iter().map(|(port, hosts)| (*port, hosts.clone())).collect();
        PortChange {
            add: requests_for(self.definition, &added, false, self.added.keys()),
            remove: self.removed.iter().cloned().collect(),
            asks: requests(&self.bindings, self.publish_all),
            asks_no_more: requests(before, host.publish_all_ports),
            cut,
        }
    }

    fn take_out(&mut self, selector: &PortSelector) -> Result<Vec<Piece>> {
        let mut missing: BTreeSet<u16> = each(selector.ports).collect();
        let mut pieces = Vec::new();
        for port in self.ports_of(selector) {
            self.write_out(&port);
            let live = self.live(&port);
            let asked = self.asks(&self.bindings, &port);
            let owned = self.owned(&port, &asked, &live);
            let chosen: BTreeSet<&PortBinding> = live.iter().filter(|binding| selector.is(binding)).collect();
            let mut left = Vec::new();
            let mut known = BTreeSet::new();
            for (ask, own) in asked.into_iter().zip(&owned) {
                known.extend(own);
                let (goes, stays): (Vec<_>, Vec<_>) = own.iter().partition(|one| chosen.contains(one));
                let part = |one: &&PortBinding| HostPort { ip: Some(one.host_ip), ..ask.clone() };
                if goes.is_empty() && !(own.is_empty() && selector.asks(&ask)) {
                    left.push(ask);
                } else if stays.is_empty() {
                    missing.retain(|port| !ask.ports.is_some_and(|range| range.contains(*port)));
                    pieces.push(Piece { port, asked: ask });
                } else {
                    // On some of its addresses it stays.
                    left.extend(stays.iter().map(part));
                    pieces.extend(goes.iter().map(|one| Piece { port, asked: part(one) }));
                }
            }
            // Nothing asks for these, but they are there.
            let strays = chosen.iter().filter(|binding| !known.contains(**binding));
            pieces.extend(
                strays.map(|one| Piece {
                    port,
                    asked: HostPort { ip: Some(one.host_ip), ..HostPort::default() },
                }),
            );
            missing.retain(|port| !chosen.iter().any(|binding| binding.host_port == *port));
            self.removed.extend(chosen.into_iter().cloned());
            match left.is_empty() {
                true => drop(self.bindings.remove(&port)),
                false => drop(self.bindings.insert(port, left)),
            }
        }
        match missing.first() {
            None => Ok(pieces),
            Some(port) => {
                let at = selector.ip.map_or_else(String::new, |ip| format!(" on {ip}"));
                Err(EngineError::not_found(format!(
                    "container {} does not publish host port {port}/{}{at}",
                    self.definition.name, selector.proto
                )))
            }
        }
    }

    /// The container's ports that these of the host may lead to.
    fn ports_of(&self, selector: &PortSelector) -> BTreeSet<ContainerPort> {
        let mut ports = BTreeSet::new();
        if let Some(live) = self.sandbox.and_then(|sandbox| sandbox.ports.root()) {
            near(live, selector.ports, &mut |binding, ()| {
                if selector.is(binding) {
                    ports.insert(ContainerPort { port: binding.container_port, proto: binding.proto });
                }
            });
        }
        if let Some(asked) = self.bindings.root() {
            near(asked, selector.ports, &mut |port, hosts| {
                if port.proto == selector.proto && hosts.iter().any(|ask| selector.asks(ask)) {
                    ports.insert(*port);
                }
            });
        }
        ports
    }
}

fn each(range: PortRange) -> RangeInclusive<u16> {
    range.first..=range.last
}

#[cfg(test)]
mod tests {
    use portolan_netcore::model::{SandboxId, SandboxMode};

    use super::*;
    use crate::container::registry::tests::container;

    /// `ip@ports->port`, each part but the last as it is asked for.
    fn asked(text: &str) -> (ContainerPort, HostPort) {
        let (place, port) = text.split_once("->").unwrap();
        let (ip, ports) = place.rsplit_once('@').map_or((None, place), |(ip, ports)| (Some(ip), ports));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let range = || PortRange { first: first.parse().unwrap(), last: last.parse().unwrap() };
        let host = HostPort {
            ip: ip.map(|ip| ip.parse().unwrap()),
            ports: (!ports.is_empty()).then(range),
            from: Vec::new(),
        };
        (port.parse().unwrap(), host)
    }

    fn bindings(texts: &[&str]) -> Bindings {
        let mut bindings = Bindings::new();
        for (port, host) in texts.iter().map(|text| asked(text)) {
            bindings.get_or_insert_with(port, Vec::new).push(host);
        }
        bindings
    }

    fn selector(text: &str) -> PortSelector {
        let (port, host) = asked(&format!("{text}->1"));
        PortSelector { ip: host.ip, ports: host.ports.unwrap(), proto: port.proto }
    }

    /// A container that asks for ports (`-P` among them for all that it exposes: 80) and has others.
    struct World {
        definition: Definition,
        sandbox: Option<SandboxInfo>,
    }

    impl World {
        fn new(asks: &[&str], live: &[&str]) -> Self {
            let mut definition = container("ab", "web").with(|record| record.definition.clone());
            let explicit: Vec<&str> = asks.iter().filter(|ask| **ask != "-P").copied().collect();
            definition.host_config.publish_all_ports = explicit.len() < asks.len();
            definition.host_config.port_bindings = bindings(&explicit);
            for port in ["80/tcp", "90/tcp"] {
                definition.config.exposed_ports.insert(port.parse().unwrap(), ());
            }
            let binding = |text: &&str| {
                let (port, host) = asked(text);
                let host_port = host.ports.unwrap().first;
                let host_ip = host.ip.unwrap();
                (PortBinding { proto: port.proto, container_port: port.port, host_ip, host_port }, ())
            };
            let sandbox = SandboxInfo {
                id: SandboxId::from_bytes([1; 32]),
                container: definition.id.clone(),
                mode: SandboxMode::Private,
                netns: None,
                endpoints: Vec::new(),
                ports: live.iter().map(binding).collect(),
                embedded_dns: false,
            };
            Self { definition, sandbox: (!live.is_empty()).then_some(sandbox) }
        }

        /// What is asked for afterwards, and what is unpublished.
        fn after(
            &self,
            change: impl FnOnce(&mut Ledger<'_>) -> Result<()>,
        ) -> Result<(Vec<String>, Vec<String>)> {
            let mut ledger = Ledger::new(&self.definition, self.sandbox.as_ref());
            change(&mut ledger)?;
            let mut asks: Vec<String> = ledger
                .bindings
                .iter()
                .flat_map(|(port, hosts)| hosts.iter().map(move |host| (port, host)))
                .map(|(port, host)| {
                    let ip = host.ip.map_or_else(String::new, |ip| format!("{ip}@"));
                    let ports =
                        host.ports.map_or_else(String::new, |range| match range.first == range.last {
                            true => range.first.to_string(),
                            false => format!("{}-{}", range.first, range.last),
                        });
                    format!("{ip}{ports}->{}", port.port)
                })
                .collect();
            if ledger.publish_all {
                asks.push("-P".to_owned());
            }
            let removed = ledger.removed.iter().map(|one| format!("{}@{}", one.host_ip, one.host_port));
            Ok((asks, removed.collect()))
        }
    }

    /// Asks, what there is, what is removed; what is asked for afterwards, and what is unpublished.
    type Removal<'a> = (&'a [&'a str], &'a [&'a str], &'a str, &'a [&'a str], &'a [&'a str]);

    #[test]
    fn what_asked_for_a_port_goes_with_it() {
        let cases: &[Removal<'_>] = &[
            (
                &["->80", "8200->80"],
                &["0.0.0.0@32768->80", "0.0.0.0@8200->80"],
                "8200",
                &["->80"],
                &["0.0.0.0@8200"],
            ),
            (
                &["8203-8209->80", "8205->80"],
                &["0.0.0.0@8203->80", "0.0.0.0@8205->80"],
                "8205",
                &["8203-8209->80"],
                &["0.0.0.0@8205"],
            ),
            (
                &["8203-8209->80", "8205->80"],
                &["0.0.0.0@8203->80", "0.0.0.0@8205->80"],
                "8203",
                &["8205->80"],
                &["0.0.0.0@8203"],
            ),
            (
                &["0.0.0.0@8200->80", "::@8200->80"],
                &["0.0.0.0@8200->80", "::@8200->80"],
                "8200",
                &[],
                &["0.0.0.0@8200", "::@8200"],
            ),
            (
                &["127.0.0.1@8200->80", "10.0.0.1@8200->80"],
                &["127.0.0.1@8200->80", "10.0.0.1@8200->80"],
                "10.0.0.1@8200",
                &["127.0.0.1@8200->80"],
                &["10.0.0.1@8200"],
            ),
            // On one address of those that it has by default; and where the default is one address.
            (
                &["8200->80"],
                &["0.0.0.0@8200->80", "::@8200->80"],
                "0.0.0.0@8200",
                &["::@8200->80"],
                &["0.0.0.0@8200"],
            ),
            (&["8200->80"], &["127.0.0.1@8200->80"], "127.0.0.1@8200", &[], &["127.0.0.1@8200"]),
            // `-P` asks on for what is left of it, and no more for what went.
            (&["-P"], &["0.0.0.0@32781->80", "0.0.0.0@32782->90"], "32781", &["->90"], &["0.0.0.0@32781"]),
            (
                &["-P", "8200->80"],
                &["0.0.0.0@8200->80", "0.0.0.0@32782->90"],
                "8200",
                &["->90"],
                &["0.0.0.0@8200"],
            ),
            // A range, as it was asked for, as it came, and without a container that runs.
            (&["8100-8105->80"], &["0.0.0.0@8100->80"], "8100-8105", &[], &["0.0.0.0@8100"]),
            (
                &["8140->80", "8141->81", "8142->82"],
                &["0.0.0.0@8140->80", "0.0.0.0@8141->81", "0.0.0.0@8142->82"],
                "8140-8141",
                &["8142->82"],
                &["0.0.0.0@8140", "0.0.0.0@8141"],
            ),
            (&["8100-8105->80", "8104->90"], &[], "8100-8105", &[], &[]),
            (&["8100-8105->80", "8104->80"], &[], "8104", &["8100-8105->80"], &[]),
        ];
        for (asks, live, gone, left, removed) in cases {
            let after = World::new(asks, live).after(|ledger| ledger.remove(&selector(gone)));
            let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            assert_eq!(after, Ok((own(left), own(removed))), "{asks:?} {live:?} without {gone}");
        }
    }

    #[test]
    fn what_is_not_published_is_not_removed() {
        for (asks, live, gone) in [
            (&["8100-8105->80"][..], &["0.0.0.0@8100->80"][..], "8103"),
            (&["8140->80", "8141->81"], &["0.0.0.0@8140->80", "0.0.0.0@8141->81"], "8140-8142"),
            (&["8200->80"], &["0.0.0.0@8200->80"], "10.0.0.1@8200"),
            (&["8200->80"], &[], "8201"),
        ] {
            let error = World::new(asks, live).after(|ledger| ledger.remove(&selector(gone))).unwrap_err();
            assert!(error.message().contains("container web does not publish host port"), "{error}");
        }
    }

    #[test]
    fn ports_move_whole_and_change_places() {
        let relocate = |asks: &[&str], live: &[&str], moves: &[(&str, &str)]| {
            let moves: Vec<PortMove> =
                moves.iter().map(|(from, to)| PortMove { from: selector(from), to: selector(to) }).collect();
            World::new(asks, live).after(|ledger| ledger.relocate(&moves)).map(|(asks, _)| asks)
        };
        let two = ["127.0.0.1@8200->80", "10.0.0.1@8200->80"];
        let both = relocate(&two, &two, &[("8200", "8201")]).unwrap();
        assert_eq!(both, ["127.0.0.1@8201->80", "10.0.0.1@8201->80"]);
        let to_one = relocate(&two, &two, &[("8200", "127.0.0.1@8201")]).unwrap();
        assert_eq!(to_one, ["127.0.0.1@8201->80"]);
        let (one, other) = ("0.0.0.0@8120->80", "0.0.0.0@8121->81");
        let swap = [("8120", "8121"), ("8121", "8120")];
        assert_eq!(
            relocate(&[one, other], &[one, other], &swap).unwrap(),
            ["0.0.0.0@8121->80", "0.0.0.0@8120->81"]
        );
        let range = relocate(&[one, other], &[one, other], &[("8120-8121", "9120-9121")]).unwrap();
        assert_eq!(range, ["0.0.0.0@9120->80", "0.0.0.0@9121->81"]);
        assert!(relocate(&[one, other], &[one, other], &[("8120-8121", "9120")]).is_err());
    }

    #[test]
    fn a_whole_set_is_the_difference_to_what_there_is() {
        let world = World::new(
            &["->80", "8200->80", "8300->90"],
            &["0.0.0.0@32768->80", "0.0.0.0@8200->80", "0.0.0.0@8300->90"],
        );
        let mut ledger = Ledger::new(&world.definition, world.sandbox.as_ref());
        ledger.set(bindings(&["8200->80", "8301->90", "8400->91"]));
        let removed: Vec<u16> = ledger.removed.iter().map(|binding| binding.host_port).collect();
        assert_eq!(removed, [32_768, 8300]);
        let change = ledger.change(false);
        let added: Vec<u16> = change.add.iter().map(|request| request.container_port).collect();
        assert_eq!(added, [90, 91]);
        let asked = |requests: &[PortRequest]| requests.len();
        assert_eq!((asked(&change.asks), asked(&change.asks_no_more)), (3, 3));
    }
}
