//! Control groups of both versions, by their file systems.
//!
//! On a hybrid host (v1 controllers beside an empty v2) v1 is used, as every other engine does.

mod devices;
mod layout;
mod limits;
mod stats;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub(crate) use devices::{DeviceRule, default_rules};
pub(crate) use layout::Layout;

use crate::error::Attempt;
use crate::{Error, Result};

/// Where containers' cgroups are unless the container says otherwise.
pub(crate) const DEFAULT_PARENT: &str = "/portolan";

/// What the kernel gets to end a killed process.
const DYING: Duration = Duration::from_secs(10);

/// The cgroup of one container, in all hierarchies.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    layout: &'static Layout,
    path: String,
}

impl Cgroup {
    /// The handle to a cgroup that may or may not exist.
    pub(crate) fn open(path: &str) -> Result<Self> {
        Ok(Self { layout: Layout::of_host()?, path: path.to_owned() })
    }

    /// The path for a container below its parent.
    pub(crate) fn path_for(parent: &str, id: &str) -> String {
        let parent = if parent.is_empty() { DEFAULT_PARENT } else { parent };
        format!("/{}/{id}", parent.trim_matches('/'))
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Makes it, with what it needs before a process can enter.
    pub(crate) fn create(&self) -> Result<()> {
        match self.layout {
            Layout::V1(hierarchies) => {
                for hierarchy in hierarchies {
                    let directory = hierarchy.at(&self.path);
                    make(&directory)?;
                    if hierarchy.has("cpuset") {
                        inherit_cpuset(&hierarchy.mountpoint, &self.path)?;
                    }
                }
                Ok(())
            }
            Layout::V2(root) => {
                let directory = root.join(self.path.trim_start_matches('/'));
                make(&directory)?;
                delegate(root, &self.path)
            }
        }
    }

    /// For `CLONE_INTO_CGROUP`; v1 has no such thing.
    pub(crate) fn descriptor(&self) -> Result<Option<OwnedFd>> {
        let Layout::V2(_) = self.layout else { return Ok(None) };
        open_directory(&self.main_directory()).map(Some)
    }

    /// The same for the cgroup that a process of the container is in: one that has handed its controllers down (as
    /// systemd does, and engines in containers) takes no processes itself.
    pub(crate) fn descriptor_of(&self, pid: i32) -> Result<Option<OwnedFd>> {
        let Layout::V2(root) = self.layout else { return Ok(None) };
        let text = read(Path::new(&format!("/proc/{pid}/cgroup")))?;
        let path = unified_beneath(&text, &self.path)
            .ok_or_else(|| Error::Invalid(format!("process {pid} has left the cgroup {}", self.path)))?;
        open_directory(&root.join(path.trim_start_matches('/'))).map(Some)
    }

    /// Puts the calling, single-threaded process inside. Writing "0" into v1's `tasks` is free where a
    /// pid in `cgroup.procs` waits 10 ms for RCU.
    pub(crate) fn enter(&self) -> Result<()> {
        let file = if matches!(self.layout, Layout::V1(_)) { "tasks" } else { "cgroup.procs" };
        for directory in self.directories() {
            write(&directory.join(file), "0")?;
        }
        Ok(())
    }

    /// Pids of all processes inside, in the caller's pid namespace; none if it does not exist.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        collect_pids(&self.main_directory(), &mut pids)?;
        Ok(pids)
    }

