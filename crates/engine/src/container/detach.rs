//! Detach keys: a sequence in the input that ends the attachment and not the process.

use crate::error::{EngineError, Result};

/// Docker's default: ctrl-p, ctrl-q.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// Parses `ctrl-p,ctrl-q` or `a,b`.
///
/// # Errors
/// `Invalid`: neither a single character nor `ctrl-` and one.
pub(crate) fn parse(keys: Option<&str>) -> Result<Vec<u8>> {
    let Some(keys) = keys.filter(|keys| !keys.is_empty()) else { return Ok(DEFAULT.to_vec()) };
    keys.split(',')
        .map(|key| match key.as_bytes() {
            [single] => Ok(*single),
            _ => key
                .strip_prefix("ctrl-")
                .and_then(|letter| match letter.as_bytes() {
                    [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                    [b'@'] => Some(0),
                    [letter @ b'['..=b'_'] => Some(letter - b'[' + 27),
                    _ => None,
                })
                .ok_or_else(|| EngineError::invalid(format!("Invalid detach keys ({keys}) provided"))),
        })
        .collect()
}

/// Looks for the sequence in a stream of input.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them have been seen, and are held back.
    seen: usize,
}

impl DetachKeys {
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, seen: 0 }
    }

    /// What of the input is for the process, and whether the sequence is complete.
    pub(crate) fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(input.len() + self.seen);
        for byte in input {
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    self.seen = 0;
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(self.keys.first() == Some(byte) && self.keys.len() > 1);
            if self.seen == 0 {
                pass.push(*byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        assert_eq!(parse(None).unwrap(), [16, 17]);
        assert_eq!(parse(Some("")).unwrap(), [16, 17]);
        assert_eq!(parse(Some("ctrl-a,x,ctrl-@,ctrl-_")).unwrap(), [1, b'x', 0, 31]);
        for bad in ["ctrl-", "ctrl-aa", "xy", "a,,b", "ctrl-1"] {
            assert!(parse(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_is_held_back_until_it_is_broken() {
        let mut keys = DetachKeys::new(vec![16, 17]);
        assert_eq!(keys.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.feed(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.feed(b"\x11rest"), (Vec::new(), true));
    }
}
