//! The content of files that may change, or never had a size, while they are archived.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use rustix::fs::fstatfs;

/// Of files this small, what is there counts, not what was said of them.
const AHEAD: u64 = 64 << 10;
/// What is taken of a file that nobody knows the size of.
const MOST_OF_UNSIZED: u64 = 16 << 20;
/// File systems whose files come into being as they are read: proc, sysfs, cgroup, cgroup2, debugfs, tracefs,
/// securityfs, configfs, bpf, pstore, efivarfs.
const MADE_UP: [u64; 11] = [
    0x9fa0,
    0x6265_6572,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0xcafe_4a11,
    0x6165_676c,
    0xde5e_81e4,
];

/// Whether a file is on a file system whose files have sizes that mean nothing, and some of which cannot be read.
pub(super) fn is_made_up(file: &impl AsFd) -> bool {
    // Sign extended on some machines.
    fstatfs(file).is_ok_and(|found| MADE_UP.contains(&(found.f_type as u64 & 0xffff_ffff)))
}

/// A file's content, of exactly [`Content::size`] bytes.
#[derive(Debug)]
pub(super) struct Content {
    size: u64,
    ahead: io::Cursor<Vec<u8>>,
    /// Where what was not read ahead comes from.
    rest: Option<File>,
    left: u64,
}

impl Content {
    /// Of a file, opened so that nothing waits for content. The file's size is what was read if that was all of it;
    /// later changes of a large one are cut off, or filled up with zeros.
    ///
    /// # Errors
    /// It cannot be read. What a made-up file does not give is left out.
    pub(super) fn of(file: File) -> io::Result<Self> {
        let told = file.metadata()?.len();
        let made_up = is_made_up(&file);
        let unsized_ = made_up || told == 0;
        if !unsized_ && told > AHEAD {
            let ahead = io::Cursor::default();
            return Ok(Self { size: told, ahead, rest: Some(file), left: told });
        }
        let most = if unsized_ { MOST_OF_UNSIZED } else { AHEAD };
        let mut ahead = Vec::new();
        match (&file).take(most + 1).read_to_end(&mut ahead) {
            Err(error) if made_up => tracing::debug!(%error, "left out of an archive: what cannot be read"),
            // Nothing more to be had without waiting.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => drop(other?),
        }
        if ahead.len() as u64 > most {
            tracing::warn!(bytes = most, "a file has no end: the archive has its beginning");
            ahead.truncate(if unsized_ { most } else { told } as usize);
        }
        Ok(Self { size: ahead.len() as u64, ahead: io::Cursor::new(ahead), rest: None, left: 0 })
    }

    /// Nothing.
    pub(super) fn empty() -> Self {
        Self { size: 0, ahead: io::Cursor::default(), rest: None, left: 0 }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(rest) = &mut self.rest else { return self.ahead.read(buffer) };
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let mut read = rest.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            tracing::warn!(
                bytes = self.left,
                "a file became shorter while it was archived: zeros stand for the rest"
            );
            buffer[..most].fill(0);
            read = most;
        }
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn all(mut content: Content) -> Vec<u8> {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, content.size());
        bytes
    }

    #[test]
    fn a_file_without_a_size_has_what_can_be_read() {
        let own = all(Content::of(File::open("/proc/self/status").unwrap()).unwrap());
        assert!(own.starts_with(b"Name:"), "{}", String::from_utf8_lossy(&own));
        // It says that it has a page.
        let trace = File::open("/sys/kernel/mm/transparent_hugepage/enabled");
        if let Ok(file) = trace {
            assert!(all(Content::of(file).unwrap()).ends_with(b"\n"));
        }
        // Its position has no memory behind it.
        assert_eq!(all(Content::of(File::open("/proc/self/mem").unwrap()).unwrap()), b"");
    }

    #[test]
    fn a_file_that_changes_keeps_the_size_it_was_announced_with() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let size = AHEAD as usize * 2;
        for (change, wanted) in
            [(size + 10, vec![b'x'; size]), (10, [vec![b'x'; 10], vec![0; size - 10]].concat())]
        {
            std::fs::write(&path, vec![b'x'; size]).unwrap();
            let content = Content::of(File::open(&path).unwrap()).unwrap();
            std::fs::write(&path, vec![b'x'; change]).unwrap();
            assert!(all(content) == wanted, "{change}");
        }
        let mut small = File::create(&path).unwrap();
        small.write_all(b"small").unwrap();
        assert_eq!(all(Content::of(File::open(&path).unwrap()).unwrap()), b"small");
    }
}