    /// Whether the kernel killed something inside for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        let file = match self.layout {
            Layout::V1(_) => self.file("memory", "memory.oom_control"),
            Layout::V2(_) => self.file("memory", "memory.events"),
        };
        let text = file.and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }

    /// Stops or continues everything inside.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<()> {
        match self.layout {
            Layout::V1(_) => self.freeze_v1(frozen),
            Layout::V2(_) => self.freeze_v2(frozen),
        }
    }

    /// Whether [`Self::freeze`] has stopped it.
    pub(crate) fn is_frozen(&self) -> bool {
        let text = |controller, name| {
            self.file(controller, name).and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default()
        };
        match self.layout {
            Layout::V1(_) => !matches!(text("freezer", "freezer.state").trim(), "THAWED" | ""),
            Layout::V2(_) => text("freezer", "cgroup.freeze").trim() == "1",
        }
    }

    /// After SIGKILL: v1 lets a frozen process die only when it is thawed.
    pub(crate) fn thaw_for_kill(&self) {
        if let (Layout::V1(_), true) = (self.layout, self.is_frozen()) {
            // Nothing to be done if it vanishes meanwhile.
            let _ = self.freeze(false);
        }
    }

    fn freeze_v1(&self, frozen: bool) -> Result<()> {
        let wanted = if frozen { "FROZEN" } else { "THAWED" };
        let file = self.required("freezer", "freezer.state")?;
        write(&file, wanted)?;
        // v1 tells nobody when it is done, and a process that forks meanwhile needs another push.
        for _ in 0..1000 {
            if read(&file)?.trim() == wanted {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
            write(&file, wanted)?;
        }
        write(&file, "THAWED")?;
        Err(Error::Invalid(format!("cgroup {} does not become {wanted}", self.path)))
    }

    fn freeze_v2(&self, frozen: bool) -> Result<()> {
        let directory = self.main_directory();
        let events = directory.join("cgroup.events");
        let wanted = if frozen { "frozen 1" } else { "frozen 0" };
        let watched = fs::File::open(&events).attempt(|| format!("open {}", events.display()))?;
        write(&directory.join("cgroup.freeze"), if frozen { "1" } else { "0" })?;
        let timeout = rustix::event::Timespec { tv_sec: 2, tv_nsec: 0 };
        loop {
            if read(&events)?.lines().any(|line| line == wanted) {
                return Ok(());
            }
            let mut fds = [PollFd::new(&watched, PollFlags::PRI)];
            let woken = poll(&mut fds, Some(&timeout)).attempt(|| format!("watch {}", events.display()))?;
            if woken == 0 {
                return Err(Error::Invalid(format!("cgroup {} does not become \"{wanted}\"", self.path)));
            }
        }
    }

    /// Kills everything inside and removes the cgroup; fine if it is gone.
    pub(crate) fn kill_and_remove(&self) -> Result<()> {
        self.kill_and_remove_while(|| ())
    }

    /// The same for the parent of some of them, which reaps its children `meanwhile`: the first process of a pid
    /// namespace does not end before all others of it are reaped.
    pub(crate) fn kill_and_remove_while(&self, meanwhile: impl FnMut()) -> Result<()> {
        self.kill_all_while(meanwhile)?;
        for directory in self.directories() {
            remove(&directory)?;
        }
        Ok(())
    }

    /// Kills everything inside and waits until it is dead.
    pub(crate) fn kill_all(&self) -> Result<()> {
        self.kill_all_while(|| ())
    }

    fn kill_all_while(&self, mut meanwhile: impl FnMut()) -> Result<()> {
        loop {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            let handle = |pid: i32| {
                let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
                Some((pid, process))
            };
            let handles: Vec<_> = pids.into_iter().filter_map(handle).collect();
            // One may have ended before its handle was taken, and left its number to anybody: those are meant that
            // are here still.
            let present = self.pids()?;
            let mut dying = Vec::new();
            for (pid, process) in handles {
                if present.contains(&pid) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
                    dying.push(process);
                }
            }
            self.thaw_for_kill();
            for process in dying {
                let deadline = Instant::now() + DYING;
                let mut fds = [PollFd::new(&process, PollFlags::IN)];
                let slice = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                while poll(&mut fds, Some(&slice)).attempt(|| "wait for a killed process".into())? == 0 {
                    if Instant::now() >= deadline {
                        return Err(Error::Invalid(format!(
                            "a process of cgroup {} cannot be killed",
                            self.path
                        )));
                    }
                    meanwhile();
                }
            }
        }
    }

    /// The directory that has all the processes.
    fn main_directory(&self) -> PathBuf {
        match self.layout {
            Layout::V1(hierarchies) => hierarchies
                .iter()
                .find(|hierarchy| hierarchy.has("pids"))
                .or(hierarchies.first())
                .map(|hierarchy| hierarchy.at(&self.path))
                .unwrap_or_default(),
            Layout::V2(root) => root.join(self.path.trim_start_matches('/')),
        }
    }

    fn directories(&self) -> Vec<PathBuf> {
        match self.layout {
            Layout::V1(hierarchies) => hierarchies.iter().map(|hierarchy| hierarchy.at(&self.path)).collect(),
            Layout::V2(_) => vec![self.main_directory()],
        }
    }

    /// The path of a controller's file, if the host has the controller.
    fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        match self.layout {
            Layout::V1(hierarchies) => hierarchies
                .iter()
                .find(|hierarchy| hierarchy.has(controller))
                .map(|hierarchy| hierarchy.at(&self.path).join(name)),
            Layout::V2(_) => Some(self.main_directory().join(name)),
        }
    }

    fn required(&self, controller: &str, name: &str) -> Result<PathBuf> {
        self.file(controller, name).ok_or_else(|| {
            Error::Invalid(format!("the cgroup controller {controller} is not mounted on this host"))
        })
    }
}

