//! The container's file systems.
//!
//! Sources are opened in the daemon's mount namespace as detached mounts before the root changes;
//! everything is attached after pivot_root, where no symbolic link leads out and no magic link is followed
//! (`inside`). What is attached goes to a handle: nobody can put anything else there after a look at it.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::process::fchdir;

use super::inside::{self, Target};
use super::{Failure, Host, devices};
use crate::cgroup::{Cgroup, Layout};
use crate::error::Attempt;
use crate::spec::{ContainerSpec, Mount, MountKind, NamespaceMode, RootfsSpec};
use crate::{Error, Result, sys};

pub(super) const MOUNT_ATTR_RDONLY: u64 = 0x1;
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
    target: Target,
}

impl Opened {
    /// All that this process has open of them.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let binds = self.binds.iter().map(|bind| &bind.mount);
        let cgroups = self.cgroups.iter().map(|(_, mount)| mount);
        binds.chain(&self.shm).chain(&self.mqueue).chain(cgroups).map(AsFd::as_fd)
    }
}

/// Handles to what this process itself has mounted, taken before anything of others could cover it.
#[derive(Debug)]
pub(super) struct Own {
    /// The root of the container's procfs.
    pub(super) proc: OwnedFd,
    /// The container's null device, open for reading and writing.
    pub(super) null: OwnedFd,
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
    if spec.ipc == NamespaceMode::Other {
        join(super::other_process(&spec.others.ipc)?)?;
    } else {
        join(&host.mounts)?;
    }
    if spec.ipc != NamespaceMode::Private {
        // Paths of that container's.
        let shared =
            |path: &str| sys::clone_mount_of(inside::open(path.as_ref(), OFlags::PATH)?.as_fd(), false);
        opened.shm = Some(shared("/dev/shm").attempt(|| "open the mount /dev/shm".into())?);
        opened.mqueue = shared("/dev/mqueue").ok();
    }
    join(&host.mounts)?;
    for mount in &spec.mounts {
        if let MountKind::Bind { source, subpath, propagation, recursive } = &mount.kind {
            opened.binds.push(open_bind(mount, source, subpath, propagation, *recursive)?);
        }
    }
    join(&own)?;
    Ok(opened)
}

fn open_bind(
    mount: &Mount,
    source: &Path,
    subpath: &Path,
    propagation: &str,
    recursive: bool,
) -> Result<Source, Failure> {
    let describe = |error: &dyn std::fmt::Display| {
        let source = if subpath == Path::new("") { source.to_owned() } else { source.join(subpath) };
        Failure::other(format!("error mounting {source:?} to rootfs at {:?}: {error}", mount.target))
    };
    let detached = if subpath == Path::new("") {
        clone_mount(source, recursive)
    } else {
        // Containers write in volumes: what leads on from there must stay there.
        inside::open_beneath(source, subpath, OFlags::PATH)
            .and_then(|handle| sys::clone_mount_of(handle.as_fd(), recursive))
    }
    .map_err(|error| describe(&error))?;
    let is_directory = inside::is_directory(&detached).map_err(|error| describe(&error))?;
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
    let target = if is_directory { Target::Directory } else { Target::File };
    Ok(Source { mount: detached, target })
}

fn open_cgroups(spec: &ContainerSpec, cgroup: &Cgroup) -> Result<Vec<(String, OwnedFd)>> {
    let layout = Layout::of_host()?;
    let mut opened = Vec::new();
    if let Some(mounts) = layout.v1_mounts() {
        for (name, controllers) in mounts {
            // The container's own directory whatever the cgroup namespace: programs that size themselves
            // by `memory.limit_in_bytes` look there, and runc shows the same.
            let Some(directory) = layout.v1_directory(&controllers, cgroup.path()) else { continue };
            opened.push((name, clone_cgroup(&directory)?));
        }
    } else if let Some(root) = layout.unified().filter(|_| spec.cgroupns == NamespaceMode::Host) {
        opened.push((String::new(), clone_cgroup(root)?));
    }
    let readonly = if spec.privileged { 0 } else { MOUNT_ATTR_RDONLY };
    for (_, mount) in &opened {
        sys::set_mount_attributes(mount, ATTR_HARDENED | readonly, 0, false)
            .attempt(|| "protect a cgroup mount".into())?;
    }
    Ok(opened)
}

