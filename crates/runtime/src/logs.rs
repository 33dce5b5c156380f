//! Reading json-file logs: from the end, by time, across rotated files, and as they grow.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use flate2::read::GzDecoder;
use jiff::Timestamp;
use rustix::fs::{Mode, OFlags, inotify};
use serde::Deserialize;
use tokio::io::unix::AsyncFd;

use crate::error::Attempt;
use crate::status::OutputStream;
use crate::{Error, Result};

/// What to read.
#[derive(Default)]
pub struct LogOptions {
    /// Only this many of the last lines (those in the files when reading begins); all if none.
    pub tail: Option<usize>,
    /// Only entries at this time or later.
    pub since: Option<Timestamp>,
    /// Only entries up to this time.
    pub until: Option<Timestamp>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Go on as the log grows, until this is ready (`Shim::wait`, say); then read the rest and end.
    pub follow: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl std::fmt::Debug for LogOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { tail, since, until, stdout, stderr, follow } = self;
        let parts = (tail, since, until, stdout, stderr, follow.is_some());
        write!(formatter, "LogOptions{parts:?}")
    }
}

/// An entry: a line with its newline, or a part of a line longer than 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When it was read from the container.
    pub time: Timestamp,
    /// Which stream.
    pub stream: OutputStream,
    /// The bytes.
    pub line: Bytes,
    /// What the log driver was told to write with every line.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Line {
    log: String,
    stream: OutputStream,
    time: Timestamp,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
}

/// Lines that are read before anything else gets the thread.
const AT_A_TIME: usize = 256;

/// What a look at the log brought.
enum Available {
    Entry(LogEntry),
    /// Lines that nobody wants; there may be more.
    Unwanted,
    /// Its end, for now.
    Nothing,
}

/// Reads the log of a container. No lock is taken: the shim only appends and renames.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    options: LogOptions,
    /// Files still to be read whole, oldest first, then the current one.
    files: VecDeque<LogFile>,
    current: Option<Source>,
    watch: Option<AsyncFd<OwnedFd>>,
    /// Nothing grows any more.
    ended: bool,
    done: bool,
}

#[derive(Debug)]
struct Source {
    file: File,
    /// What was read and not yet handed out; the last line may be incomplete.
    buffer: Vec<u8>,
    consumed: usize,
    /// Bytes of `buffer` known to have no newline, from `consumed`.
    searched: usize,
    /// [`LogFile::identity`]
    identity: u64,
}

/// A file of the log that is not being read yet.
#[derive(Debug)]
struct LogFile {
    file: File,
    is_compressed: bool,
    /// The inode that it had when it was written to; a compressed one remembers it.
    identity: u64,
}

impl LogFile {
    fn new(file: File, is_compressed: bool) -> io::Result<Self> {
        let own = file.metadata()?.ino();
        let mut identity = own;
        if is_compressed {
            // Looked at by a handle of its own: the other stays at the beginning.
            let looked = GzDecoder::new(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?);
            let comment = looked.header().and_then(|header| header.comment()).unwrap_or_default();
            identity = std::str::from_utf8(comment).ok().and_then(|text| text.parse().ok()).unwrap_or(own);
        }
        Ok(Self { file, is_compressed, identity })
    }

    /// As plain text, in a file without a name beside the log if need be.
    fn plain(&mut self, log: &Path) -> io::Result<&mut File> {
        if std::mem::take(&mut self.is_compressed) {
            let directory = log.parent().unwrap_or(Path::new("/"));
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let mut plain = File::from(rustix::fs::open(directory, flags, Mode::from(0o600))?);
            // One that is cut short has what is before that.
            match io::copy(&mut GzDecoder::new(&self.file), &mut plain) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Err(error),
                _ => {}
            }
            plain.rewind()?;
            self.file = plain;
        }
        Ok(&mut self.file)
    }

    fn open(mut self, log: &Path) -> io::Result<Source> {
        self.plain(log)?;
        Ok(Source { file: self.file, buffer: Vec::new(), consumed: 0, searched: 0, identity: self.identity })
    }
}

