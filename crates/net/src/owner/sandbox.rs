//! Sandboxes: making them and taking them down, and the end of a change.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use portolan_netcore::model::{
    ContainerId, Endpoint, EndpointId, IfName, NetworkId, PortBinding, SandboxId, SandboxMode,
};
use portolan_netcore::plan::{Desired, Step, Touched, change, undo};
use portolan_netcore::shared::SharedSet;

use super::advertise::{self, Announcements};
use super::draft::Draft;
use super::endpoint::{Advertising, advertising};
use super::{Live, Owner, Phase, Turn};
use crate::publisher::Version;
use crate::records::{Batch, SandboxRecord};
use crate::{AttachSpec, Error, NetworkAction, SandboxInfo, SandboxSpec};

/// A change of a sandbox that is decided and stored, and now to be done.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) sandbox: SandboxId,
    pub(crate) steps: Vec<Step>,
    /// Ports that are held for it already.
    held: Vec<Step>,
    /// The namespace that the resolver is to serve from now on.
    pub(crate) serve: Option<PathBuf>,
    /// The zones to wait for.
    pub(crate) zones: Option<Version>,
    /// Endpoints whose addresses are given back first, while their links are there.
    pub(crate) release: Vec<EndpointId>,
    back: Back,
    events: Vec<(NetworkAction, NetworkId)>,
    /// To be sent once it is done.
    pub(crate) announcements: Vec<Announcements>,
}

impl Work {
    /// The way back from what was done of the steps; only a failure needs it.
    pub(crate) fn undo(&self, done: &[Step], not_done: &[Step]) -> Vec<Step> {
        let done: Vec<Step> = self.back.let_go.iter().chain(&self.held).chain(done).cloned().collect();
        undo(&self.back.before, &self.back.touched, &done, not_done)
    }
}

/// How it was before.
#[derive(Debug)]
pub(super) struct Back {
    pub(super) touched: Touched,
    pub(super) before: Desired,
    pub(super) record: Option<SandboxRecord>,
    /// Ports of the host that were let go of while others were taken.
    pub(super) let_go: Vec<Step>,
    /// Leases that the change made.
    pub(super) new_leases: Vec<NetworkId>,
    /// Leases that go once the change is done.
    pub(super) old_lease: Option<NetworkId>,
}

/// A sandbox that is given up.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) sandbox: SandboxId,
    pub(crate) steps: Vec<Step>,
    /// Host ends whose end is the end of the kernel's clean-up.
    pub(crate) links: Vec<IfName>,
    pub(crate) served: bool,
    /// The zones without its names.
    pub(crate) zones: Option<Version>,
    /// The addresses that it had.
    pub(crate) addresses: Vec<IpAddr>,
    /// Endpoints whose addresses are given back first, while their links are there.
    pub(crate) release: Vec<EndpointId>,
    published: SharedSet<PortBinding>,
    container: ContainerId,
    networks: Vec<NetworkId>,
}

impl Owner {
    pub(crate) fn begin_sandbox(&mut self, spec: &SandboxSpec) -> Result<Turn<Work>, Error> {
        if let Some(id) = self.sandbox_of(&spec.container) {
            return Err(Error::conflict(format!(
                "container {} has the sandbox {} already",
                spec.container,
                id.short()
            )));
        }
        let networks =
            spec.attach.iter().map(|attach| self.check_attach(attach)).collect::<Result<Vec<_>, _>>()?;
        self.check_mode(spec.mode, &networks)?;
        if networks.iter().collect::<BTreeSet<_>>().len() < networks.len() {
            return Err(Error::invalid(format!("container {} is to join one network twice", spec.container)));
        }
        let mut draft = Draft::new(spec);
        for (network, attach) in networks.iter().zip(&spec.attach) {
            match self.add_to_draft(&mut draft, network, attach) {
                Ok(Turn::Done(())) => {}
                Ok(Turn::Later) => {
                    self.discard(draft);
                    return Ok(Turn::Later);
                }
                Err(error) => {
                    self.discard(draft);
                    return Err(error);
                }
            }
        }
        self.adopt_draft(draft).map(Turn::Done)
    }

    pub(super) fn sandbox_of(&self, container: &ContainerId) -> Option<&SandboxId> {
        let mut live = self.sandboxes.iter();
        live.find(|(_, live)| live.record.sandbox.container == *container).map(|(id, _)| id)
    }

