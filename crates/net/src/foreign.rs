//! Keeping an eye on other programs' firewalls.
//!
//! Their rules are read by a thread of its own: at the start, a moment after anybody but us has changed
//! the rule set or a network has come or gone, and now and then for what no event tells of. What it
//! finds is kept, so that answering a request reads nothing; what is new or over is an event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use portolan_netcore::firewall::BridgePolicy;
use portolan_netcore::foreign::{Finding, Flow, Ruleset, Service, findings};
use portolan_netcore::model::{Driver, Network, NetworkId, Proto};
use portolan_netcore::plan::{Desired, Settings, Touched, compile_touched};

use crate::networks::Shared;
use crate::owner::{Owner, Task};
use crate::{Error, HostEvent};

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
}

/// What was found last.
#[derive(Debug, Default)]
struct Seen {
    ruleset: Arc<Ruleset>,
    conflicts: Arc<Vec<Conflict>>,
}

/// The watch's part of the networks.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    seen: Mutex<Seen>,
    /// One look at a time, or an event of an older one would come last.
    looking: Mutex<()>,
    wake: Mutex<Option<mpsc::Sender<()>>>,
}

impl Foreign {
    /// Something may have changed.
    pub(crate) fn wake(&self) {
        if let Some(wake) = self.wake.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // The thread ends with the networks.
            let _ = wake.send(());
        }
    }

    /// What was found last.
    pub(crate) fn conflicts(&self) -> Arc<Vec<Conflict>> {
        Arc::clone(&self.seen().conflicts)
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

fn watch(woken: &mpsc::Receiver<()>, weak: &Weak<Shared>) {
    let mut reason = None;
    loop {
        let Some(host) = weak.upgrade().map(|shared| Arc::clone(&shared.host)) else { return };
        // This may take its time, and keeps no networks open meanwhile. What firewalld then still keeps from
        // passing is told by the look.
        let refused = host.introduce().err().map(|error| error.to_string());
        if refused != reason {
            if let Some(error) = &refused {
                tracing::warn!(error, "firewalld does not know our bridges");
            }
            reason = refused;
        }
        let Some(shared) = weak.upgrade() else { return };
        if let Err(error) = look(&shared) {
            tracing::warn!(%error, "cannot tell whether other programs' firewalls are in the way");
        }
        drop(shared);
        match woken.recv_timeout(NOW_AND_THEN) {
            Ok(()) => {
                // Until there is a pause; a storm does not put it off for ever.
                for _ in 0..10 {
                    if woken.recv_timeout(QUIET).is_err() {
                        break;
                    }
                }
                while woken.try_recv().is_ok() {}
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Reads what there is, keeps what is found and tells what is new or over.
pub(crate) fn look(shared: &Shared) -> Result<(), Error> {
    let _one = shared.foreign.looking.lock().unwrap_or_else(PoisonError::into_inner);
    let (answer, answered) = mpsc::channel();
    let task: Task = Box::new(move |owner| {
        // Whoever asked waits for it.
        let _ = answer.send(bridged(owner));
    });
    let closed = || Error::unavailable("the networks are closed");
    shared.owner.send(task).map_err(|_| closed())?;
    let networks = answered.recv().map_err(|_| closed())?;
    let ruleset = shared.host.foreign_rules()?;
    let mut now = Vec::new();
    for network in networks {
        now.extend(findings(&ruleset, &network.policy, None).into_iter().map(|finding| Conflict {
            network: network.id.clone(),
            name: network.name.clone(),
            finding,
        }));
    }
    now.sort();
    let mut seen = shared.foreign.seen();
    seen.ruleset = Arc::new(ruleset);
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
        ("why", finding.place.to_string()),
        ("fix", finding.fix.join("; ")),
    ]
    .into_iter()
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
    let of = |network: &Network| {
        let Driver::Bridge(options) = &network.driver else { return None };
        let policy = policy.bridges.get(&options.bridge)?.clone();
        Some(Bridged { id: network.id.clone(), name: network.name.clone(), policy })
    };
    networks.networks.values().filter_map(of).collect()
}

/// What keeps these ports from being reached by way of these networks, by what was read last: a
/// line for each port and chain.
pub(crate) fn in_the_way(
    shared: &Shared,
    networks: &[Bridged],
    ports: &BTreeSet<(Proto, u16)>,
    address: Option<std::net::IpAddr>,
) -> Vec<String> {
    let ruleset = Arc::clone(&shared.foreign.seen().ruleset);
    let mut lines = Vec::new();
    for network in networks {
        for (proto, port) in ports {
            let service = Service { proto: *proto, port: *port, address };
            for finding in findings(&ruleset, &network.policy, Some(&service)) {
                if finding.is_severe()
                    && finding.flows.iter().any(|flow| matches!(flow, Flow::In | Flow::InReplies))
                {
                    let conflict =
                        Conflict { network: network.id.clone(), name: network.name.clone(), finding };
                    lines.push(format!(
                        "Published port {port}/{proto} will not be reached from outside: {}",
                        conflict.advice()
                    ));
                }
            }
        }
    }
    lines
}
