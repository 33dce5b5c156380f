//! The daemon's end: keeps a resolver running and told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use portolan_netcore::dns::{ZoneChange, Zones};
use portolan_netcore::model::SandboxId;
use rustix::event::{PollFd, PollFlags, poll};

use crate::protocol::{Reply, Request, Settings, VERSION, receive, send};

mod keeping;

use keeping::Keeping;
pub use keeping::{Holdings, Kept};

/// How long a resolver may take to come up.
const START_PATIENCE: Duration = Duration::from_secs(5);
/// How long a resolver may take to answer us. It needs a millisecond; one that hangs is killed and replaced.
const REPLY_PATIENCE: Duration = Duration::from_secs(5);
/// How often the resolver is asked whether it lives: one that hangs would go unnoticed until names change.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Pauses between attempts to bring a dead resolver back; any later request tries again.
const RESTART_PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];

/// The resolver could not be reached or did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It could not be started.
    #[error("starting the resolver")]
    Start(#[source] io::Error),
    /// It was started but does not listen.
    #[error("the resolver does not listen at {0}")]
    Silent(PathBuf),
    /// The connection broke.
    #[error("talking to the resolver")]
    Talk(#[source] io::Error),
    /// It refused.
    #[error("the resolver: {0}")]
    Refused(String),
    /// A sandbox's namespace could not be opened.
    #[error("opening the network namespace {path}")]
    Namespace {
        /// Where it is pinned.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// A handle on the resolver. It is started when first needed and again, with the same sandboxes on the
/// same ports, whenever it dies. Calls block for about 0.1 ms.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: PathBuf,
    /// Program and arguments that run [`crate::run`].
    command: Vec<std::ffi::OsString>,
    settings: Settings,
    state: Mutex<State>,
    keeping: Keeping,
    this: Weak<Inner>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<UnixStream>,
    /// The resolver at the other end knows all that is below.
    is_told: bool,
    /// Something is known of names. Before, a resolver that an earlier daemon left goes on with what it has.
    has_names: bool,
    /// Counts connections, so that a watcher knows whether it is about the present one.
    generation: u64,
    /// What the resolver was told, all together.
    zones: Zones,
    served: BTreeMap<SandboxId, Served>,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Served {
    netns: PathBuf,
    ports: (u16, u16),
}

impl Client {
    /// A client of the resolver at `socket`, which `command` starts. Nothing happens yet.
    pub fn new(socket: PathBuf, command: Vec<std::ffi::OsString>, settings: Settings) -> Self {
        let state = Mutex::new(State::default());
        let keeping = Keeping::default();
        let this =
            |this: &Weak<Inner>| Inner { socket, command, settings, state, keeping, this: this.clone() };
        Self { inner: Arc::new_cyclic(this) }
    }

    /// Starts the resolver now if the host itself is to be served; nothing otherwise.
    ///
    /// # Errors
    /// It cannot be started, or the host's address cannot be listened on.
    pub fn open(&self) -> Result<(), ClientError> {
        if self.inner.settings.host_names.is_none() {
            return Ok(());
        }
        let mut state = self.inner.lock();
        self.inner.connect(&mut state)?;
        // Its zones stay as they are until the first change: it may serve what an earlier daemon left.
        let request = Request::Configure(self.inner.settings.clone());
        if let Reply::Failed(reason) = exchange(&mut state, &request, &[])? {
            drop(state);
            self.close();
            return Err(ClientError::Refused(reason));
        }
        Ok(())
    }

    /// Serves a sandbox whose namespace is pinned at `netns`. Answers the (UDP, TCP) ports on
    /// 127.0.0.11 inside it.
    pub fn serve(&self, sandbox: &SandboxId, netns: &Path) -> Result<(u16, u16), ClientError> {
        let mut state = self.inner.lock();
        let known = state.served.get(sandbox).map(|served| served.ports);
        let ports = self.inner.serve(&mut state, sandbox, netns, known)?;
        state.served.insert(sandbox.clone(), Served { netns: netns.to_owned(), ports });
        Ok(ports)
    }

    /// Stops serving a sandbox; one that is not served is fine. Its namespace lives as long as the
    /// resolver has sockets in it, so this comes before its removal.
    pub fn stop(&self, sandbox: &SandboxId) -> Result<(), ClientError> {
        let mut state = self.inner.lock();
        if state.served.remove(sandbox).is_none() {
            return Ok(());
        }
        self.inner.call(&mut state, &Request::Stop { sandbox: sandbox.clone() }, &[]).map(drop)
    }

    /// Has a resolver that an earlier daemon left serve no other sandboxes than these. That daemon may have been
    /// killed when it had forgotten a sandbox and not told the resolver, whose sockets keep the namespace, and with
    /// it the container's link, until somebody does. No resolver is started for it.
    pub fn keep_only(&self, wanted: &BTreeSet<SandboxId>) -> Result<(), ClientError> {
        let Ok(mut stream) = UnixStream::connect(&self.inner.socket) else { return Ok(()) };
        let mut ask = |request: &Request| {
            stream.set_read_timeout(Some(REPLY_PATIENCE))?;
            stream.set_write_timeout(Some(REPLY_PATIENCE))?;
            send(&mut stream, request, &[])?;
            Ok(receive::<Reply>(&mut stream)?.map(|(reply, _)| reply))
        };
        // One of another release is replaced when it is talked to in earnest.
        let Some(Reply::Status { serving, version: VERSION, .. }) =
            ask(&Request::Status).map_err(ClientError::Talk)?
        else {
            return Ok(());
        };
        for sandbox in serving.into_keys().filter(|sandbox| !wanted.contains(sandbox)) {
            ask(&Request::Stop { sandbox }).map_err(ClientError::Talk)?;
        }
        Ok(())
    }

    /// Adopts a sandbox that an earlier daemon had served on these ports, so that it is served again
    /// should the resolver have died meanwhile.
    pub fn adopt(&self, sandbox: &SandboxId, netns: &Path, ports: (u16, u16)) -> Result<(), ClientError> {
        let mut state = self.inner.lock();
        let ports = self.inner.serve(&mut state, sandbox, netns, Some(ports))?;
        state.served.insert(sandbox.clone(), Served { netns: netns.to_owned(), ports });
        Ok(())
    }

    /// Has the resolver make these changes. With nobody served, no resolver is started for it.
    pub fn change(&self, changes: Vec<ZoneChange>) -> Result<(), ClientError> {
        let mut state = self.inner.lock();
        state.has_names = true;
        for change in &changes {
            state.zones.apply(change.clone());
        }
        if state.connection.is_some() && state.is_told {
            self.inner.call(&mut state, &Request::Update(changes), &[]).map(drop)
        } else if state.served.is_empty() && self.inner.settings.host_names.is_none() {
            Ok(())
        } else {
            // It is told everything, these changes with it.
            self.inner.ensure_connected(&mut state)
        }
    }

    /// Takes leave of the resolver. It goes on for the next daemon if it serves or keeps anything.
    pub fn close(&self) {
        let mut state = self.inner.lock();
        state.closed = true;
        disconnect(&mut state);
    }

    /// The resolver's process id, if one runs.
    pub fn pid(&self) -> Option<u32> {
        let mut state = self.inner.lock();
        state.connection.as_ref()?;
        match self.inner.call(&mut state, &Request::Status, &[]) {
            Ok(Reply::Status { pid, .. }) => Some(pid),
            _ => None,
        }
    }
}

fn disconnect(state: &mut State) {
    if let Some(connection) = state.connection.take() {
        let _ = connection.shutdown(std::net::Shutdown::Both);
    }
}

/// A resolver that does not answer is killed, so that whoever comes next starts another.
fn kill_if_hung(connection: &UnixStream, error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return;
    }
    // Its end is open, or the connection would have broken: this is no other process of that number.
    let Ok(peer) = rustix::net::sockopt::socket_peercred(connection) else { return };
    tracing::error!(pid = peer.pid.as_raw_nonzero(), "the resolver hangs; killing it");
    if let Err(error) = rustix::process::kill_process(peer.pid, rustix::process::Signal::KILL) {
        tracing::error!(%error, "cannot kill the resolver");
    }
    await_end(connection);
}

/// Waits until the resolver at the other end of `connection` is gone, then brings another one up if
/// anybody needs it. Returns when that is done, or when the client is no more.
fn watch(inner: &Weak<Inner>, connection: &UnixStream, generation: u64) {
    while !ends_within(connection, HEARTBEAT) {
        let Some(inner) = inner.upgrade() else { return };
        let mut state = inner.lock();
        if state.closed || state.generation != generation {
            return;
        }
        // One that hangs is killed and replaced by the call.
        if let Err(error) = inner.call(&mut state, &Request::Status, &[]) {
            tracing::warn!(%error, "the resolver does not answer");
        }
    }
    for pause in RESTART_PAUSES {
        let Some(inner) = inner.upgrade() else { return };
        let mut state = inner.lock();
        if state.closed || state.generation != generation {
            return;
        }
        disconnect(&mut state);
        if state.served.is_empty() && inner.settings.host_names.is_none() && !inner.keeping.has_any() {
            return;
        }
        tracing::warn!("the resolver died; starting another");
        match inner.ensure_connected(&mut state) {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "the resolver could not be brought back"),
        }
        drop(state);
        thread::sleep(pause);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(
        &self,
        state: &mut State,
        sandbox: &SandboxId,
        netns: &Path,
        ports: Option<(u16, u16)>,
    ) -> Result<(u16, u16), ClientError> {
        let file =
            File::open(netns).map_err(|source| ClientError::Namespace { path: netns.to_owned(), source })?;
        let request =
            Request::Serve { sandbox: sandbox.clone(), udp: ports.map(|p| p.0), tcp: ports.map(|p| p.1) };
        match self.call(state, &request, &[file.as_fd()])? {
            Reply::Serving { udp, tcp } => Ok((udp, tcp)),
            other => Err(ClientError::Refused(format!("unexpected reply {other:?}"))),
        }
    }

    /// Sends a request and waits for the reply; a connection that broke since the last call is made anew.
    fn call(
        &self,
        state: &mut State,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Reply, ClientError> {
        let had_connection = state.connection.is_some();
        self.ensure_connected(state)?;
        let reply = match exchange(state, request, fds) {
            Err(ClientError::Talk(error)) if had_connection => {
                state.connection.iter().for_each(|connection| kill_if_hung(connection, &error));
                disconnect(state);
                self.ensure_connected(state)?;
                exchange(state, request, fds)?
            }
            other => other?,
        };
        match reply {
            Reply::Failed(reason) => Err(ClientError::Refused(reason)),
            reply => Ok(reply),
        }
    }

    /// Connects to the resolver that runs, or to a new one, and tells it everything.
    fn ensure_connected(&self, state: &mut State) -> Result<(), ClientError> {
        if state.connection.is_none() {
            self.connect(state)?;
        } else if state.is_told {
            return Ok(());
        }
        self.tell_all(state).inspect_err(|_| disconnect(state))
    }

    /// The same for what is not about names, which may come before them.
    fn ensure_reached(&self, state: &mut State) -> Result<(), ClientError> {
        match (state.has_names || !state.served.is_empty(), &state.connection) {
            (true, _) => self.ensure_connected(state),
            (false, Some(_)) => Ok(()),
            (false, None) => self.connect(state),
        }
    }

    fn connect(&self, state: &mut State) -> Result<(), ClientError> {
        let patient = |stream: &UnixStream| {
            stream.set_read_timeout(Some(REPLY_PATIENCE))?;
            stream.set_write_timeout(Some(REPLY_PATIENCE))
        };
        let running = UnixStream::connect(&self.socket).ok();
        let running = running.filter(|stream| patient(stream).is_ok() && is_of_our_version(stream));
        let stream = running.map_or_else(|| self.start(), Ok)?;
        patient(&stream).map_err(ClientError::Talk)?;
        state.generation += 1;
        if let Ok(watched) = stream.try_clone() {
            let (this, generation) = (self.this.clone(), state.generation);
            thread::spawn(move || watch(&this, &watched, generation));
        }
        state.connection = Some(stream);
        state.is_told = false;
        self.keeping.keep_all();
        Ok(())
    }

    fn tell_all(&self, state: &mut State) -> Result<(), ClientError> {
        if let Reply::Failed(reason) = exchange(state, &Request::Configure(self.settings.clone()), &[])? {
            tracing::warn!(reason, "the resolver is not all that it should be");
        }
        let zones = Request::Replace(state.zones.changes());
        exchange(state, &zones, &[])?;
        state.is_told = true;
        for (sandbox, served) in state.served.clone() {
            let Ok(file) = File::open(&served.netns) else { continue };
            let (udp, tcp) = (Some(served.ports.0), Some(served.ports.1));
            let request = Request::Serve { sandbox: sandbox.clone(), udp, tcp };
            if let Reply::Failed(reason) = exchange(state, &request, &[file.as_fd()])? {
                tracing::warn!(sandbox = sandbox.short(), reason, "a sandbox lost its names");
            }
        }
        Ok(())
    }

    fn start(&self) -> Result<UnixStream, ClientError> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(ClientError::Start(io::Error::other("no command")));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(ClientError::Start)?;
        // Reaps it if it dies while we live.
        thread::spawn(move || child.wait());
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match UnixStream::connect(&self.socket) {
                Ok(stream) => return Ok(stream),
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(1)),
                Err(_) => return Err(ClientError::Silent(self.socket.clone())),
            }
        }
    }
}

