//! The process that stands behind one container: it holds the streams, writes the log, reaps, and
//! keeps the exit status. One thread, one poll loop, no runtime.

mod connection;
mod log;
mod process;
mod serve;
mod starting;

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::connection::{Connection, MOST_QUEUED, Role};
use self::log::Log;
use self::process::Held;
use self::starting::Starting;
use crate::cgroup::Cgroup;
use crate::error::Attempt;
use crate::identity::{Identity, Stat};
use crate::setup::{Host, Launch};
use crate::spec::{ContainerSpec, NamespaceMode, Others};
use crate::state::{self, SavedState};
use crate::status::{ExitStatus, OutputStream};
use crate::wire::{self, Handed, Request, Response};
use crate::{Error, Result, external, setup, sys};

/// A process: 0 is the container's first, the others were executed in it.
type TargetId = u64;
const CONTAINER: TargetId = 0;

/// After the end of a process, others that have inherited its output are listened to for this long.
const GRACE: Duration = Duration::from_secs(2);
/// A client that takes nothing for this long while the container waits for it is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// What could not be written is tried again after this long.
const SAVE_AGAIN: Duration = Duration::from_secs(5);
/// Whether anybody can still ask how the container ended is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Exit codes of executed processes are remembered for this many.
const REMEMBERED: usize = 256;

/// Everything the shim knows.
struct Shim {
    spec: ContainerSpec,
    directory: PathBuf,
    /// The same, open: another may be at its path one day.
    place: OwnedFd,
    filter: Vec<u8>,
    cgroup: Cgroup,
    listener: UnixListener,
    signals: OwnedFd,
    /// The first process until it is released; or the external runtime's way to start it.
    waiting: Option<Waiting>,
    /// Since when its program runs, or ran.
    started: Option<Timestamp>,
    /// Released, or executed, and not seen at their programs yet.
    starting: Vec<Starting>,
    /// Pids that were reaped while some of those had still to tell theirs, with their exit codes.
    unclaimed: BTreeMap<i32, i32>,
    /// The container's null device, for streams that nobody wants; an external runtime has its own.
    null: Option<OwnedFd>,
    processes: BTreeMap<TargetId, Held>,
    next_exec: TargetId,
    /// Ids and exit codes of executed processes that are over.
    finished: VecDeque<(String, i32)>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    log: Log,
    exit: Option<ExitStatus>,
    /// It is not on disk yet.
    unsaved: bool,
    /// When to stop listening to what processes left behind.
    deadline: Option<Instant>,
    deleted: bool,
}

/// A first process that is set up.
enum Waiting {
    /// By us.
    Own(Launch),
    /// By an external runtime.
    External,
}

/// Runs a shim, in a process forked from the launcher for it.
pub(crate) fn run(host: Host, connection: OwnedFd, handed: Handed<OwnedFd>) -> ! {
    let mut connection = UnixStream::from(connection);
    match Shim::create(&host, &mut connection, handed) {
        Ok(shim) => match shim.serve(connection) {
            Ok(()) => sys::exit(0),
            Err(_) => sys::exit(1),
        },
        Err(error) => {
            let answer = match error {
                Error::Start { message, exit_code } => Response::StartFailed { message, exit_code },
                Error::Refused(message) => Response::Refused { message },
                other => Response::StartFailed { message: other.to_string(), exit_code: 128 },
            };
            // If the daemon is gone there is nobody to tell.
            let _ = std::io::Write::write_all(&mut connection, &wire::encode(&answer));
            sys::exit(1)
        }
    }
}

