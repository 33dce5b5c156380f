//! Self-healing: what strangers do to what is ours is noticed, put right and told.
//!
//! A thread listens to the kernel. Most of what it hears is our own doing, which the owner recognises
//! by looking at its desired state alone. The rest makes the owner look at the host's namespace and
//! plan the way back, by the same planner as everything else. Rules are put back by the backend that knows
//! what is in force, on a thread of their own: iptables' programs take tens of milliseconds, for which no link
//! has to wait. It is told first. Nothing depends on who is done first: what is closed stays so by tables that
//! nobody else can flush, which stand behind iptables' rules as well; where the kernel has none of those (before
//! 5.12) a flush opens what it opens, links up or not, until nf_tables' rules are back a tenth of a millisecond
//! later. Nothing is taken down on the way that is as wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use portolan_netcore::firewall::USER_TABLE;
use portolan_netcore::host::{Disturbance, Restored, StepError, Watch};
use portolan_netcore::plan::Step;
use tokio::sync::broadcast;

use crate::failing::{Failing, Trouble};
use crate::foreign::Changed;
use crate::networks::Shared;
use crate::owner::Task;
use crate::{Error, HostEvent};

/// What no event tells of (a sysctl written by way of another procfs) is looked at this often.
const SLOW: Duration = Duration::from_secs(10);
/// Rules of iptables-legacy, of which no event tells either, are compared this often: by a digest.
const POLL: Duration = Duration::from_secs(1);
/// After a repair, and while sandboxes are being changed, the next look comes this soon.
const SOON: Duration = Duration::from_millis(50);
/// After the kernel could not be listened to.
const LATER: Duration = Duration::from_secs(1);
/// Longest text of steps in an event, in bytes.
const TOLD: usize = 2048;

/// How often self-healing had something to do since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Healing {
    /// Times that something of ours may have been touched, and was looked at.
    pub looks: u64,
    /// Times that the rule set was put back.
    pub firewall: u64,
    /// Links made again or put back into their bridge, up or under their name.
    pub links: u64,
    /// Addresses and routes put back.
    pub addresses: u64,
    /// Sysctls written again.
    pub settings: u64,
    /// Attempts at a repair that failed, and are made again.
    pub failures: u64,
    /// Time from the kernel's message to the end of the latest repair, in microseconds.
    pub last_us: u64,
    /// The longest such time.
    pub max_us: u64,
}

/// [`Healing`] as it is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    looks: AtomicU64,
    firewall: AtomicU64,
    links: AtomicU64,
    addresses: AtomicU64,
    settings: AtomicU64,
    failures: AtomicU64,
    last_us: AtomicU64,
    max_us: AtomicU64,
    /// Links, addresses and settings that cannot be put right.
    failing: Arc<Mutex<Failing>>,
    /// Rules that cannot.
    failing_rules: Arc<Mutex<Failing>>,
}

impl Counters {
    /// Repairs that failed when they were tried last.
    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        let lists = [&self.failing, &self.failing_rules].map(|failing| lock(failing).list());
        lists.concat()
    }

    pub(crate) fn snapshot(&self) -> Healing {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Healing {
            looks: read(&self.looks),
            firewall: read(&self.firewall),
            links: read(&self.links),
            addresses: read(&self.addresses),
            settings: read(&self.settings),
            failures: read(&self.failures),
            last_us: read(&self.last_us),
            max_us: read(&self.max_us),
        }
    }

    fn count(&self, repair: &Repair, took: Duration) {
        let add = |counter: &AtomicU64, by: usize| counter.fetch_add(by as u64, Ordering::Relaxed);
        let Restored { rules, users } = repair.firewall;
        add(&self.firewall, usize::from(rules || users));
        for step in &repair.steps {
            match step {
                Step::AddAddress(..)
                | Step::RemoveAddress(..)
                | Step::AddRoute(..)
                | Step::AddConnected(..)
                | Step::RemoveRoute(..) => add(&self.addresses, 1),
                Step::SetSysctl(..) => add(&self.settings, 1),
                _ => add(&self.links, 1),
            };
        }
        add(&self.failures, repair.errors.len());
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.last_us.store(took, Ordering::Relaxed);
        self.max_us.fetch_max(took, Ordering::Relaxed);
    }
}

