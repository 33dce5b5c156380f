//! What a layer's tar was beside the content of its files, so that it can be written again bit by bit: an
//! image's name is a digest of digests of such tars, and no two tools write the same one.
//!
//! A zstd stream of records: `0`, u32 length, bytes as they stood; or `1`, u16 length, path in the layer,
//! u64 size: the content of that file. Numbers are little-endian.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, renameat};

use crate::disk::Tree;
use crate::error::{Context, Error, Result};

const RAW: u8 = 0;
const FILE: u8 = 1;
const COMPRESSION_LEVEL: i32 = 1;

/// Writes the records.
pub(crate) struct SplitWriter {
    out: zstd::Encoder<'static, BufWriter<File>>,
    path: PathBuf,
    files: u32,
}

impl SplitWriter {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let open = || zstd::Encoder::new(BufWriter::new(File::create(path)?), COMPRESSION_LEVEL);
        let out = open().context(|| format!("make {}", path.display()))?;
        Ok(Self { out, path: path.to_owned(), files: 0 })
    }

    /// Bytes to be repeated as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(1 << 30) {
            self.record(RAW, &(chunk.len() as u32).to_le_bytes(), chunk, &[])?;
        }
        Ok(())
    }

    /// `size` bytes of the file at `path`; returns the record's number.
    pub(crate) fn file(&mut self, path: &[u8], size: u64) -> Result<u32> {
        let length =
            u16::try_from(path.len()).map_err(|_| Error::invalid("archive entry's name is too long"))?;
        self.record(FILE, &length.to_le_bytes(), path, &size.to_le_bytes())?;
        self.files += 1;
        Ok(self.files - 1)
    }

    pub(crate) fn finish(self) -> Result<()> {
        let path = self.path;
        self.out.finish().and_then(|mut out| out.flush()).context(|| format!("write {}", path.display()))
    }

    fn record(&mut self, tag: u8, length: &[u8], bytes: &[u8], tail: &[u8]) -> Result<()> {
        [&[tag], length, bytes, tail]
            .iter()
            .try_for_each(|part| self.out.write_all(part))
            .context(|| format!("write {}", self.path.display()))
    }
}

/// Keeps the content of files that a later member of the same tar replaced: rare, but legal.
#[derive(Debug)]
pub(crate) struct SideFiles {
    directory: PathBuf,
    /// Inode to record number, of every file of this layer that has content.
    numbers: HashMap<u64, u32>,
}

impl SideFiles {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, numbers: HashMap::new() }
    }

    /// The file with this inode holds the content of record `number`.
    pub(crate) fn remember(&mut self, inode: u64, number: u32) {
        self.numbers.insert(inode, number);
    }

    /// Moves a file that is about to go to the side if its content is still needed; says whether it did.
    pub(crate) fn rescue(&mut self, parent: &OwnedFd, name: &[u8], inode: u64) -> Result<bool> {
        let Some(number) = self.numbers.remove(&inode) else { return Ok(false) };
        let to = self.directory.join(number.to_string());
        let rename = || {
            std::fs::create_dir_all(&self.directory)?;
            io::Result::Ok(renameat(parent, name, CWD, &to)?)
        };
        rename().context(|| format!("make {}", to.display()))?;
        Ok(true)
    }
}

/// Writes a layer's tar from its files, the records, and the directory of side files if there is one.
pub(crate) fn assemble(files: &Path, split: &Path, side: &Path, out: &mut impl Write) -> Result<()> {
    let root = File::open(files).context(|| format!("open {}", files.display()))?;
    let tree = Tree::new(root.as_fd());
    let side_numbers = side_numbers(side)?;
    let mut records = File::open(split)
        .and_then(|file| zstd::Decoder::new(BufReader::new(file)))
        .context(|| format!("open {}", split.display()))?;
    let read = |error| Error::Io { action: format!("read {}", split.display()), source: error };
    let mut number = 0;
    loop {
        let mut tag = [0];
        if records.read(&mut tag).map_err(read)? == 0 {
            return Ok(());
        }
        if tag[0] == RAW {
            let length = u32::from_le_bytes(array(&mut records).map_err(read)?);
            copy(&mut records, u64::from(length), out, split)?;
            continue;
        }
        let length = u16::from_le_bytes(array(&mut records).map_err(read)?);
        let mut path = vec![0; usize::from(length)];
        records.read_exact(&mut path).map_err(read)?;
        let size = u64::from_le_bytes(array(&mut records).map_err(read)?);
        let mut file = if side_numbers.contains(&number) {
            let path = side.join(number.to_string());
            File::open(&path).context(|| format!("open {}", path.display()))?
        } else {
            let fd = tree.open(&path, OFlags::RDONLY | OFlags::NOFOLLOW);
            File::from(
                fd.context(|| format!("open {:?} in {}", String::from_utf8_lossy(&path), files.display()))?,
            )
        };
        copy(&mut file, size, out, files)?;
        number += 1;
    }
}

fn side_numbers(side: &Path) -> Result<HashSet<u32>> {
    let entries = match std::fs::read_dir(side) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashSet::new()),
        other => other.context(|| format!("read {}", side.display()))?,
    };
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn copy(from: &mut impl Read, size: u64, to: &mut impl Write, what: &Path) -> Result<()> {
    let mut buffer = vec![0; (128 << 10).min(usize::try_from(size).unwrap_or(usize::MAX).max(1))];
    let mut left = size;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let n = from.read(&mut buffer[..most]).context(|| format!("read {}", what.display()))?;
        if n == 0 {
            return Err(Error::corrupt(format!("a file in {} is shorter than it was", what.display())));
        }
        to.write_all(&buffer[..n]).context(|| "write archive".to_owned())?;
        left -= n as u64;
    }
    Ok(())
}