    pub(super) fn add_to_draft(
        &mut self,
        draft: &mut Draft,
        network: &NetworkId,
        attach: &AttachSpec,
    ) -> Result<Turn<()>, Error> {
        let container = draft.record.sandbox.container.clone();
        let had = self.has_lease(network, &container);
        let Turn::Done(addresses) = self.take_addresses(network, &container, attach)? else {
            return Ok(Turn::Later);
        };
        draft.leased.push((network.clone(), had));
        let noted = self.note_lease(&mut draft.batch, network, &container, attach, addresses)?;
        draft.leases.extend(noted);
        let taken: BTreeSet<IfName> =
            draft.endpoints.iter().map(|endpoint| endpoint.ifname.clone()).collect();
        let mut new = self.new_endpoint(&draft.record.sandbox.id, network, attach, addresses, &taken)?;
        self.make_client(&mut new.endpoint, &container, attach);
        draft.record.sandbox.sysctls.extend(new.sysctls);
        draft.record.order.push(new.endpoint.id.clone());
        draft.advertised.push((new.endpoint.id.clone(), advertising(attach)));
        draft.endpoints.push(new.endpoint);
        Ok(Turn::Done(()))
    }

    /// Nothing of it was stored: addresses and ports go back.
    fn discard(&mut self, draft: Draft) {
        let container = &draft.record.sandbox.container;
        for (network, had) in &draft.leased {
            self.return_addresses(network, container, *had);
        }
        for endpoint in &draft.endpoints {
            super::ports::release(self.host.as_ref(), endpoint.published.keys());
            self.ports.forget(endpoint.published.keys(), &endpoint.sandbox);
        }
    }

    /// Elects the gateway, takes the ports, stores, and makes it part of what is desired.
    fn adopt_draft(&mut self, mut draft: Draft) -> Result<Work, Error> {
        if let Err(error) = self.complete_draft(&mut draft) {
            self.discard(draft);
            return Err(error);
        }
        let id = draft.record.sandbox.id.clone();
        let new_leases =
            draft.leased.iter().filter(|(_, had)| !had).map(|(network, _)| network.clone()).collect();
        for lease in draft.leases {
            self.keep_lease(Some(lease));
        }
        let touched = Touched::sandbox(&id, &draft.record.order);
        self.desired.sandboxes.insert(id.clone(), Arc::new(draft.record.sandbox.clone()));
        self.sandboxes.insert(id.clone(), Live { record: draft.record, phase: Phase::Busy });
        let mut events = Vec::new();
        for endpoint in draft.endpoints {
            events.push((NetworkAction::Connect, endpoint.network.clone()));
            self.insert_endpoint(endpoint);
        }
        let before = self.nothing();
        let let_go = Vec::new();
        let back = Back { touched, before, record: None, let_go, new_leases, old_lease: None };
        let work = self.work(id, back, events);
        Ok(self.with_announcements(work, &draft.advertised))
    }

    fn complete_draft(&mut self, draft: &mut Draft) -> Result<(), Error> {
        if let Some(gateway) = self.elect(draft.endpoints.iter())
            && let Some(endpoint) = draft.endpoints.iter_mut().find(|endpoint| endpoint.id == gateway)
        {
            endpoint.is_gateway = true;
            let taken = self.publish(endpoint, &draft.record.asked(), &mut draft.exchange, false)?;
            endpoint.publish(taken.bindings, taken.allowed);
        }
        self.elect_stand_in(&mut draft.endpoints);
        draft.batch.put_sandbox(&draft.record)?;
        for endpoint in &draft.endpoints {
            draft.batch.put_endpoint(endpoint)?;
        }
        self.commit(&draft.batch)
    }

    /// Into the desired state; its names with it.
    pub(super) fn insert_endpoint(&mut self, endpoint: impl Into<Arc<Endpoint>>) {
        let endpoint = endpoint.into();
        self.add_names(&endpoint);
        self.members.entry(endpoint.network.clone()).or_default().insert(endpoint.id.clone());
        self.desired.endpoints.insert(endpoint.id.clone(), endpoint);
    }

