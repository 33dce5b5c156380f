//! A sandbox as it is going to be.

use portolan_netcore::model::{Allowed, Endpoint, EndpointId, NetworkId, PortBinding, Sandbox, SandboxId};
use portolan_netcore::plan::Desired;
use portolan_netcore::shared::SharedSet;

use super::endpoint::Advertising;
use super::entropy;
use super::ports::Exchange;
use crate::records::{Asked, Batch, Exposed, LeaseRecord, SandboxRecord};
use crate::{Error, SandboxSpec};

/// A sandbox as it is going to be, before anything of it is stored.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) record: SandboxRecord,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) batch: Batch,
    pub(super) leases: Vec<LeaseRecord>,
    /// Networks on which addresses were taken, and whether the container had some there before.
    pub(super) leased: Vec<(NetworkId, bool)>,
    /// Ports of endpoints that are not the gateway any more.
    pub(super) published: SharedSet<PortBinding>,
    /// Who may use them.
    pub(super) allowed: Allowed,
    /// How far the ports of the host are exchanged for others.
    pub(super) exchange: Exchange,
    /// How new endpoints announce themselves.
    pub(super) advertised: Vec<(EndpointId, Advertising)>,
}

impl Draft {
    pub(super) fn new(spec: &SandboxSpec) -> Self {
        let sandbox = Sandbox {
            id: SandboxId::from_bytes(entropy()),
            container: spec.container.clone(),
            mode: spec.mode,
            sysctls: spec.sysctls.clone(),
        };
        let mut record = SandboxRecord {
            sandbox,
            order: Vec::new(),
            ports: Asked::new(),
            dns: spec.dns.clone(),
            ndots: spec.ndots,
            exposed: spec
                .exposed
                .iter()
                .map(|(proto, port)| Exposed { proto: *proto, port: *port })
                .collect(),
        };
        spec.ports.iter().for_each(|request| record.ask(request.clone()));
        Self::of(record)
    }

    /// What people call the container.
    pub(super) fn container_name(&self) -> String {
        let name = self.endpoints.first().map(|endpoint| endpoint.container_name.clone());
        name.unwrap_or_else(|| self.record.sandbox.container.to_string())
    }

    /// An address that the container has from now on.
    pub(super) fn remember(&mut self, lease: LeaseRecord) -> Result<(), Error> {
        self.batch.put_lease(&lease)?;
        self.leases.push(lease);
        Ok(())
    }

    /// Of a sandbox that is there and changes.
    pub(super) fn change(record: &SandboxRecord, before: &Desired) -> Self {
        let there = record.order.iter().filter_map(|id| before.endpoints.get(id));
        Self { endpoints: there.map(|endpoint| (**endpoint).clone()).collect(), ..Self::of(record.clone()) }
    }

    fn of(record: SandboxRecord) -> Self {
        Self {
            record,
            endpoints: Vec::new(),
            batch: Batch::default(),
            leases: Vec::new(),
            leased: Vec::new(),
            published: SharedSet::new(),
            allowed: Allowed::new(),
            exchange: Exchange::default(),
            advertised: Vec::new(),
        }
    }
}
