//! Changes of a sandbox that is there: networks that it joins and leaves, another name.

use std::collections::BTreeSet;
use std::sync::Arc;

use portolan_netcore::model::{ContainerId, Endpoint, NetworkId, PortBinding, SandboxId, SandboxMode};
use portolan_netcore::plan::{Desired, Step, Touched, change};
use portolan_netcore::shared::SharedSet;

use super::draft::Draft;
use super::sandbox::{Back, Work};
use super::{Owner, Phase, Turn};
use crate::publisher::Version;
use crate::records::{Batch, SandboxRecord};
use crate::{AttachSpec, Error, NetworkAction};

impl Owner {
    /// The sandbox, if its turn has come; all of its endpoints are touched.
    pub(super) fn begin_change(
        &mut self,
        id: &SandboxId,
    ) -> Result<Turn<(SandboxRecord, Touched, Desired)>, Error> {
        let Some(live) = self.sandboxes.get_mut(id) else {
            return Err(Error::not_found(format!("sandbox {id} not found")));
        };
        if live.phase == Phase::Busy {
            return Ok(Turn::Later);
        }
        let touched = Touched::sandbox(id, &live.record.order);
        Ok(Turn::Done((live.record.clone(), touched.clone(), self.desired.slice(&touched))))
    }

    pub(crate) fn begin_connect(&mut self, id: &SandboxId, attach: &AttachSpec) -> Result<Turn<Work>, Error> {
        let Turn::Done((record, mut touched, before)) = self.begin_change(id)? else {
            return Ok(Turn::Later);
        };
        let network = self.check_attach(attach)?;
        self.check_joins(&record, &before, &network, attach)?;
        let mut draft = Draft::change(&record, &before);
        let added = match self.add_to_draft(&mut draft, &network, attach) {
            Ok(Turn::Done(())) => self.reelect(&mut draft),
            Ok(Turn::Later) => return Ok(Turn::Later),
            Err(error) => Err(error),
        };
        if let Err(error) = added.and_then(|()| self.store_draft(&mut draft, &before)) {
            self.discard_change(draft, &before);
            return Err(error);
        }
        touched.endpoints.extend(draft.record.order.last().cloned());
        let new_leases =
            draft.leased.iter().filter(|(_, had)| !had).map(|(network, _)| network.clone()).collect();
        let let_go = draft.exchange.releases();
        let back = Back { touched, before, record: Some(record), let_go, new_leases, old_lease: None };
        let advertised = std::mem::take(&mut draft.advertised);
        self.adopt_change(draft, &back);
        let work = self.work(id.clone(), back, vec![(NetworkAction::Connect, network)]);
        Ok(Turn::Done(self.with_announcements(work, &advertised)))
    }

    fn check_joins(
        &self,
        record: &SandboxRecord,
        before: &Desired,
        network: &NetworkId,
        attach: &AttachSpec,
    ) -> Result<(), Error> {
        let mut networks: Vec<NetworkId> =
            before.endpoints.values().map(|endpoint| endpoint.network.clone()).collect();
        if networks.contains(network) {
            let (container, name) = (&attach.container_name, &self.network(network)?.name);
            return Err(Error::forbidden(format!(
                "endpoint with name {container} already exists in network {name}"
            )));
        }
        networks.push(network.clone());
        self.check_mode(record.sandbox.mode, &networks)
    }

