//! What we have open of a sandbox while a plan is carried out: work in it then needs no thread there.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portolan_netcore::model::SandboxId;

use crate::error::Failure;
use crate::link;
use crate::netlink::{Batch, Protocol, Socket};
use crate::netns::{self, Pins};

/// A sandbox's namespace and a netlink socket in it. Either keeps the namespace alive.
#[derive(Debug)]
pub(crate) struct Sandbox {
    namespace: OwnedFd,
    route: Mutex<Socket>,
}

impl Sandbox {
    /// The namespace.
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// The socket of family NETLINK_ROUTE.
    pub(crate) fn route(&self) -> MutexGuard<'_, Socket> {
        self.route.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sandboxes below one exec root.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    pins: Pins,
    open: Mutex<BTreeMap<SandboxId, Arc<Sandbox>>>,
}

impl Sandboxes {
    pub(crate) fn new(pins: Pins) -> Self {
        Self { pins, open: Mutex::default() }
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Makes a sandbox with `lo` up, and calls `inside` in it, on the calling thread: see
    /// [`Pins::create`].
    pub(crate) fn create<R>(
        &self,
        id: &SandboxId,
        home: BorrowedFd<'_>,
        inside: impl FnOnce() -> R,
    ) -> Result<R, Failure> {
        let (namespace, made) = self.pins.create(id, home, || {
            let socket = Socket::open(Protocol::Route).and_then(|mut socket| {
                let mut batch = Batch::new();
                link::set_loopback_up(&mut batch);
                socket.transact(&mut batch).map(|()| socket)
            });
            socket.map(|socket| (socket, inside()))
        })?;
        match made {
            Ok((socket, result)) => {
                let sandbox = Arc::new(Sandbox { namespace, route: Mutex::new(socket) });
                self.lock().insert(id.clone(), sandbox);
                Ok(result)
            }
            Err(error) => {
                // The cause is what the caller should hear of.
                let _ = self.pins.remove(id);
                Err(error.into())
            }
        }
    }

    /// Unpins a sandbox and closes what we have open of it.
    pub(crate) fn remove(&self, id: &SandboxId) -> io::Result<()> {
        // Closed after the lock is released: the last descriptor may start the kernel's clean-up.
        let open = self.lock().remove(id);
        drop(open);
        self.pins.remove(id).map(drop)
    }

    /// A sandbox, opened by its pin unless it is open already; `None` if there is none.
    pub(crate) fn get(&self, id: &SandboxId) -> Result<Option<Arc<Sandbox>>, Failure> {
        if let Some(sandbox) = self.lock().get(id) {
            return Ok(Some(Arc::clone(sandbox)));
        }
        let Some(namespace) = self.pins.get(id)? else { return Ok(None) };
        let route = netns::inside(namespace.as_fd(), || Socket::open(Protocol::Route))??;
        let sandbox = Arc::new(Sandbox { namespace, route: Mutex::new(route) });
        Ok(Some(Arc::clone(self.lock().entry(id.clone()).or_insert(sandbox))))
    }

    /// Closes what is open of these sandboxes, so that descriptors are not kept for as long as
    /// containers run. Whoever works in one of them at the moment goes on.
    pub(crate) fn close<'a>(&self, ids: impl IntoIterator<Item = &'a SandboxId>) {
        let mut open = self.lock();
        let closed: Vec<_> = ids.into_iter().filter_map(|id| open.remove(id)).collect();
        // Closing takes its time, the lock need not.
        drop(open);
        drop(closed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SandboxId, Arc<Sandbox>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