impl Shim {
    fn create(host: &Host, connection: &mut UnixStream, handed: Handed<OwnedFd>) -> Result<Self> {
        rustix::process::setsid().attempt(|| "start a session".into())?;
        sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).attempt(|| "become a subreaper".into())?;
        let (mut spec, exec_root, filter) = receive_spec(connection)?;
        let Handed { netns, pid, ipc, uts } = handed;
        let [pid, ipc, uts] = [pid, ipc, uts].map(|other| other.map(Arc::new));
        spec.others = Others { pid, ipc, uts };
        let own = Stat::own();
        show_name(&spec.id, own.as_ref());
        let identity = own.as_ref().map(Identity::own);
        let directory = state::directory(Path::new(&exec_root), &spec.id);
        std::fs::create_dir(&directory).attempt(|| format!("make {}", directory.display()))?;
        let made = Self::create_in(host, spec, directory.clone(), filter, netns, identity);
        if made.is_err() {
            state::remove(&directory)?;
        }
        made
    }

    fn create_in(
        host: &Host,
        mut spec: ContainerSpec,
        directory: PathBuf,
        filter: Vec<u8>,
        netns: Option<OwnedFd>,
        identity: Option<Identity>,
    ) -> Result<Self> {
        let signals = sys::signal_descriptor(&[libc::SIGCHLD]).attempt(|| "watch children".into())?;
        let (listener, place) = listen(&directory)?;
        let log = Log::open(&spec.log).attempt(|| format!("open the log of {}", spec.id))?;
        let cgroup = Cgroup::open(&Cgroup::path_for(&spec.cgroup_parent, &spec.id))?;
        // What is made from here on can be found again if this process is killed.
        SavedState { pid: 0, cgroup: cgroup.path().to_owned(), shim: identity, exit: None }
            .save(&directory)?;
        let (process, null, waiting) = match &spec.runtime {
            None => {
                let mut launch = setup::create(host, &spec, &filter, netns.as_ref(), &cgroup)?;
                let (process, null) = launch.take();
                (process.unwrap_or_default(), null, Waiting::Own(launch))
            }
            Some(runtime) => {
                let created = external::create(runtime, &spec, netns.as_ref(), &cgroup, &directory);
                if created.is_err() {
                    // One that was killed has cleaned up nothing. The first error says more than another.
                    external::delete(&spec, &directory);
                    let _ = cgroup.kill_and_remove();
                }
                (created?, None, Waiting::External)
            }
        };
        // Nobody joins them once more, and they would keep what has ended.
        spec.others = Others::default();
        let held = Held::new(process, None);
        let saved =
            SavedState { pid: held.pid, cgroup: cgroup.path().to_owned(), shim: identity, exit: None };
        if let Err(error) = saved.save(&directory) {
            cgroup.kill_and_remove()?;
            return Err(error);
        }
        Ok(Self {
            spec,
            directory,
            place,
            filter,
            cgroup,
            listener,
            signals,
            waiting: Some(waiting),
            started: None,
            starting: Vec::new(),
            unclaimed: BTreeMap::new(),
            null,
            processes: BTreeMap::from([(CONTAINER, held)]),
            next_exec: 1,
            finished: VecDeque::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            log,
            exit: None,
            unsaved: false,
            deadline: None,
            deleted: false,
        })
    }

    /// Until the container is deleted.
    fn serve(mut self, first: UnixStream) -> Result<()> {
        let pid = self.processes.get(&CONTAINER).map_or(0, |held| held.pid);
        if let Some(client) = self.accept(first.into()) {
            client.answer(&Response::Created { pid });
        }
        while !(self.deleted && self.connections.is_empty()) {
            self.turn()?;
        }
        Ok(())
    }

    fn accept(&mut self, socket: OwnedFd) -> Option<&mut Connection> {
        let connection = Connection::new(socket).ok()?;
        self.next_connection += 1;
        self.connections.insert(self.next_connection, connection);
        self.connections.get_mut(&self.next_connection)
    }

    /// Waits for something to happen and handles all of it.
    fn turn(&mut self) -> Result<()> {
        let ready = self.wait()?;
        for event in ready {
            match event {
                Event::Signals => self.drain_signals(),
                Event::Connect => {
                    while let Ok((stream, _)) = self.listener.accept() {
                        self.accept(stream.into());
                    }
                }
                Event::Output(target, stream) => self.read_output(target, stream),
                Event::Input(target) => {
                    if let Some(held) = self.processes.get_mut(&target) {
                        held.write_input();
                    }
                }
                Event::Client(id, flags) => self.client_ready(id, flags),
                Event::Starting(target) => self.advance(target),
            }
        }
        self.log.work();
        self.give_up_the_late();
        self.finish_ended();
        self.give_up_the_stalled();
        self.connections.retain(|_, connection| !connection.dead);
        self.leave_if_forgotten();
        Ok(())
    }

    fn wait(&self) -> Result<Vec<Event>> {
        let mut events = vec![Event::Signals, Event::Connect];
        let mut fds =
            vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        for (target, held) in &self.processes {
            if held.exit_code.is_some() || !self.is_choked(*target) {
                for (stream, fd) in held.outputs() {
                    events.push(Event::Output(*target, stream));
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                }
            }
            if let Some(fd) = held.pending_input() {
                events.push(Event::Input(*target));
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
            }
        }
        for (id, connection) in &self.connections {
            let room = match &connection.role {
                Role::Attached { target, .. } => self.processes.get(target).is_none_or(Held::has_room),
                _ => true,
            };
            events.push(Event::Client(*id, PollFlags::empty()));
            fds.push(PollFd::new(&connection.socket, connection.interest(room)));
        }
        for starting in &self.starting {
            events.push(Event::Starting(starting.target));
            fds.push(PollFd::from_borrowed_fd(starting.launch.descriptor(), PollFlags::IN));
        }
        let timeout = self.timeout();
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => other.attempt(|| "wait for events".into())?,
        };
        let ready = fds.iter().zip(events).filter(|(fd, _)| !fd.revents().is_empty());
        Ok(ready
            .map(|(fd, event)| match event {
                Event::Client(id, _) => Event::Client(id, fd.revents()),
                other => other,
            })
            .collect())
    }

    fn timeout(&self) -> Option<Timespec> {
        let stalled = self.connections.values().filter(|client| client.queued() >= MOST_QUEUED);
        let patience = stalled.filter_map(|client| client.stalled.map(|since| since + PATIENCE)).min();
        let starting = self.starting.iter().map(|starting| starting.deadline).min();
        let unsaved = self.unsaved.then(|| Instant::now() + SAVE_AGAIN);
        if self.log.has_work() {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let alone = (self.exit.is_some() && self.connections.is_empty()).then(|| Instant::now() + LOOK_AGAIN);
        let next = [self.deadline, patience, starting, unsaved, alone].into_iter().flatten().min()?;
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(left).ok()
    }

    /// Whether a client of this process has more to take than it should.
    fn is_choked(&self, target: TargetId) -> bool {
        self.connections.values().any(|client| {
            client.queued() >= MOST_QUEUED
                && matches!(&client.role, Role::Attached { target: own, .. } if *own == target)
        })
    }

    fn read_output(&mut self, target: TargetId, stream: OutputStream) {
        let mut buffer = [0; 64 * 1024];
        let Some(held) = self.processes.get_mut(&target) else { return };
        let Some(bytes) = held.read(stream, &mut buffer).filter(|bytes| !bytes.is_empty()) else { return };
        if target == CONTAINER {
            self.log.write(stream, bytes);
        }
        for client in self.connections.values_mut() {
            if let Role::Attached { target: own, stdout, stderr, .. } = client.role {
                let wanted = if stream == OutputStream::Stdout { stdout } else { stderr };
                if own == target && wanted {
                    client.output(stream, bytes);
                }
            }
        }
    }

    fn drain_signals(&mut self) {
        let mut record = [0; 1024];
        while matches!(rustix::io::read(&self.signals, &mut record), Ok(length) if length > 0) {}
        while let Some((pid, code)) = sys::reap() {
            // One that has been reaped may have left its pid to another.
            let alive = |held: &Held| held.pid == pid && held.exit_code.is_none();
            let Some((target, held)) = self.processes.iter_mut().find(|(_, held)| alive(held)) else {
                // A helper has done its part, and nobody will ask for its number: that may be the next process's.
                let helper = self.starting.iter_mut().any(|starting| starting.launch.helper_reaped(pid));
                if !helper && !self.starting.is_empty() {
                    self.unclaimed.insert(pid, code);
                }
                continue;
            };
            held.exit_code = Some(code);
            self.deadline = Some(Instant::now() + GRACE);
            let is_first = *target == CONTAINER;
            if is_first && self.spec.pid != NamespaceMode::Private && !self.is_replaced() {
                // No pid namespace that ends with its first process.
                let _ = self.cgroup.kill_all();
            }
        }
    }

    /// Processes that have exited and whose output is through.
    fn finish_ended(&mut self) {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let exited: Vec<(TargetId, i32)> = self
            .processes
            .iter()
            .filter(|(_, held)| !held.finished)
            .filter_map(|(target, held)| held.exit_code.map(|code| (*target, code)))
            .collect();
        for (target, code) in exited {
            self.drain(target, late);
            let Some(held) = self.processes.get_mut(&target) else { continue };
            // What an executed process left running may keep its streams; nobody waits for that.
            if target == CONTAINER && !held.outputs_ended() {
                continue;
            }
            held.finished = true;
            if target == CONTAINER {
                self.finish_container(code);
            } else {
                self.finish_exec(target, code);
            }
        }
        self.processes.retain(|target, held| *target == CONTAINER || !held.finished || !held.outputs_ended());
        if late {
            self.deadline = None;
        }
        if self.unsaved {
            self.save_exit();
        }
    }

    /// Reads what is there; gives up on the rest if it is late.
    fn drain(&mut self, target: TargetId, late: bool) {
        loop {
            let Some(held) = self.processes.get(&target) else { return };
            let mut fds: Vec<PollFd<'_>> =
                held.outputs().map(|(_, fd)| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            let streams: Vec<OutputStream> = held.outputs().map(|(stream, _)| stream).collect();
            let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap_or(0);
            let ready: Vec<OutputStream> = if ready == 0 {
                Vec::new()
            } else {
                fds.iter().zip(streams).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, s)| s).collect()
            };
            if ready.is_empty() {
                break;
            }
            ready.into_iter().for_each(|stream| self.read_output(target, stream));
        }
        if let Some(held) = self.processes.get_mut(&target).filter(|_| late) {
            held.close_outputs();
        }
    }

    /// The container is over: first on disk, then to those who wait.
    fn finish_container(&mut self, code: i32) {
        self.log.finish();
        let oom_killed = self.cgroup.oom_killed();
        let status = ExitStatus { code, oom_killed, finished_at: Timestamp::now(), started_at: self.started };
        self.exit = Some(status);
        self.waiting = None;
        self.save_exit();
        self.dismiss(CONTAINER, &Response::Exited(status));
        // Whoever waits is on their way; what follows needs no hurry. What cannot be removed now is tried again
        // when the container is deleted.
        if self.spec.runtime.is_none() && !self.is_replaced() {
            let _ = self.cgroup.kill_and_remove();
        }
    }

    /// Where there is no room for it, the status is here to be asked for, and written later.
    fn save_exit(&mut self) {
        let Some(exit) = &self.exit else { return };
        let wanted = !self.deleted && !self.is_cut_off();
        self.unsaved = wanted && state::save_exit(&self.directory, exit).is_err();
    }

    fn finish_exec(&mut self, target: TargetId, code: i32) {
        if let Some(id) = self.processes.get(&target).and_then(|held| held.exec.clone()) {
            self.finished.push_back((id, code));
            if self.finished.len() > REMEMBERED {
                self.finished.pop_front();
            }
        }
        self.dismiss(target, &Response::ExecExited { code });
    }

    /// Ends the streams of a process's clients and answers those who wait for it.
    fn dismiss(&mut self, target: TargetId, response: &Response) {
        for client in self.connections.values_mut() {
            match client.role {
                Role::Attached { target: own, .. } if own == target => client.close_when_flushed(),
                Role::Waiting(own) if own == target => {
                    client.answer(response);
                    client.close_when_flushed();
                }
                _ => {}
            }
        }
    }

    /// Somebody removed its directory, and with it the way to here.
    fn is_cut_off(&self) -> bool {
        rustix::fs::fstat(&self.place).is_ok_and(|found| found.st_nlink == 0)
    }

    /// The container was started again meanwhile: cgroup and directory are another shim's.
    fn is_replaced(&self) -> bool {
        self.is_cut_off() && self.directory.exists()
    }

    /// Nobody who is not here already will ever ask how the container ended.
    fn leave_if_forgotten(&mut self) {
        if self.exit.is_none() || !self.connections.is_empty() || !self.is_cut_off() {
            return;
        }
        if self.spec.runtime.is_some() && !self.is_replaced() {
            // What cannot be cleared away now is tried again.
            let _ = self.delete();
        } else {
            self.log.put_off_work();
            self.deleted = true;
        }
    }

    fn give_up_the_stalled(&mut self) {
        for client in self.connections.values_mut().filter(|client| client.queued() >= MOST_QUEUED) {
            client.dead |= client.stalled.is_some_and(|since| since.elapsed() >= PATIENCE);
        }
    }
}