    pub(crate) fn begin_disconnect(&mut self, id: &SandboxId, reference: &str) -> Result<Turn<Work>, Error> {
        let Turn::Done((record, touched, before)) = self.begin_change(id)? else { return Ok(Turn::Later) };
        let network = self.find_id(reference)?;
        let Some(gone) = before.endpoints.values().find(|endpoint| endpoint.network == network) else {
            let (container, name) = (&record.sandbox.container, &self.network(&network)?.name);
            return Err(Error::forbidden(format!(
                "container {container} is not connected to network {name}"
            )));
        };
        if record.sandbox.mode == SandboxMode::Host {
            return Err(Error::invalid(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let gone = gone.clone();
        let mut draft = Draft::change(&record, &before);
        draft.record.order.retain(|id| *id != gone.id);
        draft.endpoints.retain(|endpoint| endpoint.id != gone.id);
        draft.batch.delete_endpoint(&gone.id);
        draft.published.clone_from(&gone.published);
        draft.allowed.clone_from(&gone.allowed);
        let stored = self.reelect(&mut draft).and_then(|()| self.store_draft(&mut draft, &before));
        if let Err(error) = stored {
            self.discard_change(draft, &before);
            return Err(error);
        }
        let back = Back {
            touched,
            before,
            record: Some(record),
            let_go: draft.exchange.releases(),
            new_leases: Vec::new(),
            old_lease: Some(network.clone()),
        };
        let release = self.clients(std::iter::once(&gone.id));
        self.adopt_change(draft, &back);
        let addresses = self.leave_addresses(&gone);
        let forget = self.take_stale(&addresses);
        let mut work = self.work(id.clone(), back, vec![(NetworkAction::Disconnect, network)]);
        work.steps.extend(forget);
        work.release = release;
        Ok(Turn::Done(work))
    }

    pub(super) fn store_draft(&self, draft: &mut Draft, before: &Desired) -> Result<(), Error> {
        draft.batch.put_sandbox(&draft.record)?;
        for endpoint in &draft.endpoints {
            if before.endpoints.get(&endpoint.id).is_none_or(|before| **before != *endpoint) {
                draft.batch.put_endpoint(endpoint)?;
            }
        }
        self.commit(&draft.batch)
    }

    pub(super) fn discard_change(&mut self, draft: Draft, before: &Desired) {
        let id = &draft.record.sandbox.id;
        for (network, had) in &draft.leased {
            self.return_addresses(network, &draft.record.sandbox.container, *had);
        }
        self.ports.forget(&draft.exchange.taken, id);
        let mut exchange = draft.exchange;
        self.listen_again(&exchange.undo(self.host.as_ref()), before);
        debug_assert!(before.sandboxes.contains_key(id), "only a sandbox that is there changes");
    }

    /// Ports that were let go of for a moment are carried over to the other family as before.
    fn listen_again(&self, holds: &BTreeSet<PortBinding>, before: &Desired) {
        if holds.is_empty() {
            return;
        }
        let touched = Touched::endpoints(before.endpoints.keys());
        let mut steps = change(&self.nothing(), before, &touched);
        steps.retain(|step| matches!(step, Step::ProxyPort(hold, _) if holds.contains(hold)));
        crate::apply::run_whatever_fails(self.host.as_ref(), &steps);
    }

    pub(super) fn adopt_change(&mut self, draft: Draft, back: &Back) {
        let id = draft.record.sandbox.id.clone();
        for lease in draft.leases {
            self.keep_lease(Some(lease));
        }
        let (mut had, mut has) = (SharedSet::new(), SharedSet::new());
        for endpoint in &back.touched.endpoints {
            had.append(self.take_out_endpoint(endpoint).map(|old| old.published.clone()).unwrap_or_default());
        }
        draft.endpoints.iter().for_each(|endpoint| has.append(endpoint.published.clone()));
        self.ports.forget(had.changes_from(&has).map(|(binding, ())| binding), &id);
        self.desired.sandboxes.insert(id.clone(), Arc::new(draft.record.sandbox.clone()));
        for endpoint in draft.endpoints {
            let new = || endpoint.published.changes_from(&had).map(|(binding, ())| binding);
            // They are in the table since they were taken, if they were.
            self.ports.forget(new(), &id);
            self.ports.remember(new(), &id, &endpoint.container_name);
            self.insert_endpoint(endpoint);
        }
        if let Some(live) = self.sandboxes.get_mut(&id) {
            live.phase = Phase::Busy;
            live.record = draft.record;
        }
    }

    /// Changes a container's name in its leases and its sandbox's endpoints, its names among them.
    pub(crate) fn rename(
        &mut self,
        container: &ContainerId,
        name: &str,
    ) -> Result<Turn<Option<Version>>, Error> {
        let Some(id) = self.sandbox_of(container).cloned() else {
            self.rename_leases(container, name)?;
            return Ok(Turn::Done(None));
        };
        let Turn::Done((_, touched, before)) = self.begin_change(&id)? else { return Ok(Turn::Later) };
        self.rename_leases(container, name)?;
        let mut batch = Batch::default();
        let mut renamed: Vec<Arc<Endpoint>> = before.endpoints.into_values().collect();
        for endpoint in renamed.iter_mut().map(Arc::make_mut) {
            let (old, new) = (endpoint.container_name.to_ascii_lowercase(), name.to_ascii_lowercase());
            endpoint.dns_names.iter_mut().filter(|name| **name == old).for_each(|name| name.clone_from(&new));
            name.clone_into(&mut endpoint.container_name);
            batch.put_endpoint(endpoint)?;
        }
        self.commit(&batch)?;
        for id in &touched.endpoints {
            self.take_out_endpoint(id);
        }
        for endpoint in renamed {
            self.insert_endpoint(endpoint);
        }
        let needs = self.needs_resolver(&id);
        Ok(Turn::Done(self.names_changed(&id, needs)))
    }
}