fn clone_cgroup(directory: &Path) -> Result<OwnedFd> {
    clone_mount(directory, false).attempt(|| format!("open the mount {}", directory.display()))
}

fn clone_mount(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    sys::clone_mount(&CString::new(path.as_os_str().as_bytes())?, recursive)
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

/// Everything inside the new root, but what comes last: [`protect`](super::protection::protect).
pub(super) fn populate(spec: &ContainerSpec, opened: &Opened) -> Result<Own, Failure> {
    let given: HashSet<&Path> = spec.mounts.iter().map(|mount| mount.target.as_path()).collect();
    let mine = |target: &str| !given.contains(Path::new(target));
    let readonly = if spec.privileged { 0 } else { libc::MS_RDONLY };
    // Those two are made even where something is to cover them: what is ours must not depend on it.
    file_system("proc", "/proc", HARDENED, "")?;
    file_system("tmpfs", "/dev", libc::MS_NOSUID | libc::MS_STRICTATIME, "mode=755,size=65536k")?;
    devices::make_devices()?;
    let own = Own { proc: own_proc()?, null: own_null()? };
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
            MountKind::Bind { source, .. } => {
                let Some(bind) = binds.next() else { continue };
                let place = make_place(&mount.target, bind.target)?;
                check_place(&own, &place, &mount.target, source, Some(bind.mount.as_fd()))?;
                attach_at(&bind.mount, &place, &mount.target, bind.target)?;
            }
            MountKind::Tmpfs { options } => mount_tmpfs(&own, mount, options)?,
        }
    }
    Ok(own)
}

fn file_system(kind: &str, target: &str, flags: u64, data: &str) -> Result<()> {
    let place = inside::make_directory(Path::new(target))?;
    mount_at(&place, kind, flags, data).attempt(|| format!("mount {kind} on {target}"))?;
    // An image may have a link here, and what protects /proc and /sys goes by their names.
    if matches!(target, "/proc" | "/sys" | "/dev")
        && fs::symlink_metadata(target).is_ok_and(|meta| meta.is_symlink())
    {
        return Err(Error::Invalid(format!("{target} must be mounted on an ordinary directory")));
    }
    Ok(())
}

/// To be called when nothing but our own procfs can be there.
fn own_proc() -> Result<OwnedFd> {
    let what = || "open the container's /proc".to_owned();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = open("/proc", flags, Mode::empty()).attempt(what)?;
    if inside::is_procfs(&proc).attempt(what)? {
        Ok(proc)
    } else {
        Err(Error::Invalid("/proc is no procfs".into()))
    }
}

/// To be called when nothing but our own device nodes can be there. An inode of the container's own: what
/// it does to the mode or the owner of its standard streams concerns nobody else.
fn own_null() -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let null = open("/dev/null", flags, Mode::empty()).attempt(|| "open /dev/null".into())?;
    inside::check_null(&null)?;
    Ok(null)
}

fn shared_or_fresh(shared: Option<&OwnedFd>, kind: &str, target: &str, options: &str) -> Result<()> {
    match shared {
        Some(mount) => attach(mount, Path::new(target), Target::Directory),
        None => file_system(kind, target, HARDENED, options),
    }
}

fn mount_cgroups(opened: &Opened, readonly: u64) -> Result<()> {
    const TARGET: &str = "/sys/fs/cgroup";
    match opened.cgroups.as_slice() {
        [] => file_system("cgroup2", TARGET, HARDENED | readonly, ""),
        [(name, mount)] if name.is_empty() => attach(mount, Path::new(TARGET), Target::Directory),
        mounts => {
            file_system("tmpfs", TARGET, HARDENED, "mode=755")?;
            for (name, mount) in mounts {
                attach(mount, &Path::new(TARGET).join(name), Target::Directory)?;
            }
            if readonly == 0 {
                return Ok(());
            }
            let what = || format!("make {TARGET} read-only");
            let own = inside::open(Path::new(TARGET), OFlags::PATH | OFlags::DIRECTORY).attempt(what)?;
            sys::set_mount_attributes(&own, MOUNT_ATTR_RDONLY, 0, false).attempt(what)
        }
    }
}

