//! Who waits for an address that another container has.

use std::collections::{BTreeMap, VecDeque};

use crate::model::ContainerId;

/// A queue for each address asked for; a container stands in one of them at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    queues: BTreeMap<u128, VecDeque<ContainerId>>,
    by_container: BTreeMap<ContainerId, u128>,
}

impl Claims {
    /// To the end of the queue, unless it stands there already. Any other place of it is given up.
    pub(super) fn join(&mut self, container: &ContainerId, bits: u128) {
        if self.by_container.get(container) == Some(&bits) {
            return;
        }
        self.leave(container);
        self.by_container.insert(container.clone(), bits);
        self.queues.entry(bits).or_default().push_back(container.clone());
    }

    pub(super) fn leave(&mut self, container: &ContainerId) {
        let Some(bits) = self.by_container.remove(container) else { return };
        if let Some(queue) = self.queues.get_mut(&bits) {
            queue.retain(|waiting| waiting != container);
            if queue.is_empty() {
                self.queues.remove(&bits);
            }
        }
    }

    /// Who came first; it waits no longer.
    pub(super) fn take_first(&mut self, bits: u128) -> Option<ContainerId> {
        let first = self.queues.get(&bits)?.front()?.clone();
        self.leave(&first);
        Some(first)
    }

    /// Somebody waits for it.
    pub(super) fn any(&self, bits: u128) -> bool {
        self.queues.contains_key(&bits)
    }
}
