//! Publishing and unpublishing while a container runs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_netcore::model::{Endpoint, PortBinding, SandboxId};
use portolan_netcore::plan::Step;

use super::draft::Draft;
use super::ports::{Exchange, opened_port};
use super::sandbox::{Back, Work};
use super::{Owner, Turn};
use crate::records::SandboxRecord;
use crate::{Error, PortChange, PortRequest};

impl Owner {
    pub(crate) fn begin_port_change(
        &mut self,
        id: &SandboxId,
        change: &PortChange,
    ) -> Result<Turn<Work>, Error> {
        let Turn::Done((record, touched, before)) = self.begin_change(id)? else { return Ok(Turn::Later) };
        let mut draft = Draft::change(&record, &before);
        change.asks_no_more.iter().for_each(|request| draft.record.ask_no_more(request));
        change.asks.iter().for_each(|request| draft.record.ask(request.clone()));
        let changed = self.change_draft(&mut draft, change);
        if let Err(error) = changed.and_then(|()| self.store_draft(&mut draft, &before)) {
            self.discard_change(draft, &before);
            return Err(error);
        }
        let let_go = draft.exchange.releases();
        let new_leases = Vec::new();
        let back = Back { touched, before, record: Some(record), let_go, new_leases, old_lease: None };
        self.adopt_change(draft, &back);
        let mut work = self.work(id.clone(), back, Vec::new());
        if change.cut {
            let forgotten: BTreeSet<PortBinding> = work
                .steps
                .iter()
                .filter_map(|step| match step {
                    Step::ForgetFlows(bindings) => Some(bindings.clone()),
                    _ => None,
                })
                .flatten()
                .collect();
            let holds =
                change.remove.iter().map(|binding| PortBinding { container_port: 0, ..binding.clone() });
            let left: Vec<PortBinding> = holds.filter(|hold| !forgotten.contains(hold)).collect();
            if !left.is_empty() {
                work.steps.push(Step::ForgetFlows(left));
            }
        }
        Ok(Turn::Done(work))
    }

    fn change_draft(&mut self, draft: &mut Draft, change: &PortChange) -> Result<(), Error> {
        let container = draft.container_name();
        let Some(endpoint) = draft.endpoints.iter_mut().find(|endpoint| endpoint.is_gateway) else {
            return Err(Error::invalid(format!(
                "container {container} has no network that ports can be published through"
            )));
        };
        for binding in &change.remove {
            endpoint.published.remove(binding);
            endpoint.allowed.remove(binding);
        }
        draft.exchange = Exchange::new(&change.remove, Vec::new());
        let taken = self.publish(endpoint, &change.add, &mut draft.exchange, false)?;
        endpoint.published.extend(taken.bindings.into_iter().map(|binding| (binding, ())));
        endpoint.allowed.append(taken.allowed);
        open_anew(endpoint, change.add.iter().chain(&change.asks_no_more), &draft.record);
        Ok(())
    }
}

/// Ports of a container without a place on the host (gateway mode `routed`) are opened once, for whatever
/// asks for them: those that these requests are about are as what is asked for now has them.
fn open_anew<'a>(
    endpoint: &mut Endpoint,
    changed: impl Iterator<Item = &'a PortRequest>,
    record: &SandboxRecord,
) {
    let families = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let opened = changed.flat_map(|request| families.map(|family| opened_port(request, family)));
    let opened: BTreeSet<PortBinding> =
        opened.filter(|binding| endpoint.published.contains(binding)).collect();
    for binding in opened {
        let asks = |request: &&PortRequest| {
            (request.proto, request.container_port) == (binding.proto, binding.container_port)
                && request.host_ip.is_none_or(|address| address.is_ipv4() == binding.host_ip.is_ipv4())
        };
        let asked: Vec<&PortRequest> = record.ports.keys().filter(asks).collect();
        endpoint.allowed.remove(&binding);
        if asked.is_empty() {
            endpoint.published.remove(&binding);
        } else if asked.iter().all(|request| !request.from.is_empty()) {
            let from = asked.iter().flat_map(|request| request.from.clone()).collect();
            endpoint.allowed.insert(binding, from);
        }
    }
}
