//! The handle to the launcher, the small process that shims are forked from.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::connection;
use super::shim::{Shim, WORK, blocking};
use crate::cgroup::Cgroup;
use crate::error::Attempt;
use crate::launcher::READY;
use crate::spec::{ContainerSpec, Others, SeccompProfile};
use crate::wire::{self, Handed, Request, Response};
use crate::{Error, Result, seccomp, state, sys};

/// How to start the launcher.
#[derive(Clone, Debug)]
pub struct LauncherConfig {
    /// Directory of runtime files; shims live in `shims/<id>` below it.
    pub exec_root: PathBuf,
    /// The program to run as launcher; this one if none.
    pub executable: Option<PathBuf>,
    /// What the program takes to become the launcher.
    pub arguments: Vec<String>,
}

impl LauncherConfig {
    /// This program's hidden subcommand `launcher`.
    pub fn new(exec_root: impl Into<PathBuf>) -> Self {
        Self { exec_root: exec_root.into(), executable: None, arguments: vec!["launcher".into()] }
    }
}

/// The launcher: makes a shim per container. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Launcher {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    exec_root: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
    /// The present one; another takes its place when it dies.
    process: Mutex<Arc<Process>>,
    /// Compiled seccomp filters by what they depend on.
    filters: Mutex<HashMap<FilterKey, Arc<Vec<u8>>>>,
}

/// A running launcher.
#[derive(Debug)]
struct Process {
    child: Mutex<Child>,
    socket: OwnedFd,
    /// The same socket, known to the tokio runtime; made on first use since `start` runs before it.
    registered: OnceLock<AsyncFd<OwnedFd>>,
}

/// What a killed launcher gets to close all of its files.
const GOING: Duration = Duration::from_millis(200);
/// What a launcher gets to say that it is ready: a few milliseconds' work.
const GETTING_READY: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

#[derive(Debug, PartialEq, Eq, Hash)]
struct FilterKey {
    profile: Option<String>,
    capabilities: Vec<String>,
}

impl Launcher {
    /// Starts the launcher. To be called first thing in `main`, before any thread exists; needs no
    /// runtime.
    ///
    /// # Errors
    /// The exec root cannot be made, the program not be started, or it says why it can make no shims.
    pub fn start(config: LauncherConfig) -> Result<Self> {
        let shims = config.exec_root.join(state::SHIMS);
        std::fs::create_dir_all(&shims).attempt(|| format!("make {}", shims.display()))?;
        let exec_root =
            config.exec_root.canonicalize().attempt(|| format!("find {}", config.exec_root.display()))?;
        let program = config.executable.unwrap_or_else(|| "/proc/self/exe".into());
        let process = Process::spawn(&program, &config.arguments)?;
        Ok(Self {
            inner: Arc::new(Inner {
                exec_root,
                program,
                arguments: config.arguments,
                process: Mutex::new(Arc::new(process)),
                filters: Mutex::new(HashMap::new()),
            }),
        })
    }

    /// The directory of runtime files.
    pub fn exec_root(&self) -> &Path {
        &self.inner.exec_root
    }

    /// Sets a container up: everything but the execution of its program. A launcher that has died is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::Start`] if it cannot be set up; nothing is left behind then.
    pub async fn create(&self, spec: &ContainerSpec) -> Result<Shim> {
        let filter = self.filter(spec)?;
        let process = self.process();
        match self.create_by(&process, spec, &filter).await {
            Err(error @ Error::Silent { .. }) => {
                self.clear(&spec.id).await?;
                Err(error)
            }
            Err(error) if broke_off(&error) => {
                self.clear(&spec.id).await?;
                if !process.goes().await {
                    return Err(shim_died(&spec.id));
                }
                let process = self.replace(&process)?;
                match self.create_by(&process, spec, &filter).await {
                    Err(error) if broke_off(&error) => {
                        self.clear(&spec.id).await?;
                        Err(shim_died(&spec.id))
                    }
                    other => other,
                }
            }
            other => other,
        }
    }

