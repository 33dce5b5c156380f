//! Writing the json-file log: a JSON object a line, rotated by size.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use jiff::Timestamp;

use crate::logs::rotated_name;
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
}

#[derive(Debug)]
struct Target {
    path: PathBuf,
    file: File,
    size: u64,
    max_size: Option<u64>,
    max_files: u32,
}

impl Log {
    pub(super) fn open(spec: &LogSpec) -> io::Result<Self> {
        let target = match spec {
            LogSpec::None => None,
            LogSpec::JsonFile { path, max_size_bytes, max_files } => {
                let file = append(path)?;
                let size = file.metadata()?.len();
                let max_files = (*max_files).max(1);
                Some(Target { path: path.clone(), file, size, max_size: *max_size_bytes, max_files })
            }
        };
        Ok(Self { target, partial: [Vec::new(), Vec::new()], pending: Vec::new() })
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
                entry(&mut self.pending, stream, &rest[..taken], now);
            } else {
                partial.extend_from_slice(&rest[..taken]);
                entry(&mut self.pending, stream, partial, now);
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
                entry(&mut self.pending, stream, &partial, now);
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
            for number in (0..self.max_files - 1).rev() {
                match fs::rename(rotated_name(&self.path, number), rotated_name(&self.path, number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.file = append(&self.path)?;
        }
        self.size = 0;
        Ok(())
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// `{"log":"...","stream":"stdout","time":"..."}`, with Go's escapes; what is no UTF-8 becomes U+FFFD.
fn entry(out: &mut Vec<u8>, stream: OutputStream, line: &[u8], time: Timestamp) {
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
    let _ = writeln!(out, "\",\"stream\":\"{name}\",\"time\":\"{time:.9}\"}}");
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
        Log::open(&LogSpec::JsonFile { path, max_size_bytes, max_files }).unwrap()
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
