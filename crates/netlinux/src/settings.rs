//! Hearing of it when somebody writes to a sysctl of ours.
//!
//! The kernel announces forwarding and a few other settings by rtnetlink, and most by nothing. But a sysctl
//! is a file, and inotify tells of a write to it, by way of the procfs at `/proc`: we write through an
//! instance of our own, which it does not see, and so does a stranger with a `/proc` of his own (a container
//! that shares the host's network). What that one changes is found by the next look.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// The host's sysctls that are watched.
#[derive(Debug)]
pub(crate) struct WatchedSettings {
    /// None where the kernel gives no instance (`fs.inotify.max_user_instances`): looks find what there is.
    notify: Option<OwnedFd>,
    /// The watch of each key, slashes in it.
    watches: Mutex<BTreeMap<String, i32>>,
}

impl WatchedSettings {
    pub(crate) fn new() -> Self {
        let notify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        if let Err(error) = &notify {
            tracing::warn!(%error, "cannot hear of changed sysctls: they are looked at now and then");
        }
        Self { notify: notify.ok(), watches: Mutex::default() }
    }

    /// Watches a sysctl of the calling thread's namespace. Once is enough, but for a link that came again:
    /// its files are new ones.
    pub(crate) fn watch(&self, key: &str) {
        let Some(notify) = &self.notify else { return };
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        // A link that is gone already has nothing to watch.
        let Ok(watch) = inotify::add_watch(notify, format!("/proc/sys/{key}"), WatchFlags::MODIFY) else {
            return;
        };
        if let Some(old) = watches.insert(key.to_owned(), watch).filter(|old| *old != watch) {
            let _ = inotify::remove_watch(notify, old);
        }
    }

    /// Stops watching what is not there any more.
    pub(crate) fn forget(&self, key: &str) {
        let old = self.watches.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some((notify, old)) = self.notify.as_ref().zip(old) {
            // The kernel may have done so with the file.
            let _ = inotify::remove_watch(notify, old);
        }
    }

    /// Readable when something was written.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.notify.as_ref().map(AsFd::as_fd)
    }

    /// Takes what was heard; true if there was anything.
    pub(crate) fn heard(&self) -> bool {
        let Some(notify) = &self.notify else { return false };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(notify, &mut buffer);
        let mut any = false;
        while reader.next().is_ok() {
            any = true;
        }
        any
    }
}
