//! Gets zones to the resolver: the newest only, one at a time, without holding up the owner.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use portolan_netcore::dns::Zones;

use crate::Names;

/// Counts published zones; a later one has all of an earlier one's names.
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
    next: Option<Arc<Zones>>,
    handed_in: Version,
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

    /// Hands in zones; those not yet published are skipped.
    pub(crate) fn publish(&self, zones: Arc<Zones>) -> Version {
        let mut slot = self.shared.lock();
        slot.next = Some(zones);
        slot.handed_in += 1;
        self.shared.changed.notify_all();
        slot.handed_in
    }

    /// Blocks until the resolver answers from these zones or later ones.
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
        match slot.next.take() {
            Some(zones) => {
                let version = slot.handed_in;
                drop(slot);
                let result = names.publish(zones);
                slot = shared.lock();
                slot.error = result.err().map(|error| error.to_string());
                if let Some(error) = &slot.error {
                    tracing::warn!(%error, "the embedded resolver did not take the zones");
                }
                slot.answered = version;
                shared.changed.notify_all();
            }
            None if slot.closed => return,
            None => slot = shared.changed.wait(slot).unwrap_or_else(PoisonError::into_inner),
        }
    }
}