/// What one look found and did.
#[derive(Debug, Default)]
pub(crate) struct Repair {
    pub(crate) firewall: Restored,
    /// Those that took effect.
    pub(crate) steps: Vec<Step>,
    pub(crate) errors: Vec<StepError>,
    /// Sandboxes were being changed: they were left alone.
    pub(crate) busy: bool,
}

impl Repair {
    fn join(&mut self, other: Self) {
        self.firewall.rules |= other.firewall.rules;
        self.firewall.users |= other.firewall.users;
        self.steps.extend(other.steps);
        self.errors.extend(other.errors);
        self.busy |= other.busy;
    }

    fn is_empty(&self) -> bool {
        self.firewall == Restored::default() && self.steps.is_empty() && self.errors.is_empty()
    }
}

/// Starts healing, where the host can be watched. It ends with the networks.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<(), Error> {
    let Some(watch) = shared.host.watch()? else { return Ok(()) };
    let (rules, touched) = mpsc::channel();
    let (links, weak) = (Arc::downgrade(shared), Arc::downgrade(shared));
    let failed = |error| Error::internal(format!("cannot start the threads of self-healing: {error}"));
    thread::Builder::new()
        .name("net-heal-rules".to_owned())
        .spawn(move || keep_rules(&touched, &weak))
        .map_err(failed)?;
    thread::Builder::new()
        .name("net-healer".to_owned())
        .spawn(move || listen(watch, &rules, &links))
        .map_err(failed)?;
    Ok(())
}

/// What was heard of the rules, and when.
type Heard = (Vec<Disturbance>, Instant);

fn listen(mut watch: Box<dyn Watch>, rules: &mpsc::Sender<Heard>, weak: &Weak<Shared>) {
    // What could not be done at the start is told, and tried again.
    let mut due = Instant::now() + SOON;
    loop {
        let heard = watch.next(due.saturating_duration_since(Instant::now()));
        let begun = Instant::now();
        let Some(shared) = weak.upgrade() else { return };
        let heard = heard.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot watch the host: looking now and then instead");
            if let Ok(Some(again)) = shared.host.watch() {
                watch = again;
            }
            thread::sleep(LATER);
            vec![Disturbance::Lost]
        });
        if heard.iter().any(|one| matches!(one, Disturbance::Ruleset { .. } | Disturbance::Lost)) {
            shared.foreign.wake(Changed::Rules);
        }
        // First of all, as it closes and what follows opens: but it may take tens of milliseconds.
        let about_rules =
            |one: &&Disturbance| matches!(one, Disturbance::Ruleset { ours: true, .. } | Disturbance::Lost);
        let touched: Vec<Disturbance> = heard.iter().filter(about_rules).cloned().collect();
        if !touched.is_empty() {
            // That thread ends with the networks only.
            let _ = rules.send((touched, begun));
        }
        if heard.iter().any(is_about_others) {
            lock(&shared.healing.failing).hurry();
        }
        // What is heard does not put the next look off.
        match mend(&shared, &heard, begun >= due) {
            Ok(None) => {}
            Ok(Some(repair)) => due = conclude(&shared, &shared.healing.failing, &[], &repair, begun),
            // The networks are closed.
            Err(()) => return,
        }
    }
}

