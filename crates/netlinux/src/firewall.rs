//! The firewall of one network namespace, whichever backend enforces it.

use std::fmt;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use portolan_netcore::firewall::ruleset::Queue;
use portolan_netcore::firewall::{FirewallPolicy, Transaction};
use portolan_netcore::host::Restored;

use crate::iptables::{self, IptablesFirewall};
use crate::nft::{self, NftFirewall};

/// Which of the kernel's interfaces the rules go to. dockerd: `--firewall-backend`, `--iptables`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirewallBackend {
    /// nf_tables over netlink, in tables of our own.
    #[default]
    Nftables,
    /// `iptables-restore` and `ip6tables-restore`, in Docker's chains.
    Iptables,
    /// No rules at all (dockerd: `--iptables=false`).
    Off,
}

/// The name of a backend that we do not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown firewall backend {0:?}: use nftables, iptables or off")]
pub struct UnknownBackend(pub String);

impl FromStr for FirewallBackend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        match text {
            "nftables" => Ok(Self::Nftables),
            "iptables" => Ok(Self::Iptables),
            "off" | "none" => Ok(Self::Off),
            _ => Err(UnknownBackend(text.to_owned())),
        }
    }
}

impl fmt::Display for FirewallBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Off => "off",
        })
    }
}

/// Why the firewall is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FirewallError {
    /// The kernel refused a transaction; nothing of it took effect.
    #[error("nftables: {what}: {reason}")]
    Kernel {
        /// The part of the transaction that was refused.
        what: String,
        /// What the kernel said, in words.
        reason: String,
        /// The errno.
        errno: i32,
    },
    /// A system call on the way to the kernel failed.
    #[error("nftables: {what}: {reason}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's words.
        reason: String,
        /// The errno, if there was one.
        errno: Option<i32>,
    },
    /// A program that the backend needs is not there.
    #[error("{program} not found: install the package iptables, or use --firewall-backend nftables")]
    NoProgram {
        /// The program.
        program: String,
    },
    /// A program of the backend refused; nothing of that family took effect.
    #[error("{program} failed ({status}): {stderr}")]
    Program {
        /// The program with its arguments.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        stderr: String,
    },
    /// A change names an item in a way that contradicts what is in force.
    #[error("firewall change is inconsistent: {0}")]
    Inconsistent(String),
}

impl FirewallError {
    /// The errno, if the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Io { errno, .. } => *errno,
            _ => None,
        }
    }
}

/// The firewall of one network namespace.
///
/// It belongs to the namespace of the thread that opened it; later calls come from threads of that
/// namespace. Calls are serialised inside. Dropping it leaves the rules in the kernel; the next
/// process adopts them with its first [`Transaction::Replace`].
#[derive(Debug)]
pub struct Firewall {
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Nft(NftFirewall),
    Iptables(IptablesFirewall),
    Off,
}

impl Firewall {
    /// Opens the backend in the calling thread's network namespace. Rules change only by
    /// [`Firewall::apply`], except that [`FirewallBackend::Off`] removes ours; the first [`Transaction::Replace`] also removes what the other backend left.
    pub fn open(backend: FirewallBackend) -> Result<Self, FirewallError> {
        Self::open_again(backend, None, None)
    }

    /// The same, in place of a process that is gone and has left [`Firewall::owner`]'s descriptor. What is no
    /// such thing, or of another namespace, is not used. What opens connections that are to be carried over goes to
    /// `queue`, where somebody has to listen.
    pub fn open_again(
        backend: FirewallBackend,
        kept: Option<OwnedFd>,
        queue: Option<Queue>,
    ) -> Result<Self, FirewallError> {
        let backend = match backend {
            FirewallBackend::Nftables => Backend::Nft(NftFirewall::open(kept, queue)?),
            FirewallBackend::Iptables => Backend::Iptables(IptablesFirewall::open(kept, queue)?),
            FirewallBackend::Off => {
                nft::remove_tables(kept)?;
                iptables::remove_leftovers()?;
                Backend::Off
            }
        };
        Ok(Self { backend })
    }

    /// The backend in use.
    pub fn backend(&self) -> FirewallBackend {
        match &self.backend {
            Backend::Nft(_) => FirewallBackend::Nftables,
            Backend::Iptables(_) => FirewallBackend::Iptables,
            Backend::Off => FirewallBackend::Off,
        }
    }

    /// The socket that owns our tables. They are ours while any process has it, and only one at a time may
    /// use it.
    pub fn owner(&self) -> Option<OwnedFd> {
        match &self.backend {
            Backend::Nft(nft) => nft.owner(),
            Backend::Iptables(iptables) => iptables.owner(),
            Backend::Off => None,
        }
    }

    /// Carries out one transaction, whole or not at all.
    ///
    /// A [`Transaction::Change`] before any [`Transaction::Replace`] of this object is refused as
    /// [`FirewallError::Inconsistent`]: what is in force is not known then.
    pub fn apply(&self, transaction: &Transaction) -> Result<(), FirewallError> {
        match &self.backend {
            Backend::Nft(nft) => nft.apply(transaction),
            Backend::Iptables(iptables) => iptables.apply(transaction),
            Backend::Off => Ok(()),
        }
    }

    /// The policy in force, for `HostState::firewall`: `None` unless the kernel's rules are still those
    /// of the last transaction applied through this object (and for [`FirewallBackend::Off`]).
    pub fn verify(&self) -> Result<Option<FirewallPolicy>, FirewallError> {
        match &self.backend {
            Backend::Nft(nft) => nft.verify(),
            Backend::Iptables(iptables) => iptables.verify(),
            Backend::Off => Ok(None),
        }
    }

    /// Puts the rules back, whole and in one transaction (for each family with iptables), if the kernel's
    /// are not those of the last transaction any more; and makes the user's table again if it is gone.
    pub fn restore(&self) -> Result<Restored, FirewallError> {
        match &self.backend {
            Backend::Nft(nft) => nft.restore(),
            Backend::Iptables(iptables) => Ok(Restored { rules: iptables.restore()?, users: false }),
            Backend::Off => Ok(Restored::default()),
        }
    }

    /// Whether the backend enforces `FirewallPolicy::carried`; true where nothing is enforced.
    pub fn guards_carried(&self) -> bool {
        match &self.backend {
            Backend::Iptables(iptables) => iptables.has_floor(),
            Backend::Nft(_) | Backend::Off => true,
        }
    }

    /// The netlink address from which this object commits its transactions: events that carry it are its
    /// own doing. Those of iptables' programs, which have addresses of their own, carry a process id.
    pub fn port(&self) -> Option<u32> {
        match &self.backend {
            Backend::Nft(nft) => Some(nft.port()),
            Backend::Iptables(iptables) => iptables.port(),
            Backend::Off => None,
        }
    }
}
