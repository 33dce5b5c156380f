//! The embedded resolver as a function: zones and a question in, an answer out.

mod zones;

pub use zones::{Upstream, Zone, ZoneRecord, ZoneView, Zones};
