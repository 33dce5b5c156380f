//! Answering requests.

use rustix::event::PollFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::connection::Role;
use super::process::Held;
use super::{CONTAINER, Shim, TargetId, Waiting};
use crate::spec::ExecSpec;
use crate::wire::{Request, Response};
use crate::{Error, Result, external, setup, state};

impl Shim {
    /// A client has sent something, takes something, or is gone.
    pub(super) fn client_ready(&mut self, id: u64, flags: PollFlags) {
        let mut buffer = [0; 16 * 1024];
        let gone = flags.intersects(PollFlags::HUP | PollFlags::ERR);
        let Some(client) = self.connections.get_mut(&id) else { return };
        if flags.contains(PollFlags::OUT) {
            client.flush();
        }
        while flags.intersects(PollFlags::IN | PollFlags::HUP) {
            let Some(client) = self.connections.get_mut(&id) else { return };
            let Some(bytes) = client.read(&mut buffer) else { break };
            match client.role {
                Role::Control => {
                    client.collect(bytes);
                    self.answer_requests(id);
                }
                Role::Attached { target, stdin: true, .. } => {
                    let Some(held) = self.processes.get_mut(&target) else { continue };
                    held.feed(bytes);
                    // The rest stays in the socket until there is room; but a socket that is gone would
                    // wake us for ever, and holds little.
                    if !held.has_room() && !gone {
                        break;
                    }
                }
                Role::Expecting => {
                    client.collect(bytes);
                    // As for input that waits: the rest stays in the socket.
                    if client.has_plenty() && !gone {
                        break;
                    }
                }
                Role::Attached { .. } | Role::Waiting(_) => {}
            }
        }
        let Some(client) = self.connections.get_mut(&id) else { return };
        client.dead |= gone;
        self.note_half_closed(id);
    }

    pub(super) fn note_half_closed(&mut self, id: u64) {
        if self.connections.get(&id).is_some_and(|client| client.half_closed || client.dead) {
            self.input_ended(id);
        }
    }

    /// A client sends no more: for an attached one that may be the end of standard input.
    fn input_ended(&mut self, id: u64) {
        let Some(client) = self.connections.get_mut(&id) else { return };
        match &mut client.role {
            Role::Attached { target, stdin, .. } => {
                let ended = std::mem::take(stdin);
                let target = *target;
                let ends = target != CONTAINER || self.spec.stdio.stdin_once;
                if let Some(held) = self.processes.get_mut(&target).filter(|_| ended && ends) {
                    held.end_input();
                }
            }
            Role::Control => client.close_when_flushed(),
            // Told again when there is a process.
            Role::Expecting => {}
            Role::Waiting(_) => client.dead = true,
        }
    }

    pub(super) fn answer_requests(&mut self, id: u64) {
        while let Some(request) = self.connections.get_mut(&id).and_then(super::Connection::request) {
            let response = match self.handle(id, request) {
                Ok(Some(response)) => response,
                Ok(None) => continue,
                Err(error) => refusal(error),
            };
            if let Some(client) = self.connections.get_mut(&id) {
                client.answer(&response);
            }
        }
    }

    /// `None`: answered already, or later.
    fn handle(&mut self, id: u64, request: Request) -> Result<Option<Response>> {
        Ok(Some(match request {
            Request::Start => return self.start(id),
            Request::State => Response::State {
                // One that is reaped has left its pid to others.
                pid: self
                    .processes
                    .get(&CONTAINER)
                    .filter(|held| held.exit_code.is_none())
                    .map_or(0, |held| held.pid),
                started: self.started.is_some(),
                started_at: self.started,
                exit: self.exit,
            },
            Request::Kill { signal } => self.kill(CONTAINER, signal)?,
            Request::KillExec { id, signal } => match self.find_exec(&id) {
                Some(target) => self.kill(target, signal)?,
                None => Response::NoSuchExec,
            },
            Request::Wait => match self.exit {
                Some(exit) => Response::Exited(exit),
                None => return Ok(self.become_role(id, Role::Waiting(CONTAINER))),
            },
            Request::WaitExec { id: exec } => {
                match self.finished.iter().rev().find(|(own, _)| *own == exec) {
                    Some((_, code)) => Response::ExecExited { code: *code },
                    None => match self.find_exec(&exec) {
                        Some(target) => return Ok(self.become_role(id, Role::Waiting(target))),
                        None => Response::NoSuchExec,
                    },
                }
            }
            Request::Attach { stdin, stdout, stderr } => {
                if self.exit.is_some() {
                    return Ok(Some(Response::NotRunning));
                }
                self.attach(id, CONTAINER, (stdin, stdout, stderr), &Response::Done);
                return Ok(None);
            }
            Request::Resize { rows, columns } => self.resize(CONTAINER, rows, columns)?,
            Request::ResizeExec { id, rows, columns } => match self.find_exec(&id) {
                Some(target) => self.resize(target, rows, columns)?,
                None => Response::NoSuchExec,
            },
            Request::Exec { spec } => return self.exec(id, spec),
            Request::Delete => self.delete()?,
            Request::Create { .. } => Response::Invalid { message: "this shim has its container".into() },
        }))
    }

    fn start(&mut self, id: u64) -> Result<Option<Response>> {
        match self.waiting.take() {
            Some(Waiting::Own(mut launch)) => {
                launch.release().map_err(setup::start_failed)?;
                self.expect(CONTAINER, launch, id, None);
                return Ok(None);
            }
            Some(Waiting::External) => external::start(&self.spec, &self.directory)?,
            None if self.exit.is_some() => return Ok(Some(Response::NotRunning)),
            None => {
                return Ok(Some(Response::Invalid { message: "the container is started already".into() }));
            }
        }
        Ok(Some(self.has_started()))
    }

