use std::fmt;

/// A line of a pull's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something about the whole, such as `Pulling from library/busybox`.
    Message {
        /// The tag or digest, or empty.
        id: String,
        /// The line.
        text: String,
    },
    /// Something about a layer.
    Layer {
        /// First digits of its blob's digest.
        id: String,
        /// How far it is.
        status: LayerStatus,
    },
}

/// How far a layer is. Displays as Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerStatus {
    /// It will be downloaded.
    Announced,
    /// Others come first.
    Waiting,
    /// The store has it.
    AlreadyExists,
    /// Bytes arrive.
    Downloading {
        /// So many so far.
        current: u64,
        /// So many in all.
        total: u64,
    },
    /// It broke off and will be tried again.
    Retrying {
        /// In so many seconds.
        seconds: u64,
    },
    /// All bytes are here.
    Verifying,
    /// They are the right ones.
    Downloaded,
    /// It is being unpacked.
    Extracting {
        /// So many of its bytes so far.
        current: u64,
        /// So many in all.
        total: u64,
    },
    /// It is there.
    Complete,
}

impl fmt::Display for LayerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Announced => "Pulling fs layer",
            Self::Waiting => "Waiting",
            Self::AlreadyExists => "Already exists",
            Self::Downloading { .. } => "Downloading",
            Self::Retrying { seconds } => {
                return write!(f, "Retrying in {seconds} second{}", if *seconds == 1 { "" } else { "s" });
            }
            Self::Verifying => "Verifying Checksum",
            Self::Downloaded => "Download complete",
            Self::Extracting { .. } => "Extracting",
            Self::Complete => "Pull complete",
        })
    }
}

/// Where a pull's progress goes.
pub(super) type Report = std::sync::Arc<dyn Fn(Progress) + Send + Sync>;

/// Where a layer's progress goes.
#[derive(Clone)]
pub(super) struct LayerReport {
    pub(super) id: String,
    pub(super) report: Report,
}

impl LayerReport {
    pub(super) fn tell(&self, status: LayerStatus) {
        (self.report)(Progress::Layer { id: self.id.clone(), status });
    }
}
