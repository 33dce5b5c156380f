//! Why a process could not be started, across the process boundary.

use crate::Error;
use crate::error::go_words;

/// A failure on the way to exec.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Docker's words.
    pub(crate) message: String,
    /// What `docker run` is to exit with.
    pub(crate) exit_code: i32,
    /// Docker's daemon finds it, before there is a runtime to complain.
    refused: bool,
}

impl Failure {
    /// No such program.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 127, refused: false }
    }

    /// A program that cannot be executed.
    pub(crate) fn not_executable(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 126, refused: false }
    }

    /// Everything else.
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: 128, refused: false }
    }

    /// [`Error::Refused`].
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { refused: true, ..Self::other(message) }
    }

    /// From a system call that says why a program cannot be run.
    pub(crate) fn from_errno(what: &str, error: &std::io::Error) -> Self {
        let text = format!("{what}: {}", go_words(error));
        match error.raw_os_error() {
            Some(libc::ENOENT) => Self::not_found(text),
            Some(libc::EACCES | libc::ENOTDIR | libc::ELOOP) => Self::not_executable(text),
            _ => Self::other(text),
        }
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

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![if self.refused { b'x' } else { b'e' }];
        bytes.extend(self.exit_code.to_ne_bytes());
        // The receiver's buffer is 4096 bytes.
        bytes.extend(self.message.bytes().take(4000));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        let code = bytes.get(1..5).and_then(|code| code.try_into().ok()).map_or(128, i32::from_ne_bytes);
        let message = String::from_utf8_lossy(bytes.get(5..).unwrap_or_default()).into_owned();
        Self { message, exit_code: code, refused: bytes.first() == Some(&b'x') }
    }

    pub(crate) fn into_start(self, prefix: &str) -> Error {
        if self.refused {
            return Error::Refused(self.message);
        }
        Error::Start { message: format!("{prefix}: {}", self.message), exit_code: self.exit_code }
    }

    pub(crate) fn into_exec(self, prefix: &str) -> Error {
        if self.refused {
            return Error::Refused(self.message);
        }
        let exit_code = if self.exit_code == 127 { 127 } else { 126 };
        Error::Exec { message: format!("{prefix}: {}", self.message), exit_code }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(message) => Self::refused(message),
            other => Self::other(other.to_string()),
        }
    }
}
