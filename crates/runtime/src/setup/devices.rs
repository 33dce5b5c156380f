//! Device nodes: those of every container, and those of the host that it is given.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chownat, makedev, mknodat};

use super::inside;
use crate::cgroup::DeviceRule;
use crate::defaults::{DEVICE_LINKS, DEVICE_NODES};
use crate::error::{Attempt, go_words};
use crate::spec::{ContainerSpec, Device, Mount, MountKind};
use crate::{Error, Result};

/// The nodes and links that every container has, in an empty /dev of its own.
pub(super) fn make_devices() -> Result<()> {
    for (name, major, minor) in DEVICE_NODES {
        let path = PathBuf::from("/dev").join(name);
        // The umask is 0 here.
        let (kind, mode) = (FileType::CharacterDevice, Mode::from_raw_mode(0o666));
        mknodat(CWD, &path, kind, mode, makedev(major, minor))
            .attempt(|| format!("make the device {}", path.display()))?;
    }
    for (target, link) in DEVICE_LINKS {
        symlink(target, link).attempt(|| format!("link {link}"))?;
    }
    Ok(())
}

/// Nodes that the container asked for; with privileges all of the host's.
pub(super) fn host_devices(spec: &ContainerSpec) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    if spec.privileged {
        collect_nodes(Path::new("/dev"), &mut nodes);
    }
    for device in &spec.devices {
        let metadata = device_metadata(&device.host_path)?;
        nodes.push(Node::new(&device.container_path, &metadata).ok_or_else(|| no_device(&device.host_path))?);
    }
    // What is mounted on /dev is somebody's who has nodes there, or wants none: with `-v /dev:/dev` the host.
    let covers =
        |mount: &Mount| matches!(mount.kind, MountKind::Bind { .. }) && mount.target == Path::new("/dev");
    if spec.mounts.iter().any(covers) {
        nodes.retain(|node| !node.path.starts_with("/dev"));
    }
    Ok(nodes)
}

/// A device node to be made.
#[derive(Debug)]
pub(super) struct Node {
    path: PathBuf,
    kind: FileType,
    mode: u32,
    owner: (u32, u32),
    number: u64,
}

impl Node {
    fn new(path: &Path, metadata: &fs::Metadata) -> Option<Self> {
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => FileType::CharacterDevice,
            kind if kind.is_block_device() => FileType::BlockDevice,
            _ => return None,
        };
        let owner = (metadata.uid(), metadata.gid());
        Some(Self {
            path: path.to_owned(),
            kind,
            mode: metadata.mode() & 0o7777,
            owner,
            number: metadata.rdev(),
        })
    }

    /// Makes it in the container; one that is there already stays.
    pub(super) fn make(&self) -> Result<()> {
        let what = || format!("make the device {}", self.path.display());
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Err(Error::Invalid(format!("{} is no path for a device", self.path.display())));
        };
        let directory = inside::make_directory(parent)?;
        // The umask is 0 here.
        match mknodat(&directory, name, self.kind, Mode::from_raw_mode(self.mode), self.number) {
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            other => other.attempt(what)?,
        }
        let (user, group) = (Uid::from_raw(self.owner.0), Gid::from_raw(self.owner.1));
        chownat(&directory, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).attempt(what)
    }
}

fn collect_nodes(directory: &Path, nodes: &mut Vec<Node>) {
    // Those belong to every container itself.
    const OWN: [&str; 6] = ["pts", "shm", "mqueue", "fd", "console", "ptmx"];
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        if directory == Path::new("/dev") && OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        if metadata.is_dir() {
            collect_nodes(&path, nodes);
        } else {
            nodes.extend(Node::new(&path, &metadata));
        }
    }
}

/// The cgroup rule that goes with `--device`.
pub(crate) fn device_rule(device: &Device) -> Result<DeviceRule> {
    let metadata = device_metadata(&device.host_path)?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Err(no_device(&device.host_path)),
    };
    let number = metadata.rdev();
    let access = if device.permissions.is_empty() { "rwm".to_owned() } else { device.permissions.clone() };
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    Ok(DeviceRule { kind, major: Some(major), minor: Some(minor), access })
}

const GATHERING: &str = "error gathering device information while adding custom device";

fn device_metadata(path: &Path) -> Result<fs::Metadata> {
    fs::metadata(path).map_err(|error| Error::Refused(format!("{GATHERING} {path:?}: {}", go_words(&error))))
}

fn no_device(path: &Path) -> Error {
    Error::Refused(format!("{GATHERING} {path:?}: not a device node"))
}
