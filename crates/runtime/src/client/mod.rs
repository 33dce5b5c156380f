//! The daemon's side: asynchronous handles to the launcher and the shims.

mod connection;
mod launcher;
mod shim;
mod stream;

pub use launcher::{Launcher, LauncherConfig};
pub use shim::{Exec, Shim};
pub use stream::{AttachInput, AttachOptions, AttachOutput, AttachStream};
