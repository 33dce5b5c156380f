//! Addresses of containers, and remembering them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_netcore::ipam::{AddressSpace, IpamError};
use portolan_netcore::model::{ContainerId, Network, NetworkId, SandboxId};

use super::{Owner, Spaces, Turn};
use crate::records::{Batch, LeaseRecord, SerialRecord};
use crate::{AttachSpec, Error};

/// What an endpoint is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ipv4: Option<Ipv4Net>,
    pub(super) ipv6: Option<Ipv6Net>,
}

impl Owner {
    /// Gives a container its addresses on a network, those of both families or none.
    pub(super) fn take_addresses(
        &mut self,
        network: &NetworkId,
        container: &ContainerId,
        attach: &AttachSpec,
    ) -> Result<Turn<Addresses>, Error> {
        let had = self.has_lease(network, container);
        let v4 = self.take_family(network, container, attach.ipv4.map(IpAddr::V4), true);
        let both = v4.and_then(|v4| {
            Ok((v4, self.take_family(network, container, attach.ipv6.map(IpAddr::V6), false)?))
        });
        match both {
            Ok((v4, v6)) => {
                let ipv4 = v4.and_then(|net| if let IpNet::V4(net) = net { Some(net) } else { None });
                let ipv6 = v6.and_then(|net| if let IpNet::V6(net) = net { Some(net) } else { None });
                Ok(Turn::Done(Addresses { ipv4, ipv6 }))
            }
            Err(IpamError::Quarantined { .. }) => {
                self.return_addresses(network, container, had);
                Ok(Turn::Later)
            }
            Err(error) => {
                self.return_addresses(network, container, had);
                Err(self.lease_error(network, error))
            }
        }
    }

