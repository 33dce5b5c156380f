//! How lists of ports are stored: a run of consecutive ones is one entry with its length. Ten thousand
//! ports that were asked for as one range take a line, and one port more costs the store as much as the
//! first. Lists without runs are as serde writes them, and as they were before there were runs.

use serde::{Deserialize, Deserializer, Serialize};

use crate::shared::{Piece, SharedMap, SharedSet};

/// How far back the run may be that an entry goes on: two addresses may take turns, or protocols.
const BACK: usize = 3;
/// More runs than these are noted where they were found, and not again in what that is a piece of.
const MANY: usize = 64;

/// Something with a port in it.
pub trait Run: Sized {
    /// The same with all its ports this much higher; none if it cannot be in a run, or not so far up.
    fn higher(&self, by: u16) -> Option<Self>;
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated<T> {
    /// The entry with the lowest ports.
    #[serde(flatten)]
    pub first: T,
    /// How many there are, each a port higher than the one before.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u16,
}

fn one() -> u16 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_one(count: &u16) -> bool {
    *count == 1
}

impl<T: Run> Repeated<T> {
    /// The entries one by one; none if they leave the range of ports.
    pub fn each(self) -> Option<Vec<T>> {
        let mut all: Vec<T> = (1..self.count).map(|by| self.first.higher(by)).collect::<Option<_>>()?;
        all.insert(0, self.first);
        Some(all)
    }
}

impl<T: Run + PartialEq> Repeated<T> {
    /// Takes a run in that goes on where this one ends.
    fn take_in(&mut self, next: &Self) -> bool {
        let count = self.count.checked_add(next.count);
        match count.filter(|_| self.first.higher(self.count).is_some_and(|first| first == next.first)) {
            Some(count) => {
                self.count = count;
                true
            }
            None => false,
        }
    }
}

/// The entries of a map, in order, as runs; `entry` makes them of what is in the map, for each type of them in
/// one way. It costs as much as there are runs, and as there are pieces of the map that were not asked before.
pub fn of<K, V, T, I>(map: &SharedMap<K, V>, entry: fn(&K, &V) -> I) -> Vec<Repeated<T>>
where
    T: Run + Clone + PartialEq + Send + Sync + 'static,
    I: Iterator<Item = T>,
{
    let mut runs = Vec::new();
    if let Some(root) = map.root() {
        gather(root, entry, &mut runs);
    }
    runs
}

/// The entries of a set, in order, as runs.
pub fn of_set<T>(set: &SharedSet<T>) -> Vec<Repeated<T>>
where
    T: Run + Clone + PartialEq + Send + Sync + 'static,
{
    of(set, |entry, ()| std::iter::once(entry.clone()))
}

/// Takes the runs of a piece in.
fn gather<K, V, T, I>(piece: &Piece<K, V>, entry: fn(&K, &V) -> I, runs: &mut Vec<Repeated<T>>)
where
    T: Run + Clone + PartialEq + Send + Sync + 'static,
    I: Iterator<Item = T>,
{
    let noted: &Option<Vec<Repeated<T>>> = piece.noted(|piece| work_out(piece, entry));
    match noted {
        Some(of_piece) => of_piece.iter().for_each(|run| append(runs, run)),
        None => piece.pieces().for_each(|piece| gather(piece, entry, runs)),
    }
}

/// The runs of a piece; none if those of the pieces in it are as good.
fn work_out<K, V, T, I>(piece: &Piece<K, V>, entry: fn(&K, &V) -> I) -> Option<Vec<Repeated<T>>>
where
    T: Run + Clone + PartialEq + Send + Sync + 'static,
    I: Iterator<Item = T>,
{
    let mut runs = Vec::new();
    if let Some(entries) = piece.entries() {
        for first in entries.iter().flat_map(|(key, value)| entry(key, value)) {
            append(&mut runs, &Repeated { first, count: 1 });
        }
    }
    for piece in piece.pieces() {
        gather(piece, entry, &mut runs);
        if runs.len() > MANY {
            return None;
        }
    }
    runs.shrink_to_fit();
    Some(runs)
}

fn append<T: Run + Clone + PartialEq>(runs: &mut Vec<Repeated<T>>, run: &Repeated<T>) {
    if !runs.iter_mut().rev().take(BACK).any(|before| before.take_in(run)) {
        runs.push(run.clone());
    }
}

/// The entries of runs, one run after the other.
///
/// # Errors
/// The deserializer's, or a run that leaves the range of ports.
pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Run + Deserialize<'de>,
    D: Deserializer<'de>,
{
    let mut list = Vec::new();
    for run in Vec::<Repeated<T>>::deserialize(deserializer)? {
        list.extend(run.each().ok_or_else(|| serde::de::Error::custom("a run of ports beyond the last"))?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use serde::de::value::{Error, SeqDeserializer};

    use super::super::{PortBinding, Proto};
    use super::*;

    fn binding(host_ip: &str, container_port: u16, host_port: u16) -> PortBinding {
        let host_ip: IpAddr = host_ip.parse().unwrap();
        PortBinding { proto: Proto::Tcp, container_port, host_ip, host_port }
    }

    #[test]
    fn ports_without_runs_are_all_there() {
        let all: SharedSet<PortBinding> =
            (1..20_000).step_by(2).map(|port| binding("::", port, port)).collect();
        let runs = of_set(&all);
        assert!(runs.iter().map(|run| (&run.first, run.count)).eq(all.keys().map(|binding| (binding, 1))));
        let mut more = all.clone();
        more.insert(binding("::", 10_000, 10_000), ());
        let runs = of_set(&more);
        let long: Vec<_> = runs.iter().filter(|run| run.count > 1).collect();
        assert_eq!(long, [&Repeated { first: binding("::", 9999, 9999), count: 3 }]);
        assert_eq!(runs.len(), all.len() - 1);
    }

    #[test]
    fn a_run_ends_before_it_leaves_the_ports() {
        assert_eq!(binding("::", 65_535, 1).higher(1), None);
        assert_eq!(binding("::", 1, 65_534).higher(1), Some(binding("::", 2, 65_535)));
        let all = (1..=u16::MAX).map(|port| binding("::", port, port)).collect();
        let runs = of_set(&all);
        assert_eq!(runs, [Repeated { first: binding("::", 1, 1), count: u16::MAX }]);
        let empty: SeqDeserializer<_, Error> = SeqDeserializer::new(std::iter::empty::<u8>());
        assert_eq!(deserialize::<PortBinding, _>(empty).unwrap(), []);
    }
}
