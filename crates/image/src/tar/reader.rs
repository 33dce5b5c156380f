use std::io::{self, Read};

use super::{BLOCK, Header, Kind, padding};
use crate::error::{Error, Result};

/// The most that a long name or a set of pax records may take; Go's limit too.
const MAX_RECORDS_BYTES: u64 = 1 << 20;

/// Reads an archive member by member, and keeps every byte that is no file content for whoever wants to
/// write the same archive again.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    inner: R,
    /// Headers, records, padding since the last [`Self::take_raw`].
    raw: Vec<u8>,
    /// Content of the current member not read yet.
    remaining: u64,
    padding: usize,
    ended: bool,
}

/// What extended headers say about the member after them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    is_sparse: bool,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, raw: Vec::new(), remaining: 0, padding: 0, ended: false }
    }

    /// The next member; none at the end. Content of the last one that was not read is dropped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Header>> {
        if self.ended {
            return Ok(None);
        }
        self.finish_member()?;
        let mut extended = Extended::default();
        loop {
            let Some(block) = self.read_header_block()? else {
                self.ended = true;
                return Ok(None);
            };
            let size = number(&block[124..136], "size")?;
            match block[156] {
                b'x' => {
                    let records = self.read_records(size)?;
                    apply_pax(&records, &mut extended)?;
                }
                b'g' => {
                    self.read_records(size)?;
                }
                b'L' => extended.path = Some(trim_nul(&self.read_records(size)?).to_vec()),
                b'K' => extended.link = Some(trim_nul(&self.read_records(size)?).to_vec()),
                flag => {
                    let header = header(&block, flag, size, extended)?;
                    self.remaining = header.size;
                    self.padding = padding(header.size);
                    return Ok(Some(header));
                }
            }
        }
    }

    /// The content of the current member.
    pub(crate) fn payload(&mut self) -> Payload<'_, R> {
        Payload { tar: self }
    }

    /// Everything but file content that was read since the last call.
    pub(crate) fn take_raw(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.raw)
    }

    /// Reads on behind the end of the archive until the stream ends, handing over what was read.
    pub(crate) fn drain(&mut self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        sink(&self.take_raw())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.inner.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => sink(&buffer[..n])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(stream_error(error)),
            }
        }
    }

    fn finish_member(&mut self) -> Result<()> {
        let mut buffer = [0; 8 << 10];
        while self.remaining > 0 {
            let n = self.payload().read(&mut buffer).map_err(stream_error)?;
            if n == 0 {
                return Err(truncated());
            }
        }
        let padding = std::mem::take(&mut self.padding);
        self.read_raw(padding)?;
        Ok(())
    }

    /// A header, or none at the end: a block of zeros, or the end of the stream between members.
    fn read_header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated()),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(stream_error(error)),
            }
        }
        self.raw.extend_from_slice(&block);
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        verify_checksum(&block)?;
        Ok(Some(block))
    }

    fn read_records(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_RECORDS_BYTES {
            return Err(Error::invalid(format!("invalid tar header: extended header of {size} bytes")));
        }
        let size = usize::try_from(size).map_err(|_| truncated())?;
        let start = self.read_raw(size)?;
        let records = self.raw[start..].to_vec();
        self.read_raw(padding(size as u64))?;
        Ok(records)
    }

    /// Reads into `raw`; returns where it begins there.
    fn read_raw(&mut self, size: usize) -> Result<usize> {
        let start = self.raw.len();
        self.raw.resize(start + size, 0);
        self.inner.read_exact(&mut self.raw[start..]).map_err(stream_error)?;
        Ok(start)
    }
}

/// Reads the content of one member.
pub(crate) struct Payload<'a, R> {
    tar: &'a mut TarReader<R>,
}

impl<R: Read> Read for Payload<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.tar.remaining).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.tar.inner.read(&mut buf[..most])?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.tar.remaining -= n as u64;
        Ok(n)
    }
}

pub(crate) fn stream_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => truncated(),
        // What a decompressor says of its input.
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::invalid(format!("invalid archive: {error}"))
        }
        _ => Error::Io { action: "read archive".to_owned(), source: error },
    }
}

fn truncated() -> Error {
    Error::invalid("invalid archive: unexpected EOF")
}

