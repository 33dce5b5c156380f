//! One file per resource: a request in, an engine call, an answer out.

mod archive;
mod attach;
pub(crate) mod containers;
pub(crate) mod exec;
pub(crate) mod images;
mod info;
mod logs;
pub(crate) mod networks;
pub(crate) mod portolan;
mod registry;
mod stats;
pub(crate) mod system;
pub(crate) mod volumes;

pub(crate) use attach::attach;
