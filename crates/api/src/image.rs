//! Images.

use std::collections::BTreeMap;

use crate::wire::is_default;
use crate::{ContainerConfig, Empty, HealthConfig, StrSlice};

wire! {
    /// An item of `GET /images/json`.
    pub struct ImageSummary {
        /// Containers that use it; -1 if not counted.
        pub containers: i64,
        /// Seconds since 1970.
        pub created: i64,
        /// `sha256:` and 64 hexadecimal digits.
        pub id: String,
        /// Labels.
        pub labels: Option<BTreeMap<String, String>>,
        /// The image it was built from, on this machine.
        pub parent_id: String,
        /// `name@sha256:...`.
        pub repo_digests: Vec<String>,
        /// `name:tag`.
        pub repo_tags: Vec<String>,
        /// Bytes shared with other images; -1 if not counted.
        pub shared_size: i64,
        /// Bytes.
        pub size: i64,
        /// Bytes once more, up to v1.43.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub virtual_size: Option<i64>,
    }

    /// `GET /images/{name}/json`.
    pub struct ImageInspect {
        /// `sha256:` and 64 hexadecimal digits.
        pub id: String,
        /// `name:tag`.
        pub repo_tags: Vec<String>,
        /// `name@sha256:...`.
        pub repo_digests: Vec<String>,
        /// The image it was built from, on this machine.
        pub parent: String,
        /// Message of the commit or import.
        pub comment: String,
        /// RFC 3339 with nanoseconds.
        #[serde(skip_serializing_if = "is_default")]
        pub created: String,
        /// Up to v1.44.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub container: Option<String>,
        /// Up to v1.44.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub container_config: Option<ContainerConfig>,
        /// What built it.
        pub docker_version: String,
        /// Author.
        pub author: String,
        /// How containers of it run.
        pub config: Option<ImageConfig>,
        /// `amd64`, `arm64`, ...
        pub architecture: String,
        /// Variant of the architecture.
        #[serde(skip_serializing_if = "is_default")]
        pub variant: String,
        /// `linux`.
        pub os: String,
        /// Version of the system.
        #[serde(skip_serializing_if = "is_default")]
        pub os_version: String,
        /// Bytes.
        pub size: i64,
        /// Bytes once more, up to v1.43.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub virtual_size: Option<i64>,
        /// Where its layers are.
        pub graph_driver: GraphDriver,
        /// Digests of its layers.
        #[serde(rename = "RootFS")]
        pub root_fs: RootFs,
        /// Of this machine.
        pub metadata: ImageMetadata,
    }

    /// Where layers are.
    pub struct GraphDriver {
        /// `LowerDir`, `MergedDir`, `UpperDir`, `WorkDir`.
        pub data: Option<BTreeMap<String, String>>,
        /// `overlay2`.
        pub name: String,
    }

    /// Digests of layers, lowest first.
    pub struct RootFs {
        /// `layers`.
        #[serde(rename = "Type", skip_serializing_if = "is_default")]
        pub kind: String,
        /// `sha256:...` of each uncompressed layer.
        #[serde(skip_serializing_if = "is_default")]
        pub layers: Vec<String>,
    }

    /// What this machine knows about an image.
    pub struct ImageMetadata {
        /// RFC 3339; the year 1 if never tagged here.
        pub last_tag_time: String,
    }

    /// How containers of an image run: the `config` of the OCI image configuration with Docker's additions.
    /// Empty fields are omitted here; the daemon adds those that clients of a version expect all the same.
    pub struct ImageConfig {
        /// `user[:group]`.
        #[serde(skip_serializing_if = "is_default")]
        pub user: String,
        /// `80/tcp`.
        #[serde(skip_serializing_if = "is_default")]
        pub exposed_ports: BTreeMap<String, Empty>,
        /// `KEY=value`.
        #[serde(skip_serializing_if = "is_default")]
        pub env: Vec<String>,
        /// The program.
        #[serde(skip_serializing_if = "is_default")]
        pub entrypoint: StrSlice,
        /// Default arguments.
        #[serde(skip_serializing_if = "is_default")]
        pub cmd: StrSlice,
        /// Paths that are volumes.
        #[serde(skip_serializing_if = "is_default")]
        pub volumes: BTreeMap<String, Empty>,
        /// Working directory.
        #[serde(skip_serializing_if = "is_default")]
        pub working_dir: String,
        /// Labels.
        #[serde(skip_serializing_if = "is_default")]
        pub labels: BTreeMap<String, String>,
        /// Signal that stops a container.
        #[serde(skip_serializing_if = "is_default")]
        pub stop_signal: String,
        /// Windows only.
        #[serde(skip_serializing_if = "is_default")]
        pub args_escaped: bool,
        /// How to see whether a container works.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub healthcheck: Option<HealthConfig>,
        /// Instructions for images that are built from it.
        #[serde(skip_serializing_if = "is_default")]
        pub on_build: Vec<String>,
        /// Shell of the shell form of RUN.
        #[serde(skip_serializing_if = "is_default")]
        pub shell: StrSlice,
    }

    /// An item of `GET /images/{name}/history`, newest first.
    pub struct HistoryItem {
        /// Message.
        pub comment: String,
        /// Seconds since 1970.
        pub created: i64,
        /// Command.
        pub created_by: String,
        /// Image id or `<missing>`.
        pub id: String,
        /// Bytes of its layer.
        pub size: i64,
        /// `name:tag`.
        pub tags: Option<Vec<String>>,
    }

    /// An item of the response of `DELETE /images/{name}`; one of the two.
    pub struct ImageDeleteItem {
        /// A layer or image.
        #[serde(skip_serializing_if = "is_default")]
        pub deleted: String,
        /// A tag.
        #[serde(skip_serializing_if = "is_default")]
        pub untagged: String,
    }

    /// Response of `POST /images/prune`.
    pub struct ImagesPruneReport {
        /// What went.
        pub images_deleted: Option<Vec<ImageDeleteItem>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }

    /// An OCI descriptor.
    pub struct OciDescriptor {
        /// Media type.
        #[serde(rename = "mediaType")]
        pub media_type: String,
        /// `sha256:...`.
        #[serde(rename = "digest")]
        pub digest: String,
        /// Bytes.
        #[serde(rename = "size")]
        pub size: i64,
    }

    /// A platform in the OCI's spelling: `platform` in queries about images.
    pub struct OciPlatform {
        /// `amd64`, ...
        #[serde(rename = "architecture")]
        pub architecture: String,
        /// `linux`.
        #[serde(rename = "os")]
        pub os: String,
        /// Windows only.
        #[serde(rename = "os.version")]
        pub os_version: String,
        /// `v7`, ...
        #[serde(rename = "variant")]
        pub variant: String,
    }

    /// `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        /// The manifest.
        pub descriptor: OciDescriptor,
        /// What it runs on.
        pub platforms: Vec<serde_json::Value>,
    }
}
