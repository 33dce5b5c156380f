//! Which hierarchies this host has.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::error::Attempt;
use crate::{Error, Result};

/// The host's cgroup file systems.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Controllers in hierarchies of their own.
    V1(Vec<Hierarchy>),
    /// One hierarchy, mounted here.
    V2(PathBuf),
}

/// A v1 hierarchy with one controller or several.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(super) controllers: Vec<String>,
    pub(super) mountpoint: PathBuf,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|own| own == controller)
    }

    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.mountpoint.join(path.trim_start_matches('/'))
    }
}

/// The v1 controllers that containers get.
const CONTROLLERS: [&str; 8] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"];

impl Layout {
    /// Read once; hosts do not change it while they run.
    pub(crate) fn of_host() -> Result<&'static Self> {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        if let Some(layout) = LAYOUT.get() {
            return Ok(layout);
        }
        let text =
            std::fs::read_to_string("/proc/self/mountinfo").attempt(|| "read /proc/self/mountinfo".into())?;
        let layout = Self::parse(&text).ok_or_else(|| {
            Error::Invalid("no cgroup file system is mounted (expected at /sys/fs/cgroup)".into())
        })?;
        Ok(LAYOUT.get_or_init(|| layout))
    }

    /// From the format of proc(5) `mountinfo`.
    fn parse(mountinfo: &str) -> Option<Self> {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let mut left = left.split(' ').skip(3);
            let (Some(root), Some(mountpoint)) = (left.next(), left.next()) else { continue };
            let mut right = right.split(' ');
            let (kind, options) = (right.next(), right.nth(1).unwrap_or_default());
            // A bind mount of a part is not the hierarchy.
            if root != "/" {
                continue;
            }
            match kind {
                Some("cgroup") => {
                    let controllers: Vec<String> =
                        options.split(',').filter(|o| CONTROLLERS.contains(o)).map(str::to_owned).collect();
                    let known = |own: &Hierarchy| own.controllers == controllers;
                    if !controllers.is_empty() && !hierarchies.iter().any(known) {
                        hierarchies.push(Hierarchy { controllers, mountpoint: mountpoint.into() });
                    }
                }
                Some("cgroup2") if unified.is_none() => unified = Some(PathBuf::from(mountpoint)),
                _ => {}
            }
        }
        if hierarchies.is_empty() { unified.map(Self::V2) } else { Some(Self::V1(hierarchies)) }
    }

    /// For the container's own /sys/fs/cgroup: the names below it and where they are on the host;
    /// `None` where the one hierarchy is it.
    pub(crate) fn v1_mounts(&self) -> Option<Vec<(String, Vec<String>)>> {
        let Self::V1(hierarchies) = self else { return None };
        let named = |hierarchy: &Hierarchy| {
            let name = hierarchy.mountpoint.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.unwrap_or_else(|| hierarchy.controllers.join(",")), hierarchy.controllers.clone())
        };
        Some(hierarchies.iter().map(named).collect())
    }

    /// Where a v1 hierarchy has a cgroup, by the name that [`Self::v1_mounts`] gives it.
    pub(crate) fn v1_directory(&self, controllers: &[String], path: &str) -> Option<PathBuf> {
        let Self::V1(hierarchies) = self else { return None };
        hierarchies
            .iter()
            .find(|hierarchy| hierarchy.controllers == controllers)
            .map(|hierarchy| hierarchy.at(path))
    }

    /// The v2 root.
    pub(crate) fn unified(&self) -> Option<&std::path::Path> {
        match self {
            Self::V1(_) => None,
            Self::V2(root) => Some(root),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_is_v1_and_pure_is_v2() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
            34 31 0:31 /docker/x /mnt rw - cgroup cgroup rw,pids\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let controllers = vec!["cpu".to_owned(), "cpuacct".to_owned()];
        let expected = Hierarchy { controllers, mountpoint: "/sys/fs/cgroup/cpu,cpuacct".into() };
        assert_eq!(Layout::parse(hybrid), Some(Layout::V1(vec![expected])));
        let pure = "28 23 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(Layout::parse(pure), Some(Layout::V2("/sys/fs/cgroup".into())));
        assert_eq!(Layout::parse("22 27 0:21 / /proc rw - proc proc rw"), None);
    }
}
