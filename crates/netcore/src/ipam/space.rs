//! The addresses of one subnet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::claims::Claims;
use super::runs::Runs;
use crate::model::{ContainerId, IpamConfig, SandboxId};

/// The number an address is.
pub(super) fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address a number is, in the family of `subnet`.
pub(super) fn address(subnet: IpNet, bits: u128) -> IpAddr {
    match subnet {
        // Truncation cannot happen: numbers come from addresses of this family and stay below its end.
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(bits).into(),
    }
}

/// Why an address is not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Somebody has it. Docker: `ErrIPAlreadyAllocated`.
    #[error("Address already in use")]
    InUse {
        /// The address.
        address: IpAddr,
        /// The container that has it, unless the network itself does.
        holder: Option<ContainerId>,
    },
    /// It lies outside of the subnet. Docker: `ErrIPOutOfRange`.
    #[error("requested address is out of range")]
    OutOfRange {
        /// The address.
        address: IpAddr,
    },
    /// Every address is taken.
    #[error("no available addresses in {subnet}")]
    Exhausted {
        /// The subnet.
        subnet: IpNet,
    },
    /// It will be free as soon as the kernel has cleaned up after this sandbox.
    #[error("{address} is being cleaned up")]
    Quarantined {
        /// The address.
        address: IpAddr,
        /// Whose clean-up to wait for.
        sandbox: SandboxId,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// In use by a sandbox, or kept for a container that asked for it by number.
    Active,
    /// Remembered for a container that does not run.
    Idle,
    /// Its namespace is going away; idle afterwards if the container still exists.
    Quarantined { sandbox: SandboxId, forgotten: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    container: ContainerId,
    state: State,
    /// Asked for by number: never lent to another.
    fixed: bool,
}

impl Lease {
    /// Its container gave it up; only the kernel's clean-up keeps it.
    fn is_forgotten(&self) -> bool {
        matches!(self.state, State::Quarantined { forgotten: true, .. })
    }

    /// Nobody uses it and nobody asked for it by number.
    fn is_lendable(&self) -> bool {
        self.state == State::Idle && !self.fixed
    }
}

/// How full a subnet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Addresses taken, with the gateway, auxiliary ones and those that no host may have.
    pub in_use: u64,
    /// Addresses of the dynamic range that are not taken.
    pub available: u64,
}

/// Who has which address of one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    subnet: IpNet,
    range: IpNet,
    /// Taken by anything, an idle lease too.
    taken: Runs,
    leases: BTreeMap<u128, Lease>,
    by_container: BTreeMap<ContainerId, u128>,
    /// Who waits for an address that another has. Nobody waits for one that is free or lendable.
    claims: Claims,
    /// The network's own: gateway and auxiliary addresses.
    own: BTreeMap<u128, String>,
    /// Addresses are given one after the other, and begin anew only at the end.
    serial: bool,
    /// The last address given out, if they are given serially.
    last: Option<u128>,
}

impl AddressSpace {
    /// All of the subnet free, but for its gateway, its auxiliary addresses and those that no host
    /// may have: network and broadcast address (none in a /31, RFC 3021), the subnet-router anycast
    /// address of IPv6 (RFC 4291, 2.6.1).
    pub fn new(config: &IpamConfig) -> Self {
        let subnet = config.subnet.trunc();
        let mut space = Self {
            subnet,
            range: config.ip_range.map_or(subnet, |range| range.trunc()),
            taken: Runs::default(),
            leases: BTreeMap::new(),
            by_container: BTreeMap::new(),
            claims: Claims::default(),
            own: BTreeMap::new(),
            serial: false,
            last: None,
        };
        let host_bits = subnet.max_prefix_len() - subnet.prefix_len();
        if host_bits > 1 {
            space.taken.insert(bits_of(subnet.network()));
            if matches!(subnet, IpNet::V4(_)) {
                space.taken.insert(bits_of(subnet.broadcast()));
            }
        }
        for (name, address) in &config.auxiliary {
            space.keep(*address, name);
        }
        if let Some(gateway) = config.gateway {
            space.keep(gateway, "gateway");
        }
        space
    }

