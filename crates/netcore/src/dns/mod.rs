//! The embedded resolver as a function: zones and a question in, an answer out.
//!
//! A container's names are data ([`Zones`]); [`answer`] decides what one sandbox is told about one
//! name, [`answer_host`] what the host is told. Sockets, wire format, forwarding and caching are in
//! `netdns`.

mod answer;
mod reverse;
mod service;
#[cfg(test)]
mod tests;
mod zones;

pub use answer::{Answer, HOST_DOMAIN, Question, QuestionType, RecordData, TTL_SECONDS, answer, answer_host};
pub use zones::{LinkTarget, Upstreams, Zone, ZoneChange, ZoneRecord, ZoneView, Zones};
