//! Volumes.

use std::collections::BTreeMap;

use crate::Empty;
use crate::wire::is_default;

wire! {
    /// Body of `POST /volumes/create`.
    pub struct VolumeCreate {
        /// `local` if empty.
        #[serde(skip_serializing_if = "is_default")]
        pub driver: String,
        /// Driver options.
        #[serde(skip_serializing_if = "is_default")]
        pub driver_opts: BTreeMap<String, String>,
        /// Labels.
        #[serde(skip_serializing_if = "is_default")]
        pub labels: BTreeMap<String, String>,
        /// 64 hexadecimal digits if empty.
        #[serde(skip_serializing_if = "is_default")]
        pub name: String,
        /// For volumes of a swarm.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cluster_volume_spec: Option<Empty>,
    }

    /// A volume.
    pub struct Volume {
        /// RFC 3339.
        #[serde(skip_serializing_if = "is_default")]
        pub created_at: String,
        /// `local`.
        pub driver: String,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// Where its files are on the host.
        pub mountpoint: String,
        /// Name.
        pub name: String,
        /// Driver options.
        pub options: Option<BTreeMap<String, String>>,
        /// `local`.
        pub scope: String,
        /// In `GET /system/df` only.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub usage_data: Option<VolumeUsageData>,
    }

    /// How much of the disk a volume takes.
    pub struct VolumeUsageData {
        /// Containers that use it.
        pub ref_count: i64,
        /// Bytes; -1 if unknown.
        pub size: i64,
    }

    /// `GET /volumes`.
    pub struct VolumeListResponse {
        /// Volumes.
        pub volumes: Option<Vec<Volume>>,
        /// What went wrong with some of them.
        pub warnings: Option<Vec<String>>,
    }

    /// Response of `POST /volumes/prune`.
    pub struct VolumesPruneReport {
        /// Names.
        pub volumes_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }
}
