//! Whether mounts can propagate to and from a directory that is bound into a container (mount_namespaces(7)).

use std::path::Path;

use super::record::Definition;
use crate::error::{EngineError, Result};
use crate::model::MountType;

/// Refuses bind mounts whose propagation could have no effect, with Docker's texts.
///
/// # Errors
/// `Internal`: the mount that a source is on is neither shared nor, for a slave, a slave itself.
pub(crate) fn check(definition: &Definition) -> Result<()> {
    let mut mountinfo = None;
    for mount in definition.mounts.iter().filter(|mount| mount.kind == MountType::Bind) {
        let slave = match mount.propagation.trim_start_matches('r') {
            "shared" => false,
            "slave" => true,
            _ => continue,
        };
        let mountinfo = mountinfo
            .get_or_insert_with(|| std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        let Some((on, fields)) = mount_of(mountinfo, &mount.source) else { continue };
        let is = |word: &str| fields.split(' ').any(|field| field.starts_with(word));
        let reaches = is("shared:") || slave && is("master:");
        if !reaches {
            let wanted = if slave { "a shared or slave mount" } else { "a shared mount" };
            return Err(EngineError::internal(format!(
                "path {} is mounted on {on} but it is not {wanted}",
                mount.source.display()
            )));
        }
    }
    Ok(())
}

/// The mount that a path is on: where, and its optional fields (proc_pid_mountinfo(5)).
fn mount_of<'a>(mountinfo: &'a str, path: &Path) -> Option<(String, &'a str)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (before, _) = line.split_once(" - ")?;
        let mut fields = before.splitn(7, ' ');
        let at = unescape(fields.nth(4)?);
        let optional = fields.nth(1).unwrap_or_default();
        path.starts_with(&at).then_some((at, optional))
    });
    // Of several at one place, the last covers the others.
    mounts.max_by_key(|(at, _)| Path::new(at).components().count())
}

/// Spaces and the like stand there in octal.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_on_the_innermost_mount_and_the_last_one_there() {
        let text = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                    2 1 8:2 / /a\\040b rw,noatime shared:7 master:3 - ext4 /dev/b rw\n\
                    3 1 0:5 / /run rw - tmpfs tmpfs rw\n\
                    4 1 0:6 / /run rw shared:9 - tmpfs tmpfs rw\n";
        assert_eq!(mount_of(text, Path::new("/etc/x")), Some(("/".to_owned(), "")));
        assert_eq!(mount_of(text, Path::new("/a b/c")), Some(("/a b".to_owned(), "shared:7 master:3")));
        assert_eq!(mount_of(text, Path::new("/run/x")), Some(("/run".to_owned(), "shared:9")));
        assert_eq!(mount_of(text, Path::new("/running")).map(|(at, _)| at), Some("/".to_owned()));
    }
}