fn open_directory(directory: &Path) -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, rustix::fs::Mode::empty())
        .attempt(|| format!("open cgroup {}", directory.display()))
}

/// The v2 cgroup that `/proc/<pid>/cgroup` tells of, if it is `own` or one below.
fn unified_beneath<'a>(text: &'a str, own: &str) -> Option<&'a str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let leaves = Path::new(path).components().any(|part| part == std::path::Component::ParentDir);
    (!leaves && Path::new(path).starts_with(own)).then_some(path)
}

/// Makes a directory; on the hot path its parent exists.
fn make(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(directory),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
    .attempt(|| format!("make cgroup {}", directory.display()))
}

/// A new v1 cpuset has no CPUs and takes no process: hand down what the parents have.
fn inherit_cpuset(mountpoint: &Path, path: &str) -> Result<()> {
    let mut parent = mountpoint.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let directory = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if read(&directory.join(file))?.trim().is_empty() {
                write(&directory.join(file), read(&parent.join(file))?.trim())?;
            }
        }
        parent = directory;
    }
    Ok(())
}

/// Turns controllers on from the root down to the container's parent (v2).
fn delegate(root: &Path, path: &str) -> Result<()> {
    let wanted = ["cpuset", "cpu", "io", "memory", "pids"];
    let mut directory = root.to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    for part in parts {
        let available = read(&directory.join("cgroup.controllers"))?;
        let active = read(&directory.join("cgroup.subtree_control"))?;
        let missing: Vec<String> = wanted
            .iter()
            .filter(|name| available.split_whitespace().any(|other| other == **name))
            .filter(|name| !active.split_whitespace().any(|other| other == **name))
            .map(|name| format!("+{name}"))
            .collect();
        if !missing.is_empty() {
            write(&directory.join("cgroup.subtree_control"), &missing.join(" "))?;
        }
        directory.push(part);
    }
    Ok(())
}

fn collect_pids(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = directory.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Ok(text) => {
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => return Ok(()),
        Err(error) => return Err(Error::Io { what: format!("read {}", file.display()), source: error }),
    }
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect_pids(&entry.path(), pids)?;
    }
    Ok(())
}

/// Removes a cgroup and the ones that the container made inside. A process that has just died may
/// keep it busy for a moment, of which the kernel gives no notice.
fn remove(directory: &Path) -> Result<()> {
    for _ in 0..200 {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        remove(&entry.path())?;
                    }
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => {
                return Err(Error::Io {
                    what: format!("remove cgroup {}", directory.display()),
                    source: error,
                });
            }
        }
    }
    Err(Error::Invalid(format!("cgroup {} stays busy", directory.display())))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).attempt(|| format!("read {}", file.display()))
}

fn write(file: &Path, value: &str) -> Result<()> {
    use std::io::Write;
    // Neither made nor truncated: a missing file is a missing feature.
    let opened = fs::OpenOptions::new().write(true).custom_flags(libc::O_CLOEXEC).open(file);
    opened
        .and_then(|mut opened| opened.write_all(value.as_bytes()))
        .attempt(|| format!("write \"{value}\" to {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_follow_their_leader_within_the_container_only() {
        let own = "/portolan/abc";
        let beneath = |text| unified_beneath(text, own);
        assert_eq!(beneath("0::/portolan/abc/init\n"), Some("/portolan/abc/init"));
        assert_eq!(beneath("1:name=x:/portolan/abc/y\n0::/portolan/abc\n"), Some("/portolan/abc"));
        assert_eq!(beneath("0::/portolan/abcd\n"), None);
        assert_eq!(beneath("0::/portolan/abc/../other\n"), None);
        assert_eq!(beneath("0::/../x\n"), None);
        assert_eq!(beneath("5:pids:/portolan/abc\n"), None);
    }
}
