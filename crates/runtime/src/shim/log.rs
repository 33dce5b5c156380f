//! Writing the json-file log: a JSON object a line, rotated by size.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::GzBuilder;
use flate2::write::GzEncoder;
use jiff::Timestamp;

use crate::logs::{compressed_name, rotated_name};
use crate::spec::LogSpec;
use crate::status::OutputStream;

/// A line longer than this is written in parts, as Docker does.
const LONGEST_LINE: usize = 16 * 1024;

/// The log of a container.
#[derive(Debug)]
pub(super) struct Log {
    target: Option<Target>,
    /// Bytes since the last newline, of each stream.
    partial: [Vec<u8>; 2],
    /// Complete entries on their way to the file.
    pending: Vec<u8>,
    /// `,"attrs":{...}` of every entry, or nothing.
    attributes: Vec<u8>,
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: Option<u64>,
    max_files: u32,
    /// Compress what is rotated.
    compress: bool,
    compressing: Option<Compression>,
}

/// The newest rotated file on its way into a compressed one, piece by piece: the container's output waits for none of
/// it.
#[derive(Debug)]
struct Compression {
    from: File,
    from_path: PathBuf,
    draft: PathBuf,
    to_path: PathBuf,
    encoder: GzEncoder<File>,
}

impl Log {
    pub(super) fn open(spec: &LogSpec) -> io::Result<Self> {
        let mut log = Self {
            target: None,
            partial: [Vec::new(), Vec::new()],
            pending: Vec::new(),
            attributes: Vec::new(),
        };
        if let LogSpec::JsonFile { path, max_size_bytes, max_files, compress, attributes } = spec {
            let file = append(path)?;
            // An earlier shim ended over it; what it was made from is still there.
            let _ = fs::remove_file(draft_of(path));
            log.target = Some(Target {
                path: path.clone(),
                size: file.metadata()?.len(),
                file,
                max_size: *max_size_bytes,
                max_files: (*max_files).max(1),
                compress: *compress,
                compressing: compress.then(|| Compression::begin(path).ok()).flatten(),
            });
            log.attributes = attributes_part(attributes);
        }
        Ok(log)
    }

    /// Whether there is something to do while nothing else happens.
    pub(super) fn has_work(&self) -> bool {
        self.target.as_ref().is_some_and(|target| target.compressing.is_some())
    }

    /// Does a little of it.
    pub(super) fn work(&mut self) {
        if let Some(target) = &mut self.target {
            target.compress_on();
        }
    }

    /// Leaves the rest of it to the next shim: a deletion does not wait for it.
    pub(super) fn put_off_work(&mut self) {
        if let Some(compression) = self.target.as_mut().and_then(|target| target.compressing.take()) {
            let _ = fs::remove_file(&compression.draft);
        }
    }

    /// Takes output; whole lines go to the file at once.
    pub(super) fn write(&mut self, stream: OutputStream, bytes: &[u8]) {
        if self.target.is_none() {
            return;
        }
        let now = Timestamp::now();
        let partial = &mut self.partial[stream as usize];
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LONGEST_LINE - partial.len();
            let end = rest.iter().take(room).position(|byte| *byte == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or(room.min(rest.len()));
            if end.is_none() && taken < room {
                partial.extend_from_slice(rest);
                break;
            }
            // Mostly a line is in one piece and needs no copy.
            if partial.is_empty() {
                entry(&mut self.pending, stream, &rest[..taken], &self.attributes, now);
            } else {
                partial.extend_from_slice(&rest[..taken]);
                entry(&mut self.pending, stream, partial, &self.attributes, now);
                partial.clear();
            }
            rest = &rest[taken..];
        }
        self.flush();
    }

    /// At the end of a stream: what came after the last newline.
    pub(super) fn finish(&mut self) {
        let now = Timestamp::now();
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                entry(&mut self.pending, stream, &partial, &self.attributes, now);
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if let Some(target) = self.target.as_mut().filter(|_| !pending.is_empty()) {
            // A full disk must not stop the container: what does not fit is lost, as with Docker.
            let _ = target.append(&pending);
        }
        self.pending = pending;
        self.pending.clear();
    }
}

