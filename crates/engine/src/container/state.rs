//! The state machine of a container, without effects: what each happening makes of its state.
//!
//! ```text
//! created --start--> running <--pause/unpause--> paused
//!    |                  | exit
//!    |                  v
//!    |   exited <--  (policy?)  --> restarting --start--> running
//!    v     v
//!   removing -> (gone) | dead
//! ```

use std::time::Duration;

use jiff::Timestamp;
use portolan_netcore::model::SandboxId;
use portolan_runtime::ExitStatus;
use serde::{Deserialize, Serialize};

use crate::error::{EngineError, Result};
use crate::model::{ContainerState, Health, RestartPolicy, RestartPolicyName, Status};

/// The exit code of a container that was not there any more when the daemon looked for it.
pub(crate) const EXIT_LOST: i32 = 137;

/// The end of such a one, as far as it is known: now.
pub(crate) fn lost() -> ExitStatus {
    ExitStatus { code: EXIT_LOST, oom_killed: false, finished_at: Timestamp::now(), started_at: None }
}

/// What a container that ran this long starts its restart delay anew.
const STABLE_AFTER: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// All of a container's state that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RunState {
    /// What `inspect` shows.
    pub(crate) shown: ContainerState,
    /// Docker: `RestartCount`.
    pub(crate) restart_count: u32,
    /// The user stopped it: `unless-stopped` does not start it with the daemon.
    pub(crate) manually_stopped: bool,
    /// A start is under way, or it runs: it may own a sandbox and a shim.
    pub(crate) owns_resources: bool,
    /// Its sandbox, if it has one of its own.
    pub(crate) sandbox: Option<SandboxId>,
    /// The delay before the last automatic restart.
    pub(crate) restart_delay: Duration,
}

impl RunState {
    /// May it be started now? `NotModified` if it runs.
    pub(crate) fn check_start(&self) -> Result<()> {
        match self.shown.status {
            Status::Created | Status::Exited | Status::Restarting => Ok(()),
            Status::Running => Err(EngineError::not_modified("container is already running")),
            Status::Paused => {
                Err(EngineError::conflict("cannot start a paused container, try unpause instead"))
            }
            Status::Removing | Status::Dead => {
                Err(EngineError::conflict("container is marked for removal and cannot be started"))
            }
        }
    }

    /// Somebody wants it to run, a user or the daemon at its start: what was before is forgotten.
    pub(crate) fn wanted(&mut self) {
        self.manually_stopped = false;
        self.restart_count = 0;
        self.restart_delay = Duration::ZERO;
    }

    /// A start begins.
    pub(crate) fn starting(&mut self, sandbox: Option<SandboxId>) {
        self.owns_resources = true;
        self.sandbox = sandbox;
        self.shown.error.clear();
    }

    /// Its first process runs.
    pub(crate) fn started(&mut self, pid: i32, at: Timestamp, health: Option<Health>) {
        self.shown.status = Status::Running;
        self.shown.pid = pid;
        self.shown.exit_code = 0;
        self.shown.error.clear();
        self.shown.oom_killed = false;
        self.shown.started_at = Some(at);
        self.shown.health = health;
    }

    /// It could not be started.
    pub(crate) fn start_failed(&mut self, exit_code: i32, error: &str) {
        // A container that ran before stays `exited`; a new one stays `created`, as in Docker.
        if self.shown.status != Status::Created {
            self.shown.status = Status::Exited;
        }
        self.shown.pid = 0;
        self.shown.exit_code = exit_code;
        self.shown.error = error.to_owned();
        self.owns_resources = false;
        self.sandbox = None;
    }

    /// Its first process ended. What it owns is still to be given back.
    pub(crate) fn exited(&mut self, exit: &ExitStatus) {
        self.shown.status = Status::Exited;
        self.shown.pid = 0;
        self.shown.exit_code = exit.code;
        self.shown.oom_killed = exit.oom_killed;
        self.shown.finished_at = Some(exit.finished_at);
        // What the shim tells outlives a record that came too late.
        self.shown.started_at = exit.started_at.or(self.shown.started_at);
    }

    /// The restart policy will start it again after the delay that is returned.
    pub(crate) fn restarting(&mut self) -> Duration {
        let ran_for = match (self.shown.started_at, self.shown.finished_at) {
            (Some(from), Some(to)) => to.duration_since(from).unsigned_abs(),
            _ => Duration::ZERO,
        };
        self.restart_delay = match self.restart_delay {
            delay if ran_for < STABLE_AFTER && !delay.is_zero() => (delay * 2).min(LONGEST_DELAY),
            _ => FIRST_DELAY,
        };
        self.shown.status = Status::Restarting;
        self.restart_count += 1;
        self.restart_delay
    }

