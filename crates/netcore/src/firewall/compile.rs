//! From policy to what a backend is told: the whole, or the difference of a change.
//!
//! Two items may need the same thing in the kernel (two host ports that lead to one container port
//! open the same target), so what is in force is counted. A change takes down the counts of the items
//! that go, puts up those of the items that come, and what has moved from or to nought is the
//! difference: it costs the items that it names and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::elements;
use super::policy::{CarriedPort, FirewallPolicy, PolicyItem, PublishedPort};
use super::ruleset::{Element, ElementData, ElementKey};
use crate::model::{EndpointId, IfName};

/// What a backend's compiled form is made of: something with an identity and content.
pub trait Compile: fmt::Debug {
    /// What can be in the kernel once.
    type Key: Ord + Clone + fmt::Debug;
    /// What is with it; two items that need the same key must agree on it.
    type Data: PartialEq + Clone + fmt::Debug;

    /// What an item needs, `policy` being the whole that it is part of.
    fn item(item: &PolicyItem, policy: &FirewallPolicy) -> Vec<(Self::Key, Self::Data)>;
}

/// The nftables form: elements of the skeleton's sets and maps.
#[derive(Clone, Copy, Debug)]
pub enum Elements {}

impl Compile for Elements {
    type Key = ElementKey;
    type Data = ElementData;

    fn item(item: &PolicyItem, policy: &FirewallPolicy) -> Vec<(ElementKey, ElementData)> {
        let elements = match item {
            PolicyItem::Bridge(bridge) => elements::of_bridge(bridge),
            PolicyItem::Endpoint(endpoint) => elements::of_endpoint(endpoint, policy),
            PolicyItem::Port(port) => elements::of_port(port, policy),
            PolicyItem::Carried(port) => elements::of_carried(port, policy),
        };
        elements.into_iter().map(|Element { at, data }| (at, data)).collect()
    }
}

/// Two items of a policy that cannot both be in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{item} contradicts what is in force: {conflict}")]
pub struct Conflict {
    /// The item that came second.
    pub item: String,
    /// What both claim.
    pub conflict: String,
}

/// A policy and what it is in one backend's terms.
#[derive(Debug)]
pub struct Compiled<C: Compile> {
    policy: FirewallPolicy,
    counts: BTreeMap<C::Key, (C::Data, usize)>,
}

impl<C: Compile> Clone for Compiled<C> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), counts: self.counts.clone() }
    }
}

impl<C: Compile> Default for Compiled<C> {
    fn default() -> Self {
        Self { policy: FirewallPolicy::default(), counts: BTreeMap::new() }
    }
}

/// What one transaction does to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<K, D> {
    /// What goes, first.
    pub remove: Vec<(K, D)>,
    /// What comes.
    pub add: Vec<(K, D)>,
}

impl<C: Compile> Compiled<C> {
    /// Compiles a whole policy.
    pub fn new(policy: &FirewallPolicy) -> Result<Self, Conflict> {
        let mut compiled = Self { policy: policy.clone(), counts: BTreeMap::new() };
        for item in items(policy) {
            count_up::<C>(&mut compiled.counts, &item, policy, &mut BTreeMap::new())?;
        }
        Ok(compiled)
    }

    /// The policy in force.
    pub fn policy(&self) -> &FirewallPolicy {
        &self.policy
    }

    /// All there is in the kernel, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&C::Key, &C::Data)> {
        self.counts.iter().map(|(key, (data, _))| (key, data))
    }

    /// Takes items out, puts others in, and returns what that means in the kernel. Taking out what is
    /// not in force changes nothing, nor does putting in what is. After a conflict nothing has changed.
    pub fn change(&mut self, remove: &[PolicyItem], add: &[PolicyItem]) -> Result<Change<C>, Conflict> {
        let was: Vec<(Identity, Option<PolicyItem>)> = self
            .touched(remove, add)
            .into_iter()
            .map(|identity| {
                let item = get(&self.policy, &identity);
                (identity, item)
            })
            .collect();
        let mut before = BTreeMap::new();
        for item in was.iter().filter_map(|(_, item)| item.as_ref()) {
            count_down::<C>(&mut self.counts, item, &self.policy, &mut before);
        }
        for item in remove {
            take(&mut self.policy, &Identity::of(item));
        }
        for item in add {
            put(&mut self.policy, item.clone());
        }
        for item in was.iter().filter_map(|(identity, _)| get(&self.policy, identity)) {
            if let Err(conflict) = count_up::<C>(&mut self.counts, &item, &self.policy, &mut before) {
                self.undo(Undo { was, before });
                return Err(conflict);
            }
        }
        Ok(Change { difference: self.difference(&before), undo: Undo { was, before } })
    }

    /// Every item whose form may depend on the change: those that it names, and what is on the bridges
    /// that it names.
    fn touched(&self, remove: &[PolicyItem], add: &[PolicyItem]) -> BTreeSet<Identity> {
        let mut touched: BTreeSet<Identity> = remove.iter().chain(add).map(Identity::of).collect();
        for item in remove.iter().chain(add) {
            if let PolicyItem::Port(port) = item
                && !port.from.is_empty()
            {
                let siblings = elements::restricted_siblings(port, &self.policy);
                touched.extend(siblings.map(|port| Identity::Port(port.clone())));
            }
        }
        let is_bridge = |item: &&PolicyItem| matches!(item, PolicyItem::Bridge(_));
        if remove.iter().chain(add).find(is_bridge).is_none() {
            return touched;
        }
        let named = |bridge: &IfName| touched.contains(&Identity::Bridge(bridge.clone()));
        let endpoints = self.policy.endpoints.values().filter(|endpoint| named(&endpoint.bridge));
        let ports = self.policy.published.iter().filter(|port| named(&port.bridge));
        let carried = self.policy.carried.iter().filter(|port| named(&port.bridge));
        let dependent: Vec<Identity> = endpoints
            .map(|endpoint| Identity::Endpoint(endpoint.id.clone()))
            .chain(ports.map(|port| Identity::Port(port.clone())))
            .chain(carried.map(|port| Identity::Carried(port.clone())))
            .collect();
        touched.extend(dependent);
        touched
    }

    /// Takes the last change back, for when the kernel refused it.
    pub fn undo(&mut self, undo: Undo<C>) {
        for (identity, item) in undo.was {
            match item {
                Some(item) => put(&mut self.policy, item),
                None => take(&mut self.policy, &identity),
            }
        }
        for (key, was) in undo.before {
            match was {
                Some(was) => self.counts.insert(key, was),
                None => self.counts.remove(&key),
            };
        }
    }

    fn difference(&self, before: &Before<C>) -> Difference<C::Key, C::Data> {
        let mut difference = Difference { remove: Vec::new(), add: Vec::new() };
        for (key, was) in before {
            let was = was.as_ref().map(|(data, _)| data);
            let is = self.counts.get(key).map(|(data, _)| data);
            if was == is {
                continue;
            }
            if let Some(data) = was {
                difference.remove.push((key.clone(), data.clone()));
            }
            if let Some(data) = is {
                difference.add.push((key.clone(), data.clone()));
            }
        }
        difference
    }
}