    /// Gives addresses one after the other instead of the lowest free one, so that one that was given
    /// back is not soon another's. Docker: `--ipam-opt com.docker.network.ipam.serial=true`.
    pub fn serial(self, serial: bool) -> Self {
        Self { serial, ..self }
    }

    /// The last address given, if they are given one after the other.
    pub fn last_given(&self) -> Option<IpAddr> {
        self.last.map(|bits| address(self.subnet, bits))
    }

    /// Goes on after an address, if addresses are given one after the other.
    pub fn resume_after(&mut self, last: IpAddr) {
        if self.serial && self.subnet.contains(&last) {
            self.last = Some(bits_of(last));
        }
    }

    fn next_gap(&self) -> Option<u128> {
        let (first, last) = (bits_of(self.range.network()), bits_of(self.range.broadcast()));
        let after = self.last.filter(|_| self.serial).and_then(|bits| bits.checked_add(1));
        let ahead = after.filter(|from| (first..=last).contains(from));
        ahead.and_then(|from| self.taken.first_gap(from, last)).or_else(|| self.taken.first_gap(first, last))
    }

    fn keep(&mut self, address: IpAddr, name: &str) {
        if self.subnet.contains(&address) {
            self.taken.insert(bits_of(address));
            self.own.insert(bits_of(address), name.to_owned());
        }
    }

    /// Who has an address: a container, or the network itself (`gateway` or an auxiliary address).
    pub fn own_name(&self, of: IpAddr) -> Option<&str> {
        self.own.get(&bits_of(of)).map(String::as_str)
    }

    /// The subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The lowest address of the dynamic range that could be the gateway of a new network.
    pub fn first_free(&self) -> Option<IpAddr> {
        let gap = self.taken.first_gap(bits_of(self.range.network()), bits_of(self.range.broadcast()))?;
        Some(address(self.subnet, gap))
    }

    /// What this container has, active or not.
    pub fn address_of(&self, container: &ContainerId) -> Option<IpAddr> {
        self.by_container.get(container).map(|bits| address(self.subnet, *bits))
    }

    /// Gives a container an address that it uses now: the one it asks for; else the one it had; else
    /// the lowest free one; else, rather than none, the lowest that another container had and does
    /// not use now.
    pub fn lease(&mut self, container: &ContainerId, wanted: Option<IpAddr>) -> Result<IpAddr, IpamError> {
        match wanted {
            Some(address) => self.lease_fixed(container, address),
            None => self.lease_any(container),
        }
    }

    /// What [`AddressSpace::reserve`] would refuse: what no container can ever have here.
    pub fn check(&self, wanted: IpAddr) -> Result<(), IpamError> {
        let bits = bits_of(wanted);
        if !self.subnet.contains(&wanted) {
            Err(IpamError::OutOfRange { address: wanted })
        } else if self.taken.contains(bits) && !self.leases.contains_key(&bits) {
            Err(IpamError::InUse { address: wanted, holder: None })
        } else {
            Ok(())
        }
    }

    /// Keeps an address for a container, running or not, until [`AddressSpace::forget`]. If another has it, it
    /// is the container's as soon as that one gives it up, in the order of asking; until then the holder.
    pub fn reserve(
        &mut self,
        container: &ContainerId,
        wanted: IpAddr,
    ) -> Result<Option<ContainerId>, IpamError> {
        self.check(wanted)?;
        let bits = bits_of(wanted);
        if let Some(lease) = self.leases.get_mut(&bits)
            && lease.container == *container
            && !lease.is_forgotten()
            // What it merely had, and is about to lose, goes to who waits for it.
            && (lease.fixed || lease.state == State::Active || !self.claims.any(bits))
        {
            lease.fixed = true;
            self.claims.leave(container);
            return Ok(None);
        }
        if self.by_container.contains_key(container) {
            self.forget(container);
        }
        self.claims.join(container, bits);
        self.hand_over(bits);
        let holder = self.leases.get(&bits).map(|lease| lease.container.clone());
        Ok(holder.filter(|_| self.by_container.get(container) != Some(&bits)))
    }

