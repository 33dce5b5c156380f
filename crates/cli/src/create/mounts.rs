//! `--mount`, `--volume` and `--tmpfs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portolan_api::{BindOptions, Empty, Mount, MountDriver, TmpfsOptions, VolumeOptions};

use super::network::csv;
use crate::units;

/// Checks `--mount`.
pub(crate) fn check_mount(text: &str) -> Result<(), String> {
    mount(text).map(drop)
}

/// Reads one `--mount`: `type=bind,src=/a,dst=/b,readonly`.
///
/// # Errors
/// Docker's text.
pub(crate) fn mount(text: &str) -> Result<Mount, String> {
    let mut out = Mount { kind: "volume".to_owned(), ..Mount::default() };
    let mut bind = BindOptions::default();
    let mut volume = VolumeOptions::default();
    let mut driver = MountDriver::default();
    let mut tmpfs = TmpfsOptions::default();
    for field in csv(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        let switch = || on(&key, value);
        match (key.as_str(), value) {
            ("readonly" | "ro", _) => out.read_only = switch()?,
            ("volume-nocopy", _) => volume.no_copy = switch()?,
            ("bind-nonrecursive", _) => bind.non_recursive = switch()?,
            ("bind-create-src", _) => bind.create_mountpoint = switch()?,
            (_, None) => {
                return Err(format!("invalid field '{field}' must be a key=value pair"));
            }
            ("type", Some(value)) => out.kind = value.to_lowercase(),
            ("source" | "src", Some(value)) => out.source = value.to_owned(),
            ("target" | "dst" | "destination", Some(value)) => out.target = value.to_owned(),
            ("consistency", Some(value)) => out.consistency = value.to_lowercase(),
            ("bind-propagation", Some(value)) => bind.propagation = value.to_lowercase(),
            ("bind-recursive", Some(value)) => match value {
                "enabled" => {}
                "disabled" => bind.non_recursive = true,
                "writable" => bind.read_only_non_recursive = true,
                "readonly" => bind.read_only_force_recursive = true,
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                    ));
                }
            },
            ("volume-subpath", Some(value)) => volume.subpath = value.to_owned(),
            ("volume-driver", Some(value)) => driver.name = value.to_owned(),
            ("volume-label", Some(value)) => insert(&mut volume.labels, value),
            ("volume-opt", Some(value)) => insert(&mut driver.options, value),
            ("tmpfs-size", Some(value)) => {
                tmpfs.size_bytes =
                    units::parse_bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?;
            }
            ("tmpfs-mode", Some(value)) => {
                tmpfs.mode =
                    u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?;
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    if out.target.is_empty() {
        return Err("target is required".to_owned());
    }
    if driver != MountDriver::default() {
        volume.driver_config = Some(driver);
    }
    place_options(out, bind, volume, tmpfs)
}

fn on(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(value) => Err(format!("invalid value for {key}: {value}")),
    }
}

fn insert(map: &mut BTreeMap<String, String>, pair: &str) {
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    map.insert(key.to_owned(), value.to_owned());
}

/// Puts the options of the mount's own kind into it and refuses those of another kind.
fn place_options(
    mut mount: Mount,
    bind: BindOptions,
    volume: VolumeOptions,
    tmpfs: TmpfsOptions,
) -> Result<Mount, String> {
    let kind = mount.kind.clone();
    let mismatch = |options: &str| Err(format!("cannot mix '{options}-*' options with mount type '{kind}'"));
    if bind != BindOptions::default() && kind != "bind" {
        return mismatch("bind");
    }
    if volume != VolumeOptions::default() && kind != "volume" {
        return mismatch("volume");
    }
    if tmpfs != TmpfsOptions::default() && kind != "tmpfs" {
        return mismatch("tmpfs");
    }
    match kind.as_str() {
        "bind" => {
            if mount.source.starts_with('.') {
                mount.source = absolute(&mount.source);
            }
            mount.bind_options = (bind != BindOptions::default()).then_some(bind);
        }
        "volume" => mount.volume_options = (volume != VolumeOptions::default()).then_some(volume),
        "tmpfs" => mount.tmpfs_options = (tmpfs != TmpfsOptions::default()).then_some(tmpfs),
        _ => {}
    }
    Ok(mount)
}

/// Reads one `--volume`: a path alone is an anonymous volume, anything else a bind or a named
/// volume whose options the daemon reads.
///
/// # Errors
/// Docker's text when it is empty.
pub(crate) fn volume(
    text: &str,
    binds: &mut Vec<String>,
    volumes: &mut BTreeMap<String, Empty>,
) -> Result<(), String> {
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let Some((source, rest)) = text.split_once(':') else {
        volumes.insert(text.to_owned(), Empty);
        return Ok(());
    };
    if source.starts_with('.') || source.starts_with('~') {
        binds.push(format!("{}:{rest}", absolute(source)));
    } else {
        binds.push(text.to_owned());
    }
    Ok(())
}

/// The absolute path of a path that starts with `.` or `~`, without looking at the file system.
fn absolute(path: &str) -> String {
    let path = match path.strip_prefix("~/").or((path == "~").then_some("")) {
        Some(rest) => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(rest),
        None => PathBuf::from(path),
    };
    let from = std::env::current_dir().unwrap_or_default();
    let mut out = PathBuf::new();
    for part in from.join(&path).components() {
        match part {
            std::path::Component::ParentDir => {
                out.pop();
            }
            std::path::Component::CurDir => {}
            part => out.push(Path::new(part.as_os_str())),
        }
    }
    out.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let read = mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!((read.source.as_str(), read.target.as_str()), ("/a", "/b"));
        assert!(read.read_only);
        assert_eq!(read.bind_options.unwrap().propagation, "rslave");
        let read = mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap();
        let options = read.tmpfs_options.unwrap();
        assert_eq!((options.size_bytes, options.mode), (1 << 20, 0o1777));
        for (text, wanted) in [
            ("type=bind,src=/a", "target is required"),
            ("dst=/a,foo=1", "unexpected key 'foo' in 'foo=1'"),
            ("dst=/a,foo", "invalid field 'foo' must be a key=value pair"),
            ("type=bind,dst=/a,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
        ] {
            assert_eq!(mount(text).unwrap_err(), wanted);
        }
    }

    #[test]
    fn volumes() {
        let (mut binds, mut volumes) = (Vec::new(), BTreeMap::new());
        for text in ["/only", "/a:/b:ro", "name:/c", "./x/../y:/d"] {
            volume(text, &mut binds, &mut volumes).unwrap();
        }
        let here = std::env::current_dir().unwrap();
        assert_eq!(binds, ["/a:/b:ro".to_owned(), "name:/c".to_owned(), format!("{}/y:/d", here.display())]);
        assert_eq!(volumes.len(), 1);
    }
}
