//! Ports that come and go while a container exists, and who may use them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_net::{Exposure, PortChange, SandboxInfo};
use portolan_netcore::model::{PortBinding, PortRange, Proto, SandboxId};

use crate::container::record::{Definition, Record};
use crate::engine::{Engine, to_the_end};
use crate::error::{EngineError, Result};
use crate::model::{Bindings, ContainerPort, HostPort, NetworkMode};
use crate::network::requests_for;

/// A label `portolan.publish.from.443/tcp=10.0.0.0/8,192.0.2.1` says who may use a published port, for
/// clients that cannot say it otherwise.
const LABEL: &str = "portolan.publish.from.";

/// Ports to publish and to unpublish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortUpdate {
    /// To publish.
    pub add: BTreeMap<ContainerPort, Vec<HostPort>>,
    /// To unpublish.
    pub remove: Vec<PortSelector>,
    /// To publish elsewhere, for the same sources: in one step, so that nobody else gets a word in.
    pub moves: Vec<PortMove>,
    /// End the connections that came by the removed and moved ports.
    pub cut: bool,
}

/// A published port and where it is to be instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortMove {
    /// Where it is; of the same protocol as `to`.
    pub from: PortSelector,
    /// Where it goes; on the same address if it names none.
    pub to: PortSelector,
}

/// A published port by its place on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSelector {
    /// Its address; all of them if none.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub proto: Proto,
}

impl PortSelector {
    fn is(&self, binding: &PortBinding) -> bool {
        self.proto == binding.proto
            && self.port == binding.host_port
            && self.ip.is_none_or(|ip| ip == binding.host_ip)
    }
}

/// Who may use a port, as its label has it.
///
/// # Errors
/// The label is no list of networks.
pub(crate) fn labelled_sources(
    labels: &BTreeMap<String, String>,
    port: &ContainerPort,
) -> Result<Vec<IpNet>> {
    let Some(text) = labels.get(&format!("{LABEL}{port}")) else { return Ok(Vec::new()) };
    let parse = |word: &str| {
        let address = || word.parse::<IpAddr>().ok().map(IpNet::from);
        let net = word.parse::<IpNet>().ok().or_else(address).map(|net| net.trunc());
        net.ok_or_else(|| EngineError::invalid(format!("label {LABEL}{port}: {word:?} is not a network")))
    };
    text.split(',').map(|word| parse(word.trim())).collect()
}

/// Whether any label says who may use a port.
pub(crate) fn has_labels(labels: &BTreeMap<String, String>) -> bool {
    labels.range(LABEL.to_owned()..).next().is_some_and(|(key, _)| key.starts_with(LABEL))
}

/// The labels about ports can be understood.
///
/// # Errors
/// One of them cannot.
pub(crate) fn check_labels(labels: &BTreeMap<String, String>) -> Result<()> {
    for key in labels.keys().filter_map(|key| key.strip_prefix(LABEL)) {
        let port: ContainerPort =
            key.parse().map_err(|_| EngineError::invalid(format!("label {LABEL}{key} names no port")))?;
        labelled_sources(labels, &port)?;
    }
    Ok(())
}

impl Engine {
    /// `POST /portolan/containers/{id}/ports`: publishes and unpublishes ports of a container, running or
    /// not. It keeps them over restarts, as if it had been made with them. Warnings: what keeps its new ports
    /// from being reached.
    ///
    /// # Errors
    /// `NotFound` for a port that it does not publish; `Invalid` for a network mode that publishes nothing;
    /// a port in use as at start. Nothing has changed then.
    pub async fn container_ports(&self, name: &str, update: PortUpdate) -> Result<Vec<String>> {
        let container = self.inner.containers.find(name)?;
        let engine = self.clone();
        to_the_end(async move {
            let _turn = container.turn().await?;
            let decided = container.with(|record| decide(record, &update))?;
            let warnings = engine.port_warnings(&decided.mode, &decided.change.add).await;
            if let Some(sandbox) = decided.sandbox {
                let after = engine.inner.networks.change_ports(&sandbox, decided.change).await?;
                container.with(|record| record.sandbox = Some(after));
            }
            let write = container.with(|record| {
                record.definition.host_config.port_bindings = decided.bindings;
                record.write()
            });
            engine.inner.database.commit(vec![write]).await?;
            engine.container_event(&container, "update", BTreeMap::new());
            Ok(warnings)
        })
        .await
    }

    /// `GET /portolan/exposure`: every published port, who can reach it, and why.
    ///
    /// # Errors
    /// The networks are closed.
    pub async fn exposure(&self) -> Result<Vec<Exposure>> {
        Ok(self.inner.networks.exposure().await?)
    }
}

/// What a [`PortUpdate`] makes of a container.
struct Decided {
    bindings: Bindings,
    mode: NetworkMode,
    /// If it runs.
    sandbox: Option<SandboxId>,
    change: PortChange,
}