/// Something is ready.
enum Event {
    Signals,
    Connect,
    Output(TargetId, OutputStream),
    Input(TargetId),
    Client(u64, PollFlags),
    Starting(TargetId),
}

fn receive_spec(connection: &mut UnixStream) -> Result<(ContainerSpec, String, Vec<u8>)> {
    let what = || "read the container's specification".to_owned();
    let mut head = [0; 4];
    connection.read_exact(&mut head).attempt(what)?;
    let mut body = vec![0; wire::announced(head)?];
    connection.read_exact(&mut body).attempt(what)?;
    let Request::Create { spec, exec_root, filter } = wire::decode(&body)? else {
        return Err(Error::Protocol { from: "daemon", what: "something else than create".into() });
    };
    let mut bytes = vec![0; filter.min(wire::LONGEST_MESSAGE)];
    connection.read_exact(&mut bytes).attempt(what)?;
    Ok((*spec, exec_root, bytes))
}

/// By way of the directory's descriptor: `sun_path` ends at 108 bytes.
fn listen(directory: &Path) -> Result<(UnixListener, OwnedFd)> {
    let what = || format!("listen in {}", directory.display());
    let handle = std::fs::File::open(directory).attempt(what)?;
    let path = format!("/proc/self/fd/{}/{}", handle.as_fd().as_raw_fd(), state::SOCKET);
    let listener = UnixListener::bind(path).attempt(what)?;
    listener.set_nonblocking(true).attempt(what)?;
    Ok((listener, handle.into()))
}

/// What `ps` shows.
fn show_name(id: &str, own: Option<&Stat>) {
    let short: String = id.chars().take(64).collect();
    sys::show_name(c"portolan-shim", &format!("portolan-shim {short}"), own);
}
