//! What `docker info` says about the machine. Read once: none of it changes while the machine runs, but for
//! what is read at each call in `routes::system`.

use std::fs;
use std::path::Path;

/// Facts about the machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostFacts {
    /// `uname -r`.
    pub(crate) kernel: String,
    /// `uname -m`.
    pub(crate) machine: String,
    /// `PRETTY_NAME` of os-release.
    pub(crate) os: String,
    /// `VERSION_ID` of os-release.
    pub(crate) os_version: String,
    /// CPUs that may be used.
    pub(crate) cpus: usize,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// The kernel was built with AppArmor and has it on.
    pub(crate) apparmor: bool,
    /// File system of the data root.
    pub(crate) backing: &'static str,
    /// What cgroups can limit.
    pub(crate) cgroup: CgroupFacts,
}

/// What cgroups can limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CgroupFacts {
    pub(crate) memory: bool,
    pub(crate) swap: bool,
    pub(crate) oom_kill_disable: bool,
    pub(crate) cfs: bool,
    pub(crate) shares: bool,
    pub(crate) cpuset: bool,
    pub(crate) pids: bool,
}

/// GOARCH of this binary, as image configurations have it.
pub(crate) const GO_ARCH: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => std::env::consts::ARCH,
};

impl HostFacts {
    /// Reads them.
    pub(crate) fn read(data_root: &Path) -> Self {
        let uname = rustix::system::uname();
        let release = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
            .unwrap_or_default();
        HostFacts {
            kernel: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            os: os_release(&release, "PRETTY_NAME").unwrap_or_else(|| "Linux".to_owned()),
            os_version: os_release(&release, "VERSION_ID").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            apparmor: fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|on| on.starts_with('Y')),
            backing: backing(data_root),
            cgroup: CgroupFacts::read(Path::new("/sys/fs/cgroup")),
        }
    }
}

/// Name of the file system, as `docker info` writes it.
fn backing(path: &Path) -> &'static str {
    // Magic numbers of linux/magic.h and of the file systems' own headers.
    match rustix::fs::statfs(path).map(|stat| stat.f_type as u64) {
        Ok(0xef53) => "extfs",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x794c_7630) => "overlayfs",
        Ok(0x2fc1_2fc1) => "zfs",
        Ok(0xf2f5_2010) => "f2fs",
        _ => "<unknown>",
    }
}

/// A value of an os-release file (os-release(5)).
fn os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn memory(text: &str) -> u64 {
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    kilobytes.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

impl CgroupFacts {
    /// cgroup v2 lists its controllers in one file; in v1 each has a directory, with a file for each limit.
    fn read(root: &Path) -> Self {
        if let Ok(controllers) = fs::read_to_string(root.join("cgroup.controllers")) {
            let has = |name: &str| controllers.split_whitespace().any(|controller| controller == name);
            return CgroupFacts {
                memory: has("memory"),
                swap: has("memory"),
                oom_kill_disable: false,
                cfs: has("cpu"),
                shares: has("cpu"),
                cpuset: has("cpuset"),
                pids: has("pids"),
            };
        }
        let has = |file: &str| root.join(file).exists();
        CgroupFacts {
            memory: has("memory/memory.limit_in_bytes"),
            swap: has("memory/memory.memsw.limit_in_bytes"),
            oom_kill_disable: has("memory/memory.oom_control"),
            cfs: has("cpu/cpu.cfs_quota_us"),
            shares: has("cpu/cpu.shares"),
            cpuset: has("cpuset/cpuset.cpus"),
            pids: has("pids"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_host_are_read() {
        let release =
            "NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID='12'\n";
        assert_eq!(os_release(release, "PRETTY_NAME").unwrap(), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(os_release(release, "VERSION_ID").unwrap(), "12");
        assert_eq!(os_release(release, "PRETTY"), None);
        assert_eq!(memory("MemTotal:       16 kB\nMemFree: 1 kB\n"), 16384);
    }

    #[test]
    fn a_v2_hierarchy_lists_its_controllers() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpuset cpu memory pids\n").unwrap();
        let facts = CgroupFacts::read(dir.path());
        assert!(facts.memory && facts.cpuset && facts.pids && !facts.oom_kill_disable);
    }
}
