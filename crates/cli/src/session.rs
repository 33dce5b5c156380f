//! What every command gets: the program's name, the daemon and standard output.

use std::io::{self, Write};
use std::rc::Rc;

use crate::client::Client;
use crate::config::ConfigFile;
use crate::flags::Matches;

/// One run of the CLI.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// The name that the program was called by: `portolan`, or `docker`.
    pub(crate) program: Rc<str>,
    /// The words that name the command, such as `network create`.
    pub(crate) path: Rc<str>,
    /// The daemon.
    pub(crate) client: Rc<Client>,
    /// The name of the context that the daemon was chosen by.
    pub(crate) context: Rc<str>,
    /// The client's configuration file.
    pub(crate) config: Rc<ConfigFile>,
}

impl Session {
    /// `--format`, or else what the configuration file has under a key such as `psFormat`.
    pub(crate) fn format<'m>(&'m self, matches: &'m Matches, key: &str) -> &'m str {
        match matches.text_or_empty("format") {
            // Docker asks for the format of the file only where it would show a table.
            "" if !matches.on("quiet") => self.config.text(key),
            format => format,
        }
    }

    /// `--detach-keys`, or else `detachKeys` of the configuration file; empty for Docker's own.
    pub(crate) fn detach_keys<'m>(&'m self, matches: &'m Matches) -> &'m str {
        match matches.text_or_empty("detach-keys") {
            "" => self.config.text("detachKeys"),
            keys => keys,
        }
    }

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