impl Target {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(most) = self.max_size.filter(|most| self.size + bytes.len() as u64 > *most) else {
            self.file.write_all(bytes)?;
            self.size += bytes.len() as u64;
            return Ok(());
        };
        // Rotated before the entry that would not fit any more; what fits goes in one piece.
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut fits = 0;
            for entry in rest.split_inclusive(|byte| *byte == b'\n') {
                let full = self.size + (fits + entry.len()) as u64 > most;
                // An entry larger than a file has a file to itself.
                if full && (fits > 0 || self.size > 0) {
                    break;
                }
                fits += entry.len();
            }
            if fits == 0 {
                self.rotate()?;
                continue;
            }
            self.file.write_all(&rest[..fits])?;
            self.size += fits as u64;
            rest = &rest[fits..];
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.max_files == 1 {
            self.file.set_len(0)?;
        } else {
            // Under way, it is to have the name that it has now.
            while self.compressing.is_some() {
                self.compress_on();
            }
            for number in (0..self.max_files - 1).rev() {
                let (from, to) = (rotated_name(&self.path, number), rotated_name(&self.path, number + 1));
                // One of them is there; the other may have been before the option changed.
                for (from, to, other) in [
                    (from.clone(), to.clone(), compressed_name(&to)),
                    (compressed_name(&from), compressed_name(&to), to),
                ] {
                    match fs::rename(from, to) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                        Ok(()) => drop(fs::remove_file(other)),
                    }
                }
            }
            self.file = append(&self.path)?;
            if self.compress {
                // Without it, the file stays as it is.
                self.compressing = Compression::begin(&self.path).ok();
            }
        }
        self.size = 0;
        Ok(())
    }

    fn compress_on(&mut self) {
        let Some(compression) = &mut self.compressing else { return };
        match compression.step() {
            Ok(true) => {}
            Ok(false) => {
                if let Some(compression) = self.compressing.take() {
                    compression.finish();
                }
            }
            Err(_) => {
                let _ = fs::remove_file(&compression.draft);
                self.compressing = None;
            }
        }
    }
}

impl Compression {
    const PIECE: u64 = 256 * 1024;

    fn begin(path: &Path) -> io::Result<Self> {
        let from_path = rotated_name(path, 1);
        let from = File::open(&from_path)?;
        let draft = draft_of(path);
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&draft)?;
        // Whoever follows the log knows the file by this.
        let identity = from.metadata()?.ino().to_string();
        let encoder = GzBuilder::new().comment(identity).write(to, flate2::Compression::default());
        Ok(Self { from, to_path: compressed_name(&from_path), from_path, draft, encoder })
    }

    /// False once all of it is compressed.
    fn step(&mut self) -> io::Result<bool> {
        let copied = io::copy(&mut (&self.from).take(Self::PIECE), &mut self.encoder)?;
        Ok(copied > 0)
    }

    fn finish(self) {
        let done = self.encoder.finish().and_then(|_| fs::rename(&self.draft, &self.to_path));
        // One of the two stays, whatever happens.
        let _ = fs::remove_file(if done.is_ok() { &self.from_path } else { &self.draft });
    }
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz.new");
    name.into()
}

/// Sorted, in Go's escapes.
fn attributes_part(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut part = Vec::new();
    for (key, value) in attributes {
        part.extend_from_slice(if part.is_empty() { b",\"attrs\":{\"" } else { b",\"" });
        escape(&mut part, key);
        part.extend_from_slice(b"\":\"");
        escape(&mut part, value);
        part.push(b'"');
    }
    if !part.is_empty() {
        part.push(b'}');
    }
    part
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// `{"log":"...","stream":"stdout","time":"..."}`, with the attributes before the time and with Go's escapes; what is no UTF-8 becomes U+FFFD.
fn entry(out: &mut Vec<u8>, stream: OutputStream, line: &[u8], attributes: &[u8], time: Timestamp) {
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in line.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    let name = match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    };
    // Writing into memory cannot fail.
    let _ = write!(out, "\",\"stream\":\"{name}\"");
    out.extend_from_slice(attributes);
    let _ = writeln!(out, ",\"time\":\"{time:.9}\"}}");
}