fn decide(record: &Record, update: &PortUpdate) -> Result<Decided> {
    let definition = &record.definition;
    check_publishes(definition)?;
    let mut bindings = definition.host_config.port_bindings.clone();
    let (name, sandbox) = (&definition.name, record.sandbox.as_ref());
    let mut added = update.add.clone();
    let mut remove = remove(name, &mut bindings, sandbox, &update.remove)?;
    remove.extend(relocate(name, &mut bindings, &mut added, sandbox, &update.moves)?);
    for (port, hosts) in &added {
        bindings.get_or_insert_with(*port, Vec::new).extend(hosts.iter().cloned());
    }
    // Those that `--publish-all` asks for are there.
    let named = added.iter().filter(|(_, hosts)| !hosts.is_empty()).map(|(port, _)| port);
    let only_added: Bindings = added.iter().map(|(port, hosts)| (*port, hosts.clone())).collect();
    let add = requests_for(definition, &only_added, named);
    let before = &definition.host_config.port_bindings;
    // Whatever there is beside them is not looked at.
    let changed = || {
        let come = bindings.changes_from(before).map(|(port, _)| port);
        come.chain(before.changes_from(&bindings).map(|(port, _)| port)).collect::<BTreeSet<_>>()
    };
    let asks = requests_for(definition, &bindings, changed());
    let asks_no_more = requests_for(definition, before, changed());
    Ok(Decided {
        mode: definition.host_config.network_mode.clone(),
        sandbox: sandbox.map(|sandbox| sandbox.id.clone()),
        change: PortChange { add, remove, asks, asks_no_more, cut: update.cut },
        bindings,
    })
}

fn check_publishes(definition: &Definition) -> Result<()> {
    match &definition.host_config.network_mode {
        NetworkMode::Bridge | NetworkMode::Network(_) if !definition.config.network_disabled => Ok(()),
        mode => Err(EngineError::invalid(format!(
            "container {} publishes no ports: its network mode is {mode}",
            definition.name
        ))),
    }
}

/// Takes ports out of what a container asks for; those that it has now.
fn remove(
    name: &str,
    bindings: &mut Bindings,
    sandbox: Option<&SandboxInfo>,
    selectors: &[PortSelector],
) -> Result<Vec<PortBinding>> {
    let mut removed = Vec::new();
    for selector in selectors {
        removed.extend(remove_one(name, bindings, sandbox, selector)?.1);
    }
    Ok(removed)
}

/// What asked for a port, and the bindings that it has now.
type Asked = ((ContainerPort, HostPort), Vec<PortBinding>);

fn remove_one(
    name: &str,
    bindings: &mut Bindings,
    sandbox: Option<&SandboxInfo>,
    selector: &PortSelector,
) -> Result<Asked> {
    let live: Vec<PortBinding> = sandbox
        .iter()
        .flat_map(|sandbox| sandbox.ports.keys())
        .filter(|binding| selector.is(binding))
        .cloned()
        .collect();
    match take_out(bindings, selector, &live) {
        Some(asked) => Ok((asked, live)),
        None => {
            let at = selector.ip.map_or_else(String::new, |ip| format!(" on {ip} alone"));
            Err(EngineError::not_found(format!(
                "container {name} does not publish host port {}/{}{at}",
                selector.port, selector.proto
            )))
        }
    }
}

/// Takes ports out that are to be elsewhere; those that go, and into `added` what they are to be.
fn relocate(
    name: &str,
    bindings: &mut Bindings,
    added: &mut BTreeMap<ContainerPort, Vec<HostPort>>,
    sandbox: Option<&SandboxInfo>,
    moves: &[PortMove],
) -> Result<Vec<PortBinding>> {
    let mut removed = Vec::new();
    for PortMove { from, to } in moves {
        if from.proto != to.proto {
            return Err(EngineError::invalid(format!(
                "host port {}/{} cannot move to {}/{}: the protocol is the container's",
                from.port, from.proto, to.port, to.proto
            )));
        }
        let ((port, asked), live) = remove_one(name, bindings, sandbox, from)?;
        let ports = Some(PortRange { first: to.port, last: to.port });
        let host = HostPort { ip: to.ip.or(asked.ip), ports, ..asked };
        added.entry(port).or_default().push(host);
        removed.extend(live);
    }
    Ok(removed)
}

/// Takes the entry out that asked for a host port: by its number, or else the one without a number that
/// leads to the same port of the container.
fn take_out(
    bindings: &mut Bindings,
    selector: &PortSelector,
    live: &[PortBinding],
) -> Option<(ContainerPort, HostPort)> {
    let covers = |range: &PortRange| (range.first..=range.last).contains(&selector.port);
    let led: BTreeSet<ContainerPort> = match live {
        [] => bindings.keys().filter(|port| port.proto == selector.proto).copied().collect(),
        live => live.iter().map(|to| ContainerPort { port: to.container_port, proto: to.proto }).collect(),
    };
    for port in led {
        let fits = |host: &HostPort| {
            (selector.ip.is_none() || selector.ip == host.ip)
                && match &host.ports {
                    Some(range) => covers(range),
                    None => !live.is_empty(),
                }
        };
        // One entry for one port: others may ask for the same in another way.
        let Some(at) = bindings.get(&port).and_then(|hosts| hosts.iter().position(fits)) else { continue };
        let hosts = bindings.get_or_insert_with(port, Vec::new);
        let asked = hosts.remove(at);
        if hosts.is_empty() {
            bindings.remove(&port);
        }
        return Some((port, asked));
    }
    None
}
