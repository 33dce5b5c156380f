//! Finds out how a stream is compressed, from its first bytes as Docker does.

use std::io::{self, BufReader, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;

use crate::error::Result;
use crate::tar::stream_error;

/// A stream's content, decompressed if need be.
pub(crate) enum Plain<'a, R: Read> {
    AsIs(Peeked<R>),
    Gzip(MultiGzDecoder<Peeked<R>>),
    Zstd(zstd::Decoder<'a, Peeked<R>>),
    Bzip2(MultiBzDecoder<Peeked<R>>),
    Xz(Box<XzReader<Peeked<R>>>),
}

/// What an archive may have us keep of it: twice what `xz -9` needs.
const MOST_FOR_XZ_KIB: u32 = 128 << 10;

type Peeked<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

impl<R: Read> std::fmt::Debug for Plain<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AsIs(_) => "AsIs",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
            Self::Bzip2(_) => "Bzip2",
            Self::Xz(_) => "Xz",
        })
    }
}

/// Looks at the first bytes and wraps the stream: gzip, zstd, bzip2 or xz, or as it is.
///
/// # Errors
/// The stream cannot be read.
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
        [b'B', b'Z', b'h', ..] => Ok(Plain::Bzip2(MultiBzDecoder::new(whole))),
        [0xfd, b'7', b'z', b'X', b'Z', 0x00] => {
            Ok(Plain::Xz(Box::new(XzReader::new_mem_limit(whole, true, MOST_FOR_XZ_KIB))))
        }
        _ => Ok(Plain::AsIs(whole)),
    }
}

impl<R: Read> Read for Plain<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::AsIs(inner) => inner.read(buf),
            Self::Gzip(inner) => inner.read(buf),
            Self::Zstd(inner) => inner.read(buf),
            Self::Bzip2(inner) => inner.read(buf),
            Self::Xz(inner) => inner.read(buf).map_err(|error| match error.kind() {
                io::ErrorKind::OutOfMemory => io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("xz wants more than {} MiB to decompress it", MOST_FOR_XZ_KIB / 1024),
                ),
                _ => error,
            }),
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
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bzip2.write_all(&data).unwrap();
        let bzip2 = bzip2.finish().unwrap();
        let xz = xz(&data, 1 << 20);
        for form in [&data, &gzip, &zstd, &bzip2, &xz] {
            assert_eq!(plain(form).unwrap(), data);
        }
        for form in [&bzip2, &xz] {
            assert_eq!(plain(&[form.as_slice(), form].concat()).unwrap(), [data.as_slice(), &data].concat());
        }
        for form in [&gzip, &zstd, &bzip2, &xz] {
            assert!(plain(&form[..form.len() - 9]).is_err(), "a cut stream is an error");
        }
        assert_eq!(plain(b"").unwrap(), b"");
        assert_eq!(plain(b"ab").unwrap(), b"ab");
    }

    fn xz(data: &[u8], dictionary: u32) -> Vec<u8> {
        let mut options = lzma_rust2::XzOptions::with_preset(1);
        options.lzma_options.dict_size = dictionary;
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
        xz.write_all(data).unwrap();
        xz.finish().unwrap()
    }

    #[test]
    fn no_archive_has_us_take_any_amount_of_memory() {
        let mut small = xz(b"small", 1 << 16);
        // The size of the dictionary, 4 GiB, in the block's header, and that header's checksum.
        let at = small.windows(2).position(|pair| pair == [0x21, 0x01]).unwrap() + 2;
        small[at] = 40;
        let (from, to) = (12, 12 + (usize::from(small[12]) + 1) * 4 - 4);
        let sum = crc32(&small[from..to]);
        small[to..to + 4].copy_from_slice(&sum.to_le_bytes());
        let refused = plain(&small).unwrap_err();
        assert_eq!(refused.kind(), crate::ErrorKind::Invalid);
        assert!(refused.to_string().contains("xz wants more than 128 MiB"), "{refused}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }
}
