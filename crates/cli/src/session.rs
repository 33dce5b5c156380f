//! What every command gets: the program's name, the daemon and standard output.

use std::io::{self, Write};
use std::rc::Rc;

use crate::client::Client;

/// One run of the CLI.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The name that the program was called by: `portolan`, or `docker`.
    pub(crate) program: Rc<str>,
    /// The words that name the command, such as `network create`.
    pub(crate) path: Rc<str>,
    /// The daemon.
    pub(crate) client: Rc<Client>,
}

impl Session {
    /// A failure of `run`, `create` or `exec` as Docker shows it: after the program's name and with
    /// a pointer to `--help`.
    pub(crate) fn with_pointer(&self, text: &str) -> String {
        format!("{}: {text}\n\n{}", self.program, crate::help::more_line(&self.program, &self.path, "Run"))
    }
}

/// Writes text to standard output as it is.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn write_out(text: &str) -> io::Result<()> {
    write_bytes(text.as_bytes())
}

/// Writes text and a line end to standard output.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn line_out(text: &str) -> io::Result<()> {
    let mut line = String::with_capacity(text.len() + 1);
    line.push_str(text);
    line.push('\n');
    write_out(&line)
}

/// Writes bytes to standard output and flushes them.
///
/// # Errors
/// When standard output is closed or full.
pub(crate) fn write_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Writes text and a line end to standard error; a closed standard error is not a failure.
pub(crate) fn line_err(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
