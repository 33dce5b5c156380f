use std::io::{self, Read, Write};

use super::{BLOCK, Header, Kind, padding};

/// Writes an archive: ustar headers, pax records where they do not suffice.
#[derive(Debug)]
pub(crate) struct TarWriter<W> {
    inner: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner }
    }

    /// Writes one member with `header.size` bytes of content.
    ///
    /// # Errors
    /// Also if `content` is shorter or longer than that.
    pub(crate) fn append(&mut self, header: &Header, content: impl Read) -> io::Result<()> {
        self.begin(header)?;
        let mut content = content.take(header.size + 1);
        let copied = io::copy(&mut content, &mut self.inner)?;
        if copied != header.size {
            return Err(io::Error::other(format!(
                "{:?} changed its size while it was read",
                String::from_utf8_lossy(&header.path)
            )));
        }
        self.end(header.size)
    }

    /// Writes a member's header; `header.size` bytes to [`Self::inner`] and [`Self::end`] must follow.
    pub(crate) fn begin(&mut self, header: &Header) -> io::Result<()> {
        let records = pax_records(header);
        if !records.is_empty() {
            let carrier = Header { path: b"PaxHeaders/x".to_vec(), mode: 0o644, ..Header::default() };
            self.inner.write_all(&block(&carrier, b'x', records.len() as u64))?;
            self.inner.write_all(&records)?;
            self.end(records.len() as u64)?;
        }
        let flag = match header.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
        };
        self.inner.write_all(&block(header, flag, header.size))
    }

    /// The sink, for a member's content.
    pub(crate) fn inner(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Fills a member's last block.
    pub(crate) fn end(&mut self, size: u64) -> io::Result<()> {
        self.inner.write_all(&[0; BLOCK][..padding(size)])
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

/// The highest number that fits into `digits` octal digits.
fn octal_max(digits: u32) -> u64 {
    (1 << (3 * digits)) - 1
}

fn pax_records(header: &Header) -> Vec<u8> {
    let mut records = Vec::new();
    if header.path.len() > 100 {
        pax_record(b"path", &header.path, &mut records);
    }
    if header.link.len() > 100 {
        pax_record(b"linkpath", &header.link, &mut records);
    }
    if header.size > octal_max(11) {
        pax_record(b"size", header.size.to_string().as_bytes(), &mut records);
    }
    for (key, value) in [(&b"uid"[..], header.uid), (b"gid", header.gid)] {
        if u64::from(value) > octal_max(7) {
            pax_record(key, value.to_string().as_bytes(), &mut records);
        }
    }
    let (seconds, nanos) = header.mtime;
    if nanos != 0 || !u64::try_from(seconds).is_ok_and(|s| s <= octal_max(11)) {
        pax_record(b"mtime", pax_time(seconds, nanos).as_bytes(), &mut records);
    }
    for (name, value) in &header.xattrs {
        pax_record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value, &mut records);
    }
    records
}

/// The length counts itself.
fn pax_record(key: &[u8], value: &[u8], into: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    into.extend_from_slice(format!("{length} ").as_bytes());
    into.extend_from_slice(key);
    into.push(b'=');
    into.extend_from_slice(value);
    into.push(b'\n');
}

fn pax_time(seconds: i64, nanos: u32) -> String {
    if seconds >= 0 || nanos == 0 {
        return format!("{seconds}.{nanos:09}");
    }
    format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos)
}

fn block(header: &Header, flag: u8, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put_text(&mut block[..100], &header.path);
    put_octal(&mut block[100..108], u64::from(header.mode));
    put_octal(&mut block[108..116], u64::from(header.uid));
    put_octal(&mut block[116..124], u64::from(header.gid));
    put_octal(&mut block[124..136], size);
    put_octal(&mut block[136..148], u64::try_from(header.mtime.0).unwrap_or(0));
    block[148..156].copy_from_slice(b"        ");
    block[156] = flag;
    put_text(&mut block[157..257], &header.link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    if matches!(header.kind, Kind::CharDevice | Kind::BlockDevice) {
        put_octal(&mut block[329..337], u64::from(header.device.0));
        put_octal(&mut block[337..345], u64::from(header.device.1));
    }
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// What does not fit stands in a pax record.
fn put_text(field: &mut [u8], text: &[u8]) {
    let n = text.len().min(field.len());
    field[..n].copy_from_slice(&text[..n]);
}

/// 0 if it does not fit: then it stands in a pax record.
fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let value = if value > octal_max(digits as u32) { 0 } else { value };
    field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
}