fn escape(out: &mut Vec<u8>, text: &str) {
    let mut plain = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let escaped: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            b'<' => b"\\u003c",
            b'>' => b"\\u003e",
            b'&' => b"\\u0026",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..at]);
        if escaped.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.extend_from_slice(escaped);
        }
        plain = at + 1;
    }
    out.extend_from_slice(&bytes[plain..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(directory: &tempfile::TempDir, max_size_bytes: Option<u64>, max_files: u32) -> Log {
        let path = directory.path().join("x-json.log");
        let (compress, attributes) = (false, BTreeMap::new());
        Log::open(&LogSpec::JsonFile { path, max_size_bytes, max_files, compress, attributes }).unwrap()
    }

    fn lines(directory: &tempfile::TempDir, name: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(directory.path().join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_are_joined_split_and_escaped() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(&directory, None, 1);
        log.write(OutputStream::Stdout, b"one\ntw");
        log.write(OutputStream::Stderr, b"err\n");
        log.write(OutputStream::Stdout, b"o \"<\\\x01\xff\n");
        log.write(OutputStream::Stdout, &[b'x'; LONGEST_LINE + 5]);
        log.finish();
        let entries = lines(&directory, "x-json.log");
        let texts: Vec<&str> = entries.iter().map(|entry| entry["log"].as_str().unwrap()).collect();
        let long = "x".repeat(LONGEST_LINE);
        assert_eq!(texts, ["one\n", "err\n", "two \"<\\\u{1}\u{fffd}\n", &long, "xxxxx"]);
        assert_eq!(entries[1]["stream"], "stderr");
        assert!(entries[0]["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn attributes_are_in_every_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let attributes = [("tag", "<x>"), ("a", "\"b\"")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (max_size_bytes, max_files, compress) = (None, 1, false);
        let spec = LogSpec::JsonFile { path: path.clone(), max_size_bytes, max_files, compress, attributes };
        Log::open(&spec).unwrap().write(OutputStream::Stdout, b"one\n");
        let text = fs::read_to_string(path).unwrap();
        let wanted =
            r#"{"log":"one\n","stream":"stdout","attrs":{"a":"\"b\"","tag":"\u003cx\u003e"},"time":""#;
        assert!(text.starts_with(wanted), "{text}");
    }

    #[test]
    fn rotated_files_are_compressed_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let (max_size_bytes, attributes) = (Some(160), BTreeMap::new());
        let spec = LogSpec::JsonFile {
            path: path.clone(),
            max_size_bytes,
            max_files: 3,
            compress: true,
            attributes,
        };
        let mut log = Log::open(&spec).unwrap();
        for number in 0..8 {
            log.write(OutputStream::Stdout, format!("line {number}\n").as_bytes());
        }
        assert!(log.has_work());
        // Read at any time of it.
        let read = |tail| {
            let options = crate::LogOptions { tail, stdout: true, ..crate::LogOptions::default() };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut reader = crate::LogReader::open(&path, options).unwrap();
            let mut lines = Vec::new();
            while let Some(entry) = runtime.block_on(reader.next()).unwrap() {
                lines.push(String::from_utf8(entry.line.to_vec()).unwrap().trim().to_owned());
            }
            lines
        };
        let wanted = ["line 2", "line 3", "line 4", "line 5", "line 6", "line 7"];
        assert_eq!(read(None), wanted);
        while log.has_work() {
            log.work();
        }
        let mut names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["x-json.log", "x-json.log.1.gz", "x-json.log.2.gz"]);
        assert_eq!(read(None), wanted);
        assert_eq!(read(Some(3)), wanted[3..]);
        // What is not compressed any more moves on beside it.
        let plain = LogSpec::JsonFile {
            path: path.clone(),
            max_size_bytes,
            max_files: 3,
            compress: false,
            attributes: BTreeMap::new(),
        };
        let mut log = Log::open(&plain).unwrap();
        log.write(OutputStream::Stdout, b"line 8\n");
        assert_eq!(read(None), ["line 4", "line 5", "line 6", "line 7", "line 8"]);
        assert!(directory.path().join("x-json.log.1").exists());
    }

    #[test]
    fn rotation_keeps_the_newest_files() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = log(&directory, Some(160), 2);
        for number in 0..6 {
            log.write(OutputStream::Stdout, format!("line {number}\n").as_bytes());
        }
        let last = |name| lines(&directory, name).last().unwrap()["log"].as_str().unwrap().to_owned();
        assert_eq!(last("x-json.log"), "line 5\n");
        assert_eq!(last("x-json.log.1"), "line 3\n");
        assert!(!directory.path().join("x-json.log.2").exists());
    }
}
