//! Keeping an eye on other programs' firewalls.
//!
//! Their rules are read by a thread of its own: at the start, a moment after anybody but us has changed
//! the rule set or a network has come or gone, and now and then for what no event tells of. What it
//! finds is kept, so that answering a request reads nothing; what is new or over is an event.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use portolan_netcore::firewall::BridgePolicy;
use portolan_netcore::foreign::{Finding, Flow, Ruleset, Service, findings, port_findings, unjudged};
use portolan_netcore::model::{Driver, Network, NetworkId, PortBinding, runs};
use portolan_netcore::plan::{Desired, Settings, Touched, compile_touched};
use portolan_netcore::shared::SharedSet;

use crate::networks::Shared;
use crate::owner::{Owner, Task};
use crate::{Error, HostEvent, PortRequest};

/// Rules of iptables-legacy, br_netfilter and the default route change without an event that we hear.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
/// A program that puts its firewall in place does so in many transactions.
const QUIET: Duration = Duration::from_millis(100);

/// A network and somebody's chain that is in its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The network's id.
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// The chain, what it drops, and what lets it through.
    pub finding: Finding,
}

impl Conflict {
    /// What it is, and what to do, in one line.
    pub fn advice(&self) -> String {
        let fix = self.finding.fix.join("; ");
        format!("network {}: {}; to let it through: {fix}", self.name, self.finding)
    }
}

/// A bridge network as the firewall knows it.
#[derive(Clone, Debug)]
pub(crate) struct Bridged {
    pub(crate) id: NetworkId,
    pub(crate) name: String,
    pub(crate) policy: BridgePolicy,
    /// The ports that are published by way of it.
    published: Vec<Published>,
}

/// Ports that are published by way of one endpoint.
#[derive(Clone, Debug)]
struct Published {
    ports: SharedSet<PortBinding>,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
}

impl Published {
    fn services(&self) -> impl Iterator<Item = Service> {
        // As they are stored, for which they were worked out already.
        runs::of_set(&self.ports).into_iter().filter_map(|run| {
            // What is carried over from the other family passes by sockets of this host.
            let address: IpAddr = match run.first.host_ip {
                IpAddr::V4(_) => self.ipv4?.into(),
                IpAddr::V6(_) => self.ipv6?.into(),
            };
            Some(Service::of(&run, address))
        })
    }
}

impl Bridged {
    /// What keeps traffic of it from arriving, and some of its ports from being reached.
    fn findings(&self, ruleset: &Ruleset) -> Vec<Finding> {
        let mut all = findings(ruleset, &self.policy);
        let services: Vec<Service> = self.published.iter().flat_map(Published::services).collect();
        all.extend(port_findings(ruleset, &self.policy, &services));
        all
    }

    fn conflict(&self, finding: Finding) -> Conflict {
        Conflict { network: self.id.clone(), name: self.name.clone(), finding }
    }
}

/// What was found last.
#[derive(Debug, Default)]
struct Seen {
    ruleset: Arc<Ruleset>,
    conflicts: Arc<Vec<Conflict>>,
    /// Chains of others of which nothing can be said.
    unjudged: Arc<Vec<String>>,
}

/// The watch's part of the networks.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    seen: Mutex<Seen>,
    /// One look at a time, or an event of an older one would come last.
    looking: Mutex<()>,
    wake: Mutex<Option<mpsc::Sender<Changed>>>,
}

/// Why another look is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Rules, networks, or what else is read with them.
    Rules,
    /// Only which ports are published.
    Ports,
}

impl Foreign {
    /// Something may have changed.
    pub(crate) fn wake(&self, changed: Changed) {
        // Without rules of others no port is in anybody's way.
        if changed == Changed::Ports && self.seen().ruleset.tables.is_empty() {
            return;
        }
        if let Some(wake) = self.wake.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The thread ends with the networks.
            let _ = wake.send(changed);
        }
    }

    /// What was found last.
    pub(crate) fn conflicts(&self) -> Arc<Vec<Conflict>> {
        Arc::clone(&self.seen().conflicts)
    }

    /// Chains that were found last, and of which it is not known what they drop.
    pub(crate) fn unjudged(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.seen().unjudged)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread. It ends with the networks.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<(), Error> {
    let (wake, woken) = mpsc::channel();
    *shared.foreign.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
    let weak = Arc::downgrade(shared);
    thread::Builder::new()
        .name("net-foreign".to_owned())
        .spawn(move || watch(&woken, &weak))
        .map_err(|error| Error::internal(format!("cannot start the thread of foreign firewalls: {error}")))?;
    Ok(())
}