fn malformed(what: &str) -> Error {
    Error::invalid(format!("archive/tar: invalid tar header: {what}"))
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<()> {
    let stated = number(&block[148..156], "checksum")?;
    let bytes = || block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
    let unsigned: u64 = bytes().map(u64::from).sum();
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    if stated == unsigned || i64::try_from(stated) == Ok(signed) {
        return Ok(());
    }
    Err(malformed("checksum mismatch"))
}

fn header(block: &[u8; BLOCK], flag: u8, size: u64, extended: Extended) -> Result<Header> {
    let mut path = trim_nul(&block[..100]).to_vec();
    let prefix = trim_nul(&block[345..500]);
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        path = [prefix, b"/", &path].concat();
    }
    let path = extended.path.unwrap_or(path);
    if extended.is_sparse || flag == b'S' {
        return Err(Error::invalid(format!(
            "archive entry {:?} is a sparse file, which is not supported: archive it without --sparse",
            String::from_utf8_lossy(&path)
        )));
    }
    let kind = match flag {
        b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            return Err(Error::invalid(format!(
                "archive entry {:?} has unknown type {:?}",
                String::from_utf8_lossy(&path),
                char::from(other)
            )));
        }
    };
    let device = if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        (small(&block[329..337], "device")?, small(&block[337..345], "device")?)
    } else {
        (0, 0)
    };
    let header = Header {
        kind,
        link: extended.link.unwrap_or_else(|| trim_nul(&block[157..257]).to_vec()),
        mode: small(&block[100..108], "mode")? & 0o7777,
        uid: extended.uid.map_or_else(|| small(&block[108..116], "uid"), Ok)?,
        gid: extended.gid.map_or_else(|| small(&block[116..124], "gid"), Ok)?,
        // Other members have no content whatever they say.
        size: if kind == Kind::File { extended.size.unwrap_or(size) } else { 0 },
        mtime: extended.mtime.map_or_else(|| Ok::<_, Error>((signed_number(&block[136..148])?, 0)), Ok)?,
        device,
        xattrs: extended.xattrs,
        path,
    };
    if header.path.contains(&0) || header.link.contains(&0) {
        return Err(malformed("name with a zero byte"));
    }
    if header.size > i64::MAX as u64 {
        return Err(malformed("size"));
    }
    Ok(header)
}

fn trim_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

fn small(field: &[u8], what: &str) -> Result<u32> {
    u32::try_from(number(field, what)?).map_err(|_| malformed(what))
}

fn number(field: &[u8], what: &str) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        return u64::try_from(binary(field, what)?).map_err(|_| malformed(what));
    }
    octal(field).ok_or_else(|| malformed(what))
}

fn signed_number(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        return binary(field, "mtime");
    }
    octal(field).and_then(|value| i64::try_from(value).ok()).ok_or_else(|| malformed("mtime"))
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = trim_nul(field).trim_ascii();
    text.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// GNU's base-256: big-endian two's complement under the marker bit.
fn binary(field: &[u8], what: &str) -> Result<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { field[0] } else { field[0] & 0x7f };
    let mut value: i128 = if negative { -1 } else { 0 };
    for byte in std::iter::once(first).chain(field[1..].iter().copied()) {
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).map_err(|_| malformed(what))
}

/// Records of the form `length key=value\n`.
fn apply_pax(mut records: &[u8], into: &mut Extended) -> Result<()> {
    let bad = || malformed("pax record");
    while !records.is_empty() {
        let space = records.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize =
            std::str::from_utf8(&records[..space]).ok().and_then(|t| t.parse().ok()).ok_or_else(bad)?;
        if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
            return Err(bad());
        }
        let record = &records[space + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        apply_pax_record(&record[..equals], &record[equals + 1..], into)?;
        records = &records[length..];
    }
    Ok(())
}

fn apply_pax_record(key: &[u8], value: &[u8], into: &mut Extended) -> Result<()> {
    let bad = || malformed("pax record");
    let text = || std::str::from_utf8(value).map_err(|_| bad());
    match key {
        b"path" => into.path = (!value.is_empty()).then(|| value.to_vec()),
        b"linkpath" => into.link = (!value.is_empty()).then(|| value.to_vec()),
        b"size" => into.size = Some(text()?.parse().map_err(|_| bad())?),
        b"uid" => into.uid = Some(text()?.parse().map_err(|_| bad())?),
        b"gid" => into.gid = Some(text()?.parse().map_err(|_| bad())?),
        b"mtime" => into.mtime = Some(pax_time(text()?).ok_or_else(bad)?),
        b"GNU.sparse.name" => {
            into.is_sparse = true;
            into.path = Some(value.to_vec());
        }
        _ if key.starts_with(b"GNU.sparse.") => into.is_sparse = true,
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                into.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Ok(())
}

/// Decimal seconds with a fraction, perhaps negative.
fn pax_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}