    pub(super) fn take_out_endpoint(&mut self, id: &EndpointId) -> Option<Arc<Endpoint>> {
        let endpoint = self.desired.endpoints.remove(id)?;
        if let Some(members) = self.members.get_mut(&endpoint.network) {
            members.remove(id);
        }
        self.remove_names(&endpoint);
        Some(endpoint)
    }

    /// The plan from the state before, now that the desired state is the one after.
    pub(super) fn work(
        &mut self,
        sandbox: SandboxId,
        back: Back,
        events: Vec<(NetworkAction, NetworkId)>,
    ) -> Work {
        // Ports are held while they are chosen; the plan need not do it again.
        let steps = change(&back.before, &self.desired, &back.touched);
        let (held, mut steps): (Vec<Step>, Vec<Step>) =
            steps.into_iter().partition(|step| matches!(step, Step::HoldPort(_)));
        if let Some(step) = self.forget_for(&back) {
            steps.insert(0, step);
        }
        let needs = self.needs_resolver(&sandbox);
        let serve = (needs && !self.desired.dns.contains_key(&sandbox)).then(|| self.netns(&sandbox));
        let zones = self.names_changed(&sandbox, needs);
        Work {
            zones,
            sandbox,
            steps,
            held,
            serve,
            release: Vec::new(),
            back,
            events,
            announcements: Vec::new(),
        }
    }

    pub(super) fn with_announcements(
        &self,
        mut work: Work,
        advertised: &[(EndpointId, Advertising)],
    ) -> Work {
        for (id, advertising) in advertised {
            let endpoint = self.desired.endpoints.get(id);
            work.announcements.extend(
                endpoint.and_then(|endpoint| advertise::after(&mut work.steps, endpoint, *advertising)),
            );
        }
        work
    }

    /// Zones after a change of a sandbox's endpoints, if anybody can tell the difference.
    pub(super) fn names_changed(&mut self, sandbox: &SandboxId, needs_resolver: bool) -> Option<Version> {
        let known = self.views.contains(sandbox);
        if !needs_resolver && !known {
            return None;
        }
        self.refresh_view(sandbox);
        Some(self.publish_zones())
    }

    /// It is done. `dns`: the ports on which the resolver serves it now.
    pub(crate) fn finish_sandbox(
        &mut self,
        work: Work,
        dns: Option<(u16, u16)>,
    ) -> Result<SandboxInfo, Error> {
        if let Some(ports) = dns {
            self.desired.dns.insert(work.sandbox.clone(), ports);
        }
        let container = self.set_ready(&work.sandbox);
        for (action, network) in &work.events {
            self.emit(*action, network, container.as_ref());
        }
        if let (Some(network), Some(container)) = (&work.back.old_lease, &container) {
            // A failure leaves a lease too many, which goes with the container.
            if let Err(error) = self.unreserve(container, network) {
                tracing::warn!(%error, "cannot forget the address of an endpoint that is gone");
            }
        }
        self.settle();
        self.sandbox_info(&work.sandbox).ok_or_else(|| {
            Error::internal(format!("sandbox {} went away while it was changed", work.sandbox))
        })
    }

    fn set_ready(&mut self, id: &SandboxId) -> Option<ContainerId> {
        let live = self.sandboxes.get_mut(id)?;
        live.phase = Phase::Ready;
        Some(live.record.sandbox.container.clone())
    }

    /// It could not be done and was taken back: all as before. For a new sandbox, what is still to
    /// be waited for.
    pub(crate) fn abort_sandbox(&mut self, work: Work) -> Option<Removal> {
        let id = &work.sandbox;
        let Some(record) = work.back.record else {
            return match self.take_down(id) {
                Ok(removal) => Some(removal),
                Err(error) => {
                    tracing::error!(sandbox = %id, %error, "cannot forget a sandbox that could not be made");
                    None
                }
            };
        };
        self.put_back(id, &work.back.touched, work.back.before, record);
        let container = self.set_ready(id);
        for (network, container) in work.back.new_leases.iter().zip(container.iter().cycle()) {
            if let Err(error) = self.unreserve(container, network) {
                tracing::warn!(%error, "cannot forget the address of an endpoint that could not be made");
            }
        }
        self.settle();
        None
    }

