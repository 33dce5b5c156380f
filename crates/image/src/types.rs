//! What goes in and out of the store.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::config::{ImageConfig, RunConfig};
use crate::digest::{ChainId, ImageId};
use crate::reference::Reference;

/// An image in the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The configuration.
    pub config: ImageConfig,
    /// The configuration's bytes as they came.
    pub raw_config: Vec<u8>,
    /// The image it was committed from, if that happened here.
    pub parent: Option<ImageId>,
    /// When a name was last given to it.
    pub last_tagged: Option<Timestamp>,
    /// Its layers, bottom first.
    pub chain: Vec<ChainId>,
}

/// `docker image inspect`.
#[derive(Clone, Debug)]
pub struct ImageInspect {
    /// The image.
    pub image: std::sync::Arc<Image>,
    /// Familiar names with a tag (`busybox:latest`), sorted.
    pub repo_tags: Vec<String>,
    /// Familiar names with a digest (`busybox@sha256:...`), sorted.
    pub repo_digests: Vec<String>,
    /// Bytes of all its layers.
    pub size: u64,
    /// The directories of its layers, topmost first (`GraphDriver.Data`).
    pub layer_dirs: Vec<PathBuf>,
}

/// A line of `docker images`.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// The image.
    pub image: std::sync::Arc<Image>,
    /// Familiar names with a tag, sorted; none if dangling.
    pub repo_tags: Vec<String>,
    /// Familiar names with a digest, sorted.
    pub repo_digests: Vec<String>,
    /// Bytes of all its layers.
    pub size: u64,
    /// Bytes of those of its layers that other images have too.
    pub shared_size: u64,
}

/// Which images to list. Every filter that is given must hold; of several values of one filter, one.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Intermediate images too: those without a name that are a parent of others.
    pub all: bool,
    /// Only images without any name (`true`), or only those with one (`false`).
    pub dangling: Option<bool>,
    /// `key` or `key=value`; all must hold.
    pub labels: Vec<String>,
    /// `key` or `key=value`; none may hold (`label!`).
    pub not_labels: Vec<String>,
    /// Patterns for names, such as `busybox`, `*:latest`, `ghcr.io/*/app`.
    pub references: Vec<String>,
    /// Created before these images (names or ids).
    pub before: Vec<String>,
    /// Created after these images (names or ids).
    pub since: Vec<String>,
    /// Created before this time.
    pub until: Option<Timestamp>,
}

/// A line of `docker history`, newest first.
#[derive(Clone, Debug)]
pub struct HistoryItem {
    /// The image at this point, if the store knows it.
    pub id: Option<ImageId>,
    /// When.
    pub created: Option<Timestamp>,
    /// The command.
    pub created_by: String,
    /// Names of the image at this point.
    pub tags: Vec<String>,
    /// Bytes of its layer; 0 if it has none.
    pub size: u64,
    /// The comment.
    pub comment: String,
}

/// `docker import`.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The name it gets.
    pub reference: Option<Reference>,
    /// Dockerfile instructions (`CMD ["sh"]`).
    pub changes: Vec<String>,
    /// The comment; "Imported from -" and the like.
    pub message: String,
    /// The platform it is for; the host's if none.
    pub platform: Option<Platform>,
}

/// `os[/arch[/variant]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// GOOS.
    pub os: String,
    /// GOARCH.
    pub architecture: String,
    /// CPU variant, or empty.
    pub variant: String,
}

/// An image that `load` brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// It got this name; Docker prints "Loaded image: busybox:latest".
    Name(Reference, ImageId),
    /// This image had the name until now; Docker prints "The image busybox:latest already exists, ...".
    Renamed(Reference, ImageId),
    /// It has no name; Docker prints "Loaded image ID: sha256:...".
    Id(ImageId),
}

/// `docker commit`.
#[derive(Clone, Debug, Default)]
pub struct CommitOptions {
    /// The name the image gets.
    pub reference: Option<Reference>,
    /// The container's own settings, which become the image's.
    pub config: RunConfig,
    /// Dockerfile instructions applied to them.
    pub changes: Vec<String>,
    /// Author.
    pub author: String,
    /// Comment.
    pub comment: String,
    /// The container's command line, for the history.
    pub created_by: String,
}

/// A container that uses an image, as the engine knows it.
#[derive(Clone, Debug)]
pub struct ImageUser {
    /// The container's id.
    pub container_id: String,
    /// It runs.
    pub running: bool,
}

/// How to remove an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Even if it has several names, or a stopped container uses it.
    pub force: bool,
    /// Leave untagged parents in place (`--no-prune`).
    pub keep_parents: bool,
}

/// What a removal did, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// This name is gone (familiar form).
    Untagged(String),
    /// This image or layer is gone (`sha256:...`).
    Deleted(String),
}

/// `docker image prune`.
#[derive(Clone, Debug, Default)]
pub struct PruneFilter {
    /// Not only dangling images but all that no container uses.
    pub all: bool,
    /// Created before this time.
    pub until: Option<Timestamp>,
    /// `key` or `key=value`; all must hold.
    pub labels: Vec<String>,
    /// `key` or `key=value`; none may hold.
    pub not_labels: Vec<String>,
}

/// What a prune did.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Names and images that are gone.
    pub removed: Vec<Removed>,
    /// Bytes freed.
    pub space_reclaimed: u64,
}

/// The directories of a container's overlay file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rootfs {
    /// Read-only layers, topmost first. All are in one directory and have names of a few letters, so that
    /// a mounter that changes to it can name over a hundred of them in one page of mount options.
    pub lower: Vec<PathBuf>,
    /// The container's own layer.
    pub upper: PathBuf,
    /// Overlay's work directory.
    pub work: PathBuf,
    /// An empty directory to mount it on.
    pub target: PathBuf,
}

/// Bytes of a container's file system (`docker ps -s`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RootfsSize {
    /// Bytes in its own layer.
    pub writable: u64,
    /// Bytes of that and of its image (`SizeRootFs`).
    pub total: u64,
}

/// A line of `docker diff`; the numbers are Docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Absolute path in the container.
    pub path: PathBuf,
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// C.
    Modified = 0,
    /// A.
    Added = 1,
    /// D.
    Deleted = 2,
}

/// How much is stored (`docker system df`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Images.
    pub images: usize,
    /// Bytes of all layers, each counted once.
    pub layers_size: u64,
}
