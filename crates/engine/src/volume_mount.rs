//! Volumes of the driver `local` with options (`type`, `o`, `device`): mounted for the first container that uses one,
//! unmounted after the last. Named and read as Docker does.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, mount_remount, unmount,
};

use crate::error::{EngineError, Result};
use crate::model::Volume;

/// Mount options that are flags: set or, if false, taken away.
const FLAGS: [(&str, bool, u64); 30] = [
    ("ro", true, libc::MS_RDONLY),
    ("rw", false, libc::MS_RDONLY),
    ("nosuid", true, libc::MS_NOSUID),
    ("suid", false, libc::MS_NOSUID),
    ("nodev", true, libc::MS_NODEV),
    ("dev", false, libc::MS_NODEV),
    ("noexec", true, libc::MS_NOEXEC),
    ("exec", false, libc::MS_NOEXEC),
    ("sync", true, libc::MS_SYNCHRONOUS),
    ("async", false, libc::MS_SYNCHRONOUS),
    ("dirsync", true, libc::MS_DIRSYNC),
    ("mand", true, libc::MS_MANDLOCK),
    ("nomand", false, libc::MS_MANDLOCK),
    ("noatime", true, libc::MS_NOATIME),
    ("atime", false, libc::MS_NOATIME),
    ("nodiratime", true, libc::MS_NODIRATIME),
    ("diratime", false, libc::MS_NODIRATIME),
    ("relatime", true, libc::MS_RELATIME),
    ("norelatime", false, libc::MS_RELATIME),
    ("strictatime", true, libc::MS_STRICTATIME),
    ("nostrictatime", false, libc::MS_STRICTATIME),
    ("bind", true, libc::MS_BIND),
    ("rbind", true, libc::MS_BIND | libc::MS_REC),
    ("defaults", true, 0),
    ("shared", true, libc::MS_SHARED),
    ("rshared", true, libc::MS_SHARED | libc::MS_REC),
    ("slave", true, libc::MS_SLAVE),
    ("rslave", true, libc::MS_SLAVE | libc::MS_REC),
    ("private", true, libc::MS_PRIVATE),
    ("rprivate", true, libc::MS_PRIVATE | libc::MS_REC),
];
const PROPAGATION: u64 = libc::MS_SHARED | libc::MS_SLAVE | libc::MS_PRIVATE | libc::MS_UNBINDABLE;

/// Whether the options of a volume make sense.
///
/// # Errors
/// `Invalid`, with Docker's words, naming the option.
pub(crate) fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for key in options.keys() {
        if !matches!(key.as_str(), "type" | "o" | "device" | "size") {
            return Err(EngineError::invalid(format!("invalid option: {key:?}")));
        }
    }
    if let Some(size) = options.get("size") {
        let bytes = crate::container::parse_size(size);
        if bytes.is_none() && size.trim_end_matches(|c: char| c.is_ascii_alphabetic()) != "0" {
            return Err(EngineError::invalid(format!("invalid size: '{size}'")));
        }
        if bytes.is_some() {
            return Err(EngineError::invalid(
                "quota size requested but no quota support (option \"size\"; a tmpfs takes o=size=...)",
            ));
        }
    }
    let needs = [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")];
    for (key, needed) in needs {
        if options.contains_key(key) && !options.contains_key(needed) {
            return Err(EngineError::invalid(format!("missing required option: {needed:?}")));
        }
    }
    let device = options.get("device").map(String::as_str).unwrap_or_default();
    let is_cifs = options.get("type").is_some_and(|kind| kind == "cifs");
    if is_cifs && share_host(device).is_some_and(|host| host.contains(':') && !host.starts_with('[')) {
        return Err(EngineError::invalid(
            "port not allowed in CIFS device URL, include 'port' in 'o='".to_owned(),
        ));
    }
    Ok(())
}

/// Whether there is something to be mounted for a volume.
pub(crate) fn needs_mount(volume: &Volume) -> bool {
    ["device", "type"].iter().any(|key| volume.options.get(*key).is_some_and(|value| !value.is_empty()))
}

