//! The embedded resolver as a function: zones and a question in, an answer out.
//!
//! A container's names are data ([`Zones`]); [`answer`] decides what one sandbox is told about one
//! name. Sockets, wire format, forwarding and caching are in `netdns`.

mod answer;
mod zones;

pub use answer::{Answer, Question, QuestionType, RecordData, TTL_SECONDS, answer};
pub use zones::{Upstream, Zone, ZoneRecord, ZoneView, Zones};
