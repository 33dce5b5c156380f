//! Users and groups by the container's own files. Runs inside the container's root, so that no
//! symlink leads out of it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawMode, fstat};

use super::{Failure, inside};
use crate::Error;

/// Who the process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups; the primary one is among them.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Larger files than any host has for its users.
const LARGEST_FILE: u64 = 16 << 20;

/// Looks up `user[:group]`, names or numbers, and additional groups.
pub(super) fn look_up(user: &str, additional: &[String]) -> Result<User, Failure> {
    // This process is held to the container's own devices, and cannot trust its /proc: it opens things directly.
    let read_file = |path: &str| read(inside::open(Path::new(path), READ));
    let passwd = read_file("/etc/passwd");
    // Not needed for the most common user.
    let needs_groups = !user.is_empty() || !additional.is_empty();
    let group = if needs_groups || !passwd.is_empty() { read_file("/etc/group") } else { String::new() };
    resolve(user, additional, &passwd, &group)
}

/// The text of a file in a root that is not this process's own; nothing if there is none.
pub(crate) fn read_beneath(root: &Path, path: &str) -> String {
    read(inside::open_beneath(root, Path::new(path), OFlags::PATH).and_then(open_plain))
}

/// Whether there is such a user (`user[:group]`) in a root. Waits for the file system that the container has there.
///
/// # Errors
/// [`Error::Refused`] in Docker's words.
pub fn check_user(root: &OwnedFd, user: &str) -> Result<(), Error> {
    let read_file =
        |path: &str| read(inside::open_in(root, Path::new(path), OFlags::PATH).and_then(open_plain));
    let found = resolve(user, &[], &read_file("etc/passwd"), &read_file("etc/group"));
    found.map(drop).map_err(|failure| Error::Refused(failure.message))
}

/// Opening waits for nobody: not for a pipe's other end, nor for the holder of a lease.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens what a handle refers to if it is a plain file. To open a device is to use it (a watchdog, a tape), and whoever
/// calls this may use them all: the container may have made a node that it may not open itself.
fn open_plain(handle: OwnedFd) -> io::Result<OwnedFd> {
    let kind = FileType::from_raw_mode(fstat(&handle)?.st_mode as RawMode);
    if kind != FileType::RegularFile || inside::is_procfs(&handle)? {
        return Err(rustix::io::Errno::NOENT.into());
    }
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(rustix::fs::open(path, READ | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whatever the container has put in the place of a file must not keep its shim: what is no plain file, and
/// what is endless, is as good as empty.
fn read(opened: io::Result<OwnedFd>) -> String {
    let text = || -> io::Result<Vec<u8>> {
        let file = File::from(opened?);
        if !file.metadata()?.is_file() || inside::is_procfs(&file)? {
            return Ok(Vec::new());
        }
        let mut text = Vec::new();
        file.take(LARGEST_FILE).read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&text().unwrap_or_default()).into_owned()
}

/// The rules of Docker (moby/sys/user): names before numbers; a number needs no entry; members of
/// groups come along unless a group is given.
pub(crate) fn resolve(
    wanted: &str,
    additional: &[String],
    passwd: &str,
    group: &str,
) -> Result<User, Failure> {
    let (name, group_name) = wanted.split_once(':').unwrap_or((wanted, ""));
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        fields.len() >= 6
            && if name.is_empty() { fields[2] == "0" } else { fields[0] == name || fields[2] == name }
    });
    let mut user = User { home: "/".into(), ..User::default() };
    let mut known_as = None;
    match &entry {
        Some(fields) => {
            user.uid = fields[2].parse().unwrap_or_default();
            user.gid = fields[3].parse().unwrap_or_default();
            fields[5].clone_into(&mut user.home);
            known_as = Some(fields[0]);
        }
        None if name.is_empty() => {}
        None => {
            user.uid = number(name).ok_or_else(|| {
                Failure::refused(format!("unable to find user {name}: no matching entries in passwd file"))
            })?;
        }
    }
    if group_name.is_empty() {
        if let Some(name) = known_as {
            user.groups = groups(group)
                .filter(|(_, _, members)| members.split(',').any(|m| m == name))
                .map(|g| g.1)
                .collect();
        }
    } else {
        user.gid = find_group(group_name, group)?;
    }
    for name in additional {
        let gid = find_group(name, group)?;
        if !user.groups.contains(&gid) {
            user.groups.push(gid);
        }
    }
    // Or a set-group-id program could leave the primary group behind (CVE-2022-36109).
    if !user.groups.contains(&user.gid) {
        user.groups.insert(0, user.gid);
    }
    Ok(user)
}

/// (name, gid, members)
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

fn find_group(wanted: &str, text: &str) -> Result<u32, Failure> {
    let found = groups(text).find(|(name, _, _)| *name == wanted).map(|(_, gid, _)| gid);
    found.or_else(|| number(wanted)).ok_or_else(|| {
        Failure::refused(format!("unable to find group {wanted}: no matching entries in group file"))
    })
}

/// Ids above 2^31 - 1 are refused, as Docker does.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\naudio:x:29:web,root\nstaff:x:50:other\n";

    fn user(wanted: &str) -> User {
        resolve(wanted, &[], PASSWD, GROUP).unwrap()
    }

    #[test]
    fn names_numbers_and_groups() {
        assert_eq!(user(""), User { uid: 0, gid: 0, groups: vec![0, 29], home: "/root".into() });
        assert_eq!(user("web"), User { uid: 33, gid: 34, groups: vec![34, 29], home: "/var/www".into() });
        assert_eq!(user("33"), user("web"));
        assert_eq!(user("web:staff"), User { uid: 33, gid: 50, groups: vec![50], home: "/var/www".into() });
        assert_eq!(user("1000:7"), User { uid: 1000, gid: 7, groups: vec![7], home: "/".into() });
        assert_eq!(user("1000").gid, 0);
    }

    #[test]
    fn only_plain_files_are_opened() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let pipe = root.path().join("etc/passwd");
        let kind = FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, Mode::from_raw_mode(0o600), 0).unwrap();
        std::fs::write(root.path().join("etc/group"), GROUP).unwrap();
        // A pipe tells whether somebody opens it: whoever wants to write waits for that.
        let writer = {
            let pipe = pipe.clone();
            std::thread::spawn(move || std::fs::File::options().write(true).open(pipe))
        };
        std::thread::sleep(std::time::Duration::from_millis(100));
        let handle = std::fs::File::open(root.path()).unwrap().into();
        let refused = check_user(&handle, "web").unwrap_err().to_string();
        assert!(refused.contains("unable to find user web"), "{refused}");
        check_user(&handle, "7:staff").unwrap();
        assert_eq!(read_beneath(root.path(), "etc/passwd"), "");
        assert_eq!(read_beneath(root.path(), "etc/group"), GROUP);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!writer.is_finished(), "the pipe was opened");
        drop(std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap());
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn unknown_names_are_named() {
        let message = |wanted: &str| resolve(wanted, &[], PASSWD, GROUP).unwrap_err().message;
        assert_eq!(message("foo"), "unable to find user foo: no matching entries in passwd file");
        assert_eq!(message("web:foo"), "unable to find group foo: no matching entries in group file");
        assert_eq!(
            message("4294967295"),
            "unable to find user 4294967295: no matching entries in passwd file"
        );
    }

    #[test]
    fn additional_groups() {
        let names = ["staff".to_owned(), "29".to_owned(), "7".to_owned()];
        assert_eq!(resolve("web", &names, PASSWD, GROUP).unwrap().groups, [34, 29, 50, 7]);
    }
}
