//! Questions under way: the same question of several clients goes out once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_proto::op::Message;
use tokio::sync::broadcast;

use crate::cache::Key;

/// What an upstream said; `None` if none said anything.
pub(crate) type Outcome = Option<Arc<Message>>;

/// All questions under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights {
    under_way: Arc<Mutex<HashMap<Key, broadcast::Sender<Outcome>>>>,
}

/// A client's part in a question.
#[derive(Debug)]
pub(crate) enum Part {
    /// Ask, and tell the others.
    Lead(Lead),
    /// Somebody is asking already. A closed channel means that they gave up.
    Follow(broadcast::Receiver<Outcome>),
}

/// Whoever asks; dropping it lets the others ask for themselves.
#[derive(Debug)]
pub(crate) struct Lead {
    flights: Flights,
    key: Key,
    others: broadcast::Sender<Outcome>,
}

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, broadcast::Sender<Outcome>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes part in a question.
    pub(crate) fn join(&self, key: &Key) -> Part {
        let mut under_way = self.lock();
        if let Some(others) = under_way.get(key) {
            return Part::Follow(others.subscribe());
        }
        let others = broadcast::Sender::new(1);
        under_way.insert(key.clone(), others.clone());
        Part::Lead(Lead { flights: self.clone(), key: key.clone(), others })
    }
}

impl Lead {
    /// Tells the others.
    pub(crate) fn land(self, outcome: &Outcome) {
        // Under the lock: nobody can join once the outcome is told.
        let mut under_way = self.flights.lock();
        under_way.remove(&self.key);
        // Nobody else waiting is fine.
        let _ = self.others.send(outcome.clone());
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut under_way = self.flights.lock();
        // Unless it has landed, and another flight for the same question is under way by now.
        if under_way.get(&self.key).is_some_and(|others| others.same_channel(&self.others)) {
            under_way.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            name: "a".into(),
            query_type: 1,
            class: 1,
            dnssec_ok: false,
            checking_disabled: false,
            recursion_desired: true,
            servers: vec![],
            inside: None,
        }
    }

    fn join(flights: &Flights) -> (Option<Lead>, Option<broadcast::Receiver<Outcome>>) {
        match flights.join(&key()) {
            Part::Lead(lead) => (Some(lead), None),
            Part::Follow(others) => (None, Some(others)),
        }
    }

    #[tokio::test]
    async fn one_asks_and_all_hear() {
        let flights = Flights::default();
        let lead = join(&flights).0.unwrap();
        let mut others = join(&flights).1.unwrap();
        lead.land(&None);
        assert!(others.recv().await.unwrap().is_none());
        assert!(join(&flights).0.is_some(), "the next question is a new one");
    }

    #[tokio::test]
    async fn one_who_gives_up_leaves_the_lead_to_another() {
        let flights = Flights::default();
        let lead = join(&flights).0.unwrap();
        let mut others = join(&flights).1.unwrap();
        drop(lead);
        assert!(others.recv().await.is_err());
        assert!(join(&flights).0.is_some());
    }
}