/// Whether the resolver at the other end speaks as we do. One of another release is told to end, and one that
/// hangs is killed; it has ended when this returns.
fn is_of_our_version(stream: &UnixStream) -> bool {
    let ask = |request: &Request| -> io::Result<Option<Reply>> {
        let mut stream = stream.try_clone()?;
        send(&mut stream, request, &[])?;
        Ok(receive(&mut stream)?.map(|(reply, _)| reply))
    };
    match ask(&Request::Status) {
        Ok(Some(Reply::Status { version: VERSION, .. })) => return true,
        Err(error) => kill_if_hung(stream, &error),
        Ok(_) => {
            tracing::info!("replacing a resolver of another release");
            let _ = ask(&Request::Quit);
        }
    }
    await_end(stream);
    false
}

/// Waits, for a second at most, until the resolver at the other end is gone.
fn await_end(stream: &UnixStream) {
    ends_within(stream, Duration::from_secs(1));
}

/// Whether the resolver at the other end is gone within this time.
fn ends_within(stream: &UnixStream, patience: Duration) -> bool {
    // POLLHUP comes unasked for; nothing else is waited for, so replies are left to those who want them.
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let limit = rustix::event::Timespec::try_from(patience).ok();
    matches!(poll(&mut fds, limit.as_ref()), Ok(1..))
}

fn exchange(state: &mut State, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply, ClientError> {
    let Some(connection) = state.connection.as_mut() else {
        return Err(ClientError::Talk(io::ErrorKind::NotConnected.into()));
    };
    send(connection, request, fds).map_err(ClientError::Talk)?;
    match receive(connection).map_err(ClientError::Talk)? {
        Some((reply, _)) => Ok(reply),
        None => Err(ClientError::Talk(io::ErrorKind::UnexpectedEof.into())),
    }
}
