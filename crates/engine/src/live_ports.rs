//! Ports that come and go while a container exists, and who may use them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_net::{Exposure, PortChange, SandboxInfo};
use portolan_netcore::model::{PortBinding, PortRange, Proto};

use crate::container::record::Definition;
use crate::engine::{Engine, to_the_end};
use crate::error::{EngineError, Result};
use crate::model::{ContainerPort, HostPort, NetworkMode};
use crate::network::port_requests;

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
            let _turn = container.gate.lock().await;
            let (mut definition, sandbox) =
                container.with(|record| (record.definition.clone(), record.sandbox.clone()));
            check_publishes(&definition)?;
            let before = port_requests(&definition);
            let mut removed = remove(&mut definition, sandbox.as_ref(), &update.remove)?;
            removed.extend(relocate(&mut definition, sandbox.as_ref(), &update.moves)?);
            for (port, hosts) in update.add {
                definition.host_config.port_bindings.entry(port).or_default().extend(hosts);
            }
            let requests = port_requests(&definition);
            let mut left = before;
            let mut add = requests.clone();
            // What was asked for before is there.
            add.retain(|request| match left.iter().position(|old| old == request) {
                Some(at) => {
                    left.swap_remove(at);
                    false
                }
                None => true,
            });
            let warnings = engine.port_warnings(&definition, &add).await;
            if let Some(sandbox) = sandbox {
                let change = PortChange { add, remove: removed, requests, cut: update.cut };
                let after = engine.inner.networks.change_ports(&sandbox.id, change).await?;
                container.with(|record| record.sandbox = Some(after));
            }
            let write = container.with(|record| {
                record.definition.host_config.port_bindings = definition.host_config.port_bindings;
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
    definition: &mut Definition,
    sandbox: Option<&SandboxInfo>,
    selectors: &[PortSelector],
) -> Result<Vec<PortBinding>> {
    let mut removed = Vec::new();
    for selector in selectors {
        removed.extend(remove_one(definition, sandbox, selector)?.1);
    }
    Ok(removed)
}

/// What asked for a port, and the bindings that it has now.
type Asked = ((ContainerPort, HostPort), Vec<PortBinding>);

fn remove_one(
    definition: &mut Definition,
    sandbox: Option<&SandboxInfo>,
    selector: &PortSelector,
) -> Result<Asked> {
    let live: Vec<PortBinding> = sandbox
        .iter()
        .flat_map(|sandbox| &sandbox.ports)
        .filter(|binding| selector.is(binding))
        .cloned()
        .collect();
    match take_out(definition, selector, &live) {
        Some(asked) => Ok((asked, live)),
        None => {
            let at = selector.ip.map_or_else(String::new, |ip| format!(" on {ip} alone"));
            Err(EngineError::not_found(format!(
                "container {} does not publish host port {}/{}{at}",
                definition.name, selector.port, selector.proto
            )))
        }
    }
}

/// Asks for ports elsewhere; those that go.
fn relocate(
    definition: &mut Definition,
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
        let ((port, asked), live) = remove_one(definition, sandbox, from)?;
        let ports = Some(PortRange { first: to.port, last: to.port });
        let host = HostPort { ip: to.ip.or(asked.ip), ports, ..asked };
        definition.host_config.port_bindings.entry(port).or_default().push(host);
        removed.extend(live);
    }
    Ok(removed)
}

/// Takes the entry out that asked for a host port: by its number, or else the one without a number that
/// leads to the same port of the container.
fn take_out(
    definition: &mut Definition,
    selector: &PortSelector,
    live: &[PortBinding],
) -> Option<(ContainerPort, HostPort)> {
    let covers = |range: &PortRange| (range.first..=range.last).contains(&selector.port);
    let bindings = &mut definition.host_config.port_bindings;
    let mut found = None;
    for (port, hosts) in bindings.iter_mut().filter(|(port, _)| port.proto == selector.proto) {
        let leads = live.iter().any(|binding| binding.container_port == port.port);
        let fits = |host: &HostPort| {
            (selector.ip.is_none() || selector.ip == host.ip)
                && match &host.ports {
                    Some(range) => covers(range) && (live.is_empty() || leads),
                    None => leads,
                }
        };
        // One entry for one port: others may ask for the same in another way.
        if let Some(at) = hosts.iter().position(fits) {
            found = Some((*port, hosts.remove(at)));
            break;
        }
    }
    bindings.retain(|_, hosts| !hosts.is_empty());
    found
}
