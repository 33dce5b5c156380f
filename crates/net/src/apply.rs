//! Carrying out plans: to the end, or back to where they began.

use std::borrow::Cow;

use portolan_netcore::host::{Host, StepError};
use portolan_netcore::plan::{Step, without};

/// How often a step that the kernel refused for the moment is tried again.
const RETRIES: usize = 3;

/// A plan that stopped: the steps before `done` took effect.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) done: usize,
    pub(crate) error: StepError,
}

/// All steps, in order, up to the first that fails for good.
pub(crate) fn run(host: &dyn Host, steps: &[Step]) -> Result<(), Stopped> {
    let mut done = 0;
    let mut retries = RETRIES;
    while done < steps.len() {
        let report = host.execute(&steps[done..]);
        if report.done > 0 {
            retries = RETRIES;
        }
        done += report.done;
        match report.error {
            None => break,
            Some(error) if error.transient && retries > 0 => retries -= 1,
            Some(error) => return Err(Stopped { done, error }),
        }
    }
    Ok(())
}

/// All steps, whatever fails on the way: for taking down. The failures.
pub(crate) fn run_whatever_fails(host: &dyn Host, steps: &[Step]) -> Vec<StepError> {
    run_each(host, steps).1
}

/// The same; which steps took effect, and what kept the others from it.
pub(crate) fn run_each(host: &dyn Host, steps: &[Step]) -> (Vec<Step>, Vec<StepError>) {
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    let mut rest = Cow::Borrowed(steps);
    while let Err(stopped) = run(host, &rest) {
        tracing::warn!(step = %stopped.error.step, reason = %stopped.error.reason, "step failed, going on");
        done.extend_from_slice(rest.get(..stopped.done).unwrap_or_default());
        rest = Cow::Owned(behind(&rest, stopped.done));
        errors.push(stopped.error);
    }
    done.extend(rest.into_owned());
    (done, errors)
}

/// What is left to do of a plan whose step at `failed` failed.
pub(crate) fn behind(steps: &[Step], failed: usize) -> Vec<Step> {
    match steps.get(failed..) {
        Some([failed, rest @ ..]) => without(failed, rest),
        _ => Vec::new(),
    }
}

/// Runs `steps`; if one fails, takes back what was done: by what `undo` plans, given the steps that were
/// done and the others.
pub(crate) fn run_or_undo(
    host: &dyn Host,
    steps: &[Step],
    undo: impl FnOnce(&[Step], &[Step]) -> Vec<Step>,
) -> Result<(), StepError> {
    let Err(stopped) = run(host, steps) else { return Ok(()) };
    let (done, not_done) = steps.split_at(stopped.done);
    run_whatever_fails(host, &undo(done, not_done));
    Err(stopped.error)
}
