//! The handle to a container, held through its shim.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::connection::{self, call};
use super::stream::{AttachOptions, AttachStream};
use crate::cgroup::Cgroup;
use crate::spec::{ExecSpec, Resources};
use crate::state::{self, SavedState};
use crate::status::{ExitStatus, ShimState, Stats};
use crate::wire::{Request, Response};
use crate::{Error, Result};

/// A container. Cheap to clone; dropping it leaves the container alone.
#[derive(Clone, Debug)]
pub struct Shim {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: String,
    pid: i32,
    /// `<exec_root>/shims/<id>`
    directory: PathBuf,
    /// One connection for short requests; `None` after it broke.
    control: Mutex<Option<UnixStream>>,
}

impl Shim {
    pub(super) fn fresh(exec_root: &Path, id: &str, pid: i32, connection: UnixStream) -> Self {
        Self::with(state::directory(exec_root, id), id, pid, Some(connection))
    }

    fn with(directory: PathBuf, id: &str, pid: i32, connection: Option<UnixStream>) -> Self {
        Self { inner: Arc::new(Inner { id: id.to_owned(), pid, directory, control: Mutex::new(connection) }) }
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
        let connection = connection::connect(&directory).await.ok();
        let alive = connection.is_some();
        let shim = Self::with(directory, id, saved.pid, connection);
        if !alive {
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

    /// Executes the container's program.
    ///
    /// # Errors
    /// [`Error::Start`] with Docker's text and exit code if that fails; the container is over then and
    /// still has to be deleted.
    pub async fn start(&self) -> Result<()> {
        self.request(Request::Start).await.map(drop)
    }

    /// Where the container stands.
    ///
    /// # Errors
    /// Neither the shim nor its files can be read.
    pub async fn state(&self) -> Result<ShimState> {
        match self.request(Request::State).await {
            Ok(Response::State { exit: Some(exit), .. }) => Ok(ShimState::Exited(exit)),
            Ok(Response::State { started: true, .. }) => Ok(ShimState::Running),
            Ok(Response::State { .. }) => Ok(ShimState::Created),
            Ok(other) => Err(unexpected(&other)),
            Err(Error::ShimGone { .. }) => Ok(ShimState::Exited(self.bury().await?)),
            Err(error) => Err(error),
        }
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it is over.
    pub async fn kill(&self, signal: i32) -> Result<()> {
        match self.request(Request::Kill { signal }).await {
            Err(Error::ShimGone { .. }) => Err(Error::NotRunning { id: self.inner.id.clone() }),
            other => other.map(drop),
        }
    }

    /// Waits for the first process to end. All its output is in the log by then. Cancel safe.
    ///
    /// # Errors
    /// The shim died and what it left cannot be read.
    pub async fn wait(&self) -> Result<ExitStatus> {
        if let Ok(mut stream) = connection::connect(&self.inner.directory).await {
            match call(&mut stream, &self.inner.id, &Request::Wait).await {
                Ok(Response::Exited(status)) => return Ok(status),
                Ok(other) => return Err(unexpected(&other)),
                // The shim died: the files tell.
                Err(Error::Io { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.bury().await
    }

    /// Attaches to the first process. Attached before [`Self::start`], no byte is missed.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if it is over.
    pub async fn attach(&self, options: AttachOptions) -> Result<AttachStream> {
        let mut stream = self.connect().await?;
        let AttachOptions { stdin, stdout, stderr } = options;
        call(&mut stream, &self.inner.id, &Request::Attach { stdin, stdout, stderr }).await?;
        Ok(AttachStream::new(stream))
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// The container has no terminal or is over.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.request(Request::Resize { rows, columns }).await.map(drop)
    }

    /// Executes a process in the running container; the stream carries what the spec attaches.
    ///
    /// # Errors
    /// [`Error::Exec`] with Docker's text and exit code.
    pub async fn exec(&self, spec: &ExecSpec) -> Result<Exec> {
        let mut stream = self.connect().await?;
        match call(&mut stream, &self.inner.id, &Request::Exec { spec: Box::new(spec.clone()) }).await? {
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
        match self.request(Request::Delete).await {
            Ok(_) => Ok(()),
            Err(Error::ShimGone { .. } | Error::Io { .. }) => {
                self.bury().await?;
                state::remove(&self.inner.directory)
            }
            Err(error) => Err(error),
        }
    }

    async fn connect(&self) -> Result<UnixStream> {
        connection::connect(&self.inner.directory)
            .await
            .map_err(|_| Error::ShimGone { id: self.inner.id.clone() })
    }

    async fn request(&self, request: Request) -> Result<Response> {
        let mut control = self.inner.control.lock().await;
        // Taken out while in use: a cancelled request must not leave its answer to the next one.
        let mut stream = match control.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        let answer = match call(&mut stream, &self.inner.id, &request).await {
            Err(Error::Io { .. }) => {
                stream = self.connect().await?;
                call(&mut stream, &self.inner.id, &request).await
            }
            other => other,
        };
        *control = Some(stream);
        answer
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
        self.shim.request(Request::KillExec { id: self.id.clone(), signal }).await.map(drop)
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// It has no terminal or is over.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        self.shim.request(Request::ResizeExec { id: self.id.clone(), rows, columns }).await.map(drop)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Invalid(format!("the operation was interrupted: {error}"))),
    }
}

fn unexpected(response: &Response) -> Error {
    Error::Protocol { from: "shim", what: format!("{response:?}") }
}
