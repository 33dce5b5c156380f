//! The policy in force, and what of the other backend and of earlier runs goes.

use std::fs;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use portolan_netcore::firewall::iptables::{Found, Lines, OUR_CHAIN, XTable, change, removal, replacement};
use portolan_netcore::firewall::ruleset::{IpFamily, Queue};
use portolan_netcore::firewall::{Change, Compiled, FirewallPolicy, PolicyItem, Transaction};

use super::command::{Variant, families, restore, save};
use crate::firewall::FirewallError;
use crate::nft::{self, NftFirewall};

/// How often a repair begins again because somebody changed the rules under it.
const ATTEMPTS: usize = 5;

/// The iptables backend.
#[derive(Debug)]
pub(crate) struct IptablesFirewall {
    in_force: Mutex<Option<Compiled<Lines>>>,
    /// Tables of nf_tables that stand behind iptables' rules: the source guard, as iptables sees no ARP
    /// and no frames, and the same policy once more, whatever becomes of the rules. None where the kernel has
    /// no nf_tables.
    floor: Option<NftFirewall>,
}

impl IptablesFirewall {
    /// Fails at once if the programs are not there.
    pub(crate) fn open(kept: Option<OwnedFd>, queue: Option<Queue>) -> Result<Self, FirewallError> {
        for family in families() {
            save(Variant::Default, family)?;
        }
        let floor = NftFirewall::open_floor(kept, queue)
            .and_then(|floor| floor.probe().map(|()| floor))
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    "the kernel has no nf_tables: no source guard, and no connections carried from IPv6 to IPv4"
                );
            })
            .ok();
        Ok(Self { in_force: Mutex::new(None), floor })
    }

    pub(crate) fn apply(&self, transaction: &Transaction) -> Result<(), FirewallError> {
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        // First: what it closes must be closed before anything else opens.
        if let Some(floor) = &self.floor {
            floor.apply(transaction)?;
        }
        match transaction {
            Transaction::Replace(policy) => {
                *in_force = None;
                let compiled = compile(policy)?;
                install(&compiled)?;
                *in_force = Some(compiled);
                Ok(())
            }
            Transaction::Change { remove, add } => {
                apply_change(&mut in_force, remove, add).inspect_err(|_| self.take_back(remove, add))
            }
            Transaction::Clear => {
                *in_force = None;
                families().try_for_each(|family| clear(Variant::Default, family))
            }
        }
    }

    /// What the floor has been told is not to be, as iptables refused it.
    fn take_back(&self, remove: &[PolicyItem], add: &[PolicyItem]) {
        let back = Transaction::Change { remove: add.to_vec(), add: remove.to_vec() };
        if let Some(Err(error)) = self.floor.as_ref().map(|floor| floor.apply(&back)) {
            tracing::error!(%error, "a change of the firewall that failed could not be taken back as a whole");
        }
    }

    pub(crate) fn verify(&self) -> Result<Option<FirewallPolicy>, FirewallError> {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(compiled) = &*in_force else {
            return Ok(None);
        };
        if let Some(floor) = &self.floor
            && floor.verify()?.is_none()
        {
            return Ok(None);
        }
        for family in families() {
            if !Found::parse(&save(Variant::Default, family)?, family).is(compiled, family) {
                return Ok(None);
            }
        }
        Ok(Some(compiled.policy().clone()))
    }

    /// The kernel has nf_tables.
    pub(crate) fn has_floor(&self) -> bool {
        self.floor.is_some()
    }

    /// The socket that owns the floor's tables.
    pub(crate) fn owner(&self) -> Option<OwnedFd> {
        self.floor.as_ref().and_then(NftFirewall::owner)
    }

    /// The netlink address of the floor's transactions.
    pub(crate) fn port(&self) -> Option<u32> {
        self.floor.as_ref().map(NftFirewall::port)
    }

    /// See [`crate::Firewall::restore`]. The lock is held from the look to the repair: nothing that is
    /// published meanwhile is lost.
    pub(crate) fn restore(&self) -> Result<bool, FirewallError> {
        let in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(compiled) = &*in_force else {
            return Ok(false);
        };
        let mut restored = match &self.floor {
            Some(floor) => floor.restore()?.rules,
            None => false,
        };
        // Until this is done published ports are refused: both families at a time.
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                families().map(|family| scope.spawn(move || restore_family(compiled, family))).collect();
            threads.into_iter().map(ScopedJoinHandle::join).collect()
        });
        for result in results {
            restored |= result.unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        Ok(restored)
    }
}

