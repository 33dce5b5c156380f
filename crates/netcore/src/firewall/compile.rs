//! From policy to what a backend is told: the whole, or the difference of a change.
//!
//! Two parts may need the same thing in the kernel (what is published at two addresses is a hairpin of one
//! target), so what is in force is counted. A change takes down the counts of what it touches as it is, puts up
//! those of what it touches as it will be, and what has moved from or to nought is the difference: it
//! costs the items that it names and the ranges that they are in, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::elements;
use super::policy::{BridgePolicy, CarriedPort, EndpointPolicy, FirewallPolicy, PolicyItem, PublishedPort};
use super::ranges::{Carried, Opening, Ranges, Redirect};
use super::ruleset::{Element, ElementData, ElementKey};
use crate::model::{EndpointId, IfName};

/// What a backend's compiled form is made of: something with an identity and content.
pub trait Compile: fmt::Debug {
    /// What can be in the kernel once.
    type Key: Ord + Clone + fmt::Debug;
    /// What is with it; two items that need the same key must agree on it.
    type Data: PartialEq + Clone + fmt::Debug;

    /// What a part needs, `policy` being the whole that it is of.
    fn part(part: &Part, policy: &FirewallPolicy) -> Vec<(Self::Key, Self::Data)>;
}

/// What a backend finds a form for: the items of a policy, its published ports put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A bridge network.
    Bridge(BridgePolicy),
    /// An endpoint.
    Endpoint(EndpointPolicy),
    /// Ports whose connections are carried over.
    Carried(Carried),
    /// Ports of the host that lead to an endpoint.
    Redirect(Redirect),
    /// An endpoint's ports that are open where there is direct routing.
    Opening(Opening),
}

impl Part {
    /// An item that is a part by itself; ports are not.
    fn of(item: PolicyItem) -> Option<Self> {
        match item {
            PolicyItem::Bridge(bridge) => Some(Self::Bridge(bridge)),
            PolicyItem::Endpoint(endpoint) => Some(Self::Endpoint(endpoint)),
            PolicyItem::Port(_) | PolicyItem::Carried(_) => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge(bridge) => PolicyItem::Bridge(bridge.clone()).fmt(f),
            Self::Endpoint(endpoint) => PolicyItem::Endpoint(endpoint.clone()).fmt(f),
            Self::Carried(carried) => carried.fmt(f),
            Self::Redirect(redirect) => redirect.fmt(f),
            Self::Opening(opening) => opening.fmt(f),
        }
    }
}

/// The nftables form: elements of the skeleton's sets and maps.
#[derive(Clone, Copy, Debug)]
pub enum Elements {}

impl Compile for Elements {
    type Key = ElementKey;
    type Data = ElementData;

    fn part(part: &Part, policy: &FirewallPolicy) -> Vec<(ElementKey, ElementData)> {
        let elements = match part {
            Part::Bridge(bridge) => elements::of_bridge(bridge),
            Part::Endpoint(endpoint) => elements::of_endpoint(endpoint, policy),
            Part::Carried(carried) => elements::of_carried(carried, policy),
            Part::Redirect(redirect) => elements::of_redirect(redirect, policy),
            Part::Opening(opening) => elements::of_opening(opening, policy),
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
    /// Of the policy's ports.
    ranges: Box<Ranges>,
    counts: BTreeMap<C::Key, (C::Data, usize)>,
}

impl<C: Compile> Clone for Compiled<C> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), ranges: self.ranges.clone(), counts: self.counts.clone() }
    }
}

