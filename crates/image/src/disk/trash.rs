use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, renameat, unlinkat};

use super::read_names;
use crate::error::{Context, Result};

/// A directory whose content is on its way out. To remove a tree is to rename it in here; a thread deletes
/// it behind the caller's back, and what a crash leaves is deleted after the next start.
#[derive(Clone, Debug)]
pub(crate) struct Trash {
    bin: Arc<Bin>,
    /// The thread ends when the last of these is dropped.
    jobs: Arc<Mutex<Option<mpsc::Sender<Job>>>>,
}

#[derive(Debug)]
struct Bin {
    directory: PathBuf,
    next: AtomicU64,
}

#[derive(Debug)]
enum Job {
    Delete(PathBuf),
    Report(mpsc::Sender<()>),
}

impl Trash {
    /// Takes over `directory` and begins to delete what a former process left in it.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory).context(|| format!("make {}", directory.display()))?;
        let names = File::open(directory)
            .and_then(|fd| Ok(read_names(&fd)?))
            .context(|| format!("read {}", directory.display()))?;
        let highest = names.iter().filter_map(|n| std::str::from_utf8(n).ok()?.parse::<u64>().ok()).max();
        let trash = Self {
            bin: Arc::new(Bin {
                directory: directory.to_owned(),
                next: AtomicU64::new(highest.map_or(0, |n| n + 1)),
            }),
            jobs: Arc::default(),
        };
        for name in names {
            trash.send(Job::Delete(directory.join(OsString::from_vec(name))));
        }
        Ok(trash)
    }

    /// Takes the tree at `path` away; one rename. It is fine if there is none.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let to = self.bin.fresh();
        match std::fs::rename(path, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.context(|| format!("remove {}", path.display()))?,
        }
        self.send(Job::Delete(to));
        Ok(())
    }

    /// Waits until everything discarded so far is deleted.
    pub(crate) fn flush(&self) {
        let (done, wait) = mpsc::channel();
        self.send(Job::Report(done));
        let _no_thread_is_no_work = wait.recv();
    }

    fn send(&self, job: Job) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = jobs.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel();
            let bin = self.bin.clone();
            let thread = std::thread::Builder::new().name("image-trash".to_owned());
            if let Err(error) = thread.spawn(move || bin.work(&receiver)) {
                tracing::warn!(%error, "cannot start the thread that deletes; it is done at the next start");
            }
            sender
        });
        if sender.send(job).is_err() {
            // The thread could not be started; try again next time.
            *jobs = None;
        }
    }
}

impl Bin {
    fn fresh(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn work(&self, jobs: &mpsc::Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Delete(path) => {
                    if let Err(error) = self.delete(&path) {
                        tracing::warn!(path = %path.display(), %error, "cannot delete; tried again at the next start");
                    }
                }
                Job::Report(done) => {
                    let _gone = done.send(());
                }
            }
        }
    }

    /// Deletes a tree of any depth with two open directories: each directory's subdirectories are first
    /// renamed up here, so that neither paths nor recursion grow with what a container made.
    fn delete(&self, path: &Path) -> io::Result<()> {
        let mut pending = vec![path.to_owned()];
        while let Some(path) = pending.pop() {
            match unlinkat(CWD, &path, AtFlags::REMOVEDIR) {
                Err(rustix::io::Errno::NOTDIR) => {
                    unlinkat(CWD, &path, AtFlags::empty())?;
                    continue;
                }
                Err(rustix::io::Errno::NOTEMPTY) => {}
                other => {
                    other?;
                    continue;
                }
            }
            let directory = super::open_directory(CWD, &path)?;
            for name in read_names(&directory)? {
                match unlinkat(&directory, name.as_slice(), AtFlags::empty()) {
                    Ok(()) => continue,
                    Err(rustix::io::Errno::ISDIR) => {}
                    Err(error) => return Err(error.into()),
                }
                if unlinkat(&directory, name.as_slice(), AtFlags::REMOVEDIR).is_ok() {
                    continue;
                }
                let up = self.fresh();
                renameat(&directory, name.as_slice(), CWD, &up)?;
                pending.push(up);
            }
            unlinkat(CWD, &path, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_is_deleted_and_leftovers_too() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("deep");
        std::fs::create_dir(&deep).unwrap();
        let mut at = super::super::open_directory(CWD, &deep).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "abcdefgh", 0o700.into()).unwrap();
            at = super::super::open_directory(&at, "abcdefgh").unwrap();
        }
        let bin = root.path().join("trash");
        std::fs::create_dir_all(bin.join("7/left/over")).unwrap();
        std::fs::write(bin.join("file"), "x").unwrap();

        let trash = Trash::open(&bin).unwrap();
        trash.discard(&deep).unwrap();
        trash.discard(&root.path().join("never was")).unwrap();
        assert!(!deep.exists(), "gone at once");
        trash.flush();
        assert_eq!(std::fs::read_dir(&bin).unwrap().count(), 0);
    }
}
