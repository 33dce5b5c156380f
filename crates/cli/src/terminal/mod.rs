//! The user's terminal and the streams of an attached process.

mod attached;
mod detach;
mod frames;
mod raw;
mod secret;
mod signals;

pub(crate) use attached::{Attached, Ended, Streams};
pub(crate) use detach::parse as parse_detach_keys;
pub(crate) use frames::{Frames, Sink};
pub(crate) use raw::restore_on_exit;
pub(crate) use secret::read_secret;
pub(crate) use signals::{Arrival, Signals, resize_by, resize_to_terminal};

use std::io::IsTerminal;

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// The terminal's size: height and width; `None` if standard output is not a terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_row > 0 || size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
