//! `GET /containers/json`.

use std::collections::BTreeMap;

use crate::wire::is_default;
use crate::{EndpointSettings, MountPoint};

wire! {
    /// An item of `GET /containers/json`.
    pub struct ContainerSummary {
        /// 64 hexadecimal digits.
        pub id: String,
        /// `/` and the name, and names by legacy links.
        pub names: Vec<String>,
        /// Image as the user gave it, or its id if the name is now another image's.
        pub image: String,
        /// Id of the image.
        #[serde(rename = "ImageID")]
        pub image_id: String,
        /// Program and arguments as one text.
        pub command: String,
        /// Seconds since 1970.
        pub created: i64,
        /// Ports exposed and published.
        pub ports: Vec<Port>,
        /// Bytes of its own layer, with `size=1`.
        #[serde(skip_serializing_if = "is_default")]
        pub size_rw: i64,
        /// Bytes of all layers, with `size=1`.
        #[serde(skip_serializing_if = "is_default")]
        pub size_root_fs: i64,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// `created`, `running`, ...
        pub state: String,
        /// `Up 5 minutes`, `Exited (0) 2 hours ago`, ...
        pub status: String,
        /// A part of it.
        pub host_config: SummaryHostConfig,
        /// A part of it.
        pub network_settings: SummaryNetworkSettings,
        /// Mounts.
        pub mounts: Vec<MountPoint>,
    }

    /// The part of the host configuration that lists have.
    pub struct SummaryHostConfig {
        /// Network mode.
        #[serde(skip_serializing_if = "is_default")]
        pub network_mode: String,
        /// Annotations (from v1.46).
        #[serde(skip_serializing_if = "is_default")]
        pub annotations: BTreeMap<String, String>,
    }

    /// The part of the network settings that lists have.
    pub struct SummaryNetworkSettings {
        /// Endpoints by network name.
        pub networks: BTreeMap<String, Option<EndpointSettings>>,
    }

    /// A port.
    pub struct Port {
        /// Address of the host, if published.
        #[serde(rename = "IP", skip_serializing_if = "is_default")]
        pub ip: String,
        /// Port of the container.
        pub private_port: u16,
        /// Port of the host, if published.
        #[serde(skip_serializing_if = "is_default")]
        pub public_port: u16,
        /// `tcp`, `udp`, `sctp`.
        #[serde(rename = "Type")]
        pub kind: String,
    }
}
