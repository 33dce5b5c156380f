//! The nftables backend: the policy in force, and the socket that owns its tables.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portolan_netcore::firewall::ruleset::{ElementKey, Queue, SetName, TableFamily};
use portolan_netcore::firewall::{
    Change, Compiled, Elements, FirewallPolicy, PolicyItem, TABLE, Transaction, USER_TABLE, floor, skeleton,
    user_table,
};

use portolan_netcore::host::Restored;

use super::batch::Batch;
use super::consts::{
    NFPROTO_UNSPEC, NFT_MSG_GETGEN, NFT_MSG_GETTABLE, NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST,
    NFTA_TABLE_NAME, NFTA_TABLE_OWNER,
};
use super::encode;
use super::socket::NftSocket;
use super::wire::{attributes, be32_of};
use crate::firewall::FirewallError;
use crate::iptables;

/// The nftables backend.
#[derive(Debug)]
pub(crate) struct NftFirewall {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    socket: NftSocket,
    /// Flags of our tables: `owner|persist`, or none where the kernel has not both. `owner` alone would
    /// take the rules away with the engine.
    flags: u32,
    in_force: Option<Compiled<Elements>>,
    /// The rule set's generation after our last commit, where nobody keeps others off our tables.
    generation: Option<u32>,
    /// The other backend's leftovers have been looked for.
    cleaned: bool,
    /// The tables are those that stand behind iptables' rules.
    floor: bool,
    /// Where the engine hears of connections before the host accepts them.
    queue: Option<Queue>,
}

const FAMILIES: [TableFamily; 2] = [TableFamily::Inet, TableFamily::Bridge];

impl NftFirewall {
    /// `kept` is the socket of a process that is gone.
    pub(crate) fn open(kept: Option<OwnedFd>, queue: Option<Queue>) -> Result<Self, FirewallError> {
        Self::open_for(NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST, false, kept, queue)
    }

    /// What stands behind the iptables backend: the source guard, which iptables has no word for, and a
    /// floor for when its rules are flushed.
    pub(crate) fn open_floor(kept: Option<OwnedFd>, queue: Option<Queue>) -> Result<Self, FirewallError> {
        Self::open_for(NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST, true, kept, queue)
    }

    /// With flags of 0 it is as on a kernel that keeps no table for us.
    #[cfg(test)]
    pub(super) fn open_with(flags: u32) -> Result<Self, FirewallError> {
        Self::open_for(flags, false, None, None)
    }

    fn open_for(
        flags: u32,
        floor: bool,
        kept: Option<OwnedFd>,
        queue: Option<Queue>,
    ) -> Result<Self, FirewallError> {
        let socket = NftSocket::open_again(kept)?;
        let state = State { socket, flags, in_force: None, generation: None, cleaned: floor, floor, queue };
        Ok(Self { state: Mutex::new(state) })
    }

    /// Fails if the kernel has no nf_tables.
    pub(crate) fn probe(&self) -> Result<(), FirewallError> {
        let state = self.lock();
        FAMILIES.iter().try_for_each(|family| table(&state.socket, *family, TABLE).map(drop))
    }

    pub(crate) fn apply(&self, transaction: &Transaction) -> Result<(), FirewallError> {
        let mut state = self.lock();
        match transaction {
            Transaction::Replace(policy) => state.replace(policy),
            Transaction::Change { remove, add } => state.change(remove, add),
            Transaction::Clear => {
                state.in_force = None;
                delete_ours(&state.socket)
            }
        }
    }

    pub(crate) fn verify(&self) -> Result<Option<FirewallPolicy>, FirewallError> {
        let state = self.lock();
        let Some(in_force) = &state.in_force else {
            return Ok(None);
        };
        let unchanged = state.unchanged()?;
        Ok(unchanged.then(|| in_force.policy().clone()))
    }

