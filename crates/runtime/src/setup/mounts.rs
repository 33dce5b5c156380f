//! The container's file systems.
//!
//! Sources are opened in the daemon's mount namespace as detached mounts before the root changes;
//! everything is attached after pivot_root. From then on no path of the image can lead out, so that
//! no symlink has to be checked.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat, open};

use super::{Failure, Host};
use crate::cgroup::{Cgroup, DeviceRule, Layout};
use crate::defaults::{DEVICE_LINKS, DEVICE_NODES, MASKED_PATHS, READONLY_PATHS};
use crate::error::Attempt;
use crate::spec::{ContainerSpec, Device, Mount, MountKind, NamespaceMode, RootfsSpec};
use crate::{Error, Result, sys};

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const HARDENED: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
/// The same as `MOUNT_ATTR_*`: the numbers agree.
const ATTR_HARDENED: u64 = HARDENED;

/// Mounts taken from outside, not yet attached.
#[derive(Debug)]
pub(super) struct Opened {
    /// One for each bind mount of the spec, in order.
    binds: Vec<Source>,
    /// /dev/shm and /dev/mqueue of another IPC namespace.
    shm: Option<OwnedFd>,
    mqueue: Option<OwnedFd>,
    /// The container's own cgroup: name below /sys/fs/cgroup and mount; one without name is all of it.
    cgroups: Vec<(String, OwnedFd)>,
}

#[derive(Debug)]
struct Source {
    mount: OwnedFd,
    directory: bool,
}

/// Opens everything that comes from outside.
pub(super) fn open_sources(host: &Host, spec: &ContainerSpec, cgroup: &Cgroup) -> Result<Opened, Failure> {
    let mut opened =
        Opened { binds: Vec::new(), shm: None, mqueue: None, cgroups: open_cgroups(spec, cgroup)? };
    let binds = spec.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Bind { .. }));
    if !binds && spec.ipc == NamespaceMode::Private {
        return Ok(opened);
    }
    let own = fs::File::open("/proc/self/ns/mnt").attempt(|| "open the own mount namespace".into())?;
    let join = |namespace: &dyn AsFd| {
        sys::setns(namespace.as_fd(), libc::CLONE_NEWNS).attempt(|| "join a mount namespace".into())
    };
    if let NamespaceMode::Pid(pid) = spec.ipc {
        let path = format!("/proc/{pid}/ns/mnt");
        let other = fs::File::open(&path).attempt(|| format!("open {path}"))?;
        join(&other)?;
    } else {
        join(&host.mounts)?;
    }
    if spec.ipc != NamespaceMode::Private {
        opened.shm = Some(clone_mount(Path::new("/dev/shm"), false)?);
        opened.mqueue = clone_mount(Path::new("/dev/mqueue"), false).ok();
    }
    join(&host.mounts)?;
    for mount in &spec.mounts {
        if let MountKind::Bind { source, propagation, recursive } = &mount.kind {
            opened.binds.push(open_bind(mount, source, propagation, *recursive)?);
        }
    }
    join(&own)?;
    Ok(opened)
}

fn open_bind(mount: &Mount, source: &Path, propagation: &str, recursive: bool) -> Result<Source, Failure> {
    let describe = |error: &dyn std::fmt::Display| {
        Failure::other(format!("error mounting {:?} to rootfs at {:?}: {error}", source, mount.target))
    };
    let metadata = fs::metadata(source).map_err(|error| describe(&error))?;
    let detached = clone_mount(source, recursive).map_err(|error| describe(&error))?;
    let propagation = match propagation {
        "" | "private" | "rprivate" => libc::MS_PRIVATE,
        "slave" | "rslave" => libc::MS_SLAVE,
        // The copy is in the source's peer group already.
        "shared" | "rshared" => 0,
        other => return Err(describe(&format!("invalid propagation mode {other:?}"))),
    };
    let attributes = if mount.readonly { MOUNT_ATTR_RDONLY } else { 0 };
    if propagation != 0 || attributes != 0 {
        sys::set_mount_attributes(&detached, attributes, propagation, recursive)
            .map_err(|error| describe(&error))?;
    }
    Ok(Source { mount: detached, directory: metadata.is_dir() })
}

fn open_cgroups(spec: &ContainerSpec, cgroup: &Cgroup) -> Result<Vec<(String, OwnedFd)>> {
    let layout = Layout::of_host()?;
    let mut opened = Vec::new();
    if let Some(mounts) = layout.v1_mounts() {
        for (name, controllers) in mounts {
            // The container's own directory whatever the cgroup namespace: programs that size themselves
            // by `memory.limit_in_bytes` look there, and runc shows the same.
            let Some(directory) = layout.v1_directory(&controllers, cgroup.path()) else { continue };
            opened.push((name, clone_mount(&directory, false)?));
        }
    } else if let Some(root) = layout.unified().filter(|_| spec.cgroupns == NamespaceMode::Host) {
        opened.push((String::new(), clone_mount(root, false)?));
    }
    let readonly = if spec.privileged { 0 } else { MOUNT_ATTR_RDONLY };
    for (_, mount) in &opened {
        sys::set_mount_attributes(mount, ATTR_HARDENED | readonly, 0, false)
            .attempt(|| "protect a cgroup mount".into())?;
    }
    Ok(opened)
}

