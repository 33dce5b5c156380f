//! `GET /events`: one message a line.

use std::collections::BTreeMap;

use crate::wire::is_default;

wire! {
    /// What an event happened to.
    pub struct EventActor {
        /// Id of a container or network, name of a volume, reference of an image.
        #[serde(rename = "ID")]
        pub id: String,
        /// Name, image, labels, exit code, ... as the kind of event has them.
        pub attributes: BTreeMap<String, String>,
    }

    /// One event.
    pub struct EventMessage {
        /// The action once more, for container and image events (dropped by Docker in v1.52).
        #[serde(rename = "status", skip_serializing_if = "is_default")]
        pub status: String,
        /// The actor's id once more.
        #[serde(rename = "id", skip_serializing_if = "is_default")]
        pub id: String,
        /// The image, for container events.
        #[serde(rename = "from", skip_serializing_if = "is_default")]
        pub from: String,
        /// `container`, `image`, `network`, `volume`, `daemon`.
        #[serde(rename = "Type")]
        pub kind: String,
        /// `create`, `start`, `die`, ...
        pub action: String,
        /// What it happened to.
        pub actor: EventActor,
        /// `local`.
        #[serde(rename = "scope", skip_serializing_if = "is_default")]
        pub scope: String,
        /// Seconds since 1970.
        #[serde(rename = "time", skip_serializing_if = "is_default")]
        pub time: i64,
        /// Nanoseconds since 1970.
        #[serde(rename = "timeNano", skip_serializing_if = "is_default")]
        pub time_nano: i64,
    }
}
