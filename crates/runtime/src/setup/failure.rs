//! Why a process could not be started, across the process boundary.

use crate::Error;

/// A failure on the way to exec.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Docker's words.
    pub(crate) message: String,
    /// What `docker run` is to exit with.
    pub(crate) exit_code: i32,
    /// The process that failed, still to be reaped.
    pub(crate) pid: Option<i32>,
}

impl Failure {
    /// No such program.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 127, pid: None }
    }

    /// A program that cannot be executed.
    pub(crate) fn not_executable(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 126, pid: None }
    }

    /// Everything else.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 128, pid: None }
    }

    /// From another runtime's text, which has Go's words in it.
    pub(crate) fn from_text(text: String) -> Self {
        if text.contains("executable file not found") || text.contains("no such file or directory") {
            Self::not_found(text)
        } else if text.contains("permission denied") || text.contains("is a directory") {
            Self::not_executable(text)
        } else {
            Self::other(text)
        }
    }

    pub(super) fn with_pid(self, pid: Option<i32>) -> Self {
        Self { pid, ..self }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![b'e'];
        bytes.extend(self.exit_code.to_ne_bytes());
        // The receiver's buffer is 4096 bytes.
        bytes.extend(self.message.bytes().take(4000));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        let code = bytes.get(1..5).and_then(|code| code.try_into().ok()).map_or(128, i32::from_ne_bytes);
        let message = String::from_utf8_lossy(bytes.get(5..).unwrap_or_default()).into_owned();
        Self { message, exit_code: code, pid: None }
    }

    pub(crate) fn into_start(self, prefix: &str) -> Error {
        Error::Start { message: format!("{prefix}: {}", self.message), exit_code: self.exit_code }
    }

    pub(crate) fn into_exec(self, prefix: &str) -> Error {
        let exit_code = if self.exit_code == 127 { 127 } else { 126 };
        Error::Exec { message: format!("{prefix}: {}", self.message), exit_code }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::other(error.to_string())
    }
}