fn clone_mount(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_bytes()).attempt(|| format!("open {}", path.display()))?;
    sys::clone_mount(&text, recursive).attempt(|| format!("open the mount {}", path.display()))
}

/// Makes the overlay the root and leaves the host's tree.
pub(super) fn change_root(rootfs: &RootfsSpec) -> Result<()> {
    // Nothing of what follows is to be seen outside, nor the other way round.
    sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")
        .attempt(|| "make the mounts private".into())?;
    mount_overlay(rootfs)?;
    std::env::set_current_dir(&rootfs.target).attempt(|| format!("enter {}", rootfs.target.display()))?;
    // The old root ends up on top of the new one, from where it is taken off.
    rustix::process::pivot_root(".", ".").attempt(|| format!("pivot to {}", rootfs.target.display()))?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)
        .attempt(|| "leave the host's root".into())?;
    std::env::set_current_dir("/").attempt(|| "enter the new root".into())
}

/// Mounts the overlay on its target.
pub(crate) fn mount_overlay(rootfs: &RootfsSpec) -> Result<()> {
    let target = rootfs.target.to_string_lossy();
    let what = || format!("mount the root file system on {target}");
    let data = overlay_options(rootfs);
    // mount(2) takes a page of options.
    if data.len() < 4096 {
        return sys::mount("overlay", &target, "overlay", 0, &data).attempt(what);
    }
    // Many layers: one by one through the newer interface (Linux 6.5).
    let context =
        rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC).attempt(what)?;
    let set =
        |key: &str, value: &Path| rustix::mount::fsconfig_set_string(&context, key, value).attempt(what);
    rootfs.lower.iter().try_for_each(|layer| set("lowerdir+", layer))?;
    set("upperdir", &rootfs.upper)?;
    set("workdir", &rootfs.work)?;
    rustix::mount::fsconfig_create(&context).attempt(what)?;
    let flags = rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC;
    let mount =
        rustix::mount::fsmount(&context, flags, rustix::mount::MountAttrFlags::empty()).attempt(what)?;
    let directory = open(&rootfs.target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).attempt(what)?;
    sys::attach_mount(&mount, directory.as_fd()).attempt(what)
}

fn overlay_options(rootfs: &RootfsSpec) -> String {
    // The characters that mean something in the option string.
    let escape = |path: &PathBuf| {
        let text = path.to_string_lossy();
        text.chars().fold(String::with_capacity(text.len()), |mut escaped, c| {
            if matches!(c, '\\' | ':' | ',') {
                escaped.push('\\');
            }
            escaped.push(c);
            escaped
        })
    };
    let lower: Vec<String> = rootfs.lower.iter().map(escape).collect();
    format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        escape(&rootfs.upper),
        escape(&rootfs.work)
    )
}

/// Everything inside the new root, but what comes last: [`protect`].
pub(super) fn populate(spec: &ContainerSpec, opened: &Opened) -> Result<(), Failure> {
    let given: HashSet<&Path> = spec.mounts.iter().map(|mount| mount.target.as_path()).collect();
    let mine = |target: &str| !given.contains(Path::new(target));
    let readonly = if spec.privileged { 0 } else { libc::MS_RDONLY };
    if mine("/proc") {
        file_system("proc", "/proc", HARDENED, "")?;
    }
    if mine("/dev") {
        file_system("tmpfs", "/dev", libc::MS_NOSUID | libc::MS_STRICTATIME, "mode=755,size=65536k")?;
        make_devices()?;
    }
    if mine("/dev/pts") {
        let options = "newinstance,ptmxmode=0666,mode=0620,gid=5";
        file_system("devpts", "/dev/pts", libc::MS_NOSUID | libc::MS_NOEXEC, options)?;
    }
    if mine("/sys") {
        file_system("sysfs", "/sys", HARDENED | readonly, "")?;
    }
    if mine("/sys/fs/cgroup") {
        mount_cgroups(opened, readonly)?;
    }
    if mine("/dev/mqueue") {
        shared_or_fresh(opened.mqueue.as_ref(), "mqueue", "/dev/mqueue", "")?;
    }
    if mine("/dev/shm") {
        let options = format!(
            "mode=1777,size={}",
            if spec.shm_size_bytes == 0 { 64 << 20 } else { spec.shm_size_bytes }
        );
        shared_or_fresh(opened.shm.as_ref(), "tmpfs", "/dev/shm", &options)?;
    }
    let mut binds = opened.binds.iter();
    for mount in &spec.mounts {
        match &mount.kind {
            MountKind::Bind { .. } => {
                let Some(source) = binds.next() else { continue };
                attach(&source.mount, &mount.target, source.directory)?;
            }
            MountKind::Tmpfs { options } => mount_tmpfs(mount, options)?,
        }
    }
    Ok(())
}

