//! Reading a password.

use std::io::{self, BufRead};

use super::raw::RawMode;

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const CTRL_U: u8 = 0x15;
const BACKSPACE: [u8; 2] = [0x08, 0x7f];

/// Reads a line from the terminal without showing it; `None` if the user pressed Ctrl-C. Raw mode rather than a
/// terminal without echo, so that Ctrl-C cannot end the program before the terminal is as it was.
///
/// # Errors
/// When the terminal cannot be read.
pub(crate) fn read_secret() -> io::Result<Option<String>> {
    let _raw = RawMode::enter()?;
    line_of(io::stdin().lock())
}

fn line_of(input: impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    for byte in input.bytes() {
        match byte? {
            CTRL_C => return Ok(None),
            b'\r' | b'\n' | CTRL_D => break,
            CTRL_U => line.clear(),
            byte if BACKSPACE.contains(&byte) => {
                // A whole character, however many bytes it has.
                while line.pop().is_some_and(|last: u8| last & 0xc0 == 0x80) {}
            }
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map(Some).map_err(|_| io::Error::other("the password is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_edit_the_line() {
        let line = |text: &str| line_of(text.as_bytes()).unwrap();
        assert_eq!(line("abc\rrest").as_deref(), Some("abc"));
        assert_eq!(line("x\u{15}pä\u{7f}w\n").as_deref(), Some("pw"));
        assert_eq!(line("\u{7f}\u{4}").as_deref(), Some(""));
        assert_eq!(line("ab\u{3}"), None);
    }
}