impl Source {
    /// The next complete line; `None` at the (present) end of the file.
    fn line(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let from = self.consumed + self.searched;
            if let Some(at) = self.buffer[from..].iter().position(|byte| *byte == b'\n') {
                let line = self.consumed..from + at;
                self.consumed = from + at + 1;
                self.searched = 0;
                return Ok(Some(&self.buffer[line]));
            }
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            self.searched = self.buffer.len();
            let read = (&mut self.file).take(64 * 1024).read_to_end(&mut self.buffer)?;
            if read == 0 && !self.was_emptied()? {
                return Ok(None);
            }
        }
    }

    /// A log of one file is rotated by emptying it: what comes next is at its beginning.
    fn was_emptied(&mut self) -> io::Result<bool> {
        if self.file.metadata()?.len() >= self.file.stream_position()? {
            return Ok(false);
        }
        self.file.rewind()?;
        self.buffer.clear();
        self.searched = 0;
        Ok(true)
    }
}

impl LogReader {
    /// Opens the log at `path`, as in the container's `LogSpec::JsonFile`. No log yet reads as empty.
    ///
    /// # Errors
    /// A file cannot be read or watched.
    pub fn open(path: impl Into<PathBuf>, options: LogOptions) -> Result<Self> {
        let path = path.into();
        let watch = match options.follow {
            Some(_) => Some(watch(&path)?),
            None => None,
        };
        let mut files = open_all(&path).attempt(|| format!("open the log {}", path.display()))?;
        if let Some(tail) = options.tail {
            seek_to_tail(&path, &mut files, tail, &options)
                .attempt(|| format!("read the log {}", path.display()))?;
        }
        Ok(Self { path, options, files, current: None, watch, ended: false, done: false })
    }

    /// The next entry; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn next(&mut self) -> Result<Option<LogEntry>> {
        while !self.done {
            match self.next_available()? {
                Available::Entry(entry) => return Ok(Some(entry)),
                // Others have a right to the thread, however long the log is.
                Available::Unwanted => tokio::task::yield_now().await,
                Available::Nothing if self.ended || self.options.follow.is_none() => self.done = true,
                Available::Nothing => self.wait_for_growth().await?,
            }
        }
        Ok(None)
    }

    /// What is there now.
    fn next_available(&mut self) -> Result<Available> {
        for _ in 0..AT_A_TIME {
            if self.current.is_none() {
                let Some(file) = self.files.pop_front() else { return Ok(Available::Nothing) };
                let opened = file.open(&self.path);
                let opened = opened.map_err(Error::io(format!("read the log {}", self.path.display())))?;
                self.current = Some(opened);
            }
            let Some(source) = &mut self.current else { return Ok(Available::Nothing) };
            let line = source.line().map_err(Error::io(format!("read the log {}", self.path.display())))?;
            if let Some(line) = line {
                // A torn line (the machine went down) is skipped, not an end of everything after it.
                let Ok(entry) = serde_json::from_slice::<Line>(line) else { continue };
                if self.options.until.is_some_and(|until| entry.time > until) {
                    self.done = true;
                    return Ok(Available::Nothing);
                }
                if wanted(&self.options, &entry) {
                    return Ok(Available::Entry(LogEntry {
                        time: entry.time,
                        stream: entry.stream,
                        line: entry.log.into(),
                        attributes: entry.attrs,
                    }));
                }
            } else if self.files.is_empty() && !self.rotated()? {
                return Ok(Available::Nothing);
            } else {
                self.current = None;
            }
        }
        Ok(Available::Unwanted)
    }

    /// Whether the file being read is no longer the one at the path; queues its successors.
    fn rotated(&mut self) -> Result<bool> {
        if self.options.follow.is_none() {
            return Ok(false);
        }
        let what = || format!("follow the log {}", self.path.display());
        let Some(source) = &self.current else { return Ok(false) };
        let own = source.identity;
        let all = open_all(&self.path).attempt(what)?;
        match all.iter().rposition(|file| file.identity == own) {
            Some(position) => self.files.extend(all.into_iter().skip(position + 1)),
            // It was rotated away altogether: everything that is left is new.
            None => self.files.extend(all),
        }
        Ok(!self.files.is_empty())
    }

    async fn wait_for_growth(&mut self) -> Result<()> {
        if self.current.is_none() {
            self.files = open_all(&self.path).attempt(|| format!("open the log {}", self.path.display()))?;
            if !self.files.is_empty() {
                return Ok(());
            }
        }
        let (Some(watch), Some(end)) = (&self.watch, &mut self.options.follow) else {
            self.ended = true;
            return Ok(());
        };
        tokio::select! {
            () = end => {
                self.ended = true;
                Ok(())
            }
            ready = watch.readable() => {
                let mut ready = ready.map_err(Error::io("watch the log"))?;
                let mut events = [0; 4096];
                // What happened is of no interest, the files tell.
                let drained = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut events)?));
                if let Ok(Err(error)) = drained {
                    return Err(Error::Io { what: "watch the log".into(), source: error });
                }
                Ok(())
            }
        }
    }
}

