//! Sets of ports as the longest rows that there are.

use std::collections::BTreeMap;

use crate::model::PortRange;

/// Ports by something that they have in common, as ranges that do not touch: first to last.
#[derive(Clone, Debug)]
pub(super) struct Runs<C>(BTreeMap<C, BTreeMap<u16, u16>>);

impl<C> Default for Runs<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C: Ord> Runs<C> {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&C, PortRange)> {
        let ranges = |(common, runs)| -> _ { std::iter::repeat(common).zip(runs) };
        self.0
            .iter()
            .flat_map(ranges)
            .map(|(common, (first, last))| (common, PortRange { first: *first, last: *last }))
    }

    /// The range that a port is in.
    pub(super) fn at(&self, common: &C, port: u16) -> Option<PortRange> {
        let (&first, &last) = self.0.get(common)?.range(..=port).next_back()?;
        Some(PortRange { first, last }).filter(|range| range.contains(port))
    }

    /// The ranges that a port is in or next to.
    pub(super) fn near(&self, common: &C, port: u16) -> impl Iterator<Item = PortRange> + use<C> {
        let near = [port.checked_sub(1), Some(port), port.checked_add(1)];
        let ranges = near.map(|port| port.and_then(|port| self.at(common, port)));
        let [before, here, after] = ranges;
        let after = after.filter(|_| after != here && after != before);
        [before, here.filter(|_| here != before), after].into_iter().flatten()
    }

    pub(super) fn insert(&mut self, common: C, port: u16) {
        if self.at(&common, port).is_some() {
            return;
        }
        let before = port.checked_sub(1).and_then(|port| self.at(&common, port));
        let after = port.checked_add(1).and_then(|port| self.at(&common, port));
        let runs = self.0.entry(common).or_default();
        if let Some(after) = after {
            runs.remove(&after.first);
        }
        runs.insert(before.map_or(port, |range| range.first), after.map_or(port, |range| range.last));
    }

    pub(super) fn remove(&mut self, common: &C, port: u16) {
        let Some(PortRange { first, last }) = self.at(common, port) else { return };
        let Some(runs) = self.0.get_mut(common) else { return };
        runs.remove(&first);
        if first < port {
            runs.insert(first, port - 1);
        }
        if port < last {
            runs.insert(port + 1, last);
        }
        if runs.is_empty() {
            self.0.remove(common);
        }
    }
}
