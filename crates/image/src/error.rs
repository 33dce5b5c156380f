//! The one error of this crate, with Docker's texts where a client gets to see them.

use std::io;

/// What went wrong with an image, a layer or a root file system.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's input is wrong: a name, a change, an archive.
    #[error("{0}")]
    Invalid(String),
    /// No image answers to this name.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// Something else that was asked for is not here.
    #[error("{0}")]
    NotFound(String),
    /// The state of the store forbids it.
    #[error("{0}")]
    Conflict(String),
    /// A registry refused the credentials, or needs some.
    #[error("{0}")]
    Unauthorized(String),
    /// A registry could not be reached or did not speak its protocol.
    #[error("{0}")]
    Registry(String),
    /// The operating system said no.
    #[error("{action}: {source}")]
    Io {
        /// What was attempted on what.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The store on disk contradicts itself.
    #[error("image store: {0}")]
    Corrupt(String),
}

/// The kinds that the HTTP layer tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// 400.
    Invalid,
    /// 404.
    NotFound,
    /// 409.
    Conflict,
    /// 401.
    Unauthorized,
    /// 500.
    Internal,
}

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Which HTTP status it deserves.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) => ErrorKind::Invalid,
            Self::NoSuchImage(_) | Self::NotFound(_) => ErrorKind::NotFound,
            Self::Conflict(_) => ErrorKind::Conflict,
            Self::Unauthorized(_) => ErrorKind::Unauthorized,
            Self::Registry(_) | Self::Io { .. } | Self::Corrupt(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    pub(crate) fn corrupt(text: impl Into<String>) -> Self {
        Self::Corrupt(text.into())
    }
}

/// Adds what was attempted to an operating system error.
pub(crate) trait Context<T> {
    /// `action` such as `open /var/lib/...`.
    fn context(self, action: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::Io { action: action(), source: error.into() })
    }
}