impl<C: Compile> Default for Compiled<C> {
    fn default() -> Self {
        Self { policy: FirewallPolicy::default(), ranges: Box::default(), counts: BTreeMap::new() }
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
        let mut compiled = Self { policy: policy.clone(), ..Self::default() };
        policy.published.iter().for_each(|port| compiled.ranges.insert(port));
        policy.carried.iter().for_each(|port| compiled.ranges.insert_carried(port));
        let redirects = compiled.ranges.redirects(&policy.published).map(Part::Redirect);
        let openings = compiled.ranges.openings().map(Part::Opening);
        let carried = compiled.ranges.carried().map(Part::Carried);
        for part in items(policy).chain(redirects).chain(openings).chain(carried) {
            count_up::<C>(&mut compiled.counts, &part, policy, &mut BTreeMap::new())?;
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
        for part in self.parts(&was) {
            count_down::<C>(&mut self.counts, &part, &self.policy, &mut before);
        }
        for item in remove {
            self.take(&Identity::of(item));
        }
        for item in add {
            self.put(item.clone());
        }
        for part in self.parts(&was) {
            if let Err(conflict) = count_up::<C>(&mut self.counts, &part, &self.policy, &mut before) {
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

    /// What there is now of some items, and of the ranges that ports among them are in or beside.
    fn parts(&self, touched: &[(Identity, Option<PolicyItem>)]) -> Vec<Part> {
        let there = touched.iter().filter_map(|(identity, _)| Part::of(get(&self.policy, identity)?));
        let ports = || {
            touched.iter().filter_map(|(identity, _)| match identity {
                Identity::Port(port) => Some(port),
                _ => None,
            })
        };
        let carried = touched.iter().filter_map(|(identity, _)| match identity {
            Identity::Carried(port) => Some(port),
            _ => None,
        });
        let redirects = self.ranges.redirects_near(ports(), &self.policy.published);
        let openings = self.ranges.openings_near(ports());
        there
            .chain(redirects.into_iter().map(Part::Redirect))
            .chain(openings.into_iter().map(Part::Opening))
            .chain(self.ranges.carried_near(carried).into_iter().map(Part::Carried))
            .collect()
    }

    fn take(&mut self, identity: &Identity) {
        match identity {
            Identity::Bridge(name) => drop(self.policy.bridges.remove(name)),
            Identity::Endpoint(id) => drop(self.policy.endpoints.remove(id)),
            Identity::Port(port) => {
                if self.policy.published.remove(port) {
                    self.ranges.remove(port);
                }
            }
            Identity::Carried(port) => {
                if self.policy.carried.remove(port) {
                    self.ranges.remove_carried(port);
                }
            }
        }
    }

    fn put(&mut self, item: PolicyItem) {
        let policy = &mut self.policy;
        match item {
            PolicyItem::Bridge(bridge) => drop(policy.bridges.insert(bridge.bridge.clone(), bridge)),
            PolicyItem::Endpoint(endpoint) => drop(policy.endpoints.insert(endpoint.id.clone(), endpoint)),
            PolicyItem::Port(port) => {
                if !policy.published.contains(&port) {
                    self.ranges.insert(&port);
                    policy.published.insert(port);
                }
            }
            PolicyItem::Carried(port) => {
                if !policy.carried.contains(&port) {
                    self.ranges.insert_carried(&port);
                    policy.carried.insert(port);
                }
            }
        }
    }

    /// Takes the last change back, for when the kernel refused it.
    pub fn undo(&mut self, undo: Undo<C>) {
        for (identity, item) in undo.was {
            match item {
                Some(item) => self.put(item),
                None => self.take(&identity),
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

/// The items that are parts by themselves.
fn items(policy: &FirewallPolicy) -> impl Iterator<Item = Part> {
    let bridges = policy.bridges.values().cloned().map(Part::Bridge);
    let endpoints = policy.endpoints.values().cloned().map(Part::Endpoint);
    bridges.chain(endpoints)
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

fn count_down<C: Compile>(
    counts: &mut BTreeMap<C::Key, (C::Data, usize)>,
    part: &Part,
    policy: &FirewallPolicy,
    before: &mut Before<C>,
) {
    for (key, _) in C::part(part, policy) {
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
    part: &Part,
    policy: &FirewallPolicy,
    before: &mut Before<C>,
) -> Result<(), Conflict> {
    for (key, data) in C::part(part, policy) {
        before.entry(key.clone()).or_insert_with(|| counts.get(&key).cloned());
        let (there, count) = counts.entry(key).or_insert_with(|| (data.clone(), 0));
        if *there != data {
            return Err(Conflict {
                item: part.to_string(),
                conflict: format!("it leads to {there:?}, not {data:?}"),
            });
        }
        *count += 1;
    }
    Ok(())
}
