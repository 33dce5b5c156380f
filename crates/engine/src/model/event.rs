//! What happened. Docker: `GET /events`.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// `Type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventType {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The engine itself.
    Daemon,
}

impl EventType {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Daemon => "daemon",
        }
    }
}

/// One event. Docker: `EventMessage`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `Type`.
    pub kind: EventType,
    /// `Action`: `create`, `start`, `exec_create: sh`, ...
    pub action: String,
    /// `Actor.ID`.
    pub actor_id: String,
    /// `Actor.Attributes`: `name`, `image`, labels, `exitCode`, ...
    pub attributes: BTreeMap<String, String>,
    /// `time` and `timeNano`.
    pub time: Timestamp,
}
