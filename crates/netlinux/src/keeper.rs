//! What is to outlive this process: the socket that owns the firewall's tables, and those that hold
//! published ports.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::host::LinuxHost;
use crate::netns;

/// A process that outlives this one, and holds what this one has beside it.
pub trait Keeper: Send + Sync + fmt::Debug {
    /// There is something new to keep; [`LinuxHost::held`] gives it. Returns at once.
    fn keep(&self, name: String);

    /// These are to be closed; the keeper has none of them when this returns.
    fn forget(&self, names: Vec<String>);
}

/// The name of the socket that owns the firewall's tables. Ports have names of their own.
const FIREWALL: &str = "firewall";

/// What a host has of its keeper.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    keeper: Option<Arc<dyn Keeper>>,
    /// The tables are to outlive this process.
    firewall: AtomicBool,
}

impl Kept {
    pub(crate) fn by(keeper: Option<Arc<dyn Keeper>>) -> Self {
        Self { keeper, firewall: AtomicBool::new(false) }
    }

    pub(crate) fn port(&self, name: String) {
        if let Some(keeper) = &self.keeper {
            keeper.keep(name);
        }
    }

    /// What is let go of can be had by anybody when this returns.
    pub(crate) fn forget(&self, names: Vec<String>) {
        if let Some(keeper) = self.keeper.as_ref().filter(|_| !names.is_empty()) {
            keeper.forget(names);
        }
    }

    /// There are sandboxes, which the firewall guards: also while no daemon runs.
    pub(crate) fn firewall(&self) {
        if let Some(keeper) = &self.keeper
            && !self.firewall.swap(true, Ordering::SeqCst)
        {
            keeper.keep(FIREWALL.to_owned());
        }
    }
}

impl LinuxHost {
    /// The names of all that is to outlive this process.
    pub fn held_names(&self) -> Vec<String> {
        let firewall = self.kept.firewall.load(Ordering::SeqCst).then(|| FIREWALL.to_owned());
        self.ports.names().chain(firewall).collect()
    }

    /// What has this name, if it is still held.
    pub fn held(&self, name: &str) -> Option<Arc<OwnedFd>> {
        match name {
            FIREWALL => self.firewall.owner().map(Arc::new),
            port => self.ports.descriptor(port),
        }
    }

    /// Takes over what an earlier process left; the socket that owns the tables is given back. What is of
    /// no use is let go of.
    pub(crate) fn adopt_ports(
        ports: &crate::ports::HeldPorts,
        kept: &Kept,
        left: impl IntoIterator<Item = (String, OwnedFd)>,
    ) -> Option<OwnedFd> {
        let (mut firewall, mut useless) = (None, Vec::new());
        for (name, descriptor) in left {
            if name == FIREWALL {
                firewall = Some(descriptor);
            } else if let Err(error) = ports.adopt(&name, descriptor) {
                tracing::warn!(name, %error, "what an earlier daemon left is of no use");
                useless.push(name);
            }
        }
        kept.forget(useless);
        firewall
    }

    /// The last sandbox may be gone: then nobody needs the tables while no daemon runs.
    pub(crate) fn keep_firewall_while_needed(&self) {
        let has_sandboxes = || self.sandboxes.pins().has_any().unwrap_or(false);
        if self.kept.keeper.is_none() || has_sandboxes() || !self.kept.firewall.swap(false, Ordering::SeqCst)
        {
            return;
        }
        self.kept.forget(vec![FIREWALL.to_owned()]);
        // One that came in between found it kept.
        if has_sandboxes() {
            self.kept.firewall();
        }
    }
}

/// `linux/sockios.h`: a descriptor of the socket's network namespace.
const SIOCGSKNS: libc::Ioctl = 0x894C;

/// Whether a socket is of the calling thread's network namespace.
pub(crate) fn is_of_this_namespace(socket: &OwnedFd) -> bool {
    // SAFETY: this ioctl takes no argument; the result is checked before it is owned.
    let raw = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    if raw < 0 {
        return false;
    }
    // SAFETY: `raw` is a new descriptor that nothing else owns.
    let theirs = unsafe { OwnedFd::from_raw_fd(raw) };
    let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino));
    netns::current().is_ok_and(|own| identity(&own).is_some() && identity(&own) == identity(&theirs))
}
