//! Repairs that fail: when to try again, and what to tell of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portolan_netcore::host::{Attempt, StepError};
use portolan_netcore::model::{IfName, PortBinding};
use portolan_netcore::plan::{Ns, Step};

/// The second try comes this soon; each further one after twice the time.
const FIRST: Duration = Duration::from_secs(1);
/// But no later than this.
const LONGEST: Duration = Duration::from_secs(30);

/// A repair that failed when it was tried last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// What failed.
    pub(crate) step: Attempt,
    /// Why it failed.
    pub(crate) reason: String,
    /// The errno, if the kernel gave one.
    pub(crate) errno: Option<i32>,
    /// How often it failed.
    pub(crate) times: u32,
    tried: Instant,
    next: Instant,
}

impl Trouble {
    fn plan_step(&self) -> Option<&Step> {
        match &self.step {
            Attempt::Step(step) => Some(step),
            Attempt::Other(_) => None,
        }
    }

    /// The port that could not be held.
    pub(crate) fn port(&self) -> Option<&PortBinding> {
        match self.plan_step()? {
            Step::HoldPort(port) => Some(port),
            _ => None,
        }
    }

    /// The link of the host that could not be made.
    pub(crate) fn link(&self) -> Option<&IfName> {
        match self.plan_step()? {
            Step::AddBridge((Ns::Host, name), _)
            | Step::AddLink((Ns::Host, name), _)
            | Step::AddVeth { host: (Ns::Host, name), .. } => Some(name),
            _ => None,
        }
    }
}

/// All of them, by the line of the step: what is needed is planned anew each time, and is the same if it
/// reads the same.
#[derive(Debug, Default)]
pub(crate) struct Failing(BTreeMap<String, Trouble>);

impl Failing {
    /// A step that has failed waits for its time.
    pub(crate) fn is_due(&self, step: &str, now: Instant) -> bool {
        self.0.get(step).is_none_or(|trouble| trouble.next <= now)
    }

    /// A step failed. True if that is news: it did not before, or for another reason.
    pub(crate) fn failed(&mut self, error: &StepError, now: Instant) -> bool {
        let line = error.step.to_string();
        let before = self.0.get(&line);
        let times = before.map_or(0, |trouble| trouble.times).saturating_add(1);
        let is_news = before.is_none_or(|trouble| trouble.reason != error.reason);
        let wait = FIRST.saturating_mul(1 << (times - 1).min(10)).min(LONGEST);
        let trouble = Trouble {
            step: error.step.clone(),
            reason: error.reason.clone(),
            errno: error.errno,
            times,
            tried: now,
            next: now + wait,
        };
        self.0.insert(line, trouble);
        is_news
    }

    /// A step succeeded.
    pub(crate) fn succeeded(&mut self, step: &str) {
        self.0.remove(step);
    }

    /// What is not among the steps that are needed has come right some other way.
    pub(crate) fn keep(&mut self, needed: impl Fn(&str) -> bool) {
        self.0.retain(|step, _| needed(step));
    }

    /// Something changed, and may have been in the way: what was not tried just now need not wait.
    pub(crate) fn hurry(&mut self) {
        for trouble in self.0.values_mut() {
            trouble.next = trouble.next.min(trouble.tried + FIRST);
        }
    }

    /// Nothing failed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the first of them is due.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.values().map(|trouble| trouble.next).min()
    }

    /// What still fails.
    pub(crate) fn list(&self) -> Vec<Trouble> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_keeps_failing_is_tried_less_and_less_often() {
        let mut failing = Failing::default();
        let mut now = Instant::now();
        let line = "restore the firewall";
        let mut error = StepError {
            step: line.into(),
            reason: "file exists".to_owned(),
            errno: Some(17),
            transient: false,
        };
        let mut waits = Vec::new();
        for times in 1..=7 {
            assert!(failing.is_due(line, now), "{times}");
            assert_eq!(failing.failed(&error, now), times == 1, "{times}");
            let next = failing.next().expect("it is waiting");
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(failing.list()[0].times, 7);

        failing.failed(&error, now);
        now += FIRST;
        assert!(!failing.is_due(line, now), "its time is not come");
        failing.hurry();
        assert!(failing.is_due(line, now), "unless something changed");

        "no such device".clone_into(&mut error.reason);
        assert!(failing.failed(&error, now), "another reason is news");
        failing.keep(|step| step != "another");
        assert_eq!(failing.list().len(), 1);
        failing.succeeded(line);
        assert!(failing.failed(&error, now), "what was well in between begins anew");
        assert_eq!(failing.list()[0].times, 1);
    }
}