    fn put_back(&mut self, id: &SandboxId, touched: &Touched, before: Desired, record: SandboxRecord) {
        let mut batch = Batch::default();
        for endpoint in &touched.endpoints {
            if let Some(gone) = self.take_out_endpoint(endpoint) {
                self.ports.forget(gone.published.keys(), id);
                batch.delete_endpoint(endpoint);
            }
        }
        let mut stored = batch.put_sandbox(&record);
        for endpoint in before.endpoints.into_values() {
            stored = stored.and_then(|()| batch.put_endpoint(&endpoint));
            self.ports.remember(endpoint.published.keys(), id, &endpoint.container_name);
            self.insert_endpoint(endpoint);
        }
        if let Err(error) = stored.and_then(|()| self.commit(&batch)) {
            tracing::error!(sandbox = %id, %error, "cannot store a sandbox as it was");
        }
        self.desired.sandboxes.insert(id.clone(), Arc::new(record.sandbox.clone()));
        if let Some(live) = self.sandboxes.get_mut(id) {
            live.record = record;
        }
        let needs = self.needs_resolver(id);
        self.names_changed(id, needs);
    }

    /// Gives a sandbox up. None if there is nothing to do.
    pub(crate) fn begin_removal(&mut self, id: &SandboxId) -> Result<Turn<Option<Removal>>, Error> {
        match self.sandboxes.get(id).map(|live| live.phase) {
            None => Ok(Turn::Done(None)),
            Some(Phase::Busy) => Ok(Turn::Later),
            Some(Phase::Ready) => {
                let removal = self.take_down(id)?;
                for network in &removal.networks {
                    self.emit(NetworkAction::Disconnect, network, Some(&removal.container));
                }
                Ok(Turn::Done(Some(removal)))
            }
        }
    }

    fn take_down(&mut self, id: &SandboxId) -> Result<Removal, Error> {
        let Some(live) = self.sandboxes.get(id) else {
            return Err(Error::not_found(format!("sandbox {id} not found")));
        };
        let record = live.record.clone();
        let mut batch = Batch::default();
        batch.delete_sandbox(id);
        record.order.iter().for_each(|endpoint| batch.delete_endpoint(endpoint));
        if let Err(error) = self.commit(&batch) {
            // As after a crash between the two: who finds its record finds no namespace to it.
            tracing::error!(sandbox = %id, %error, "cannot store that a sandbox is gone");
        }
        let touched = Touched::sandbox(id, &record.order);
        let steps = change(&self.desired, &self.nothing(), &touched);
        let mut removal = Removal {
            sandbox: id.clone(),
            steps,
            links: Vec::new(),
            networks: Vec::new(),
            container: record.sandbox.container.clone(),
            served: self.desired.dns.remove(id).is_some() || self.needs_resolver(id),
            zones: None,
            addresses: Vec::new(),
            release: self.clients(record.order.iter()),
            published: SharedSet::new(),
        };
        let container = &record.sandbox.container;
        for endpoint in record.order.iter().filter_map(|id| self.take_out_endpoint(id)).collect::<Vec<_>>() {
            removal.networks.push(endpoint.network.clone());
            removal.addresses.extend(self.leave_addresses(&endpoint));
            self.quarantine(&endpoint.network, container, id);
            removal.published.append(endpoint.published.clone());
            if endpoint.host_ifname.as_str() != "lo" {
                removal.links.push(endpoint.host_ifname.clone());
            }
        }
        self.desired.sandboxes.remove(id);
        self.sandboxes.remove(id);
        self.unready.remove(id);
        if record.sandbox.mode == SandboxMode::Private {
            self.dying.insert(id.clone());
        }
        removal.zones = self.names_changed(id, false);
        Ok(removal)
    }

    /// Its ports are let go of; only the kernel's clean-up is left.
    pub(crate) fn finish_removal(&mut self, removal: &Removal) {
        self.ports.forget(removal.published.keys(), &removal.sandbox);
        let cut =
            |name: &IfName| removal.steps.iter().any(|s| matches!(s, Step::CutPort((_, n)) if n == name));
        if removal.links.iter().all(cut) {
            self.free_addresses(&removal.sandbox);
        }
        self.settle();
    }

    /// No trace of it is left on the host.
    pub(crate) fn is_settled(&self, id: &SandboxId) -> bool {
        !self.dying.contains(id) && !self.sandboxes.contains_key(id)
    }
}
