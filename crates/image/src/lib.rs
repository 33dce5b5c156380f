//! Images, their layers, and the root file systems of containers: everything under
//! `<data-root>/image` and `<data-root>/overlay`. Synchronous; only `registry`, a feature, knows of tokio and HTTP.
//!
//! ```text
//! image/store.json             names, images and layers; replaced as a whole, so it is never half new
//! image/configs/<hex>          an image's configuration, named by its digest
//! overlay/l/<layer>/           a layer's files as overlayfs wants them; the name is a short number
//! overlay/l/<layer>.i/         mount points and empty files that its containers want (the init layer)
//! overlay/s/<layer>            what the layer's tar was beside the content of the files
//! overlay/c/<container>/       upper, work, merged; `layer` links to the topmost layer
//! overlay/trash/               on its way out; deleted behind the caller's back and at the next start
//! overlay/new/                 layers being unpacked; whatever is there at start is left from a crash
//! ```
//!
//! The store believes only `store.json`: an operation prepares files that nobody knows, makes them durable,
//! and then replaces that one file. What it does not name is swept at the next start.

pub mod archive;
mod compression;
mod config;
mod digest;
mod disk;
mod error;
mod instructions;
mod layer;
mod ops;
mod overlay;
mod reference;
#[cfg(feature = "registry")]
pub mod registry;
mod store;
mod tar;
mod types;

pub use config::{Empty, Healthcheck, HistoryEntry, ImageConfig, RootFs, RunConfig, Set};
pub use digest::{ChainId, DiffId, Digest, ImageId};
pub use error::{Error, ErrorKind, Result};
pub use ops::Incoming;
pub use overlay::{Bind, MountedRoot};
pub use reference::Reference;
pub use store::ImageStore;
pub use types::{
    Change, ChangeKind, CommitOptions, DiskUsage, HistoryItem, Image, ImageInspect, ImageSummary, ImageUser,
    ImportOptions, ListFilter, Loaded, Platform, PruneFilter, Pruned, RemoveOptions, Removed, Rootfs,
    RootfsSize,
};

#[cfg(test)]
mod tests;
