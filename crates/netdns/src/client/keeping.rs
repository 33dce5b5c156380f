//! What outlives the daemon: descriptors that the resolver holds beside us, for the next one.
//!
//! The resolver is given them in the background, a few hundred a message, and given them anew when it died.
//! What is let go of here it lets go of before that is answered: a port would be taken otherwise.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;

use super::{Client, ClientError, Inner, REPLY_PATIENCE, State, disconnect, exchange, kill_if_hung};
use crate::protocol::{MAX_DESCRIPTORS, Reply, Request, receive, send};

/// What this process has that is to outlive it.
pub trait Holdings: Send + Sync + fmt::Debug {
    /// The names of all of it.
    fn names(&self) -> Vec<String>;

    /// What has this name, if it is still held.
    fn descriptor(&self, name: &str) -> Option<Arc<OwnedFd>>;
}

/// See [`Client::start_keeping`].
#[derive(Debug, Default)]
pub(super) struct Keeping {
    holdings: OnceLock<Arc<dyn Holdings>>,
    /// Names that the resolver is to be told of.
    news: Mutex<BTreeSet<String>>,
    wake: OnceLock<SyncSender<()>>,
    /// It was said that the resolver has no room.
    warned: AtomicBool,
}

impl Keeping {
    fn news(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to outlive this process.
    pub(super) fn has_any(&self) -> bool {
        self.holdings.get().is_some_and(|holdings| !holdings.names().is_empty())
    }

    /// A resolver knows nothing yet of what is held.
    pub(super) fn keep_all(&self) {
        let Some(holdings) = self.holdings.get() else { return };
        let names = holdings.names();
        self.news().extend(names);
        self.wake();
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            // It is awake already, then.
            let _ = wake.try_send(());
        }
    }

    fn some_news(&self) -> Vec<String> {
        let mut news = self.news();
        std::iter::from_fn(|| news.pop_first()).take(MAX_DESCRIPTORS).collect()
    }
}

impl Client {
    /// Has the resolver keep what is held, from now on; it is started when there is anything.
    pub fn start_keeping(&self, holdings: Arc<dyn Holdings>) {
        let (wake, woken) = sync_channel(1);
        let inner = Arc::downgrade(&self.inner);
        let keeping = &self.inner.keeping;
        if keeping.holdings.set(holdings).is_err() || keeping.wake.set(wake).is_err() {
            return;
        }
        let thread = thread::Builder::new().name("keeper".to_owned()).spawn(move || tell(&inner, &woken));
        if let Err(error) = thread {
            tracing::warn!(%error, "nothing is kept while no daemon runs");
        }
        keeping.wake();
    }

    /// There is something new among what is held. Returns at once.
    pub fn keep(&self, name: String) {
        self.inner.keeping.news().insert(name);
        self.inner.keeping.wake();
    }

    /// These are held no more; when this returns, the resolver has none of them either.
    pub fn forget(&self, names: Vec<String>) -> Result<(), ClientError> {
        // With this lock nothing is under way.
        let mut state = self.inner.lock();
        let mut news = self.inner.keeping.news();
        for name in &names {
            news.remove(name);
        }
        drop(news);
        // What an earlier daemon left may be there, and unknown to us.
        if state.connection.is_none() && UnixStream::connect(&self.inner.socket).is_err() {
            return Ok(());
        }
        self.inner.ensure_reached(&mut state)?;
        // One that is gone has let go.
        let gone = |error: ClientError| matches!(error, ClientError::Talk(_)).then_some(()).ok_or(error);
        talk(&mut state, &Request::Forget { names }, &[]).map(drop).or_else(gone)
    }

    /// What an earlier daemon has left with the resolver that runs, if one runs. To be asked for before
    /// anything else: a resolver of another release is replaced by any other call.
    pub fn kept(&self) -> Kept {
        let stream = UnixStream::connect(&self.inner.socket).ok().filter(|stream| {
            stream.set_read_timeout(Some(REPLY_PATIENCE)).is_ok()
                && stream.set_write_timeout(Some(REPLY_PATIENCE)).is_ok()
        });
        Kept { stream, page: VecDeque::new(), last: None }
    }
}

/// Descriptors that the resolver keeps, with their names; it goes on keeping them.
#[derive(Debug)]
pub struct Kept {
    stream: Option<UnixStream>,
    page: VecDeque<(String, OwnedFd)>,
    last: Option<String>,
}

impl Iterator for Kept {
    type Item = (String, OwnedFd);

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            let stream = self.stream.as_mut()?;
            let request = Request::Kept { after: self.last.take() };
            match send(stream, &request, &[]).and_then(|()| receive(stream)) {
                Ok(Some((Reply::Kept { names }, fds))) => self.page = names.into_iter().zip(fds).collect(),
                // What one that hangs keeps is in our way as long as it lives.
                Err(error) => kill_if_hung(stream, &error),
                // It is of a release that keeps nothing.
                Ok(_) => {}
            }
        }
        let next = self.page.pop_front();
        match &next {
            Some((name, _)) => self.last = Some(name.clone()),
            None => self.stream = None,
        }
        next
    }
}

/// Tells the resolver whatever is new. Ends with the client.
fn tell(inner: &Weak<Inner>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        let Some(inner) = inner.upgrade() else { return };
        // Others have their turn in between.
        while inner.tell_some() {}
    }
}

impl Inner {
    /// Whether there may be more.
    fn tell_some(&self) -> bool {
        let Some(holdings) = self.keeping.holdings.get() else { return false };
        let mut state = self.lock();
        if state.closed || self.keeping.news().is_empty() {
            return false;
        }
        let told = self.ensure_reached(&mut state).and_then(|()| self.hand_over(&mut state, &**holdings));
        match told {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the resolver does not keep what is to outlive the daemon");
                // Whoever watches the connection makes another, by which all of it is told.
                false
            }
        }
    }

    fn hand_over(&self, state: &mut State, holdings: &dyn Holdings) -> Result<(), ClientError> {
        let held = |name: String| holdings.descriptor(&name).map(|descriptor| (name, descriptor));
        let (names, descriptors): (Vec<String>, Vec<Arc<OwnedFd>>) =
            self.keeping.some_news().into_iter().filter_map(held).unzip();
        if names.is_empty() {
            return Ok(());
        }
        let fds: Vec<BorrowedFd<'_>> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
        match talk(state, &Request::Keep { names }, &fds)? {
            Reply::Keeping { count } if count >= fds.len() => {}
            _ if self.keeping.warned.swap(true, Ordering::Relaxed) => {}
            _ => tracing::warn!(
                "the resolver has no room for more files: some published ports are held only while the daemon runs (raise its limit on open files)"
            ),
        }
        Ok(())
    }
}

/// Whoever watches the connection makes another if it breaks.
fn talk(state: &mut State, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, ClientError> {
    exchange(state, request, fds).inspect_err(|error| {
        if let ClientError::Talk(error) = error {
            state.connection.iter().for_each(|connection| kill_if_hung(connection, error));
            disconnect(state);
        }
    })
}