    fn take_family(
        &mut self,
        network: &NetworkId,
        container: &ContainerId,
        wanted: Option<IpAddr>,
        v4: bool,
    ) -> Result<Option<IpNet>, IpamError> {
        let Some(spaces) = self.spaces.get_mut(network) else { return Ok(None) };
        let spaces = if v4 { &mut spaces.v4 } else { &mut spaces.v6 };
        if spaces.is_empty() {
            return Ok(None);
        }
        // The subnet of the address asked for; the one the container had an address of; the first
        // that has one left.
        let at = match wanted {
            Some(address) => spaces.iter().position(|space| space.subnet().contains(&address)),
            None => spaces.iter().position(|space| space.address_of(container).is_some()),
        };
        let given = |space: &mut AddressSpace, address| IpNet::new(address, space.subnet().prefix_len()).ok();
        if let Some(at) = at {
            let address = spaces[at].lease(container, wanted)?;
            let others = spaces.iter_mut().enumerate().filter(|(other, _)| *other != at);
            others.for_each(|(_, space)| space.forget(container));
            return Ok(given(&mut spaces[at], address));
        }
        let mut refused = None;
        for space in spaces {
            match space.lease(container, wanted) {
                Ok(address) => return Ok(given(space, address)),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }

    pub(super) fn has_lease(&self, network: &NetworkId, container: &ContainerId) -> bool {
        self.leases.get(container).is_some_and(|leases| leases.contains_key(network))
    }

    /// Undoes [`Owner::take_addresses`]: what the container had before it keeps, unused.
    pub(super) fn return_addresses(&mut self, network: &NetworkId, container: &ContainerId, had: bool) {
        self.each_space(
            network,
            |space| if had { space.deactivate(container) } else { space.forget(container) },
        );
    }

    fn each_space(&mut self, network: &NetworkId, change: impl Fn(&mut AddressSpace)) {
        if let Some(spaces) = self.spaces.get_mut(network) {
            spaces.all_mut().for_each(change);
        }
    }

    /// The addresses stay out of use until the sandbox is gone from the host.
    pub(super) fn quarantine(&mut self, network: &NetworkId, container: &ContainerId, sandbox: &SandboxId) {
        self.each_space(network, |space| space.quarantine(container, sandbox));
    }

    /// The sandbox is gone from the host.
    pub(crate) fn end_quarantine(&mut self, sandbox: &SandboxId) {
        if self.dying.remove(sandbox) {
            self.free_addresses(sandbox);
        }
        self.settle();
    }

    /// Nothing of the sandbox is heard any more: its addresses may be given to others.
    pub(super) fn free_addresses(&mut self, sandbox: &SandboxId) {
        for spaces in self.spaces.values_mut() {
            spaces.all_mut().for_each(|space| space.end_quarantine(sandbox));
        }
    }

    /// The record of what a container has now, into the batch if it is news.
    pub(super) fn note_lease(
        &self,
        batch: &mut Batch,
        network: &NetworkId,
        container: &ContainerId,
        attach: &AttachSpec,
        addresses: Addresses,
    ) -> Result<Option<LeaseRecord>, Error> {
        if addresses == Addresses::default() {
            return Ok(None);
        }
        let plain = (addresses.ipv4.map(|net| net.addr()), addresses.ipv6.map(|net| net.addr()));
        let lease = self.lease_record(network, container, attach, plain);
        if self.lease_of(network, container) != Some(&lease) {
            batch.put_lease(&lease)?;
            if let Some(serial) = self.serial_record(network) {
                batch.put_serial(&serial)?;
            }
        }
        Ok(Some(lease))
    }

    fn lease_of(&self, network: &NetworkId, container: &ContainerId) -> Option<&LeaseRecord> {
        self.leases.get(container).and_then(|leases| leases.get(network))
    }

    fn lease_record(
        &self,
        network: &NetworkId,
        container: &ContainerId,
        attach: &AttachSpec,
        (ipv4, ipv6): (Option<Ipv4Addr>, Option<Ipv6Addr>),
    ) -> LeaseRecord {
        let fixed = attach.ipv4.is_some() || attach.ipv6.is_some();
        let known = self.lease_of(network, container);
        // Who asks for another address stands at the end of the line.
        let place = known.filter(|known| {
            known.fixed
                && attach.ipv4.is_none_or(|asked| known.ipv4 == Some(asked))
                && attach.ipv6.is_none_or(|asked| known.ipv6 == Some(asked))
        });
        LeaseRecord {
            container: container.clone(),
            network: network.clone(),
            ipv4,
            ipv6,
            fixed,
            place: place.map_or_else(|| if fixed { self.next_place } else { 0 }, |known| known.place),
            name: attach.container_name.clone(),
        }
    }

    /// How far a network that gives addresses in turn has come.
    fn serial_record(&self, network: &NetworkId) -> Option<SerialRecord> {
        let spaces = self.spaces.get(network)?;
        let last: Vec<IpAddr> = spaces.all().filter_map(AddressSpace::last_given).collect();
        (!last.is_empty()).then(|| SerialRecord { network: network.clone(), last })
    }

    pub(super) fn keep_lease(&mut self, lease: Option<LeaseRecord>) {
        if let Some(lease) = lease {
            self.next_place = self.next_place.max(lease.place.saturating_add(1));
            self.leases.entry(lease.container.clone()).or_default().insert(lease.network.clone(), lease);
        }
    }

    /// Keeps the addresses that a container asks for by number, for as long as it exists. For one that
    /// another has it waits, and only using it is refused until then.
    pub(crate) fn reserve(
        &mut self,
        container: &ContainerId,
        attach: &AttachSpec,
    ) -> Result<NetworkId, Error> {
        let network = self.check_attach(attach)?;
        // Without subnets an address is a server's to give.
        let lends = |spaces: &Spaces| spaces.all().next().is_some();
        let asked = [attach.ipv4.map(IpAddr::V4), attach.ipv6.map(IpAddr::V6)];
        let asked: Vec<IpAddr> = asked.into_iter().flatten().collect();
        if asked.is_empty() || !self.spaces.get(&network).is_some_and(lends) {
            return Ok(network);
        }
        for address in &asked {
            self.check_address(&network, *address).map_err(|error| self.lease_error(&network, error))?;
        }
        let known = self.lease_of(&network, container);
        let addresses = (
            attach.ipv4.or(known.and_then(|lease| lease.ipv4)),
            attach.ipv6.or(known.and_then(|lease| lease.ipv6)),
        );
        let lease = self.lease_record(&network, container, attach, addresses);
        let mut batch = Batch::default();
        batch.put_lease(&lease)?;
        self.commit(&batch)?;
        self.keep_lease(Some(lease));
        self.claim(&network, container, &asked);
        Ok(network)
    }

    fn check_address(&self, network: &NetworkId, address: IpAddr) -> Result<(), IpamError> {
        let mut spaces = self.spaces.get(network).into_iter().flat_map(Spaces::all);
        match spaces.find(|space| space.subnet().contains(&address)) {
            Some(space) => space.check(address),
            None => Err(IpamError::OutOfRange { address }),
        }
    }

    /// The addresses, in place of what the container has of their families; those that another has once
    /// it gives them up.
    pub(super) fn claim(&mut self, network: &NetworkId, container: &ContainerId, addresses: &[IpAddr]) {
        for address in addresses {
            self.each_space(network, |space| {
                if space.subnet().contains(address) {
                    // False only for what no container can have: it was checked, or is of no use any more.
                    if let Err(error) = space.reserve(container, *address) {
                        tracing::warn!(%container, %error, %address, "an address cannot be kept");
                    }
                } else if space.subnet().addr().is_ipv4() == address.is_ipv4() {
                    space.forget(container);
                }
            });
        }
    }

    /// Gives back what a container has on a network.
    pub(crate) fn unreserve(&mut self, container: &ContainerId, network: &NetworkId) -> Result<(), Error> {
        if !self.has_lease(network, container) {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.delete_lease(network, container);
        self.commit(&batch)?;
        self.drop_lease(network, container);
        Ok(())
    }

    pub(super) fn drop_lease(&mut self, network: &NetworkId, container: &ContainerId) {
        self.each_space(network, |space| space.forget(container));
        if let Some(leases) = self.leases.get_mut(container) {
            leases.remove(network);
            if leases.is_empty() {
                self.leases.remove(container);
            }
        }
    }

    /// A container is called something else from now on.
    pub(super) fn rename_leases(&mut self, container: &ContainerId, name: &str) -> Result<(), Error> {
        let Some(leases) = self.leases.get(container) else { return Ok(()) };
        let named = |lease: &LeaseRecord| LeaseRecord { name: name.to_owned(), ..lease.clone() };
        let renamed: Vec<LeaseRecord> = leases.values().map(named).collect();
        let mut batch = Batch::default();
        for lease in &renamed {
            batch.put_lease(lease)?;
        }
        self.commit(&batch)?;
        renamed.into_iter().for_each(|lease| self.keep_lease(Some(lease)));
        Ok(())
    }

    /// Gives back everything that a container has.
    pub(crate) fn forget(&mut self, container: &ContainerId) -> Result<(), Error> {
        let Some(leases) = self.leases.get(container) else { return Ok(()) };
        let networks: Vec<NetworkId> = leases.keys().cloned().collect();
        let mut batch = Batch::default();
        for network in &networks {
            batch.delete_lease(network, container);
        }
        self.commit(&batch)?;
        for network in &networks {
            self.drop_lease(network, container);
        }
        Ok(())
    }

    /// A container as people know it: by its name if it runs on the network, else by its id.
    fn holder_name(&self, network: &NetworkId, container: &ContainerId) -> String {
        let of = |endpoint: &&portolan_netcore::model::Endpoint| {
            let sandbox = self.desired.sandboxes.get(&endpoint.sandbox);
            sandbox.is_some_and(|sandbox| sandbox.container == *container)
        };
        match self.endpoints_of(network).find(of) {
            Some(endpoint) => format!("container {} ({})", endpoint.container_name, container.short()),
            None => match self.lease_of(network, container) {
                Some(lease) if !lease.name.is_empty() => {
                    format!("container {} ({})", lease.name, container.short())
                }
                _ => format!("container {}", container.short()),
            },
        }
    }

    fn own_name(&self, network: &NetworkId, address: IpAddr) -> String {
        let spaces = self.spaces.get(network).into_iter().flat_map(|spaces| spaces.all());
        match spaces.into_iter().find_map(|space| space.own_name(address)) {
            Some("gateway") => "the network itself: it is its gateway".to_owned(),
            Some(name) => format!("the network itself: it is its auxiliary address {name}"),
            None => "the network itself".to_owned(),
        }
    }

    fn lease_error(&self, network: &NetworkId, error: IpamError) -> Error {
        match (error, self.network(network)) {
            (IpamError::InUse { address, holder }, _) => {
                let by = match holder {
                    Some(container) => self.holder_name(network, &container),
                    None => self.own_name(network, address),
                };
                Error::forbidden(format!("Address already in use: {address} belongs to {by}"))
            }
            (IpamError::OutOfRange { address }, _) => {
                Error::invalid(format!("no configured subnet or ip-range contain the IP address {address}"))
            }
            (IpamError::Exhausted { subnet }, Ok(Network { name, id, .. })) => {
                let version = if matches!(subnet, IpNet::V4(_)) { 4 } else { 6 };
                Error::internal(format!(
                    "no available IPv{version} addresses on this network's address pools: {name} ({id})"
                ))
            }
            (error, _) => Error::internal(error.to_string()),
        }
    }
}
