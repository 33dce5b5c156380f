//! Raw mode, and leaving it on every way out.

use std::io::{self, IsTerminal};
use std::sync::Mutex;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What the terminal was like before the raw mode that is on now.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal in raw mode while this lives.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Puts the terminal of standard input into raw mode; does nothing if it is not a terminal.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn enter() -> io::Result<RawMode> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let before = tcgetattr(&stdin)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw)?;
            *lock() = Some(before);
        }
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore_on_exit();
    }
}

/// Leaves raw mode if it is on. For exits that do not unwind, such as a deadly signal.
pub(crate) fn restore_on_exit() {
    if let Some(before) = lock().take() {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &before);
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