/// Puts a family's rules back if they are not as they were left; true if they were not.
fn restore_family(compiled: &Compiled<Lines>, family: IpFamily) -> Result<bool, FirewallError> {
    let mut attempt = 1;
    loop {
        let found = Found::parse(&save(Variant::Default, family)?, family);
        if found.is(compiled, family) {
            return Ok(attempt > 1);
        }
        match restore(Variant::Default, family, &replacement(compiled, family, &found)) {
            Ok(()) => return Ok(true),
            // Whoever flushes one table after the other does so between the look and the repair, too: what
            // was to be taken out is gone already, and nothing has changed.
            Err(FirewallError::Program { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

fn apply_change(
    in_force: &mut Option<Compiled<Lines>>,
    remove: &[PolicyItem],
    add: &[PolicyItem],
) -> Result<(), FirewallError> {
    let Some(compiled) = in_force.as_mut() else {
        return Err(FirewallError::Inconsistent(
            "no policy is in force yet: replace it as a whole first".into(),
        ));
    };
    let Change { difference, undo } =
        compiled.change(remove, add).map_err(|conflict| FirewallError::Inconsistent(conflict.to_string()))?;
    let sent = check_bridge_netfilter(compiled.policy())
        .and_then(|()| families().try_for_each(|f| restore(Variant::Default, f, &change(&difference, f))));
    let Err(error) = sent else {
        return Ok(());
    };
    // Somebody may have flushed what we take out, or one family is through and the other is not:
    // stating the whole again settles both.
    if matches!(error, FirewallError::Program { .. }) && install(compiled).is_ok() {
        tracing::warn!(%error, "firewall drifted: replaced as a whole");
        return Ok(());
    }
    compiled.undo(undo);
    if let Err(again) = install(compiled) {
        tracing::error!(%again, "firewall could not be put back");
        *in_force = None;
    }
    Err(error)
}

fn compile(policy: &FirewallPolicy) -> Result<Compiled<Lines>, FirewallError> {
    check_bridge_netfilter(policy)?;
    Compiled::new(policy).map_err(|conflict| FirewallError::Inconsistent(conflict.to_string()))
}

fn install(compiled: &Compiled<Lines>) -> Result<(), FirewallError> {
    families().try_for_each(|family| {
        let found = Found::parse(&save(Variant::Default, family)?, family);
        restore(Variant::Default, family, &replacement(compiled, family, &found))
    })
}

fn clear(variant: Variant, family: IpFamily) -> Result<(), FirewallError> {
    let found = Found::parse(&save(variant, family)?, family);
    // Without our own chain the DOCKER chains are another engine's.
    if !found.chains.contains(&(XTable::Nat, OUR_CHAIN.to_owned())) {
        return Ok(());
    }
    restore(variant, family, &removal(&found))
}

/// iptables sees what a bridge switches between its own ports only through br_netfilter.
fn check_bridge_netfilter(policy: &FirewallPolicy) -> Result<(), FirewallError> {
    let Some(bridge) = policy.bridges.values().find(|bridge| !bridge.icc) else {
        return Ok(());
    };
    let on = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables")
        .is_ok_and(|value| value.trim() == "1");
    if on {
        return Ok(());
    }
    Err(FirewallError::Inconsistent(format!(
        "{} has inter-container communication off, which iptables can only enforce with the module br_netfilter and \
         net.bridge.bridge-nf-call-iptables=1: set them, or use --firewall-backend nftables",
        bridge.bridge
    )))
}

/// Removes what this backend left in the kernel, if it did. Nothing is run where nothing can be.
pub(crate) fn remove_leftovers() -> Result<(), FirewallError> {
    if nft::has_ip_chain("nat", OUR_CHAIN)? {
        families().try_for_each(|family| clear(Variant::Nft, family))?;
    }
    let legacy = fs::read_to_string("/proc/net/ip_tables_names")
        .is_ok_and(|tables| tables.lines().any(|t| t == "nat"));
    if legacy {
        for family in families() {
            match clear(Variant::Legacy, family) {
                // Whoever made the legacy tables did it without these programs, so it was not us.
                Ok(()) | Err(FirewallError::NoProgram { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