    /// See [`crate::Firewall::restore`]. The lock is held from the look to the repair: nothing that is
    /// published meanwhile is lost.
    pub(crate) fn restore(&self) -> Result<Restored, FirewallError> {
        let mut state = self.lock();
        // Before there is a policy there is no table of the user's, either.
        let Some(lost) = state.in_force.take() else { return Ok(Restored::default()) };
        let (users, unchanged) = match state.look() {
            Ok(found) => found,
            Err(error) => {
                state.in_force = Some(lost);
                return Err(error);
            }
        };
        if unchanged {
            state.in_force = Some(lost);
            return Ok(Restored { rules: false, users });
        }
        let again = Compiled::new(lost.policy())
            .map_err(|conflict| FirewallError::Inconsistent(conflict.to_string()));
        match again.and_then(|compiled| state.install(compiled)) {
            Ok(()) => Ok(Restored { rules: true, users }),
            Err(error) => {
                state.in_force = Some(lost);
                Err(error)
            }
        }
    }

    /// Another descriptor of the socket that owns the tables.
    pub(crate) fn owner(&self) -> Option<OwnedFd> {
        self.lock().socket.duplicate()
    }

    /// The socket's netlink address.
    pub(crate) fn port(&self) -> u32 {
        self.lock().socket.port()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic between two assignments cannot leave more than an outdated policy, which verify sees.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn replace(&mut self, policy: &FirewallPolicy) -> Result<(), FirewallError> {
        let compiled =
            Compiled::new(policy).map_err(|conflict| FirewallError::Inconsistent(conflict.to_string()))?;
        self.install(compiled)?;
        if !self.cleaned {
            iptables::remove_leftovers()?;
            self.cleaned = true;
        }
        Ok(())
    }

    /// The tables are as our last transaction left them.
    fn unchanged(&self) -> Result<bool, FirewallError> {
        if self.flags == 0 {
            return Ok(self.generation.is_some() && generation(&self.socket)? == self.generation);
        }
        // Nobody but the owner can change an owned table, so being its owner is enough.
        for family in FAMILIES {
            if !owned(&self.socket, family)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the user's table again if it is gone (true), and sees whether ours are as we left them.
    fn look(&mut self) -> Result<(bool, bool), FirewallError> {
        // Where others can change our tables, what we do to the rule set must not look like it.
        let unchanged = self.unchanged()?;
        let users = !self.floor && add_user_table(&self.socket)?;
        if users && unchanged && self.flags == 0 {
            self.generation = generation(&self.socket)?;
        }
        Ok((users, unchanged))
    }

    /// Makes the tables be this, whatever was there: gone and back in one transaction.
    fn install(&mut self, compiled: Compiled<Elements>) -> Result<(), FirewallError> {
        self.in_force = None;
        if !self.floor {
            add_user_table(&self.socket)?;
        }
        let mut result = self.socket.commit(self.replacement(&compiled)?);
        if let Err(FirewallError::Kernel { errno: libc::EOPNOTSUPP | libc::EINVAL, what, .. }) = &result
            && what.starts_with("add table")
            && self.flags != 0
        {
            tracing::info!(
                "this kernel cannot keep a table for us (before Linux 6.9): others may change our rules"
            );
            self.flags = 0;
            result = self.socket.commit(self.replacement(&compiled)?);
        }
        result?;
        self.committed(compiled)
    }

    fn change(&mut self, remove: &[PolicyItem], add: &[PolicyItem]) -> Result<(), FirewallError> {
        let Some(mut compiled) = self.in_force.take() else {
            return Err(FirewallError::Inconsistent(
                "no policy is in force yet: replace it as a whole first".into(),
            ));
        };
        let Change { mut difference, undo } = match compiled.change(remove, add) {
            Ok(change) => change,
            Err(conflict) => {
                self.in_force = Some(compiled);
                return Err(FirewallError::Inconsistent(conflict.to_string()));
            }
        };
        let moved = difference.split_off_moved();
        match self.socket.commit(encode::difference(&difference, |key| self.has(key))) {
            Ok(()) if moved.remove.is_empty() => self.committed(compiled),
            Ok(()) => match self.socket.commit(encode::difference(&moved, |key| self.has(key))) {
                Ok(()) => self.committed(compiled),
                // What is there beyond what is wanted goes with everything.
                Err(error) => {
                    tracing::warn!(%error, "what has become a range stays beside it: replacing the firewall as a whole");
                    self.install(compiled)
                }
            },
            // What we take out is not there, or what we put in is, or part of it (ENOTEMPTY): somebody else was at
            // our tables.
            Err(FirewallError::Kernel {
                errno: libc::ENOENT | libc::EEXIST | libc::ENOTEMPTY,
                what,
                reason,
                ..
            }) => {
                tracing::warn!(what, reason, "firewall drifted: replacing it as a whole");
                self.install(compiled)
            }
            Err(error) => {
                compiled.undo(undo);
                self.in_force = Some(compiled);
                Err(error)
            }
        }
    }

    fn replacement(&self, compiled: &Compiled<Elements>) -> Result<Batch, FirewallError> {
        let mut batch = Batch::new();
        let tables = if self.floor { floor(self.queue) } else { skeleton(self.queue) };
        for our in &tables {
            if table(&self.socket, our.family, our.name)?.is_some() {
                encode::delete_table(&mut batch, our.family, our.name);
            }
            encode::add_table(&mut batch, our, self.flags);
        }
        encode::add_elements(&mut batch, compiled.iter().filter(|(key, _)| self.has(key)));
        Ok(batch)
    }

    /// Whether an element is ours to make. Beside iptables, frames between containers are iptables'.
    fn has(&self, key: &ElementKey) -> bool {
        !self.floor || key.set != SetName::IccOff
    }

    fn committed(&mut self, compiled: Compiled<Elements>) -> Result<(), FirewallError> {
        self.in_force = Some(compiled);
        if self.flags == 0 {
            self.generation = generation(&self.socket)?;
        }
        Ok(())
    }
}

/// Removes what this backend left, if it did.
pub(crate) fn remove_tables(kept: Option<OwnedFd>) -> Result<(), FirewallError> {
    delete_ours(&NftSocket::open_again(kept)?)
}

fn delete_ours(socket: &NftSocket) -> Result<(), FirewallError> {
    let mut batch = Batch::new();
    for family in FAMILIES {
        if table(socket, family, TABLE)?.is_some() {
            encode::delete_table(&mut batch, family, TABLE);
        }
    }
    socket.commit(batch)
}

/// The user's table is made if it is not there, and is the user's from then on. True if it was not.
fn add_user_table(socket: &NftSocket) -> Result<bool, FirewallError> {
    if table(socket, TableFamily::Inet, USER_TABLE)?.is_some() {
        return Ok(false);
    }
    let mut batch = Batch::new();
    encode::add_table(&mut batch, &user_table(), 0);
    socket.commit(batch)?;
    Ok(true)
}

/// The attributes of a table, if it is there.
pub(super) fn table(
    socket: &NftSocket,
    family: TableFamily,
    name: &str,
) -> Result<Option<Vec<u8>>, FirewallError> {
    socket
        .get(NFT_MSG_GETTABLE, encode::family(family), "look for a table", |w| w.text(NFTA_TABLE_NAME, name))
}

fn owned(socket: &NftSocket, family: TableFamily) -> Result<bool, FirewallError> {
    let Some(found) = table(socket, family, TABLE)? else {
        return Ok(false);
    };
    let owner =
        attributes(&found).find(|(kind, _)| *kind == NFTA_TABLE_OWNER).and_then(|(_, value)| be32_of(value));
    Ok(owner == Some(socket.port()))
}

const NFTA_GEN_ID: u16 = 1;

fn generation(socket: &NftSocket) -> Result<Option<u32>, FirewallError> {
    let answer = socket.get(NFT_MSG_GETGEN, NFPROTO_UNSPEC, "read the generation", |_| {})?;
    Ok(answer.and_then(|found| {
        attributes(&found).find(|(kind, _)| *kind == NFTA_GEN_ID).and_then(|(_, value)| be32_of(value))
    }))
}
