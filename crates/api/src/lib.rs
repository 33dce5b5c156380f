//! The Docker Engine API's wire types (v1.40 to v1.51): what daemon and CLI say to each other.
//!
//! The definition is moby's `api/swagger.yaml` and the Go types behind it. Both sides of the wire use these
//! types, so every type serialises and deserialises. Two rules hold everywhere:
//!
//! - **Strict in what is sent.** A field is present, `null`, `[]` or absent exactly where Docker's is: a Go slice
//!   or map that Docker sends as `null` is an `Option` here, a field that Docker omits when empty is skipped.
//!   Maps are ordered by key, as Go writes them.
//! - **Tolerant in what is taken.** `null` means the default, a missing field means the default, an unknown
//!   field is ignored. A wrong type is an error.
//!
//! One file per resource; fields have the names of the API in snake case. Fields that only some versions have
//! are `Option`s that are skipped when `None`.

#[macro_use]
mod wire;

mod container;
mod error;
mod event;
mod exec;
mod filters;
mod fold;
mod image;
mod mount;
mod network;
mod progress;
mod stream;
mod system;
mod version;
mod volume;

pub use container::*;
pub use error::ErrorResponse;
pub use event::{EventActor, EventMessage};
pub use exec::{ExecConfig, ExecInspect, ExecProcessConfig, ExecStart};
pub use filters::{FilterError, Filters};
pub use fold::deserialize_folded;
pub use image::{
    DistributionInspect, GraphDriver, HistoryItem, ImageConfig, ImageDeleteItem, ImageInspect, ImageMetadata,
    ImageSummary, ImagesPruneReport, OciDescriptor, OciPlatform, RootFs,
};
pub use mount::{BindOptions, Mount, MountDriver, MountPoint, TmpfsOptions, VolumeOptions};
pub use network::{
    Address, ConfigReference, EndpointIpamConfig, EndpointResource, EndpointSettings, EndpointsConfig,
    FirewallConflict, Ipam, IpamConfig, IpamStatus, Network, NetworkConnect, NetworkCreate,
    NetworkCreateResponse, NetworkDisconnect, NetworkStatus, NetworkUpdate, NetworkingConfig,
    NetworksPruneReport, SubnetStatus,
};
pub use progress::{JsonError, JsonMessage, JsonProgress};
pub use stream::{FRAME_HEADER_LEN, FrameHeader, StreamKind, media_type};
pub use system::{
    AuthConfig, AuthResponse, BuildCacheRecord, Commit, ComponentVersion, DiskUsage, FirewallInfo, IndexInfo,
    NetworkAddressPool, Platform, PluginsInfo, RegistryServiceConfig, RuntimeInfo, SwarmInfo, SystemInfo,
    Version,
};
pub use version::{ApiVersion, ParseApiVersionError};
pub use volume::{Volume, VolumeCreate, VolumeListResponse, VolumeUsageData, VolumesPruneReport};
pub use wire::{Empty, StrSlice};

/// A response that is only an id: `POST /containers/{id}/exec`, `POST /commit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IdResponse {
    /// The full id.
    #[serde(rename = "Id", default)]
    pub id: String,
}