/// What mount(2) is told.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    device: String,
    kind: String,
    flags: u64,
    propagation: u64,
    data: String,
}

impl Plan {
    /// `resolve` finds the address of a host by name.
    fn of(
        options: &BTreeMap<String, String>,
        resolve: impl Fn(&str) -> std::io::Result<IpAddr>,
    ) -> std::io::Result<Self> {
        let value = |key: &str| options.get(key).cloned().unwrap_or_default();
        let (mut device, kind, mut text) = (value("device"), value("type"), value("o"));
        if device.is_empty() {
            return Err(std::io::Error::other("missing device in volume options"));
        }
        if matches!(kind.as_str(), "nfs" | "cifs") {
            let addr = text.split(',').find_map(|option| option.strip_prefix("addr=")).map(str::to_owned);
            // What is given is left alone, but for names: the kernel does not know them.
            if let Some(addr) =
                addr.filter(|addr| !addr.is_empty() && addr.parse::<std::net::Ipv4Addr>().is_err())
            {
                let ip = resolve(&addr)?;
                text = text.replacen(&format!("addr={addr}"), &format!("addr={ip}"), 1);
            } else if kind == "cifs"
                && let Some(host) = share_host(&device)
                && host.parse::<IpAddr>().is_err()
            {
                let ip = resolve(host)?;
                device = device.replacen(host, &ip.to_string(), 1);
            }
        }
        let (mut flags, mut data) = (0, Vec::new());
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match FLAGS.iter().find(|(name, ..)| *name == option) {
                Some((_, true, bits)) => flags |= bits,
                Some((_, false, bits)) => flags &= !bits,
                None => data.push(option),
            }
        }
        let propagation = if flags & PROPAGATION == 0 { 0 } else { flags & (PROPAGATION | libc::MS_REC) };
        let is_bind = flags & libc::MS_BIND != 0;
        let flags = flags & !PROPAGATION & if is_bind { u64::MAX } else { !libc::MS_REC };
        Ok(Self { device, kind, flags, propagation, data: data.join(",") })
    }

    fn execute(&self, target: &Path) -> std::io::Result<()> {
        let flags = |bits: u64| MountFlags::from_bits_retain(u32::try_from(bits).unwrap_or_default());
        let data = CString::new(self.data.as_str())?;
        mount(self.device.as_str(), target, self.kind.as_str(), flags(self.flags), Some(data.as_c_str()))?;
        let rest = || -> std::io::Result<()> {
            if self.propagation != 0 {
                let bits = u32::try_from(self.propagation).unwrap_or_default();
                mount_change(target, MountPropagationFlags::from_bits_retain(bits))?;
            }
            // A bind takes no flags of its own.
            let own = self.flags & !(libc::MS_BIND | libc::MS_REC);
            if self.flags & libc::MS_BIND != 0 && own != 0 {
                mount_remount(target, flags(own | libc::MS_BIND), data.as_c_str())?;
            }
            Ok(())
        };
        rest().inspect_err(|_| {
            let _ = unmount(target, UnmountFlags::DETACH);
        })
    }

    /// As in Docker's messages, without passwords.
    fn describe(&self, target: &Path) -> String {
        let data: Vec<&str> = self
            .data
            .split(',')
            .map(|option| if option.starts_with("password=") { "password=********" } else { option })
            .collect();
        format!(
            "mount {}:{}, type: {:?}, flags: {:#x}, data: {}",
            self.device,
            target.display(),
            self.kind,
            self.flags,
            data.join(",")
        )
    }
}

/// `host` of `//host/share`.
fn share_host(device: &str) -> Option<&str> {
    let rest = device.split_once("//").map(|(_, rest)| rest)?;
    rest.split('/').next().filter(|host| !host.is_empty())
}

