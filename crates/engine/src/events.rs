//! What happened, for `docker events`: those who listen get it as it happens, those who come later can
//! still ask for the latest ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::error::Result;
use crate::model::{Event, EventType, EventsOptions, Filters};
use crate::streams::Events;

/// How many past events are kept.
const KEPT: usize = 1024;
/// How far a listener may lag behind before its stream ends.
const LAG: usize = 4096;

const FILTERS: &[&str] = &[
    "config",
    "container",
    "daemon",
    "event",
    "id",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// The one place that events go to.
#[derive(Debug, Default)]
pub(crate) struct EventBus {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    past: VecDeque<Event>,
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    filters: Filters,
    until: Option<Timestamp>,
    sender: mpsc::Sender<Event>,
}

impl EventBus {
    /// Tells everybody.
    pub(crate) fn publish(
        &self,
        kind: EventType,
        action: impl Into<String>,
        actor_id: impl Into<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let event = Event {
            kind,
            action: action.into(),
            actor_id: actor_id.into(),
            attributes,
            time: Timestamp::now(),
        };
        state.listeners.retain(|listener| listener.hear(&event));
        if state.past.len() == KEPT {
            state.past.pop_front();
        }
        state.past.push_back(event);
    }

    /// The events that `options` ask for.
    ///
    /// # Errors
    /// An unknown filter.
    pub(crate) fn subscribe(&self, options: EventsOptions) -> Result<Events> {
        options.filters.check_keys(FILTERS)?;
        let EventsOptions { since, until, filters } = options;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let past: VecDeque<Event> = match since {
            None if until.is_none() => VecDeque::new(),
            _ => state
                .past
                .iter()
                .filter(|e| {
                    since.is_none_or(|since| e.time >= since) && until.is_none_or(|until| e.time <= until)
                })
                .filter(|e| matches(&filters, e))
                .cloned()
                .collect(),
        };
        let (sender, receiver) = mpsc::channel(LAG);
        if until.is_none_or(|until| until > Timestamp::now()) {
            state.listeners.retain(|listener| !listener.sender.is_closed());
            state.listeners.push(Listener { filters, until, sender });
        }
        Ok(Events { past, receiver, until })
    }

    /// How many listen now.
    pub(crate) fn listeners(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.listeners.iter().filter(|listener| !listener.sender.is_closed()).count()
    }
}

impl Listener {
    /// False once it is over.
    fn hear(&self, event: &Event) -> bool {
        if self.until.is_some_and(|until| event.time > until) || self.sender.is_closed() {
            return false;
        }
        // A listener that does not keep up loses its stream, not single events unnoticed.
        !matches(&self.filters, event) || self.sender.try_send(event.clone()).is_ok()
    }
}

/// Docker's filters: every key must match, any value of it will do (labels: all).
fn matches(filters: &Filters, event: &Event) -> bool {
    let action = event.action.split(':').next().unwrap_or_default();
    let of_type = |key: &str, kind: EventType, also_by_attribute: bool| {
        filters.values(key).is_none_or(|values| {
            let name = event.attributes.get("name").map_or("", String::as_str);
            let own = event.kind == kind
                && values.iter().any(|v| {
                    v == &event.actor_id
                        || v == name
                        || (v.len() >= 4 && event.actor_id.starts_with(v.as_str()))
                });
            own || also_by_attribute && event.attributes.get(key).is_some_and(|v| values.contains(v))
        })
    };
    let image = || {
        filters.values("image").is_none_or(|values| {
            let image = match event.kind {
                EventType::Image => {
                    event.attributes.get("name").map_or(event.actor_id.as_str(), String::as_str)
                }
                _ => event.attributes.get("image").map_or("", String::as_str),
            };
            let untagged = image.rsplit_once(':').map_or(image, |(name, _)| name);
            values.contains(image) || values.contains(untagged) || values.contains(&event.actor_id)
        })
    };
    let none_such = ["config", "node", "plugin", "secret", "service"];
    filters.exact("type", event.kind.as_str())
        && filters.exact("scope", "local")
        && filters.values("event").is_none_or(|v| v.contains(action) || v.contains(&event.action))
        && filters.exact("id", &event.actor_id)
        && of_type("container", EventType::Container, true)
        && of_type("network", EventType::Network, true)
        && of_type("volume", EventType::Volume, true)
        && of_type("daemon", EventType::Daemon, false)
        && image()
        && filters.labels_match(&event.attributes)
        && none_such.iter().all(|key| filters.values(key).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bus() -> EventBus {
        let bus = EventBus::default();
        let attributes = BTreeMap::from([
            ("name".to_owned(), "web".to_owned()),
            ("image".to_owned(), "nginx:1".to_owned()),
            ("tier".to_owned(), "front".to_owned()),
        ]);
        bus.publish(EventType::Container, "start", "aabbccdd", attributes.clone());
        bus.publish(EventType::Container, "exec_create: sh", "aabbccdd", attributes);
        let attributes = BTreeMap::from([
            ("name".to_owned(), "lan".to_owned()),
            ("container".to_owned(), "aabbccdd".to_owned()),
        ]);
        bus.publish(EventType::Network, "connect", "eeff", attributes);
        bus
    }

    async fn actions(bus: &EventBus, filters: &[(&str, &str)]) -> Vec<String> {
        let mut options = EventsOptions { since: Some(Timestamp::UNIX_EPOCH), ..EventsOptions::default() };
        for (key, value) in filters {
            options.filters.add(*key, *value);
        }
        options.until = Some(Timestamp::now());
        let mut events = bus.subscribe(options).unwrap();
        let mut actions = Vec::new();
        while let Some(event) = events.next().await {
            actions.push(event.action);
        }
        actions
    }

    #[tokio::test]
    async fn past_events_by_filter() {
        let bus = bus();
        assert_eq!(actions(&bus, &[]).await, ["start", "exec_create: sh", "connect"]);
        assert_eq!(actions(&bus, &[("type", "network")]).await, ["connect"]);
        assert_eq!(actions(&bus, &[("container", "web")]).await, ["start", "exec_create: sh"]);
        assert_eq!(
            actions(&bus, &[("container", "aabbccdd")]).await,
            ["start", "exec_create: sh", "connect"]
        );
        assert_eq!(actions(&bus, &[("event", "exec_create")]).await, ["exec_create: sh"]);
        assert_eq!(actions(&bus, &[("image", "nginx")]).await, ["start", "exec_create: sh"]);
        assert_eq!(actions(&bus, &[("label", "tier=front"), ("event", "start")]).await, ["start"]);
        assert!(actions(&bus, &[("service", "x")]).await.is_empty());
        let mut options = EventsOptions::default();
        options.filters.add("colour", "red");
        assert!(bus.subscribe(options).is_err());
    }

    #[tokio::test]
    async fn live_events_until_a_time() {
        let bus = bus();
        let until = Timestamp::now() + jiff::SignedDuration::from_millis(60);
        let options =
            EventsOptions { until: Some(until), since: Some(Timestamp::now()), ..EventsOptions::default() };
        let mut events = bus.subscribe(options).unwrap();
        bus.publish(EventType::Daemon, "reload", "x", BTreeMap::new());
        assert_eq!(events.next().await.unwrap().action, "reload");
        assert!(events.next().await.is_none(), "ends by itself");
    }
}