    /// Does the policy start it again after this end?
    pub(crate) fn wants_restart(&self, policy: RestartPolicy) -> bool {
        if self.manually_stopped {
            return false;
        }
        match policy.name {
            RestartPolicyName::No => false,
            RestartPolicyName::Always | RestartPolicyName::UnlessStopped => true,
            RestartPolicyName::OnFailure => {
                let retries = policy.maximum_retry_count;
                self.shown.exit_code != 0 && (retries == 0 || self.restart_count < retries)
            }
        }
    }

    /// Does the policy start it with the daemon? `ran` tells whether it ran when the last daemon ended.
    pub(crate) fn wants_start_with_daemon(&self, policy: RestartPolicy, ran: bool) -> bool {
        match policy.name {
            RestartPolicyName::No => false,
            RestartPolicyName::Always => ran || self.shown.started_at.is_some(),
            RestartPolicyName::UnlessStopped => {
                !self.manually_stopped && (ran || self.shown.started_at.is_some())
            }
            RestartPolicyName::OnFailure => ran && self.wants_restart(policy),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: i32, second: i64) -> ExitStatus {
        let finished_at = Timestamp::from_second(second).unwrap();
        ExitStatus { code, oom_killed: false, finished_at, started_at: None }
    }

    fn policy(name: RestartPolicyName, maximum_retry_count: u32) -> RestartPolicy {
        RestartPolicy { name, maximum_retry_count }
    }

    #[test]
    fn a_failed_first_start_stays_created_and_keeps_the_reason() {
        let mut state = RunState::default();
        state.starting(None);
        state.start_failed(127, "no such file");
        assert_eq!(state.shown.status, Status::Created);
        assert_eq!((state.shown.exit_code, state.shown.error.as_str()), (127, "no such file"));
        assert!(!state.owns_resources);
        state.starting(None);
        assert_eq!(state.shown.error, "");
    }

    #[test]
    fn only_what_rests_can_be_started() {
        let mut state = RunState::default();
        assert!(state.check_start().is_ok());
        state.started(5, Timestamp::UNIX_EPOCH, None);
        assert_eq!(state.check_start().unwrap_err().kind(), crate::ErrorKind::NotModified);
        state.shown.status = Status::Paused;
        assert_eq!(state.check_start().unwrap_err().kind(), crate::ErrorKind::Conflict);
        state.exited(&exit(0, 1));
        assert!(state.check_start().is_ok());
        state.shown.status = Status::Removing;
        assert!(state.check_start().is_err());
    }

    #[test]
    fn a_run_that_was_not_noted_is_dated_by_its_end() {
        let mut state = RunState::default();
        state.started(5, Timestamp::from_second(1).unwrap(), None);
        state.exited(&exit(0, 2));
        assert_eq!(state.shown.started_at, Some(Timestamp::from_second(1).unwrap()));
        let next = Timestamp::from_second(3).unwrap();
        state.exited(&ExitStatus { started_at: Some(next), ..exit(0, 4) });
        assert_eq!(state.shown.started_at, Some(next));
    }

    #[test]
    fn restart_delays_double_until_it_was_stable() {
        let mut state = RunState::default();
        let mut run = |from: i64, to: i64| {
            state.started(5, Timestamp::from_second(from).unwrap(), None);
            state.exited(&exit(1, to));
            state.restarting().as_millis()
        };
        assert_eq!([run(0, 1), run(1, 2), run(2, 3), run(3, 4)], [100, 200, 400, 800]);
        assert_eq!(run(4, 20), 100);
        for _ in 0..20 {
            run(0, 0);
        }
        assert_eq!(run(0, 0), 60_000);
    }

    #[test]
    fn policies() {
        use RestartPolicyName::*;
        let mut state = RunState::default();
        state.exited(&exit(1, 1));
        assert!(!state.wants_restart(policy(No, 0)));
        assert!(state.wants_restart(policy(Always, 0)));
        assert!(state.wants_restart(policy(OnFailure, 0)));
        state.restart_count = 2;
        assert!(state.wants_restart(policy(OnFailure, 3)));
        assert!(!state.wants_restart(policy(OnFailure, 2)));
        state.exited(&exit(0, 1));
        assert!(!state.wants_restart(policy(OnFailure, 0)));
        state.manually_stopped = true;
        assert!(!state.wants_restart(policy(Always, 0)));
        state.shown.started_at = Some(Timestamp::UNIX_EPOCH);
        assert!(state.wants_start_with_daemon(policy(Always, 0), false));
        assert!(!state.wants_start_with_daemon(policy(UnlessStopped, 0), false));
        state.wanted();
        state.exited(&exit(137, 2));
        assert!(
            state.wants_restart(policy(Always, 0)),
            "started again, it is not stopped by the user any more"
        );
    }
}
