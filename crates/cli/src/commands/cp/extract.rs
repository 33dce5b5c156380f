//! Unpacking an archive of a container here. The container may be hostile: nothing is written
//! outside the place that the user named, whatever names and links the archive has.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes};
use tar::{Archive, EntryType};
use tokio::sync::mpsc;

/// Unpacks the archive so that its first entry becomes `root`.
///
/// # Errors
/// When a file cannot be written or the archive tries to leave `root`.
pub(super) fn extract(chunks: mpsc::Receiver<Bytes>, root: &Path) -> io::Result<()> {
    let reader = Chunks { chunks, current: Bytes::new() };
    let mut archive = Archive::new(reader);
    let parent = match root.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::canonicalize(parent)?,
        _ => fs::canonicalize(".")?,
    };
    // An existing directory may be a symlink; the user named it, so it is followed once.
    let root = match fs::canonicalize(root) {
        Ok(path) if path.is_dir() => path,
        _ => parent.join(root.file_name().unwrap_or_default()),
    };
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = inside(&root, &entry.path()?)?;
        if path != root {
            check_parent(&root, &path)?;
        }
        match entry.header().entry_type() {
            EntryType::Link => {
                let name =
                    entry.link_name()?.ok_or_else(|| io::Error::other("a hard link without a target"))?;
                let original = inside(&root, &name)?;
                check_parent(&root, &original)?;
                let _ = fs::remove_file(&path);
                fs::hard_link(original, path)?;
            }
            EntryType::Directory if path.is_dir() => {}
            _ => {
                entry.set_preserve_permissions(true);
                entry.unpack(&path)?;
            }
        }
    }
    Ok(())
}

/// The path of an entry: its first part is the root's old name.
fn inside(root: &Path, name: &Path) -> io::Result<PathBuf> {
    let mut path = root.to_owned();
    for part in name.components().skip(1) {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(escapes(name)),
        }
    }
    Ok(path)
}

/// Refuses a path whose directory is, through a symlink of the archive, not in `root`.
fn check_parent(root: &Path, path: &Path) -> io::Result<()> {
    let parent = path.parent().ok_or_else(|| escapes(path))?;
    if fs::canonicalize(parent)?.starts_with(fs::canonicalize(root)?) { Ok(()) } else { Err(escapes(path)) }
}

fn escapes(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the archive's entry {} leaves the destination", path.display()),
    )
}

/// Chunks as a reader.
struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current[..length]);
        self.current.advance(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(dir: &Path, fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> io::Result<()> {
        let mut builder = tar::Builder::new(Vec::new());
        fill(&mut builder);
        let bytes = builder.into_inner()?;
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(Bytes::from(bytes)).unwrap();
        drop(sender);
        extract(receiver, &dir.join("out"))
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, link: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(0);
        if link.is_empty() {
            builder.append_data(&mut header, name, io::empty()).unwrap();
        } else {
            builder.append_link(&mut header, name, link).unwrap();
        }
    }

    #[test]
    fn a_symlink_does_not_lead_out() {
        let dir = std::env::temp_dir().join(format!("portolan-cp-{}", std::process::id()));
        fs::create_dir_all(dir.join("victim")).unwrap();
        let refused = unpack(&dir, |builder| {
            add(builder, EntryType::Directory, "x", "");
            add(builder, EntryType::Symlink, "x/way", dir.join("victim").to_str().unwrap());
            add(builder, EntryType::Regular, "x/way/file", "");
        });
        assert!(refused.unwrap_err().to_string().contains("leaves the destination"));
        assert!(!dir.join("victim/file").exists());
        unpack(&dir, |builder| {
            add(builder, EntryType::Directory, "x", "");
            add(builder, EntryType::Regular, "x/a", "");
            add(builder, EntryType::Link, "x/b", "x/a");
        })
        .unwrap();
        assert!(dir.join("out/a").exists() && dir.join("out/b").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