/// Puts the rules back whenever they were touched, and looks at them now and then.
fn keep_rules(touched: &mpsc::Receiver<Heard>, weak: &Weak<Shared>) {
    let mut due = Instant::now() + SLOW;
    let mut unannounced = weak.upgrade().and_then(|shared| shared.host.unannounced_rules());
    loop {
        let wait = due.saturating_duration_since(Instant::now()).min(POLL);
        let (mut heard, begun) = match touched.recv_timeout(wait) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => (Vec::new(), Instant::now()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // One look serves all that came before it.
        heard.extend(touched.try_iter().flat_map(|(more, _)| more));
        let Some(shared) = weak.upgrade() else { return };
        let now = shared.host.unannounced_rules();
        if now != unannounced {
            unannounced = now;
            shared.foreign.wake(Changed::Rules);
            heard.push(Disturbance::Ruleset { by: "iptables-legacy".to_owned(), ours: true });
        }
        if heard.is_empty() && begun < due {
            continue;
        }
        shared.healing.looks.fetch_add(1, Ordering::Relaxed);
        let repair = match shared.host.restore_firewall() {
            Ok(firewall) => {
                lock(&shared.healing.failing_rules).keep(|_| false);
                Repair { firewall, ..Repair::default() }
            }
            Err(error) => Repair { errors: vec![error], ..Repair::default() },
        };
        due = conclude(&shared, &shared.healing.failing_rules, &heard, &repair, begun);
    }
}

/// Counts and tells a repair. When to look next.
fn conclude(
    shared: &Shared,
    failing: &Mutex<Failing>,
    heard: &[Disturbance],
    repair: &Repair,
    begun: Instant,
) -> Instant {
    let now = Instant::now();
    let mut failing = lock(failing);
    for step in &repair.steps {
        failing.succeeded(&step.to_string());
    }
    let news: Vec<&StepError> = repair.errors.iter().filter(|error| failing.failed(error, now)).collect();
    let retry = failing.next();
    drop(failing);
    if !repair.is_empty() {
        let took = begun.elapsed();
        shared.healing.count(repair, took);
        tell(&shared.host_events, heard, repair, &news, took);
    }
    let nothing_done = repair.firewall == Restored::default() && repair.steps.is_empty();
    let next = now + if nothing_done && !repair.busy { SLOW } else { SOON };
    retry.map_or(next, |retry| next.min(retry.max(now)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_about_others(heard: &Disturbance) -> bool {
    matches!(
        heard,
        Disturbance::Surroundings | Disturbance::RouteReplaced(_) | Disturbance::ForeignAddressGone(_)
    )
}

/// Puts right what is not a rule. None if all that was heard was our own doing.
fn mend(shared: &Shared, heard: &[Disturbance], due: bool) -> Result<Option<Repair>, ()> {
    let timer = due || heard.contains(&Disturbance::Lost);
    let (answer, answered) = mpsc::channel();
    let (heard, failing) = (heard.to_vec(), Arc::clone(&shared.healing.failing));
    let task: Task = Box::new(move |owner| {
        let look = timer || heard.iter().any(|one| owner.is_disturbance(one));
        let around = timer || heard.iter().any(is_about_others);
        let followed = around.then(|| owner.look_around());
        let mut repair = look.then(|| owner.repair(&failing));
        match (&mut repair, followed) {
            (Some(repair), Some(followed)) => repair.join(followed),
            (None, Some(followed)) if followed.busy || !followed.is_empty() => repair = Some(followed),
            _ => {}
        }
        // The healer waits for this.
        let _ = answer.send(repair);
    });
    shared.owner.send(task).map_err(|_| ())?;
    let repair = answered.recv().map_err(|_| ())?;
    if repair.is_some() {
        shared.healing.looks.fetch_add(1, Ordering::Relaxed);
    }
    Ok(repair)
}

/// Tells what was done, and what cannot be: that only once, however often it is tried.
fn tell(
    events: &broadcast::Sender<HostEvent>,
    heard: &[Disturbance],
    repair: &Repair,
    news: &[&StepError],
    took: Duration,
) {
    let mut steps: Vec<String> = repair.steps.iter().map(ToString::to_string).collect();
    if repair.firewall.users {
        steps.insert(0, format!("[host] table inet {USER_TABLE} made again, empty"));
    }
    if repair.firewall.rules {
        steps.insert(0, "[host] firewall restored".to_owned());
    }
    if steps.is_empty() && news.is_empty() {
        return;
    }
    let mut attributes = BTreeMap::from([("took_us".to_owned(), took.as_micros().to_string())]);
    let by: BTreeSet<&str> = heard
        .iter()
        .filter_map(|one| match one {
            Disturbance::Ruleset { by, ours: true } => Some(by.as_str()),
            _ => None,
        })
        .collect();
    if !by.is_empty() {
        attributes.insert("by".to_owned(), by.into_iter().collect::<Vec<_>>().join(", "));
    }
    if repair.firewall.users {
        let lost = format!("the rules in table inet {USER_TABLE}, which were yours, not ours to keep");
        attributes.insert("lost".to_owned(), lost);
    }
    let mut text = steps.join("; ");
    if text.len() > TOLD {
        let end = (0..=TOLD).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push_str(" ...");
    }
    attributes.insert("steps".to_owned(), text);
    let action = if news.is_empty() { "repair" } else { "repair-failed" };
    if !news.is_empty() {
        let errors: Vec<String> = news.iter().map(ToString::to_string).collect();
        attributes.insert("error".to_owned(), errors.join("; "));
    }
    tracing::warn!(?attributes, "somebody touched what is ours: {action}");
    // Nobody listening is fine.
    let _ = events.send(HostEvent { action, attributes });
}
