//! The smaller commands: top, wait, update, prune, changes, archive.

use crate::wire::is_default;

wire! {
    /// `GET /containers/{id}/top`.
    pub struct TopResponse {
        /// A row a process.
        pub processes: Vec<Vec<String>>,
        /// Headings of the columns.
        pub titles: Vec<String>,
    }

    /// `POST /containers/{id}/wait`.
    pub struct WaitResponse {
        /// What went wrong with the wait.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub error: Option<WaitError>,
        /// Exit code.
        pub status_code: i64,
    }

    /// What went wrong with a wait.
    pub struct WaitError {
        /// Text.
        #[serde(skip_serializing_if = "is_default")]
        pub message: String,
    }

    /// `POST /containers/{id}/update`.
    pub struct UpdateResponse {
        /// What the user should know.
        pub warnings: Option<Vec<String>>,
    }

    /// `POST /containers/prune`.
    pub struct ContainersPruneReport {
        /// Ids.
        pub containers_deleted: Option<Vec<String>>,
        /// Bytes.
        pub space_reclaimed: u64,
    }

    /// An item of `GET /containers/{id}/changes`.
    pub struct FilesystemChange {
        /// 0 modified, 1 added, 2 deleted.
        pub kind: u8,
        /// Absolute path.
        pub path: String,
    }

    /// `X-Docker-Container-Path-Stat` (base64) of the archive endpoints.
    pub struct PathStat {
        /// Base name.
        #[serde(rename = "name")]
        pub name: String,
        /// Bytes.
        #[serde(rename = "size")]
        pub size: i64,
        /// Go's `os.FileMode`: permission bits, and bit 31 for a directory, bit 27 for a symlink, ...
        #[serde(rename = "mode")]
        pub mode: u32,
        /// RFC 3339 with nanoseconds.
        #[serde(rename = "mtime")]
        pub mtime: String,
        /// Where a symlink points to, within the container.
        #[serde(rename = "linkTarget")]
        pub link_target: String,
    }
}
