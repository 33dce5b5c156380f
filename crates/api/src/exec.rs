//! Processes run in a container: `POST /containers/{id}/exec`, `POST /exec/{id}/start`, `GET /exec/{id}/json`.

use crate::StrSlice;

wire! {
    /// Body of `POST /containers/{id}/exec`.
    pub struct ExecConfig {
        /// `user[:group]`; the container's if empty.
        pub user: String,
        /// All capabilities.
        pub privileged: bool,
        /// A pseudo-terminal.
        pub tty: bool,
        /// First size of the terminal: height, width (from v1.42).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub console_size: Option<[u16; 2]>,
        /// Connect standard input.
        pub attach_stdin: bool,
        /// Connect standard error.
        pub attach_stderr: bool,
        /// Connect standard output.
        pub attach_stdout: bool,
        /// Key sequence that detaches.
        pub detach_keys: String,
        /// `KEY=value`, added to the container's.
        pub env: Option<Vec<String>>,
        /// Working directory; the container's if empty.
        pub working_dir: String,
        /// Program and arguments.
        pub cmd: Option<StrSlice>,
        /// Sent by old clients; what counts is the `Detach` of the start.
        pub detach: bool,
    }

    /// Body of `POST /exec/{id}/start`.
    pub struct ExecStart {
        /// Do not connect to the process.
        pub detach: bool,
        /// A pseudo-terminal; must be as at creation.
        pub tty: bool,
        /// First size of the terminal: height, width.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub console_size: Option<[u16; 2]>,
    }

    /// `GET /exec/{id}/json`.
    pub struct ExecInspect {
        /// The exec's id, 64 hexadecimal digits.
        #[serde(rename = "ID")]
        pub id: String,
        /// Whether the process runs.
        pub running: bool,
        /// `null` until it has ended.
        pub exit_code: Option<i64>,
        /// What runs.
        pub process_config: ExecProcessConfig,
        /// Standard input is connected.
        pub open_stdin: bool,
        /// Standard error is connected.
        pub open_stderr: bool,
        /// Standard output is connected.
        pub open_stdout: bool,
        /// The streams can be attached.
        pub can_remove: bool,
        /// The container.
        #[serde(rename = "ContainerID")]
        pub container_id: String,
        /// Bytes of the detach keys, base64 in Go; empty.
        pub detach_keys: Option<String>,
        /// Process id in the daemon's pid namespace, 0 before the start.
        pub pid: i64,
    }

    /// What an exec runs.
    pub struct ExecProcessConfig {
        /// A pseudo-terminal.
        #[serde(rename = "tty")]
        pub tty: bool,
        /// The program.
        #[serde(rename = "entrypoint")]
        pub entrypoint: String,
        /// Its arguments.
        #[serde(rename = "arguments")]
        pub arguments: Vec<String>,
        /// All capabilities.
        #[serde(rename = "privileged", skip_serializing_if = "Option::is_none")]
        pub privileged: Option<bool>,
        /// `user[:group]`.
        #[serde(rename = "user", skip_serializing_if = "String::is_empty")]
        pub user: String,
    }
}
