//! What goes wrong, sorted by what a client can do about it.

use std::fmt;

/// The result of every command.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// Why a command failed, by HTTP status: the daemon maps each kind to the code that Docker uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong in itself: 400.
    Invalid,
    /// Forbidden, such as removing a predefined network: 403.
    Forbidden,
    /// What it names does not exist: 404.
    NotFound,
    /// It does not fit the present state: 409.
    Conflict,
    /// Nothing to do, such as starting a running container: 304.
    NotModified,
    /// A registry wants other credentials: 401.
    Unauthorized,
    /// Something it needs is not there now: 503.
    Unavailable,
    /// Not supported by this engine: 501.
    NotImplemented,
    /// The engine or the host failed: 500.
    Internal,
}

/// A failed command: what kind of failure, and Docker's words for it.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    kind: ErrorKind,
    message: String,
}

impl EngineError {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Status 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Status 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Status 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// Status 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Status 501.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// Status 304.
    pub fn not_modified(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotModified, message)
    }

    /// What the client can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text for the client.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same kind of error, said with what was being done: `what: text`.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }
}

impl fmt::Debug for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl From<portolan_net::Error> for EngineError {
    fn from(error: portolan_net::Error) -> Self {
        use portolan_net::ErrorKind as Net;
        let kind = match error.kind() {
            Net::Invalid => ErrorKind::Invalid,
            Net::NotFound => ErrorKind::NotFound,
            Net::Conflict => ErrorKind::Conflict,
            Net::Forbidden => ErrorKind::Forbidden,
            Net::Unavailable => ErrorKind::Unavailable,
            Net::Unsupported => ErrorKind::NotImplemented,
            Net::Internal => ErrorKind::Internal,
        };
        Self::new(kind, error.message())
    }
}

impl From<portolan_image::Error> for EngineError {
    fn from(error: portolan_image::Error) -> Self {
        use portolan_image::ErrorKind as Image;
        let kind = match error.kind() {
            Image::Invalid => ErrorKind::Invalid,
            Image::NotFound => ErrorKind::NotFound,
            Image::Conflict => ErrorKind::Conflict,
            Image::Unauthorized => ErrorKind::Unauthorized,
            Image::Internal => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<portolan_runtime::Error> for EngineError {
    fn from(error: portolan_runtime::Error) -> Self {
        use portolan_runtime::Error as Runtime;
        let kind = match &error {
            // No such program, or not executable: the request's fault. Docker answers 400.
            Runtime::Start { exit_code: 126 | 127, .. }
            | Runtime::Exec { .. }
            | Runtime::Invalid(_)
            | Runtime::Refused(_) => ErrorKind::Invalid,
            Runtime::NotRunning { .. } => ErrorKind::Conflict,
            Runtime::NoSuchExec { .. } => ErrorKind::NotFound,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