    /// Gives an address that nobody uses or keeps to who came first of those who wait for it.
    fn hand_over(&mut self, bits: u128) {
        let available = match self.leases.get(&bits) {
            Some(lease) => lease.is_lendable(),
            None => !self.taken.contains(bits),
        };
        if available && let Some(next) = self.claims.take_first(bits) {
            self.remove(bits);
            self.put(bits, &next, true);
            self.deactivate(&next);
        }
    }

    fn lease_fixed(&mut self, container: &ContainerId, wanted: IpAddr) -> Result<IpAddr, IpamError> {
        if !self.subnet.contains(&wanted) {
            return Err(IpamError::OutOfRange { address: wanted });
        }
        let bits = bits_of(wanted);
        match self.leases.get_mut(&bits) {
            Some(lease) if lease.container == *container => {
                if let State::Quarantined { sandbox, .. } = &lease.state {
                    return Err(IpamError::Quarantined { address: wanted, sandbox: sandbox.clone() });
                }
                lease.state = State::Active;
                lease.fixed = true;
                return Ok(wanted);
            }
            // It becomes free, or idle and lendable, when the kernel is done.
            Some(Lease { state: State::Quarantined { sandbox, forgotten }, fixed, .. })
                if *forgotten || !*fixed =>
            {
                return Err(IpamError::Quarantined { address: wanted, sandbox: sandbox.clone() });
            }
            // Who asks for it by number gets it.
            Some(lease) if lease.is_lendable() => {}
            Some(lease) => {
                return Err(IpamError::InUse { address: wanted, holder: Some(lease.container.clone()) });
            }
            None if self.taken.contains(bits) => {
                return Err(IpamError::InUse { address: wanted, holder: None });
            }
            None => {}
        }
        self.forget_unless_quarantined(container)?;
        self.claims.leave(container);
        self.remove(bits);
        self.put(bits, container, true);
        Ok(wanted)
    }

    fn lease_any(&mut self, container: &ContainerId) -> Result<IpAddr, IpamError> {
        if let Some(bits) = self.by_container.get(container).copied()
            && let Some(lease) = self.leases.get_mut(&bits)
        {
            let had = address(self.subnet, bits);
            if let State::Quarantined { sandbox, .. } = &lease.state {
                return Err(IpamError::Quarantined { address: had, sandbox: sandbox.clone() });
            }
            lease.state = State::Active;
            return Ok(had);
        }
        self.claims.leave(container);
        let (first, last) = (bits_of(self.range.network()), bits_of(self.range.broadcast()));
        let bits = match self.next_gap() {
            Some(bits) => bits,
            None => {
                let bits = self.reclaimable(first, last)?;
                self.remove(bits);
                bits
            }
        };
        self.put(bits, container, false);
        if self.serial {
            self.last = Some(bits);
        }
        Ok(address(self.subnet, bits))
    }

    /// The lowest idle address; if there is none, the quarantine to wait for.
    fn reclaimable(&self, first: u128, last: u128) -> Result<u128, IpamError> {
        let mut waiting = None;
        for (bits, lease) in self.leases.range(first..=last) {
            match &lease.state {
                State::Idle if !lease.fixed => return Ok(*bits),
                State::Quarantined { sandbox, .. }
                    if !lease.fixed && waiting.is_none() && !self.claims.any(*bits) =>
                {
                    waiting = Some(IpamError::Quarantined {
                        address: address(self.subnet, *bits),
                        sandbox: sandbox.clone(),
                    });
                }
                _ => {}
            }
        }
        Err(waiting.unwrap_or(IpamError::Exhausted { subnet: self.subnet }))
    }