/// As Docker: the first IPv4 address, or else the first.
fn resolve(name: &str) -> std::io::Result<IpAddr> {
    let found: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|address| address.ip()).collect();
    let best = found.iter().find(|ip| ip.is_ipv4()).or(found.first());
    best.copied().ok_or_else(|| std::io::Error::other(format!("no address of {name}")))
}

/// Who uses which of the volumes that have to be mounted. Each is looked after by itself: a server that does not answer
/// holds up its own volume only.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    users: Mutex<BTreeMap<PathBuf, Arc<Mutex<BTreeSet<String>>>>>,
}

impl Mounts {
    fn users_of(&self, target: &Path) -> Arc<Mutex<BTreeSet<String>>> {
        let mut all = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(target.to_owned()).or_default().clone()
    }

    /// Counts a user, and mounts for the first. Blocks.
    ///
    /// # Errors
    /// It cannot be mounted; then there is no more user than before.
    pub(crate) fn claim(&self, volume: &Volume, user: &str) -> Result<()> {
        let target = &volume.mountpoint;
        let users = self.users_of(target);
        let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.is_empty() && !mounted_at(target) {
            let failed = |what: &str, error: std::io::Error| {
                let shown = error.to_string();
                let shown = shown.split(" (os error").next().unwrap_or_default();
                EngineError::internal(format!(
                    "error while mounting volume '{}': failed to mount local volume: {what}{}",
                    target.display(),
                    shown.to_lowercase()
                ))
            };
            let plan = Plan::of(&volume.options, resolve)
                .map_err(|error| failed("error resolving passed in network volume address: ", error))?;
            plan.execute(target).map_err(|error| failed(&format!("{}: ", plan.describe(target)), error))?;
        }
        users.insert(user.to_owned());
        Ok(())
    }

    /// Counts a user who has it mounted from an earlier daemon.
    pub(crate) fn adopt(&self, volume: &Volume, user: &str) {
        let users = self.users_of(&volume.mountpoint);
        users.lock().unwrap_or_else(PoisonError::into_inner).insert(user.to_owned());
    }

    /// Forgets a user, and unmounts after the last. What runs keeps its own view of it. Blocks.
    pub(crate) fn release(&self, volume: &Volume, user: &str) {
        let users = self.users_of(&volume.mountpoint);
        let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
        users.remove(user);
        if users.is_empty()
            && let Err(error) = unmount_all(&volume.mountpoint)
        {
            tracing::warn!(volume = volume.name, %error, "unmount a volume");
        }
    }

    /// Unmounts a volume that nobody uses for good.
    ///
    /// # Errors
    /// It stays.
    pub(crate) fn forget(&self, volume: &Volume) -> std::io::Result<()> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner).remove(&volume.mountpoint);
        if needs_mount(volume) { unmount_all(&volume.mountpoint) } else { Ok(()) }
    }

    /// Unmounts whatever nobody uses: a daemon was killed before it could. Blocks.
    pub(crate) fn release_unused(&self, volumes: &[Volume]) {
        for volume in volumes.iter().filter(|volume| needs_mount(volume)) {
            self.release(volume, "");
        }
    }
}

/// Whether something is mounted at this very path.
fn mounted_at(path: &Path) -> bool {
    mounts_below(path).iter().any(|mount| mount == path)
}

/// Mount points at a path and below it, the latest last.
pub(crate) fn mounts_below(path: &Path) -> Vec<PathBuf> {
    // Ours are the daemon's own directories; others may have any name, escaped in octal.
    let Ok(path) = path.canonicalize() else { return Vec::new() };
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    points.map(unescape).filter(|point| point.starts_with(&path)).collect()
}

fn unescape(text: &str) -> PathBuf {
    let (mut plain, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, next)) = rest.split_first() {
        let octal = next.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                plain.push(byte);
                rest = &next[3..];
            }
            None => {
                plain.push(*first);
                rest = next;
            }
        }
    }
    <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(plain).into()
}

