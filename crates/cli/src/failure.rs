//! How a command fails: a text for standard error and an exit status.

use std::io;

use crate::client::ClientError;

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A text to print and the exit status.
    Text {
        /// What standard error shows; empty for nothing.
        text: String,
        /// The exit status.
        status: u8,
    },
    /// A request to the daemon failed.
    Client(ClientError),
    /// Reading or writing here failed.
    Io(io::Error),
}

/// What a command ends with: its exit status, or how it failed.
pub(crate) type Outcome = Result<u8, Failure>;

impl Failure {
    /// A text with exit status 1.
    pub(crate) fn new(text: impl Into<String>) -> Failure {
        Failure::Text { text: text.into(), status: 1 }
    }

    /// Several failures of one command: their texts joined by line ends.
    pub(crate) fn all(failures: Vec<String>) -> Outcome {
        if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n"))) }
    }

    /// The text as a single failure shows it.
    pub(crate) fn text(&self) -> String {
        match self {
            Failure::Text { text, .. } => text.clone(),
            Failure::Client(why) => why.to_string(),
            Failure::Io(why) => why.to_string(),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(why: ClientError) -> Failure {
        Failure::Client(why)
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Failure {
        Failure::Io(why)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::new(text)
    }
}