/// Attaches a mount at a path, which is made if missing.
fn attach(mount: &OwnedFd, path: &Path, target: Target) -> Result<()> {
    attach_at(mount, &make_place(path, target)?, path, target)
}

/// Where something is to be mounted; made if missing.
fn make_place(path: &Path, target: Target) -> Result<OwnedFd> {
    inside::make(path, target).attempt(|| format!("make the mount point {}", path.display()))
}

fn attach_at(mount: &OwnedFd, place: &OwnedFd, path: &Path, target: Target) -> Result<()> {
    let what = || format!("mount on {}", path.display());
    match sys::attach_mount(mount, place.as_fd()) {
        Err(error)
            if error.raw_os_error() == Some(libc::EINVAL)
                && inside::is_directory(place).attempt(what)? != (target == Target::Directory) =>
        {
            Err(Error::Invalid(format!(
                "error mounting to rootfs at {:?}: not a directory: Are you trying to mount a directory onto a \
                 file (or vice-versa)? Check if the specified host path exists and is the expected type",
                path.display()
            )))
        }
        other => other.attempt(what),
    }
}

/// What may be mounted inside /proc: files that tell of the machine, for which lxcfs has its own.
const PROC_FILES: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Whatever covers /proc could take the place of files by which a process is confined (CVE-2019-16884): a
/// procfs may, and single files that confine nobody. The place itself is asked, since a link in the image or
/// in another mount may have led there. Another procfs than the container's confines nobody: `-v /:/host` brings the
/// host's along.
fn check_place(
    own: &Own,
    place: &OwnedFd,
    path: &Path,
    source: &Path,
    mount: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    let what = || format!("look at {}", path.display());
    if !inside::is_procfs(place).attempt(what)? {
        return Ok(());
    }
    let reason = match path.strip_prefix("/proc") {
        Ok(rest) if rest == Path::new("") => match mount {
            Some(mount) if inside::is_procfs(mount).attempt(what)? => return Ok(()),
            _ => "is not of type proc",
        },
        Ok(rest) if PROC_FILES.iter().any(|file| rest == Path::new(file)) => return Ok(()),
        Err(_) if !is_containers_proc(own, place).attempt(what)? => return Ok(()),
        _ => "is inside /proc",
    };
    let subject = if reason.starts_with("is not") { source } else { path };
    Err(Failure::other(format!(
        "error mounting {source:?} to rootfs at {path:?}: {subject:?} cannot be mounted because it {reason}"
    )))
}

/// Whether a place is in the procfs that the container was given, or in the one that it has at /proc meanwhile.
fn is_containers_proc(own: &Own, place: &OwnedFd) -> io::Result<bool> {
    let device = fstat(place)?.st_dev;
    let present = inside::open(Path::new("/proc"), OFlags::PATH)?;
    Ok(device == fstat(&own.proc)?.st_dev || device == fstat(present)?.st_dev)
}

/// `--tmpfs`: noexec, nosuid and nodev unless the options say otherwise.
fn mount_tmpfs(own: &Own, mount: &Mount, options: &[String]) -> Result<(), Failure> {
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
    let place = inside::make_directory(&mount.target)?;
    check_place(own, &place, &mount.target, Path::new("tmpfs"), None)?;
    mount_at(&place, "tmpfs", flags, &data.join(",")).map_err(|error| {
        Failure::other(format!("error mounting \"tmpfs\" to rootfs at {:?}: {error}", mount.target))
    })
}

/// Mounts on the directory that a handle refers to, which mount(2) takes no handle for.
pub(super) fn mount_at(place: &OwnedFd, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    fchdir(place)?;
    let mounted = sys::mount(kind, ".", kind, flags, data);
    rustix::process::chdir("/")?;
    mounted
}
