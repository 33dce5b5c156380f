//! Publishing and unpublishing while a container runs.

use std::collections::BTreeSet;

use portolan_netcore::model::{PortBinding, SandboxId};
use portolan_netcore::plan::Step;

use super::sandbox::{Back, Draft, Work};
use super::{Owner, Turn};
use crate::{Error, PortChange};

impl Owner {
    pub(crate) fn begin_port_change(
        &mut self,
        id: &SandboxId,
        change: &PortChange,
    ) -> Result<Turn<Work>, Error> {
        let Turn::Done((record, touched, before)) = self.begin_change(id)? else { return Ok(Turn::Later) };
        let mut draft = Draft::of(record.clone());
        draft.endpoints = record.order.iter().filter_map(|id| before.endpoints.get(id)).cloned().collect();
        change.asks_no_more.iter().for_each(|request| draft.record.ask_no_more(request));
        change.asks.iter().for_each(|request| draft.record.ask(request.clone()));
        let changed = self.change_draft(&mut draft, change);
        if let Err(error) = changed.and_then(|()| self.store_draft(&mut draft, &before)) {
            self.discard_change(draft, &before);
            return Err(error);
        }
        let back = Back { touched, before, record: Some(record), new_leases: Vec::new(), old_lease: None };
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
        let Some(endpoint) = draft.endpoints.iter_mut().find(|endpoint| endpoint.is_gateway) else {
            return Err(Error::invalid(format!(
                "container {} has no network that ports can be published through",
                draft.record.sandbox.container
            )));
        };
        for binding in &change.remove {
            endpoint.published.remove(binding);
            endpoint.allowed.remove(binding);
        }
        let taken = self.publish(endpoint, &change.add)?;
        draft.newly_held.clone_from(&taken.bindings);
        endpoint.published.extend(taken.bindings.into_iter().map(|binding| (binding, ())));
        endpoint.allowed.append(taken.allowed);
        Ok(())
    }
}