fn watch(woken: &mpsc::Receiver<Changed>, weak: &Weak<Shared>) {
    let mut reason = None;
    let mut changed = Changed::Rules;
    loop {
        let Some(host) = weak.upgrade().map(|shared| Arc::clone(&shared.host)) else { return };
        // This may take its time, and keeps no networks open meanwhile. What firewalld then still keeps from
        // passing is told by the look.
        let refused = match changed {
            Changed::Rules => host.introduce().err().map(|error| error.to_string()),
            Changed::Ports => reason.clone(),
        };
        if refused != reason {
            if let Some(error) = &refused {
                tracing::warn!(error, "firewalld does not know our bridges");
            }
            reason = refused;
        }
        let Some(shared) = weak.upgrade() else { return };
        if let Err(error) = look(&shared, changed) {
            tracing::warn!(%error, "cannot tell whether other programs' firewalls are in the way");
        }
        drop(shared);
        match woken.recv_timeout(NOW_AND_THEN) {
            Ok(first) => {
                let mut all = vec![first];
                // Until there is a pause; a storm does not put it off for ever.
                for _ in 0..10 {
                    match woken.recv_timeout(QUIET) {
                        Ok(one) => all.push(one),
                        Err(_) => break,
                    }
                }
                all.extend(woken.try_iter());
                let rules = all.contains(&Changed::Rules);
                changed = if rules { Changed::Rules } else { Changed::Ports };
            }
            Err(RecvTimeoutError::Timeout) => changed = Changed::Rules,
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Reads what there is (rules only where they have changed), keeps what is found and tells what is new or over.
pub(crate) fn look(shared: &Shared, changed: Changed) -> Result<(), Error> {
    let _one = shared.foreign.looking.lock().unwrap_or_else(PoisonError::into_inner);
    let (answer, answered) = mpsc::channel();
    let task: Task = Box::new(move |owner| {
        // Whoever asked waits for it.
        let _ = answer.send(bridged(owner));
    });
    let closed = || Error::unavailable("the networks are closed");
    shared.owner.send(task).map_err(|_| closed())?;
    let networks = answered.recv().map_err(|_| closed())?;
    let ruleset = match changed {
        Changed::Rules => Arc::new(shared.host.foreign_rules()?),
        Changed::Ports => Arc::clone(&shared.foreign.seen().ruleset),
    };
    let policies: Vec<&BridgePolicy> = networks.iter().map(|network| &network.policy).collect();
    let unjudged = unjudged(&ruleset, &policies);
    let mut now = Vec::new();
    for network in networks {
        let found = network.findings(&ruleset);
        now.extend(found.into_iter().map(|finding| network.conflict(finding)));
    }
    now.sort();
    let mut seen = shared.foreign.seen();
    seen.ruleset = ruleset;
    seen.unjudged = Arc::new(unjudged);
    let before = std::mem::replace(&mut seen.conflicts, Arc::new(now.clone()));
    drop(seen);
    let is_new = |all: &[Conflict], one: &Conflict| !all.contains(one);
    for conflict in before.iter().filter(|one| is_new(&now, one)) {
        tell(shared, "firewall-conflict-over", conflict);
    }
    for conflict in now.iter().filter(|one| is_new(&before, one)) {
        tell(shared, "firewall-conflict", conflict);
    }
    Ok(())
}

fn tell(shared: &Shared, action: &'static str, conflict: &Conflict) {
    let finding = &conflict.finding;
    if !finding.is_severe() {
        return;
    }
    let flows: Vec<&str> = finding.flows.iter().map(|flow| flow.as_str()).collect();
    let attributes: BTreeMap<String, String> = [
        ("network", conflict.name.clone()),
        ("bridge", finding.bridge.to_string()),
        ("table", format!("{} {}", finding.family, finding.table)),
        ("chain", finding.chain.clone()),
        ("owner", finding.tool.to_string()),
        ("drops", flows.join(",")),
        ("ports", finding.port_names().join(",")),
        ("why", finding.place.to_string()),
        ("fix", finding.fix.join("; ")),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    match action {
        "firewall-conflict" => tracing::warn!("another firewall is in the way: {}", conflict.advice()),
        _ => tracing::info!(
            network = conflict.name,
            table = finding.table,
            "another firewall is out of the way"
        ),
    }
    // Nobody listening is fine.
    let _ = shared.host_events.send(HostEvent { action, attributes });
}

/// The bridge networks that are wanted.
pub(crate) fn bridged(owner: &Owner) -> Vec<Bridged> {
    policies(owner.desired())
}

fn policies(desired: &Desired) -> Vec<Bridged> {
    let networks = Desired {
        networks: desired.networks.clone(),
        // Without a firewall of ours, others' are in the way all the same.
        settings: Settings { firewall: true, ..desired.settings },
        ..Desired::default()
    };
    let touched = Touched { networks: networks.networks.keys().cloned().collect(), ..Touched::default() };
    let policy = compile_touched(&networks, &touched).firewall.unwrap_or_default();
    let mut published = published(desired);
    let of = |network: &Arc<Network>| {
        let Driver::Bridge(options) = &network.driver else { return None };
        let policy = policy.bridges.get(&options.bridge)?.clone();
        let published = published.remove(&network.id).unwrap_or_default();
        Some(Bridged { id: network.id.clone(), name: network.name.clone(), policy, published })
    };
    networks.networks.values().filter_map(of).collect()
}

/// The published ports of each network.
fn published(desired: &Desired) -> BTreeMap<NetworkId, Vec<Published>> {
    let mut published: BTreeMap<NetworkId, Vec<Published>> = BTreeMap::new();
    for endpoint in desired.endpoints.values().filter(|endpoint| !endpoint.published.is_empty()) {
        published.entry(endpoint.network.clone()).or_default().push(Published {
            ports: endpoint.published.clone(),
            ipv4: endpoint.ipv4.map(|net| net.addr()),
            ipv6: endpoint.ipv6.map(|net| net.addr()),
        });
    }
    published
}

/// What keeps these ports from being reached by way of these networks, by what was read last: a
/// line for each port and chain.
pub(crate) fn in_the_way(shared: &Shared, networks: &[Bridged], requests: &[PortRequest]) -> Vec<String> {
    let ruleset = Arc::clone(&shared.foreign.seen().ruleset);
    let from_outside = |request: &&PortRequest| !request.host_ip.is_some_and(|host| host.is_loopback());
    let mut services: Vec<Service> = requests.iter().filter(from_outside).map(service).collect();
    services.sort_unstable();
    services.dedup();
    let matters = |finding: &Finding| {
        finding.is_severe() && finding.flows.iter().any(|flow| matches!(flow, Flow::In | Flow::InReplies))
    };
    let mut lines = Vec::new();
    for network in networks {
        let mut whole = findings(&ruleset, &network.policy);
        whole.retain(matters);
        // All at once cost little more than one, and mostly nothing is in the way of any.
        if whole.is_empty() && !port_findings(&ruleset, &network.policy, &services).iter().any(matters) {
            continue;
        }
        for one in &services {
            let of_port = port_findings(&ruleset, &network.policy, &[*one]);
            for finding in whole.iter().cloned().chain(of_port.into_iter().filter(matters)) {
                let (port, proto, advice) = (one.port, one.proto, network.conflict(finding).advice());
                let line =
                    format!("Published port {port}/{proto} will not be reached from outside: {advice}");
                if lines.last() != Some(&line) {
                    lines.push(line);
                }
            }
        }
    }
    lines
}

/// What is known of a port before it is taken.
fn service(request: &PortRequest) -> Service {
    let exact = request.host_ports.filter(|range| range.first == range.last);
    Service {
        proto: request.proto,
        port: request.container_port,
        address: None,
        host: request.host_ip,
        host_port: exact.map(|range| range.first),
        count: 1,
    }
}
