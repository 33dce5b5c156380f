//! Finds out how a stream is compressed, from its first bytes as Docker does.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};
use crate::tar::stream_error;

/// A stream's content, decompressed if need be.
pub(crate) enum Plain<'a, R: Read> {
    AsIs(Peeked<R>),
    Gzip(MultiGzDecoder<Peeked<R>>),
    Zstd(zstd::Decoder<'a, Peeked<R>>),
}

type Peeked<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

impl<R: Read> std::fmt::Debug for Plain<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AsIs(_) => "AsIs",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

/// Looks at the first bytes and wraps the stream.
///
/// # Errors
/// `Invalid` for a compression that we do not read.
pub(crate) fn detect<'a, R: Read>(mut stream: R) -> Result<Plain<'a, R>> {
    let mut magic = Vec::with_capacity(6);
    stream.by_ref().take(6).read_to_end(&mut magic).map_err(stream_error)?;
    let kind = magic.clone();
    let whole = BufReader::with_capacity(128 << 10, Cursor::new(magic).chain(stream));
    match kind.as_slice() {
        [0x1f, 0x8b, 0x08, ..] => Ok(Plain::Gzip(MultiGzDecoder::new(whole))),
        // A frame, or one of the skippable frames that may come first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            zstd::Decoder::with_buffer(whole).map(Plain::Zstd).map_err(stream_error)
        }
        [b'B', b'Z', b'h', ..] => Err(unsupported("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0x00] => Err(unsupported("xz")),
        _ => Ok(Plain::AsIs(whole)),
    }
}

fn unsupported(name: &str) -> Error {
    Error::invalid(format!(
        "the archive is compressed with {name}, which is not supported: use gzip or zstd, or none"
    ))
}

impl<R: Read> Read for Plain<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::AsIs(inner) => inner.read(buf),
            Self::Gzip(inner) => inner.read(buf),
            Self::Zstd(inner) => inner.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn plain(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        detect(bytes)?.read_to_end(&mut out).map_err(stream_error)?;
        Ok(out)
    }

    #[test]
    fn every_supported_form_gives_the_same() {
        let data: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&data).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(data.as_slice(), 1).unwrap();
        for form in [&data, &gzip, &zstd] {
            assert_eq!(plain(form).unwrap(), data);
        }
        for form in [&gzip, &zstd] {
            assert!(plain(&form[..form.len() - 9]).is_err(), "a cut stream is an error");
        }
        assert_eq!(plain(b"").unwrap(), b"");
        assert_eq!(plain(b"ab").unwrap(), b"ab");
    }

    #[test]
    fn other_compressions_are_named() {
        for (bytes, name) in [(&b"BZh91AY&SY"[..], "bzip2"), (b"\xfd7zXZ\0\0", "xz")] {
            assert!(plain(bytes).unwrap_err().to_string().contains(name));
        }
    }
}
