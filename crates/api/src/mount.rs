//! Mounts: as asked for (`HostConfig.Mounts`) and as they are (`Mounts` of inspect).

use std::collections::BTreeMap;

use crate::wire::is_default;

wire! {
    /// One `--mount`.
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `image`, ...
        #[serde(rename = "Type", skip_serializing_if = "is_default")]
        pub kind: String,
        /// Path on the host, or name of the volume (anonymous if empty).
        #[serde(skip_serializing_if = "is_default")]
        pub source: String,
        /// Path in the container.
        #[serde(skip_serializing_if = "is_default")]
        pub target: String,
        /// Read-only.
        #[serde(skip_serializing_if = "is_default")]
        pub read_only: bool,
        /// For Docker Desktop; without meaning on Linux.
        #[serde(skip_serializing_if = "is_default")]
        pub consistency: String,
        /// For `bind`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub bind_options: Option<BindOptions>,
        /// For `volume`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub volume_options: Option<VolumeOptions>,
        /// For `tmpfs`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub tmpfs_options: Option<TmpfsOptions>,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        /// `private`, `rprivate`, `shared`, `rshared`, `slave`, `rslave`.
        #[serde(skip_serializing_if = "is_default")]
        pub propagation: String,
        /// Leave submounts behind.
        #[serde(skip_serializing_if = "is_default")]
        pub non_recursive: bool,
        /// Make the host's path if it is missing.
        #[serde(skip_serializing_if = "is_default")]
        pub create_mountpoint: bool,
        /// Read-only for the top mount only.
        #[serde(skip_serializing_if = "is_default")]
        pub read_only_non_recursive: bool,
        /// Fail if submounts cannot be read-only too.
        #[serde(skip_serializing_if = "is_default")]
        pub read_only_force_recursive: bool,
    }

    /// Options of a volume mount.
    pub struct VolumeOptions {
        /// Do not copy the image's files at the target into a new volume.
        #[serde(skip_serializing_if = "is_default")]
        pub no_copy: bool,
        /// Labels of a new volume.
        #[serde(skip_serializing_if = "is_default")]
        pub labels: BTreeMap<String, String>,
        /// Mount only this directory of the volume.
        #[serde(skip_serializing_if = "is_default")]
        pub subpath: String,
        /// Driver of a new volume.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver_config: Option<MountDriver>,
    }

    /// Driver of a new volume.
    pub struct MountDriver {
        /// `local` if empty.
        #[serde(skip_serializing_if = "is_default")]
        pub name: String,
        /// Its options.
        #[serde(skip_serializing_if = "is_default")]
        pub options: BTreeMap<String, String>,
    }

    /// Options of a file system in memory.
    pub struct TmpfsOptions {
        /// Size, bytes; unlimited if 0.
        #[serde(skip_serializing_if = "is_default")]
        pub size_bytes: i64,
        /// Permission bits of its root.
        #[serde(skip_serializing_if = "is_default")]
        pub mode: u32,
        /// More mount options, each a name or a name and a value.
        #[serde(skip_serializing_if = "is_default")]
        pub options: Vec<Vec<String>>,
    }

    /// A mount of a container as inspect shows it.
    pub struct MountPoint {
        /// `bind`, `volume`, `tmpfs`.
        #[serde(rename = "Type", skip_serializing_if = "is_default")]
        pub kind: String,
        /// Name of the volume.
        #[serde(skip_serializing_if = "is_default")]
        pub name: String,
        /// Path on the host.
        pub source: String,
        /// Path in the container.
        pub destination: String,
        /// Driver of the volume.
        #[serde(skip_serializing_if = "is_default")]
        pub driver: String,
        /// Mode as given to `-v`: `z`, `ro`, ...
        pub mode: String,
        /// Whether it is writable.
        #[serde(rename = "RW")]
        pub rw: bool,
        /// Mount propagation.
        pub propagation: String,
    }
}