    async fn create_by(&self, process: &Process, spec: &ContainerSpec, filter: &[u8]) -> Result<Shim> {
        let (mut connection, theirs) = UnixStream::pair().map_err(Error::io("make a shim's connection"))?;
        let theirs = OwnedFd::from(theirs.into_std().map_err(Error::io("hand over a shim's connection"))?);
        rustix::io::ioctl_fionbio(&theirs, false).attempt(|| "make a shim's connection blocking".into())?;
        process.hand_over(theirs.as_fd(), handed(spec)).await?;
        drop(theirs);
        let request = Request::Create {
            spec: Box::new(spec.clone()),
            exec_root: self.inner.exec_root.to_string_lossy().into_owned(),
            filter: filter.len(),
        };
        let mut message = wire::encode(&request);
        message.extend_from_slice(filter);
        connection.write_all(&message).await.map_err(Error::io(format!("hand {} to its shim", spec.id)))?;
        let answer = connection::receive::<Response>(&mut connection);
        let answer = tokio::time::timeout(WORK, answer)
            .await
            .unwrap_or_else(|_| Err(Error::Silent { id: spec.id.clone() }));
        match answer?.into_result(&spec.id)? {
            Response::Created { pid } => Ok(Shim::fresh(&self.inner.exec_root, &spec.id, pid, connection)),
            other => Err(Error::Protocol { from: "shim", what: format!("{other:?}") }),
        }
    }

    /// Removes what a shim that died while it set a container up has left.
    async fn clear(&self, id: &str) -> Result<()> {
        match self.reconnect(id).await? {
            Some(shim) => shim.delete().await,
            None => Ok(()),
        }
    }

    fn process(&self) -> Arc<Process> {
        self.inner.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a launcher in place of one that has died, unless somebody has done so already. With
    /// threads about: std spawns it by `posix_spawn`, which copies no memory.
    fn replace(&self, dead: &Arc<Process>) -> Result<Arc<Process>> {
        let mut present = self.inner.process.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&present, dead) {
            // Its socket is closed: it is dying, if not dead.
            let _ = dead.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
            *present = Arc::new(Process::spawn(&self.inner.program, &self.inner.arguments)?);
        }
        Ok(present.clone())
    }

    /// Finds the shim of a container that an earlier daemon made. If the shim itself has died, what
    /// is left of the container is killed and its exit status is 137. One that lives and cannot be reached now
    /// is found all the same.
    ///
    /// # Errors
    /// The files of the shim exist but cannot be read.
    pub async fn reconnect(&self, id: &str) -> Result<Option<Shim>> {
        Shim::reconnect(&self.inner.exec_root, id).await
    }

    /// Ends what runs of a container whose shim cannot be found any more, since somebody removed its directory: nobody
    /// could stop it, and another start would be a second one beside it. The shim ends with it.
    ///
    /// # Errors
    /// Something cannot be killed.
    pub async fn end_lost(&self, id: &str, cgroup_parent: &str) -> Result<()> {
        if state::directory(&self.inner.exec_root, id).exists() {
            return Ok(());
        }
        let path = Cgroup::path_for(cgroup_parent, id);
        blocking(move || Cgroup::open(&path)?.kill_and_remove()).await
    }

    /// The ids of all containers that have a shim or what is left of one.
    ///
    /// # Errors
    /// The exec root cannot be read.
    pub fn ids(&self) -> Result<Vec<String>> {
        state::ids(&self.inner.exec_root)
    }

    /// The compiled seccomp filter, empty for none. A daemon compiles each only once.
    fn filter(&self, spec: &ContainerSpec) -> Result<Arc<Vec<u8>>> {
        let profile = match &spec.seccomp {
            SeccompProfile::Unconfined => return Ok(Arc::default()),
            _ if spec.privileged || spec.runtime.is_some() => return Ok(Arc::default()),
            SeccompProfile::Default => None,
            SeccompProfile::Json(text) => Some(text.clone()),
        };
        let key = FilterKey { profile, capabilities: spec.capabilities.clone() };
        if let Some(filter) = self.inner.filters.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(filter.clone());
        }
        let compiled = Arc::new(seccomp::compile(&spec.seccomp, &spec.capabilities)?);
        let mut filters = self.inner.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if filters.len() >= 64 {
            filters.clear();
        }
        filters.insert(key, compiled.clone());
        Ok(compiled)
    }
}