fn wanted(options: &LogOptions, entry: &Line) -> bool {
    let stream = match entry.stream {
        OutputStream::Stdout => options.stdout,
        OutputStream::Stderr => options.stderr,
    };
    stream && options.since.is_none_or(|since| entry.time >= since)
}

/// Watches the directory: the file itself is renamed when it is rotated.
fn watch(path: &Path) -> Result<AsyncFd<OwnedFd>> {
    let what = || format!("watch the log {}", path.display());
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).attempt(what)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    inotify::add_watch(&fd, directory, inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE)
        .attempt(what)?;
    crate::sys::register(fd).attempt(what)
}

/// All files of the log, oldest first: `.N` ... `.1`, current.
fn open_all(path: &Path) -> io::Result<VecDeque<LogFile>> {
    let mut files = VecDeque::new();
    for number in 0.. {
        let name = rotated_name(path, number);
        let mut is_compressed = false;
        let mut opened = File::open(&name);
        if number > 0 && opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            is_compressed = true;
            opened = File::open(compressed_name(&name));
        }
        match opened {
            Ok(file) => files.push_front(LogFile::new(file, is_compressed)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // For an instant of a rotation there is no current file.
                if number > 0 {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// `path`, `path.1`, `path.2`: the higher the older.
pub(crate) fn rotated_name(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// `path.1.gz`: a rotated file, compressed.
pub(crate) fn compressed_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

/// Positions the files so that the last `count` wanted lines remain.
fn seek_to_tail(
    log: &Path,
    files: &mut VecDeque<LogFile>,
    count: usize,
    options: &LogOptions,
) -> io::Result<()> {
    let mut missing = count;
    let mut keep = 0;
    for file in files.iter_mut().rev() {
        keep += 1;
        let file = file.plain(log)?;
        let (position, found) = tail_position(file, missing, options)?;
        file.seek(SeekFrom::Start(position))?;
        missing -= found;
        if missing == 0 {
            break;
        }
    }
    files.drain(..files.len() - keep);
    Ok(())
}

/// Where the last `count` wanted lines of a file begin, and how many there are. Reads backwards, so that
/// the cost is that of the tail and not of the file.
fn tail_position(file: &mut File, count: usize, options: &LogOptions) -> io::Result<(u64, usize)> {
    const CHUNK: u64 = 64 * 1024;
    let length = file.metadata()?.len();
    if count == 0 {
        return Ok((length, 0));
    }
    let mut start = length;
    let mut bytes: Vec<u8> = Vec::new();
    let mut found = 0;
    // `bytes` is what was read and not yet judged; it begins at `start`.
    while start > 0 {
        let size = CHUNK.min(start);
        start -= size;
        let mut chunk = vec![0; size as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk)?;
        chunk.append(&mut bytes);
        bytes = chunk;
        // Judge whole lines from the end; the first may begin in an earlier chunk.
        while let Some(at) = line_start(&bytes, start == 0) {
            let entry = serde_json::from_slice::<Line>(&bytes[at..]);
            if entry.is_ok_and(|entry| counted(options, &entry)) {
                found += 1;
                if found == count {
                    return Ok((start + at as u64, found));
                }
            }
            bytes.truncate(at);
        }
    }
    Ok((0, found))
}

/// A line that `tail` counts: of a wanted stream, in the wanted time.
fn counted(options: &LogOptions, entry: &Line) -> bool {
    wanted(options, entry) && options.until.is_none_or(|until| entry.time <= until)
}

/// Start of the last line in `bytes`; `None` if it may begin before them.
fn line_start(bytes: &[u8], whole: bool) -> Option<usize> {
    let end = bytes.len().checked_sub(1)?;
    match bytes[..end].iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => Some(newline + 1),
        None => whole.then_some(0),
    }
}
