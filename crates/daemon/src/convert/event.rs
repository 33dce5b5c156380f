//! Events.

use portolan_api as api;
use portolan_engine::model::{Event, EventType};

/// One line of `GET /events`.
pub(crate) fn event(event: Event) -> api::EventMessage {
    // The fields of old: containers and images only.
    let legacy = matches!(event.kind, EventType::Container | EventType::Image);
    let old = |text: &str| if legacy { text.to_owned() } else { String::new() };
    let image = event.attributes.get("image").map(String::as_str).unwrap_or_default();
    api::EventMessage {
        status: old(&event.action),
        id: old(&event.actor_id),
        from: if event.kind == EventType::Container { image.to_owned() } else { String::new() },
        kind: event.kind.as_str().to_owned(),
        action: event.action,
        actor: api::EventActor { id: event.actor_id, attributes: event.attributes },
        scope: "local".to_owned(),
        time: event.time.as_second(),
        time_nano: i64::try_from(event.time.as_nanosecond()).unwrap_or(i64::MAX),
    }
}
