//! Follows the content of one small file, however it is changed: written in place, replaced by a
//! rename, or by leading a symbolic link elsewhere. Made for resolv.conf(5), which network managers
//! change in all three ways.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// Changes come in bursts (a truncation, then several writes): the file is read once it has been
/// quiet for this long,
const QUIET: Duration = Duration::from_millis(50);
/// or at the latest after this.
const LATEST: Duration = Duration::from_millis(500);
/// Symbolic links that lead to the file; the kernel gives up after as many (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A file that is being followed; dropping it ends that.
#[derive(Debug)]
pub struct FileWatch {
    // Its closing wakes the thread.
    _stop: OwnedFd,
}

impl FileWatch {
    /// Follows the file at `path`, whose content the caller last saw as `seen`: `changed` is called,
    /// on a thread of its own, with each later content that differs from the one before. A file that
    /// is missing or unreadable has not changed.
    ///
    /// # Errors
    /// The kernel gives no inotify instance (`fs.inotify.max_user_instances`) or no thread.
    pub fn start(
        path: PathBuf,
        seen: String,
        changed: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let notify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut follower = Follower { path, seen, notify, stopped, changed };
        std::thread::Builder::new().name("file-watch".to_owned()).spawn(move || follower.run())?;
        Ok(Self { _stop: stop })
    }
}

struct Follower<F> {
    path: PathBuf,
    seen: String,
    notify: OwnedFd,
    stopped: OwnedFd,
    changed: F,
}

impl<F: FnMut(&str)> Follower<F> {
    fn run(&mut self) {
        let mut watched = BTreeSet::new();
        loop {
            // First watch, then read: nothing is missed between the two.
            self.watch(&mut watched);
            self.look();
            if !self.wait(None) {
                return;
            }
            let first = Instant::now();
            while first.elapsed() < LATEST {
                self.drain();
                match self.wait(Some(QUIET)) {
                    true if self.is_quiet() => break,
                    true => {}
                    false => return,
                }
            }
            self.drain();
        }
    }

    /// Watches the file and the directories of its name and of every link on the way. Watching again
    /// what is watched changes nothing.
    fn watch(&self, watched: &mut BTreeSet<PathBuf>) {
        let of_directory = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let of_file = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
        for directory in directories(&self.path) {
            match inotify::add_watch(&self.notify, &directory, of_directory | WatchFlags::ONLYDIR) {
                Ok(_) => {}
                Err(error) if watched.insert(directory.clone()) => {
                    tracing::warn!(directory = %directory.display(), %error, "changes in a directory go unnoticed");
                }
                Err(_) => {}
            }
        }
        // A file that is a mount of its own is written under another name.
        let _ = inotify::add_watch(&self.notify, &self.path, of_file);
    }

    fn look(&mut self) {
        match std::fs::read_to_string(&self.path) {
            Ok(text) if text != self.seen => {
                self.seen = text;
                (self.changed)(&self.seen);
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(path = %self.path.display(), %error, "a file cannot be read"),
        }
    }

    /// Waits until something happens or the time is up; false at the end.
    fn wait(&self, limit: Option<Duration>) -> bool {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut fds = [
            PollFd::new(&self.notify, PollFlags::IN),
            // Its other end is closed: POLLHUP, unasked for.
            PollFd::new(&self.stopped, PollFlags::empty()),
        ];
        loop {
            match poll(&mut fds, limit.as_ref()) {
                Ok(_) => return fds[1].revents().is_empty(),
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn is_quiet(&self) -> bool {
        let mut fds = [PollFd::new(&self.notify, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready == 0)
    }

    fn drain(&self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.notify.as_fd(), &mut space);
        while reader.next().is_ok() {}
    }
}

/// The directory of a name and of every symbolic link that it leads to. Where a directory is missing,
/// the nearest that is there: it will tell when the others come.
fn directories(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Some(parent) = next.parent() else { break };
        let there = parent.ancestors().find(|ancestor| ancestor.is_dir());
        found.extend(there.map(Path::to_owned));
        match std::fs::read_link(&next) {
            Ok(target) => next = parent.join(target),
            Err(_) => break,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn follow(path: &Path) -> (FileWatch, Receiver<String>) {
        let (sender, receiver) = channel();
        let seen = std::fs::read_to_string(path).unwrap_or_default();
        let changed = move |text: &str| {
            let _ = sender.send(text.to_owned());
        };
        (FileWatch::start(path.to_owned(), seen, changed).unwrap(), receiver)
    }

    #[test]
    fn every_way_to_change_a_file_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let (path, other) = (home.path().join("conf"), home.path().join("other"));
        std::fs::write(&path, "one").unwrap();
        let (_watch, changes) = follow(&path);
        std::fs::write(&path, "two").unwrap();
        assert_eq!(changes.recv_timeout(SOON).unwrap(), "two");
        std::fs::write(&other, "three").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(changes.recv_timeout(SOON).unwrap(), "three");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "four").unwrap();
        assert_eq!(changes.recv_timeout(SOON).unwrap(), "four");
    }

    #[test]
    fn a_link_is_followed_to_a_directory_that_comes_later() {
        let home = tempfile::tempdir().unwrap();
        let (path, far) = (home.path().join("conf"), home.path().join("run/resolve"));
        std::os::unix::fs::symlink("run/resolve/stub", &path).unwrap();
        let (_watch, changes) = follow(&path);
        std::fs::create_dir_all(&far).unwrap();
        std::fs::write(far.join("stub"), "up").unwrap();
        assert_eq!(changes.recv_timeout(SOON).unwrap(), "up");
        std::fs::write(far.join("stub"), "again").unwrap();
        assert_eq!(changes.recv_timeout(SOON).unwrap(), "again");
    }

    #[test]
    fn a_burst_is_one_change_and_what_stays_the_same_is_none() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("conf");
        std::fs::write(&path, "same").unwrap();
        let (watch, changes) = follow(&path);
        std::fs::write(&path, "").unwrap();
        std::fs::write(&path, "same").unwrap();
        assert_eq!(changes.recv_timeout(QUIET * 6), Err(RecvTimeoutError::Timeout));
        drop(watch);
        assert_eq!(changes.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected), "its thread ends");
    }
}