fn file_system(kind: &str, target: &str, flags: u64, data: &str) -> Result<()> {
    match sys::mount(kind, target, kind, flags, data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(target).attempt(|| format!("make {target}"))?;
            sys::mount(kind, target, kind, flags, data)
        }
        other => other,
    }
    .attempt(|| format!("mount {kind} on {target}"))?;
    // An image may have a link here, and what protects /proc and /sys goes by their names.
    if matches!(kind, "proc" | "sysfs") && fs::symlink_metadata(target).is_ok_and(|meta| meta.is_symlink()) {
        return Err(Error::Invalid(format!("{target} must be mounted on an ordinary directory")));
    }
    Ok(())
}

fn shared_or_fresh(shared: Option<&OwnedFd>, kind: &str, target: &str, options: &str) -> Result<()> {
    match shared {
        Some(mount) => attach(mount, Path::new(target), true),
        None => file_system(kind, target, HARDENED, options),
    }
}

fn mount_cgroups(opened: &Opened, readonly: u64) -> Result<()> {
    const TARGET: &str = "/sys/fs/cgroup";
    match opened.cgroups.as_slice() {
        [] => file_system("cgroup2", TARGET, HARDENED | readonly, ""),
        [(name, mount)] if name.is_empty() => attach(mount, Path::new(TARGET), true),
        mounts => {
            file_system("tmpfs", TARGET, HARDENED, "mode=755")?;
            for (name, mount) in mounts {
                attach(mount, &Path::new(TARGET).join(name), true)?;
            }
            if readonly == 0 {
                return Ok(());
            }
            let flags = libc::MS_REMOUNT | libc::MS_BIND | HARDENED | readonly;
            sys::mount("", TARGET, "", flags, "").attempt(|| format!("make {TARGET} read-only"))
        }
    }
}

/// Attaches a mount at a path, which is made if missing.
fn attach(mount: &OwnedFd, target: &Path, directory: bool) -> Result<()> {
    let what = || format!("mount on {}", target.display());
    let open_target = || open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let handle = match open_target() {
        Err(rustix::io::Errno::NOENT) => {
            make_target(target, directory)?;
            open_target()
        }
        other => other,
    };
    match sys::attach_mount(mount, handle.attempt(what)?.as_fd()) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && target.is_dir() != directory => {
            Err(Error::Invalid(format!(
                "error mounting to rootfs at {:?}: not a directory: Are you trying to mount a directory onto a \
                 file (or vice-versa)? Check if the specified host path exists and is the expected type",
                target.display()
            )))
        }
        other => other.attempt(what),
    }
}

fn make_target(target: &Path, directory: bool) -> Result<()> {
    let what = || format!("make the mount point {}", target.display());
    if directory {
        return make_directories(target);
    }
    if let Some(parent) = target.parent() {
        make_directories(parent)?;
    }
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(target).attempt(what).map(drop)
}

/// Makes a directory and those above it. A link of the image that points nowhere is followed, and what
/// it points to is made: in here it cannot point out.
pub(super) fn make_directories(path: &Path) -> Result<()> {
    const MOST_LINKS: usize = 40;
    let mut result = fs::create_dir_all(path);
    for _ in 0..MOST_LINKS {
        if !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            break;
        }
        let ancestors: Vec<&Path> = path.ancestors().collect();
        let Some((link, target)) = ancestors.iter().rev().find_map(|path| Some((path, dangling(path)?)))
        else {
            break;
        };
        fs::create_dir_all(link.parent().unwrap_or(Path::new("/")).join(&target))
            .attempt(|| format!("make {} for {}", target.display(), path.display()))?;
        result = fs::create_dir_all(path);
    }
    result.attempt(|| format!("make the directory {}", path.display()))
}

/// Where a link points, if there is nothing.
fn dangling(path: &Path) -> Option<PathBuf> {
    if path.exists() { None } else { fs::read_link(path).ok() }
}