impl Process {
    fn spawn(program: &Path, arguments: &[String]) -> Result<Self> {
        let (ours, theirs) = sys::seqpacket_pair().attempt(|| "make the launcher's socket".into())?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(theirs).stdout(Stdio::null());
        // Shown by ps; also the room in which shims write their own names.
        command.arg0(format!("portolan-launcher {}", " ".repeat(80)));
        let mut child = command.spawn().attempt(|| format!("start the launcher {}", program.display()))?;
        // Its end of the socket shall be the only one.
        drop(command);
        if let Err(error) = await_ready(&ours) {
            // Already dead, as a rule.
            let _ = child.kill().and_then(|()| child.wait());
            return Err(error);
        }
        Ok(Self { child: Mutex::new(child), socket: ours, registered: OnceLock::new() })
    }

    /// Whether a connection that broke off did so because the launcher is dying. The kernel closes the
    /// files of a killed process one by one, and that of the connection before that of the socket.
    async fn goes(&self) -> bool {
        connection::soon(GOING, || self.is_gone()).await
    }

    /// Whether its end of the socket is closed.
    fn is_gone(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    async fn hand_over(&self, connection: BorrowedFd<'_>, handed: Handed<BorrowedFd<'_>>) -> Result<()> {
        let (which, others) = handed.pack();
        let fds: Vec<BorrowedFd<'_>> = [connection].into_iter().chain(others).collect();
        // Almost always there is room: the launcher does nothing but fork.
        match sys::send_fds(self.socket.as_fd(), &[which], &fds) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other.map_err(lost),
        }
        let socket = self.registered()?;
        loop {
            let mut guard = socket.writable().await.map_err(Error::io("wait for the launcher"))?;
            if let Ok(sent) = guard.try_io(|socket| sys::send_fds(socket.get_ref().as_fd(), &[which], &fds)) {
                return sent.map_err(lost);
            }
        }
    }

    fn registered(&self) -> Result<&AsyncFd<OwnedFd>> {
        if let Some(socket) = self.registered.get() {
            return Ok(socket);
        }
        let copy = self.socket.try_clone().map_err(Error::io("copy the launcher's socket"))?;
        let socket = sys::register(copy).attempt(|| "watch the launcher's socket".into())?;
        Ok(self.registered.get_or_init(|| socket))
    }
}

/// Until a launcher says that it can make shims, or why not: a daemon without one would find out by its first container.
fn await_ready(socket: &OwnedFd) -> Result<()> {
    let failed = |why: String| Error::Invalid(format!("the launcher does not start: {why}"));
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&GETTING_READY)) {
        Ok(0) => return Err(failed(format!("no word from it within {} seconds", GETTING_READY.tv_sec))),
        other => other.attempt(|| "wait for the launcher".into())?,
    };
    let mut message = [0; 1024];
    let (length, _) =
        sys::receive_fds(socket.as_fd(), &mut message).attempt(|| "hear the launcher".into())?;
    match &message[..length] {
        READY => Ok(()),
        [] => Err(failed("it ended without a word".into())),
        why => Err(failed(String::from_utf8_lossy(why).into_owned())),
    }
}

fn handed(spec: &ContainerSpec) -> Handed<BorrowedFd<'_>> {
    fn fd(fd: &Option<Arc<OwnedFd>>) -> Option<BorrowedFd<'_>> {
        fd.as_deref().map(AsFd::as_fd)
    }
    let Others { pid, ipc, uts } = &spec.others;
    Handed { netns: fd(&spec.netns), pid: fd(pid), ipc: fd(ipc), uts: fd(uts) }
}

/// Whether the launcher or the shim died before it answered.
fn broke_off(error: &Error) -> bool {
    let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
    match error {
        Error::LauncherGone => true,
        Error::Io { source, .. } => kinds.contains(&source.kind()),
        _ => false,
    }
}

fn shim_died(id: &str) -> Error {
    let message = format!("the shim of container {id} died while it set the container up");
    Error::Start { message, exit_code: 128 }
}

fn lost(source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Error::LauncherGone,
        _ => Error::Io { what: "reach the launcher".into(), source },
    }
}
