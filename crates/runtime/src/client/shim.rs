//! The handle to a container, held through its shim.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use tokio::net::UnixStream;

use super::connection::{self, ask, call, soon};
use super::stream::{AttachOptions, AttachStream};
use crate::cgroup::Cgroup;
use crate::error::Attempt;
use crate::identity::has_ended;
use crate::spec::{ExecSpec, Resources};
use crate::state::{self, SavedState};
use crate::status::{ExitStatus, ShimState, Stats};
use crate::wire::{Request, Response};
use crate::{Error, Result, setup};

/// What a shim gets for an answer that it has at hand.
const ANSWER: Duration = Duration::from_secs(10);
/// What a process gets to end that has let go of its root.
const ENDING: Duration = Duration::from_secs(1);
/// What it gets to kill a container and remove its cgroup.
const CLEAN_UP: Duration = Duration::from_secs(30);
/// What it gets to set a container or a process up; it gives up by itself before.
pub(super) const WORK: Duration = setup::PATIENCE.saturating_add(CLEAN_UP);
/// Those who wait for an exit ask again after at most this long where asking failed.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a request is sent anew over another connection.
const ATTEMPTS: usize = 3;

/// A container. Cheap to clone; dropping it leaves the container alone.
#[derive(Clone, Debug)]
pub struct Shim {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    pid: i32,
    /// The first process, once it is known to be no other with its pid.
    leader: OnceLock<Arc<OwnedFd>>,
    /// `<exec_root>/shims/<id>`
    directory: PathBuf,
    /// A connection that nobody uses now. Whoever finds none makes one: no request waits for another.
    idle: Mutex<Option<UnixStream>>,
}

impl Shim {
    /// One that has just set its container up: the first process waits for its start.
    pub(super) fn fresh(exec_root: &Path, id: &str, pid: i32, connection: UnixStream) -> Self {
        let shim = Self::with(state::directory(exec_root, id), id, pid, Some(connection));
        if let Ok(leader) = setup::process(pid) {
            // Nobody else has set it.
            let _ = shim.inner.leader.set(Arc::new(leader));
        }
        shim
    }

    fn with(directory: PathBuf, id: &str, pid: i32, connection: Option<UnixStream>) -> Self {
        let (leader, idle) = (OnceLock::new(), Mutex::new(connection));
        Self { inner: Arc::new(Inner { id: id.to_owned(), pid, leader, directory, idle }) }
    }

