//! Processes on their way to their programs. Until one is there the shim goes on with everything else: whoever
//! has a container can make that way as long as they like.

use std::time::Instant;

use jiff::Timestamp;

use super::connection::Role;
use super::process::Held;
use super::{CONTAINER, Shim, TargetId};
use crate::setup::{self, Failure, Launch, PATIENCE, Progress};
use crate::spec::ExecSpec;
use crate::wire::Response;

/// A process that has been released, or executed.
#[derive(Debug)]
pub(super) struct Starting {
    pub(super) target: TargetId,
    pub(super) launch: Launch,
    pub(super) deadline: Instant,
    /// Who waits for it.
    client: u64,
    /// What is executed; none is the container's own program.
    exec: Option<Box<ExecSpec>>,
}

impl Shim {
    /// Watches a process from now on; its client is answered when it is known what comes of it.
    pub(super) fn expect(
        &mut self,
        target: TargetId,
        launch: Launch,
        client: u64,
        exec: Option<Box<ExecSpec>>,
    ) {
        if let Some(client) = self.connections.get_mut(&client) {
            client.role = Role::Expecting;
        }
        let deadline = Instant::now() + PATIENCE;
        self.starting.push(Starting { target, launch, deadline, client, exec });
    }

    /// It has said something, or is at its program.
    pub(super) fn advance(&mut self, target: TargetId) {
        let Some(index) = self.starting.iter().position(|starting| starting.target == target) else { return };
        loop {
            match self.starting[index].launch.advance() {
                // Until it has nothing more to say.
                Progress::Underway if self.starting[index].launch.has_more() => {}
                Progress::Underway => return,
                Progress::Running => {
                    let starting = self.starting.swap_remove(index);
                    self.arrived(starting);
                    break;
                }
                Progress::Failed(failure) => {
                    let starting = self.starting.swap_remove(index);
                    self.give_up(&starting, failure);
                    break;
                }
            }
        }
        if self.starting.is_empty() {
            self.unclaimed.clear();
        }
    }

    /// Those that take too long, and executed ones that nobody waits for any more.
    pub(super) fn give_up_the_late(&mut self) {
        let now = Instant::now();
        let connections = &self.connections;
        let abandoned = |starting: &Starting| {
            starting.exec.is_some() && connections.get(&starting.client).is_none_or(|client| client.dead)
        };
        let lost: Vec<TargetId> = self
            .starting
            .iter()
            .filter(|starting| now >= starting.deadline || abandoned(starting))
            .map(|starting| starting.target)
            .collect();
        for target in lost {
            let Some(index) = self.starting.iter().position(|starting| starting.target == target) else {
                continue;
            };
            let starting = self.starting.swap_remove(index);
            self.give_up(&starting, setup::too_late(PATIENCE));
        }
    }

    fn arrived(&mut self, mut starting: Starting) {
        let Some(exec) = starting.exec else {
            let started = self.has_started();
            self.answer_expecting(starting.client, &started);
            return;
        };
        let (Some(process), _) = starting.launch.take() else { return };
        let pid = process.pid;
        let mut held = Held::new(process, Some(exec.id));
        if let Some(code) = self.unclaimed.remove(&pid) {
            held.exit_code = Some(code);
            self.deadline = Some(Instant::now() + super::GRACE);
        }
        self.processes.insert(starting.target, held);
        let streams = (exec.attach_stdin, exec.attach_stdout, exec.attach_stderr);
        self.attach(starting.client, starting.target, streams, &Response::ExecStarted { pid });
    }

    /// The container's program runs from now on.
    pub(super) fn has_started(&mut self) -> Response {
        let at = Timestamp::now();
        self.started = Some(at);
        Response::Started { at }
    }

    fn give_up(&mut self, starting: &Starting, failure: Failure) {
        let reaped = |pid| {
            let held = self.processes.get(&starting.target);
            self.unclaimed.contains_key(&pid)
                || held.is_some_and(|held| held.pid == pid && held.exit_code.is_some())
        };
        starting.launch.kill(reaped);
        let error = match starting.target {
            CONTAINER => setup::start_failed(failure),
            _ => setup::exec_failed(failure),
        };
        self.answer_expecting(starting.client, &super::serve::refusal(error));
    }

    /// Answers; what the client may have sent meanwhile are requests.
    fn answer_expecting(&mut self, id: u64, response: &Response) {
        if let Some(client) = self.connections.get_mut(&id) {
            client.role = Role::Control;
            client.answer(response);
            self.answer_requests(id);
        }
        self.note_half_closed(id);
    }
}
