//! What can go wrong, in the words that a Docker client expects to read.

use std::io;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation on a container, its shim or the launcher failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first process could not be made or its program not be executed.
    #[error("failed to create task for container: {message}: unknown")]
    Start {
        /// Docker's text without its prefix, such as `exec: "foo": executable file not found in $PATH`.
        message: String,
        /// What `docker run` exits with: 127 no such program, 126 not executable, 128 anything else.
        exit_code: i32,
    },
    /// A process could not be executed in a running container.
    #[error("OCI runtime exec failed: {message}: unknown")]
    Exec {
        /// Docker's text.
        message: String,
        /// 127 no such program, 126 not executable or not possible.
        exit_code: i32,
    },
    /// The container cannot be made as it is asked for; Docker's daemon says so, not its runtime.
    #[error("{0}")]
    Refused(String),
    /// The container has no running process.
    #[error("container {id} is not running")]
    NotRunning {
        /// The container.
        id: String,
    },
    /// There is no such process executed in the container (any more).
    #[error("no such exec: {id}")]
    NoSuchExec {
        /// The exec.
        id: String,
    },
    /// The shim died or was never there.
    #[error("the shim of container {id} is gone")]
    ShimGone {
        /// The container.
        id: String,
    },
    /// The shim lives and does not answer.
    #[error("the shim of container {id} does not answer")]
    Silent {
        /// The container.
        id: String,
    },
    /// The request makes no sense for this container.
    #[error("{0}")]
    Invalid(String),
    /// The launcher died, and so did the one in its place: containers go on, new ones cannot be made.
    #[error("the launcher is gone")]
    LauncherGone,
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted, on what.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The other side does not speak our protocol (another version of the program).
    #[error("unexpected answer from {from}: {what}")]
    Protocol {
        /// Who.
        from: &'static str,
        /// What.
        what: String,
    },
}

impl Error {
    /// The exit code for `docker run` and `docker exec` when the process could not be started.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Start { exit_code, .. } | Self::Exec { exit_code, .. } => Some(*exit_code),
            _ => None,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// A system call's error as programs in Go word it, which is what a Docker client knows.
pub(crate) fn go_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

/// Adds what was attempted to a system call's error.
pub(crate) trait Attempt<T> {
    /// `what` reads after "cannot": "mount proc on /proc".
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for std::result::Result<T, E> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::Io { what: what(), source: e.into() })
    }
}