    fn kill(&mut self, target: TargetId, signal: i32) -> Result<Response> {
        let alive = self.processes.get(&target).filter(|held| held.exit_code.is_none());
        let Some(pid) = alive.and_then(|held| Pid::from_raw(held.pid)) else {
            return Ok(Response::NotRunning);
        };
        let Some(signal) = crate::sys::signal(signal) else {
            return Ok(Response::Invalid { message: format!("invalid signal: {signal}") });
        };
        match kill_process(pid, signal) {
            // It has ended, and will be reaped in a moment.
            Err(rustix::io::Errno::SRCH) => return Ok(Response::NotRunning),
            other => other.map_err(|error| Error::Io {
                what: format!("signal process {}", pid.as_raw_nonzero()),
                source: error.into(),
            })?,
        }
        if signal == Signal::KILL && target == CONTAINER {
            // A paused container would die only when resumed.
            self.cgroup.thaw_for_kill();
        }
        Ok(Response::Done)
    }

    fn resize(&self, target: TargetId, rows: u16, columns: u16) -> Result<Response> {
        match self.processes.get(&target).and_then(|held| held.resize(rows, columns)) {
            Some(Ok(())) => Ok(Response::Done),
            Some(Err(source)) => Err(Error::Io { what: "resize the terminal".into(), source }),
            None => Ok(Response::Invalid { message: "the process has no terminal".into() }),
        }
    }

    fn exec(&mut self, id: u64, spec: Box<ExecSpec>) -> Result<Option<Response>> {
        let leader =
            self.processes.get(&CONTAINER).filter(|held| held.exit_code.is_none() && self.started.is_some());
        let Some(leader) = leader.map(|held| held.pid) else { return Ok(Some(Response::NotRunning)) };
        if self.cgroup.is_frozen() {
            // It would be frozen half-way, and its client would wait for it.
            return Ok(Some(Response::ExecFailed {
                message: "the container is paused".into(),
                exit_code: 126,
            }));
        }
        let target = self.next_exec;
        self.next_exec += 1;
        if let Some(runtime) = &self.spec.runtime {
            let process = external::execute(runtime, &self.spec, &spec, &self.directory)?;
            let response = Response::ExecStarted { pid: process.pid };
            self.processes.insert(target, Held::new(process, Some(spec.id.clone())));
            let streams = (spec.attach_stdin, spec.attach_stdout, spec.attach_stderr);
            self.attach(id, target, streams, &response);
            return Ok(None);
        }
        let Some(null) = &self.null else { return Ok(Some(Response::NotRunning)) };
        let launch = setup::execute(&self.spec, &spec, &self.filter, leader, null, &self.cgroup)?;
        self.expect(target, launch, id, Some(spec));
        Ok(None)
    }

    /// Makes a connection a stream, with what the client may have sent ahead.
    pub(super) fn attach(
        &mut self,
        id: u64,
        target: TargetId,
        (stdin, stdout, stderr): (bool, bool, bool),
        response: &Response,
    ) {
        let Some(client) = self.connections.get_mut(&id) else { return };
        client.answer(response);
        client.role = Role::Attached { target, stdin, stdout, stderr };
        let ahead = client.take_rest();
        if let Some(held) = self.processes.get_mut(&target).filter(|_| stdin) {
            held.feed(&ahead);
        }
        self.note_half_closed(id);
    }

    fn become_role(&mut self, id: u64, role: Role) -> Option<Response> {
        if let Some(client) = self.connections.get_mut(&id) {
            client.role = role;
        }
        None
    }

    fn find_exec(&self, id: &str) -> Option<TargetId> {
        let running = |held: &&Held| held.exec.as_deref() == Some(id) && !held.finished;
        self.processes.iter().find(|(_, held)| running(held)).map(|(target, _)| *target)
    }

    /// Kills what is left and removes all traces; the shim ends when its clients have their answers.
    pub(super) fn delete(&mut self) -> Result<Response> {
        // Dropped, a process that was never released ends by itself.
        self.waiting = None;
        self.starting.clear();
        if self.exit.is_none() || self.spec.runtime.is_some() {
            if self.spec.runtime.is_some() {
                external::delete(&self.spec, &self.directory);
            }
            let reap = || while crate::sys::reap().is_some() {};
            self.cgroup.kill_and_remove_while(reap)?;
            // It is dead; nobody shall meet its zombie.
            reap();
        }
        self.log.put_off_work();
        state::remove(&self.directory)?;
        self.deleted = true;
        let exit = self.exit.unwrap_or_else(|| crate::ExitStatus {
            code: 137,
            oom_killed: false,
            finished_at: jiff::Timestamp::now(),
            started_at: self.started,
        });
        for target in self.processes.keys().copied().collect::<Vec<_>>() {
            let response =
                if target == CONTAINER { Response::Exited(exit) } else { Response::ExecExited { code: 137 } };
            self.dismiss(target, &response);
        }
        for client in self.connections.values_mut() {
            client.closing = true;
        }
        Ok(Response::Done)
    }
}

pub(super) fn refusal(error: Error) -> Response {
    match error {
        Error::Start { message, exit_code } => Response::StartFailed { message, exit_code },
        Error::Exec { message, exit_code } => Response::ExecFailed { message, exit_code },
        Error::Refused(message) => Response::Refused { message },
        Error::NotRunning { .. } => Response::NotRunning,
        other => Response::Invalid { message: other.to_string() },
    }
}
