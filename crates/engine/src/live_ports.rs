//! Ports that come and go while a container exists, and who may use them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use portolan_net::{Exposure, PortChange};
use portolan_netcore::model::{PortBinding, PortRange, Proto, SandboxId};

use crate::container::record::{Container, Definition, Record};
use crate::engine::{Engine, to_the_end};
use crate::error::{EngineError, Result};
use crate::model::{Bindings, ContainerPort, HostPort, NetworkMode};
use crate::port_ledger::Ledger;

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

/// Published ports by their place on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSelector {
    /// Their address; all of them if none.
    pub ip: Option<IpAddr>,
    /// Their numbers.
    pub ports: PortRange,
    /// Their protocol.
    pub proto: Proto,
}

impl PortSelector {
    pub(crate) fn is(&self, binding: &PortBinding) -> bool {
        self.proto == binding.proto
            && self.ports.contains(binding.host_port)
            && self.ip.is_none_or(|ip| ip == binding.host_ip)
    }

    /// Whatever came of it would be one of these.
    pub(crate) fn asks(&self, ask: &HostPort) -> bool {
        let within = |range: PortRange| self.ports.contains(range.first) && self.ports.contains(range.last);
        ask.ports.is_some_and(within) && (self.ip.is_none() || self.ip == ask.ip)
    }
}

impl fmt::Display for PortSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        write!(f, "{}/{}", self.ports, self.proto)
    }
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
            let warnings = engine.change_ports(&container, &decided).await?;
            let write = container.with(|record| {
                decided.keep(&mut record.definition);
                record.write()
            });
            engine.inner.database.commit(vec![write]).await?;
            engine.container_event(&container, "update", BTreeMap::new());
            Ok(warnings)
        })
        .await
    }

    /// Makes the networks do it. Warnings: what keeps new ports from being reached.
    pub(crate) async fn change_ports(&self, container: &Container, decided: &Decided) -> Result<Vec<String>> {
        let warnings = self.port_warnings(&decided.mode, &decided.change.add).await;
        if let Some(sandbox) = &decided.sandbox {
            let after = self.inner.networks.change_ports(sandbox, decided.change.clone()).await?;
            container.with(|record| record.sandbox = Some(after));
        }
        Ok(warnings)
    }

    /// `GET /portolan/exposure`: every published port, who can reach it, and why.
    ///
    /// # Errors
    /// The networks are closed.
    pub async fn exposure(&self) -> Result<Vec<Exposure>> {
        Ok(self.inner.networks.exposure().await?)
    }
}

/// What is made of a container's ports.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) bindings: Bindings,
    pub(crate) publish_all: bool,
    mode: NetworkMode,
    /// If it runs.
    sandbox: Option<SandboxId>,
    change: PortChange,
}

impl Decided {
    fn of(ledger: Ledger<'_>, record: &Record, cut: bool) -> Self {
        Self {
            change: ledger.change(cut),
            mode: record.definition.host_config.network_mode.clone(),
            sandbox: record.sandbox.as_ref().map(|sandbox| sandbox.id.clone()),
            bindings: ledger.bindings,
            publish_all: ledger.publish_all,
        }
    }

    /// Makes it what the container asks for.
    pub(crate) fn keep(self, definition: &mut Definition) {
        definition.host_config.port_bindings = self.bindings;
        definition.host_config.publish_all_ports = self.publish_all;
    }
}

fn decide(record: &Record, update: &PortUpdate) -> Result<Decided> {
    let definition = &record.definition;
    check_publishes(definition)?;
    let mut ledger = Ledger::new(definition, record.sandbox.as_ref());
    update.remove.iter().try_for_each(|selector| ledger.remove(selector))?;
    ledger.relocate(&update.moves)?;
    ledger.add(&update.add);
    Ok(Decided::of(ledger, record, update.cut))
}

/// `PortBindings` as they are to be from now on; none if they are so.
///
/// # Errors
/// The container publishes nothing.
pub(crate) fn decide_all(record: &Record, wanted: Bindings) -> Result<Option<Decided>> {
    if wanted == record.definition.host_config.port_bindings {
        return Ok(None);
    }
    check_publishes(&record.definition)?;
    let mut ledger = Ledger::new(&record.definition, record.sandbox.as_ref());
    ledger.set(wanted);
    Ok(Some(Decided::of(ledger, record, false)))
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
