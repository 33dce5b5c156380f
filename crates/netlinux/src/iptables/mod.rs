//! The iptables backend: one `iptables-restore` per family and transaction.

use portolan_netcore::firewall::{FirewallPolicy, Transaction};

use crate::firewall::FirewallError;

/// The iptables backend.
#[derive(Debug)]
pub(crate) struct IptablesFirewall {}

impl IptablesFirewall {
    pub(crate) fn open() -> Result<Self, FirewallError> {
        Ok(Self {})
    }
    pub(crate) fn apply(&self, _transaction: &Transaction) -> Result<(), FirewallError> {
        Ok(())
    }
    pub(crate) fn verify(&self) -> Result<Option<FirewallPolicy>, FirewallError> {
        Ok(None)
    }
}

/// Removes what this backend left in the kernel, if it did.
pub(crate) fn remove_leftovers() -> Result<(), FirewallError> {
    Ok(())
}
