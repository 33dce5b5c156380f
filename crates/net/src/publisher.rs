//! Gets changes of zones to the resolver, in order, without holding up the owner: what comes up while
//! some are on their way goes together after them.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use portolan_netcore::dns::ZoneChange;

use crate::Names;

/// Counts what was handed in; a later one comes after all earlier ones.
pub(crate) type Version = u64;

#[derive(Debug)]
pub(crate) struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: Vec<ZoneChange>,
    handed_in: Version,
    taken: Version,
    answered: Version,
    error: Option<String>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher {
    pub(crate) fn start(names: Arc<dyn Names>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("net-names".to_owned())
            .spawn(move || serve(&of_thread, names.as_ref()))?;
        Ok(Self { shared })
    }

    /// Hands in changes.
    pub(crate) fn publish(&self, changes: Vec<ZoneChange>) -> Version {
        let mut slot = self.shared.lock();
        slot.waiting.extend(changes);
        slot.handed_in += 1;
        self.shared.changed.notify_all();
        slot.handed_in
    }

    /// Blocks until the resolver answers with these changes made.
    pub(crate) fn wait(&self, version: Version) -> Result<(), String> {
        let mut slot = self.shared.lock();
        while slot.answered < version && !slot.closed {
            slot = self.shared.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        slot.error.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

fn serve(shared: &Shared, names: &dyn Names) {
    let mut slot = shared.lock();
    loop {
        if slot.taken < slot.handed_in {
            let (version, changes) = (slot.handed_in, std::mem::take(&mut slot.waiting));
            slot.taken = version;
            drop(slot);
            let result = names.change(changes);
            slot = shared.lock();
            slot.error = result.err().map(|error| error.to_string());
            if let Some(error) = &slot.error {
                tracing::warn!(%error, "the embedded resolver did not take new names");
            }
            slot.answered = version;
            shared.changed.notify_all();
        } else if slot.closed {
            return;
        } else {
            slot = shared.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
