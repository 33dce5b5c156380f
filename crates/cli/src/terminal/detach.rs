//! The key sequence that detaches.

/// What to do with a piece of input.
#[derive(Debug, PartialEq)]
pub(super) enum Typed {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send these bytes and detach: the sequence was typed.
    Detach(Vec<u8>),
}

/// Reads a sequence such as `ctrl-p,ctrl-q` or `ctrl-],a` into the bytes that a terminal sends.
///
/// # Errors
/// Docker's text.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    let unknown = |key: &str| format!("invalid detach keys ({text}): Unknown character: '{key}'");
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-") {
            None if key.len() == 1 => Ok(key.as_bytes()[0]),
            Some(key) if key.len() == 1 => match key.as_bytes()[0] {
                letter @ b'a'..=b'z' => Ok(letter - b'a' + 1),
                b'@' => Ok(0),
                sign @ b'['..=b'_' => Ok(sign - b'[' + 27),
                _ => Err(unknown(key)),
            },
            _ => Err(unknown(key)),
        })
        .collect()
}

/// Watches typed bytes for the sequence; bytes that might belong to it wait.
#[derive(Debug)]
pub(super) struct Watch {
    keys: Vec<u8>,
    seen: usize,
}

impl Watch {
    /// Watches for `keys`; none are never found.
    pub(super) fn new(keys: Vec<u8>) -> Watch {
        Watch { keys, seen: 0 }
    }

    /// Takes what was typed.
    pub(super) fn typed(&mut self, bytes: &[u8]) -> Typed {
        if self.keys.is_empty() {
            return Typed::Send(bytes.to_vec());
        }
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    self.seen = 0;
                    return Typed::Detach(out);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = 0;
            if byte == self.keys[0] {
                self.seen = 1;
            } else {
                out.push(byte);
            }
        }
        Typed::Send(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), [16, 17]);
        assert_eq!(parse("ctrl-@,ctrl-[,ctrl-_,a").unwrap(), [0, 27, 31, b'a']);
        assert!(parse("ctrl-P").is_err() && parse("foo").is_err());
    }

    #[test]
    fn the_sequence_is_found_across_pieces() {
        let mut watch = Watch::new(vec![16, 17]);
        assert_eq!(watch.typed(b"a\x10"), Typed::Send(b"a".to_vec()));
        assert_eq!(watch.typed(b"b"), Typed::Send(b"\x10b".to_vec()));
        assert_eq!(watch.typed(b"\x10\x10"), Typed::Send(b"\x10".to_vec()));
        assert_eq!(watch.typed(b"\x11c"), Typed::Detach(Vec::new()));
    }
}