/// `--tmpfs`: noexec, nosuid and nodev unless the options say otherwise.
fn mount_tmpfs(mount: &Mount, options: &[String]) -> Result<(), Failure> {
    let mut flags = HARDENED;
    let mut data: Vec<&str> = Vec::new();
    for option in options.iter().flat_map(|options| options.split(',')) {
        match option {
            "" | "defaults" | "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => {}
            "ro" => flags |= libc::MS_RDONLY,
            "rw" => flags &= !libc::MS_RDONLY,
            "exec" => flags &= !libc::MS_NOEXEC,
            "noexec" => flags |= libc::MS_NOEXEC,
            "suid" => flags &= !libc::MS_NOSUID,
            "nosuid" => flags |= libc::MS_NOSUID,
            "dev" => flags &= !libc::MS_NODEV,
            "nodev" => flags |= libc::MS_NODEV,
            "sync" => flags |= libc::MS_SYNCHRONOUS,
            "async" => flags &= !libc::MS_SYNCHRONOUS,
            "dirsync" => flags |= libc::MS_DIRSYNC,
            "noatime" => flags |= libc::MS_NOATIME,
            "nodiratime" => flags |= libc::MS_NODIRATIME,
            "relatime" => flags |= libc::MS_RELATIME,
            "strictatime" => flags |= libc::MS_STRICTATIME,
            other => data.push(other),
        }
    }
    if mount.readonly {
        flags |= libc::MS_RDONLY;
    }
    make_directories(&mount.target)?;
    let target = mount.target.to_string_lossy();
    sys::mount("tmpfs", &target, "tmpfs", flags, &data.join(","))
        .map_err(|error| Failure::other(format!("error mounting \"tmpfs\" to rootfs at {target:?}: {error}")))
}

fn make_devices() -> Result<()> {
    for (name, major, minor) in DEVICE_NODES {
        let path = PathBuf::from("/dev").join(name);
        make_node(&path, FileType::CharacterDevice, 0o666, makedev(major, minor))?;
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
        let host_path = &device.host_path;
        let metadata = fs::metadata(host_path).map_err(|error| Error::Io {
            what: format!("gather device information of {}", host_path.display()),
            source: error,
        })?;
        nodes.push(
            Node::new(&device.container_path, &metadata)
                .ok_or_else(|| Error::Invalid(format!("{} is not a device", host_path.display())))?,
        );
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
        if let Some(parent) = self.path.parent() {
            make_directories(parent)?;
        }
        if self.path.exists() {
            return Ok(());
        }
        make_node(&self.path, self.kind, self.mode, self.number)?;
        std::os::unix::fs::chown(&self.path, Some(self.owner.0), Some(self.owner.1))
            .attempt(|| format!("give {} its owner", self.path.display()))
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

fn make_node(path: &Path, kind: FileType, mode: u32, number: u64) -> Result<()> {
    // The umask is 0 here.
    mknodat(CWD, path, kind, Mode::from_raw_mode(mode), number)
        .attempt(|| format!("make the device {}", path.display()))
}

/// The cgroup rule that goes with `--device`.
pub(crate) fn device_rule(device: &Device) -> Result<DeviceRule> {
    let path = device.host_path.display();
    let metadata = fs::metadata(&device.host_path)
        .map_err(|error| Error::Io { what: format!("gather device information of {path}"), source: error })?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Err(Error::Invalid(format!("{path} is not a device"))),
    };
    let number = metadata.rdev();
    let access = if device.permissions.is_empty() { "rwm".to_owned() } else { device.permissions.clone() };
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    Ok(DeviceRule { kind, major: Some(major), minor: Some(minor), access })
}

/// Hides and protects what an unprivileged container must not see or write, and the root if so wanted.
pub(super) fn protect(spec: &ContainerSpec) -> Result<()> {
    if !spec.privileged {
        match &spec.masked_paths {
            Some(paths) => paths.iter().try_for_each(|path| mask(path))?,
            None => MASKED_PATHS.iter().try_for_each(|path| mask(path))?,
        }
        match &spec.readonly_paths {
            Some(paths) => paths.iter().try_for_each(|path| make_readonly(path))?,
            None => READONLY_PATHS.iter().try_for_each(|path| make_readonly(path))?,
        }
    }
    if spec.readonly_rootfs {
        sys::mount("", "/", "", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, "")
            .attempt(|| "make the root read-only".into())?;
    }
    Ok(())
}

fn mask(path: &str) -> Result<()> {
    let what = || format!("mask {path}");
    match sys::mount("/dev/null", path, "", libc::MS_BIND, "") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A directory does not take a file.
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
            sys::mount("tmpfs", path, "tmpfs", libc::MS_RDONLY, "size=0k").attempt(what)
        }
        other => other.attempt(what),
    }
}

fn make_readonly(path: &str) -> Result<()> {
    let what = || format!("make {path} read-only");
    let mount =
        match CString::new(path).map_err(io::Error::from).and_then(|path| sys::clone_mount(&path, true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.attempt(what)?,
        };
    sys::set_mount_attributes(&mount, MOUNT_ATTR_RDONLY, 0, true).attempt(what)?;
    attach(&mount, Path::new(path), true)
}