    fn forget_unless_quarantined(&mut self, container: &ContainerId) -> Result<(), IpamError> {
        let Some(bits) = self.by_container.get(container).copied() else { return Ok(()) };
        if let Some(Lease { state: State::Quarantined { sandbox, .. }, .. }) = self.leases.get(&bits) {
            let sandbox = sandbox.clone();
            return Err(IpamError::Quarantined { address: address(self.subnet, bits), sandbox });
        }
        self.release(bits);
        Ok(())
    }

    fn put(&mut self, bits: u128, container: &ContainerId, fixed: bool) {
        self.taken.insert(bits);
        self.by_container.insert(container.clone(), bits);
        self.leases.insert(bits, Lease { container: container.clone(), state: State::Active, fixed });
    }

    fn remove(&mut self, bits: u128) {
        if let Some(lease) = self.leases.remove(&bits) {
            if self.by_container.get(&lease.container) == Some(&bits) {
                self.by_container.remove(&lease.container);
            }
            self.taken.remove(bits);
        }
    }

    /// Free, or the next one's.
    fn release(&mut self, bits: u128) {
        self.remove(bits);
        self.hand_over(bits);
    }

    /// The container does not use its address any more and no trace of it is on the host: it is
    /// remembered as long as nobody else waits for it; one asked for by number stays kept.
    pub fn deactivate(&mut self, container: &ContainerId) {
        let Some(bits) = self.by_container.get(container).copied() else { return };
        if let Some(lease) = self.leases.get_mut(&bits) {
            lease.state = State::Idle;
        }
        self.hand_over(bits);
    }

    /// The container's address stays unused until [`AddressSpace::end_quarantine`] for the sandbox.
    pub fn quarantine(&mut self, container: &ContainerId, sandbox: &SandboxId) {
        if let Some(lease) = self.by_container.get(container).and_then(|bits| self.leases.get_mut(bits)) {
            lease.state = State::Quarantined { sandbox: sandbox.clone(), forgotten: false };
        }
    }

    /// The sandbox is gone from the host: its addresses are idle or free again.
    pub fn end_quarantine(&mut self, of: &SandboxId) {
        let over: Vec<(u128, bool)> = self
            .leases
            .iter()
            .filter_map(|(bits, lease)| match &lease.state {
                State::Quarantined { sandbox, forgotten } if sandbox == of => Some((*bits, *forgotten)),
                _ => None,
            })
            .collect();
        for (bits, forgotten) in over {
            if forgotten {
                self.remove(bits);
            } else if let Some(lease) = self.leases.get_mut(&bits) {
                lease.state = State::Idle;
            }
            self.hand_over(bits);
        }
    }

    /// The container is removed or leaves the network: its address is free, at once or when its
    /// quarantine ends, and it waits for none.
    pub fn forget(&mut self, container: &ContainerId) {
        self.claims.leave(container);
        let Some(bits) = self.by_container.get(container).copied() else { return };
        match self.leases.get_mut(&bits) {
            Some(Lease { state: State::Quarantined { forgotten, .. }, fixed, .. }) => {
                *forgotten = true;
                *fixed = false;
                self.by_container.remove(container);
            }
            _ => self.release(bits),
        }
    }

    /// Takes back what a store remembers: idle, as nothing is known of the host yet. False if another
    /// has the address or it is not of this subnet.
    pub fn restore(&mut self, container: &ContainerId, address: IpAddr, fixed: bool) -> bool {
        let bits = bits_of(address);
        if !self.subnet.contains(&address)
            || self.taken.contains(bits)
            || self.by_container.contains_key(container)
        {
            return false;
        }
        self.put(bits, container, fixed);
        self.deactivate(container);
        true
    }

    /// How full it is.
    pub fn usage(&self) -> Usage {
        let clamp = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        let (first, last) = (bits_of(self.range.network()), bits_of(self.range.broadcast()));
        let size = (last - first).saturating_add(1);
        Usage {
            in_use: clamp(
                self.taken.count_within(bits_of(self.subnet.network()), bits_of(self.subnet.broadcast())),
            ),
            available: clamp(size.saturating_sub(self.taken.count_within(first, last))),
        }
    }
}