/// Takes away everything that is mounted at a path or below it.
///
/// # Errors
/// Something stays.
pub(crate) fn unmount_all(path: &Path) -> std::io::Result<()> {
    for point in mounts_below(path).iter().rev() {
        match unmount(point, UnmountFlags::DETACH) {
            // Gone with the one that it was on.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn options_are_checked_as_docker_does() {
        for (pairs, wrong) in [
            (&[("colour", "red")][..], "invalid option: \"colour\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("device", "/x")], "missing required option: \"type\""),
            (&[("o", "ro")], "missing required option: \"device\""),
            (&[("size", "10m")], "no quota support"),
            (&[("size", "much")], "invalid size"),
            (&[("type", "cifs"), ("device", "//server:445/share")], "port not allowed"),
        ] {
            let error = check_options(&options(pairs)).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
        for fine in [
            &[][..],
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")],
            &[("size", "0")],
            &[("type", "cifs"), ("device", "//server/share")],
        ] {
            check_options(&options(fine)).unwrap();
        }
    }

    #[test]
    fn plans_tell_flags_from_data_and_names_from_addresses() {
        let found = |name: &str| {
            assert_eq!(name, "server");
            Ok(IpAddr::from([192, 0, 2, 7]))
        };
        let plan = |pairs: &[(&str, &str)]| Plan::of(&options(pairs), found).unwrap();
        let bind = plan(&[("type", "none"), ("device", "/srv"), ("o", "bind,ro,rshared")]);
        assert_eq!((bind.flags, bind.data.as_str()), (libc::MS_BIND | libc::MS_RDONLY | libc::MS_REC, ""));
        assert_eq!(bind.propagation, libc::MS_SHARED | libc::MS_REC);
        let tmpfs = plan(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,ro,rw,uid=7,noexec")]);
        assert_eq!((tmpfs.flags, tmpfs.data.as_str()), (libc::MS_NOEXEC, "size=1m,uid=7"));
        let nfs = plan(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=server,vers=4")]);
        assert_eq!(nfs.data, "addr=192.0.2.7,vers=4");
        let known = plan(&[("type", "nfs"), ("device", ":/x"), ("o", "addr=192.0.2.9")]);
        assert_eq!(known.data, "addr=192.0.2.9");
        let cifs = plan(&[("type", "cifs"), ("device", "//server/a"), ("o", "username=u,password=secret")]);
        assert_eq!(cifs.device, "//192.0.2.7/a");
        let shown = cifs.describe(Path::new("/t"));
        assert!(shown.contains("password=********") && !shown.contains("secret"), "{shown}");
        assert!(Plan::of(&options(&[("type", "nfs"), ("device", "")]), found).is_err());
    }

    #[test]
    fn mounted_for_the_first_user_and_until_the_last() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let volume = Volume {
            name: "v".to_owned(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            labels: BTreeMap::new(),
            options: options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=64k")]),
            mountpoint: directory.path().canonicalize().unwrap(),
            anonymous: false,
        };
        let mounts = Mounts::default();
        let count = || mounts_below(&volume.mountpoint).len();
        for user in ["a", "b", "a"] {
            mounts.claim(&volume, user).unwrap();
            assert_eq!(count(), 1);
        }
        mounts.release(&volume, "a");
        assert_eq!(count(), 1);
        // Another daemon finds it and who still uses it.
        let next = Mounts::default();
        next.adopt(&volume, "b");
        next.release_unused(std::slice::from_ref(&volume));
        assert_eq!(count(), 1);
        next.release(&volume, "b");
        assert_eq!(count(), 0);
        let broken = Volume {
            options: options(&[("type", "none"), ("device", "/no/such/place"), ("o", "bind")]),
            ..volume.clone()
        };
        let error = next.claim(&broken, "c").unwrap_err().to_string();
        assert!(error.contains("failed to mount local volume: mount /no/such/place:"), "{error}");
        assert!(error.ends_with("no such file or directory"), "{error}");
        assert_eq!(count(), 0);
    }
}