    pub(super) async fn reconnect(exec_root: &Path, id: &str) -> Result<Option<Self>> {
        let directory = state::directory(exec_root, id);
        if !directory.exists() {
            return Ok(None);
        }
        let Some(saved) = SavedState::load(&directory)? else {
            // The shim died before it made anything.
            state::remove(&directory)?;
            return Ok(None);
        };
        let connection = connection::connect_now(&directory, id).await;
        let dead = connection.is_err();
        let connection = connection.ok().and_then(std::result::Result::ok);
        let shim = Self::with(directory, id, saved.pid, connection);
        if dead {
            shim.bury().await?;
            if saved.pid == 0 {
                // It died while it set the container up: nobody was told of it.
                state::remove(&shim.inner.directory)?;
                return Ok(None);
            }
        }
        Ok(Some(shim))
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Pid of the first process, in the host's pid namespace.
    pub fn pid(&self) -> i32 {
        self.inner.pid
    }

    /// Executes the container's program; tells since when it runs.
    ///
    /// # Errors
    /// [`Error::Start`] with Docker's text and exit code if that fails; the container is over then and
    /// still has to be deleted.
    pub async fn start(&self) -> Result<Timestamp> {
        match self.request(&Request::Start, WORK).await? {
            Response::Started { at } => Ok(at),
            other => Err(unexpected(&other)),
        }
    }

    /// Where the container stands.
    ///
    /// # Errors
    /// Neither the shim nor its files can be read.
    pub async fn state(&self) -> Result<ShimState> {
        match self.request(&Request::State, ANSWER).await {
            Ok(Response::State { exit: Some(exit), .. }) => Ok(ShimState::Exited(exit)),
            Ok(Response::State { started: true, started_at, .. }) => Ok(ShimState::Running(started_at)),
            Ok(Response::State { .. }) => Ok(ShimState::Created),
            Ok(other) => Err(unexpected(&other)),
            Err(Error::ShimGone { .. }) => Ok(ShimState::Exited(self.bury().await?)),
            Err(error) => Err(error),
        }
    }

    /// The first process, which stays the same whatever becomes of its pid.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it is over; the shim cannot be asked.
    pub async fn process(&self) -> Result<Arc<OwnedFd>> {
        let leader = match self.inner.leader.get() {
            Some(leader) => leader.clone(),
            None => self.find_process().await?,
        };
        if has_ended(&leader) { Err(Error::NotRunning { id: self.inner.id.clone() }) } else { Ok(leader) }
    }

    async fn find_process(&self) -> Result<Arc<OwnedFd>> {
        let over = || Error::NotRunning { id: self.inner.id.clone() };
        let leader = Arc::new(setup::process(self.inner.pid).map_err(|_| over())?);
        // The handle is older than the answer: if the process has its pid still, it is the handle's.
        match self.request(&Request::State, ANSWER).await? {
            Response::State { pid, exit: None, .. } if pid == self.inner.pid => {}
            _ => return Err(over()),
        }
        Ok(self.inner.leader.get_or_init(|| leader).clone())
    }

    /// Opens a file of /proc about the first process: `root`, `ns/net`.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it is over.
    pub async fn open_proc(&self, name: &str) -> Result<OwnedFd> {
        let leader = self.process().await?;
        let what = || format!("open {name} of the first process of container {}", self.inner.id);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let path = format!("/proc/{}", self.inner.pid);
        let directory = rustix::fs::open(path, flags | OFlags::DIRECTORY, Mode::empty());
        // The directory stays that of its process, which is ours if ours has not left its pid by now.
        if has_ended(&leader) {
            return Err(Error::NotRunning { id: self.inner.id.clone() });
        }
        let opened = openat(directory.attempt(what)?, name, flags, Mode::empty());
        // A process that ends has let go of its root and its namespaces some time before it has ended.
        if matches!(opened, Err(Errno::NOENT | Errno::SRCH)) && soon(ENDING, || has_ended(&leader)).await {
            return Err(Error::NotRunning { id: self.inner.id.clone() });
        }
        opened.attempt(what)
    }

    /// Sends a signal to the first process. SIGKILL does not depend on the shim: where it does not answer it ends
    /// with the container.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it is over.
    pub async fn kill(&self, signal: i32) -> Result<()> {
        match self.request(&Request::Kill { signal }, ANSWER).await {
            Err(Error::ShimGone { .. }) => Err(Error::NotRunning { id: self.inner.id.clone() }),
            Err(error) if signal == libc::SIGKILL && is_unusable(&error) => self.put_down().await,
            other => other.map(drop),
        }
    }

    /// Waits for the first process to end. All its output is in the log by then. Cancel safe.
    ///
    /// # Errors
    /// The shim died and what it left cannot be read.
    pub async fn wait(&self) -> Result<ExitStatus> {
        let mut pause = Duration::from_millis(1);
        loop {
            let asked = async {
                let mut stream = self.connect().await?;
                call(&mut stream, &self.inner.id, &Request::Wait).await
            };
            match asked.await {
                Ok(Response::Exited(status)) => return Ok(status),
                // It died: the files tell.
                Err(Error::ShimGone { .. }) => return self.bury().await,
                // It lives, or is about to be seen dead.
                Ok(_) | Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(AGAIN);
        }
    }

    /// Attaches to the first process. Attached before [`Self::start`], no byte is missed.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it is over.
    pub async fn attach(&self, options: AttachOptions) -> Result<AttachStream> {
        let mut stream = self.connect().await?;
        let AttachOptions { stdin, stdout, stderr } = options;
        ask(&mut stream, &self.inner.id, &Request::Attach { stdin, stdout, stderr }, ANSWER).await?;
        Ok(AttachStream::new(stream))
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// The container has no terminal or is over.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.request(&Request::Resize { rows, columns }, ANSWER).await.map(drop)
    }

    /// Executes a process in the running container; the stream carries what the spec attaches.
    ///
    /// # Errors
    /// [`Error::Exec`] with Docker's text and exit code.
    pub async fn exec(&self, spec: &ExecSpec) -> Result<Exec> {
        let mut stream = self.connect().await?;
        let request = Request::Exec { spec: Box::new(spec.clone()) };
        match ask(&mut stream, &self.inner.id, &request, WORK).await? {
            Response::ExecStarted { pid } => {
                let stream = Some(AttachStream::new(stream));
                Ok(Exec { shim: self.clone(), id: spec.id.clone(), pid, stream })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Stops all processes until [`Self::resume`].
    ///
    /// # Errors
    /// The cgroup cannot be frozen.
    pub async fn pause(&self) -> Result<()> {
        self.with_cgroup(|cgroup| cgroup.freeze(true)).await
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// The cgroup cannot be thawed.
    pub async fn resume(&self) -> Result<()> {
        self.with_cgroup(|cgroup| cgroup.freeze(false)).await
    }

    /// Changes limits; what is `None` or empty stays.
    ///
    /// # Errors
    /// The kernel refuses a value.
    pub async fn update(&self, resources: &Resources) -> Result<()> {
        let resources = resources.clone();
        self.with_cgroup(move |cgroup| cgroup.apply(&resources)).await
    }

    /// The pids of all processes, in the host's pid namespace.
    ///
    /// # Errors
    /// The cgroup cannot be read.
    pub async fn pids(&self) -> Result<Vec<i32>> {
        self.with_cgroup(|cgroup| cgroup.pids()).await
    }

    /// What the container uses now.
    ///
    /// # Errors
    /// The cgroup cannot be read.
    pub async fn stats(&self) -> Result<Stats> {
        self.with_cgroup(|cgroup| cgroup.stats()).await
    }

    /// Kills what is left, ends the shim and removes its files. The handle is of no use afterwards.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub async fn delete(&self) -> Result<()> {
        match self.request(&Request::Delete, CLEAN_UP).await {
            Ok(_) => return Ok(()),
            Err(Error::ShimGone { .. }) => {}
            Err(error) if is_unusable(&error) => self.put_down().await?,
            Err(error) => return Err(error),
        }
        self.bury().await?;
        state::remove(&self.inner.directory)
    }

    async fn connect(&self) -> Result<UnixStream> {
        connection::connect(&self.inner.directory, &self.inner.id).await
    }

    async fn request(&self, request: &Request, patience: Duration) -> Result<Response> {
        let mut idle = self.idle().take();
        let mut lost = None;
        for _ in 0..ATTEMPTS {
            let mut stream = match idle.take() {
                Some(stream) => stream,
                None => self.connect().await?,
            };
            match ask(&mut stream, &self.inner.id, request, patience).await {
                // The connection broke; what that means is seen when the next one is made.
                Err(error @ Error::Io { .. }) => lost = Some(error),
                // What comes late must not be taken for the answer to another request.
                Err(error) if is_unusable(&error) => return Err(error),
                answer => {
                    *self.idle() = Some(stream);
                    return answer;
                }
            }
        }
        Err(lost.unwrap_or_else(|| Error::Silent { id: self.inner.id.clone() }))
    }

    fn idle(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the shim and whatever runs in the container, without asking.
    async fn put_down(&self) -> Result<()> {
        let directory = self.inner.directory.clone();
        blocking(move || state::put_down(&directory)).await
    }

    async fn with_cgroup<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Cgroup) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let directory = self.inner.directory.clone();
        let id = self.inner.id.clone();
        blocking(move || match SavedState::load(&directory)? {
            Some(saved) if saved.exit.is_none() => operation(&Cgroup::open(&saved.cgroup)?),
            _ => Err(Error::NotRunning { id }),
        })
        .await
    }

    /// After the death of the shim: makes sure that nothing of the container runs on, and tells how
    /// it ended: what the shim had written down, else as killed.
    async fn bury(&self) -> Result<ExitStatus> {
        let directory = self.inner.directory.clone();
        let id = self.inner.id.clone();
        blocking(move || state::bury(&directory, &id)).await
    }
}

/// Whether an error says that the shim lives and is of no use.
fn is_unusable(error: &Error) -> bool {
    matches!(error, Error::Silent { .. } | Error::Io { .. } | Error::Protocol { .. })
}

/// A process executed in a running container.
#[derive(Debug)]
pub struct Exec {
    shim: Shim,
    id: String,
    pid: i32,
    stream: Option<AttachStream>,
}

impl Exec {
    /// The exec's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its pid in the host's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Its streams, once. Dropping them leaves the process running.
    pub fn take_stream(&mut self) -> Option<AttachStream> {
        self.stream.take()
    }

    /// Waits for it to end: exit code, or 128 + signal. Cancel safe.
    ///
    /// # Errors
    /// The shim has forgotten it, or died.
    pub async fn wait(&self) -> Result<i32> {
        let mut stream = self.shim.connect().await?;
        match call(&mut stream, self.shim.id(), &Request::WaitExec { id: self.id.clone() }).await? {
            Response::ExecExited { code } => Ok(code),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is over.
    pub async fn kill(&self, signal: i32) -> Result<()> {
        self.shim.request(&Request::KillExec { id: self.id.clone(), signal }, ANSWER).await.map(drop)
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// It has no terminal or is over.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let request = Request::ResizeExec { id: self.id.clone(), rows, columns };
        self.shim.request(&request, ANSWER).await.map(drop)
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Invalid(format!("the operation was interrupted: {error}"))),
    }
}

fn unexpected(response: &Response) -> Error {
    Error::Protocol { from: "shim", what: format!("{response:?}") }
}