/// A change that has been made in a [`Compiled`] and is to be made in the kernel.
#[derive(Debug)]
pub struct Change<C: Compile> {
    /// What the kernel is told.
    pub difference: Difference<C::Key, C::Data>,
    /// The way back, should it refuse.
    pub undo: Undo<C>,
}

/// The way back from one change.
#[derive(Debug)]
pub struct Undo<C: Compile> {
    was: Vec<(Identity, Option<PolicyItem>)>,
    before: Before<C>,
}

/// Counts as they were before the change, of what it touched.
type Before<C> = BTreeMap<<C as Compile>::Key, Option<(<C as Compile>::Data, usize)>>;

fn items(policy: &FirewallPolicy) -> impl Iterator<Item = PolicyItem> {
    let bridges = policy.bridges.values().cloned().map(PolicyItem::Bridge);
    let endpoints = policy.endpoints.values().cloned().map(PolicyItem::Endpoint);
    let ports = policy.published.iter().cloned().map(PolicyItem::Port);
    let carried = policy.carried.iter().cloned().map(PolicyItem::Carried);
    bridges.chain(endpoints).chain(ports).chain(carried)
}

/// What makes an item the same item, whatever is said of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Bridge(IfName),
    Endpoint(EndpointId),
    Port(PublishedPort),
    Carried(CarriedPort),
}

impl Identity {
    fn of(item: &PolicyItem) -> Self {
        match item {
            PolicyItem::Bridge(bridge) => Self::Bridge(bridge.bridge.clone()),
            PolicyItem::Endpoint(endpoint) => Self::Endpoint(endpoint.id.clone()),
            PolicyItem::Port(port) => Self::Port(port.clone()),
            PolicyItem::Carried(port) => Self::Carried(port.clone()),
        }
    }
}

fn get(policy: &FirewallPolicy, identity: &Identity) -> Option<PolicyItem> {
    match identity {
        Identity::Bridge(name) => policy.bridges.get(name).cloned().map(PolicyItem::Bridge),
        Identity::Endpoint(id) => policy.endpoints.get(id).cloned().map(PolicyItem::Endpoint),
        Identity::Port(port) => policy.published.get(port).cloned().map(PolicyItem::Port),
        Identity::Carried(port) => policy.carried.get(port).cloned().map(PolicyItem::Carried),
    }
}

fn take(policy: &mut FirewallPolicy, identity: &Identity) {
    match identity {
        Identity::Bridge(name) => drop(policy.bridges.remove(name)),
        Identity::Endpoint(id) => drop(policy.endpoints.remove(id)),
        Identity::Port(port) => drop(policy.published.take(port)),
        Identity::Carried(port) => drop(policy.carried.take(port)),
    }
}

fn put(policy: &mut FirewallPolicy, item: PolicyItem) {
    match item {
        PolicyItem::Bridge(bridge) => drop(policy.bridges.insert(bridge.bridge.clone(), bridge)),
        PolicyItem::Endpoint(endpoint) => drop(policy.endpoints.insert(endpoint.id.clone(), endpoint)),
        PolicyItem::Port(port) => drop(policy.published.replace(port)),
        PolicyItem::Carried(port) => drop(policy.carried.replace(port)),
    }
}

fn count_down<C: Compile>(
    counts: &mut BTreeMap<C::Key, (C::Data, usize)>,
    item: &PolicyItem,
    policy: &FirewallPolicy,
    before: &mut Before<C>,
) {
    for (key, _) in C::item(item, policy) {
        before.entry(key.clone()).or_insert_with(|| counts.get(&key).cloned());
        match counts.get_mut(&key) {
            Some((_, count)) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&key);
            }
        }
    }
}

fn count_up<C: Compile>(
    counts: &mut BTreeMap<C::Key, (C::Data, usize)>,
    item: &PolicyItem,
    policy: &FirewallPolicy,
    before: &mut Before<C>,
) -> Result<(), Conflict> {
    for (key, data) in C::item(item, policy) {
        before.entry(key.clone()).or_insert_with(|| counts.get(&key).cloned());
        let (there, count) = counts.entry(key).or_insert_with(|| (data.clone(), 0));
        if *there != data {
            return Err(Conflict {
                item: item.to_string(),
                conflict: format!("it leads to {there:?}, not {data:?}"),
            });
        }
        *count += 1;
    }
    Ok(())
}
