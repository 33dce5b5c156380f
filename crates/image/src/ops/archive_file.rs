use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::compression;
use crate::disk::lexical_path;
use crate::error::{Context, Error, Result};
use crate::tar::{Kind, TarReader, stream_error};

const MAX_LINKS: usize = 8;

/// An archive to look things up in: its members' contents lie one after the other in a file without a name.
/// Nothing is unpacked, so nothing in it can point anywhere.
#[derive(Debug)]
pub(super) struct ArchiveFile {
    content: File,
    members: HashMap<Vec<u8>, Member>,
}

#[derive(Debug)]
enum Member {
    Content {
        offset: u64,
        size: u64,
    },
    /// Another member has the content.
    Link(Vec<u8>),
}

impl ArchiveFile {
    /// Reads a whole archive, perhaps compressed, into a file below `directory`.
    pub(super) fn read(stream: impl Read, directory: &Path) -> Result<Self> {
        let action = || format!("make a temporary file in {}", directory.display());
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let content = File::from(openat(CWD, directory, flags, Mode::from(0o600)).context(action)?);
        let mut out = BufWriter::with_capacity(128 << 10, &content);
        let mut members = HashMap::new();
        let mut offset = 0;
        let mut stream = compression::detect(stream)?;
        let mut tar = TarReader::new(&mut stream);
        let mut buffer = vec![0; 128 << 10];
        while let Some(header) = tar.next_entry()? {
            tar.take_raw();
            let path = lexical_path(&header.path).ok_or_else(|| outside(&header.path))?;
            let member = match header.kind {
                Kind::File => {
                    let mut payload = tar.payload();
                    loop {
                        let n = payload.read(&mut buffer).map_err(stream_error)?;
                        if n == 0 {
                            break;
                        }
                        out.write_all(&buffer[..n]).context(action)?;
                    }
                    offset += header.size;
                    Member::Content { offset: offset - header.size, size: header.size }
                }
                Kind::HardLink => {
                    Member::Link(lexical_path(&header.link).ok_or_else(|| outside(&header.link))?)
                }
                Kind::Symlink => {
                    let parent =
                        path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |slash| &path[..=slash]);
                    let target = [parent, header.link.as_slice()].concat();
                    Member::Link(lexical_path(&target).ok_or_else(|| outside(&header.link))?)
                }
                _ => continue,
            };
            members.insert(path, member);
        }
        tar.drain(|_| Ok(()))?;
        out.flush().context(action)?;
        drop(out);
        Ok(Self { content, members })
    }

    /// The content of a member; none if there is no such member.
    pub(super) fn open(&self, path: &str) -> Result<Option<MemberReader<'_>>> {
        let mut path = lexical_path(path.as_bytes()).ok_or_else(|| outside(path.as_bytes()))?;
        for _ in 0..MAX_LINKS {
            match self.members.get(&path) {
                None => return Ok(None),
                Some(Member::Link(target)) => path = target.clone(),
                Some(Member::Content { offset, size }) => {
                    return Ok(Some(MemberReader { content: &self.content, offset: *offset, left: *size }));
                }
            }
        }
        Err(Error::invalid(format!(
            "invalid archive: too many links at {:?}",
            String::from_utf8_lossy(&path)
        )))
    }

    /// The same of a member that must be there.
    pub(super) fn require(&self, path: &str) -> Result<MemberReader<'_>> {
        self.open(path)?.ok_or_else(|| Error::invalid(format!("invalid archive: does not contain a {path}")))
    }
}

fn outside(path: &[u8]) -> Error {
    let path = String::from_utf8_lossy(path);
    Error::invalid(format!("invalid archive: {path:?} is outside of the archive"))
}

/// Reads a member's content.
#[derive(Clone, Debug)]
pub(super) struct MemberReader<'a> {
    content: &'a File,
    offset: u64,
    left: u64,
}

impl MemberReader<'_> {
    /// All of it, if it is no larger than a document may be.
    pub(super) fn document(mut self) -> Result<Vec<u8>> {
        const MOST: u64 = 16 << 20;
        if self.left > MOST {
            return Err(Error::invalid(format!("invalid archive: a document of {} bytes", self.left)));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).context(|| "read archive".to_owned())?;
        Ok(bytes)
    }
}

impl Read for MemberReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.content.read_at(&mut buf[..most], self.offset)?;
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
