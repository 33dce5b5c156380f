//! Progress of image commands: one JSON object a line.

use crate::wire::is_default;

wire! {
    /// One line of the response of pull, push, import and load.
    pub struct JsonMessage {
        /// Text to be printed as it is.
        #[serde(rename = "stream", skip_serializing_if = "is_default")]
        pub stream: String,
        /// What is happening to `id`.
        #[serde(rename = "status", skip_serializing_if = "is_default")]
        pub status: String,
        /// How far it is.
        #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
        pub progress_detail: Option<JsonProgress>,
        /// How far it is, in words (for old clients).
        #[serde(rename = "progress", skip_serializing_if = "is_default")]
        pub progress: String,
        /// Layer or tag.
        #[serde(rename = "id", skip_serializing_if = "is_default")]
        pub id: String,
        /// What went wrong: the stream ends here.
        #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
        pub error_detail: Option<JsonError>,
        /// The same text once more, for old clients.
        #[serde(rename = "error", skip_serializing_if = "is_default")]
        pub error: String,
        /// Machine-readable results, such as `{"ID": "sha256:..."}`.
        #[serde(rename = "aux", skip_serializing_if = "Option::is_none")]
        pub aux: Option<serde_json::Value>,
    }

    /// How far something is.
    pub struct JsonProgress {
        /// Done so far.
        #[serde(rename = "current", skip_serializing_if = "is_default")]
        pub current: i64,
        /// In all.
        #[serde(rename = "total", skip_serializing_if = "is_default")]
        pub total: i64,
        /// When it began, seconds since 1970.
        #[serde(rename = "start", skip_serializing_if = "is_default")]
        pub start: i64,
        /// Print no numbers.
        #[serde(rename = "hidecounts", skip_serializing_if = "is_default")]
        pub hide_counts: bool,
        /// Unit of the numbers; bytes if empty.
        #[serde(rename = "units", skip_serializing_if = "is_default")]
        pub units: String,
    }

    /// What went wrong.
    pub struct JsonError {
        /// Status code, or 0.
        #[serde(rename = "code", skip_serializing_if = "is_default")]
        pub code: i64,
        /// Text.
        #[serde(rename = "message", skip_serializing_if = "is_default")]
        pub message: String,
    }
}
