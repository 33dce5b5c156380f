//! `Binds`, `Mounts`, `Tmpfs` and `Volumes` of a request, understood.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use crate::error::{EngineError, Result};
use crate::model::{ContainerConfig, HostConfig, MountPoint, MountSpec, MountType};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

/// A mount that is wanted. The source of a volume is found, and an anonymous one made, at create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedMount {
    pub(crate) point: MountPoint,
    /// A bind: make the source if it is not there.
    pub(crate) create_source: bool,
    /// Labels for a volume that is made for it.
    pub(crate) volume_labels: BTreeMap<String, String>,
    /// Options for a volume that is made for it.
    pub(crate) volume_options: BTreeMap<String, String>,
}

/// Every mount that the request asks for, but for `VolumesFrom`: each destination once; `Volumes` (the
/// image's too) only where nothing else is mounted.
///
/// # Errors
/// `Invalid` with Docker's text.
pub(crate) fn wanted(
    config: &ContainerConfig,
    host: &HostConfig,
    inherited: &BTreeSet<String>,
) -> Result<Vec<WantedMount>> {
    let mut wanted: BTreeMap<String, WantedMount> = BTreeMap::new();
    let mut add = |mount: WantedMount| {
        let destination = mount.point.destination.clone();
        match wanted.insert(destination.clone(), mount) {
            Some(_) => Err(EngineError::invalid(format!("Duplicate mount point: {destination}"))),
            None => Ok(()),
        }
    };
    for bind in &host.binds {
        add(parse_bind(bind, &host.volume_driver)?)?;
    }
    for spec in &host.mounts {
        add(parse_spec(spec)?)?;
    }
    for (path, options) in &host.tmpfs {
        check_target(path)?;
        let mut mount = blank(MountType::Tmpfs, path);
        mount.point.rw = !options.split(',').any(|option| option == "ro");
        mount.point.mode.clone_from(options);
        mount.point.tmpfs_options = tmpfs_options(options);
        add(mount)?;
    }
    for path in &config.volumes {
        check_target(path)?;
        check_driver(&host.volume_driver)?;
        let clean = clean(path);
        if !wanted.contains_key(&clean) && !inherited.contains(&clean) {
            let mut mount = blank(MountType::Volume, path);
            mount.point.anonymous = true;
            wanted.insert(clean, mount);
        }
    }
    Ok(wanted.into_values().collect())
}

fn blank(kind: MountType, target: &str) -> WantedMount {
    WantedMount {
        point: MountPoint {
            kind,
            name: None,
            source: PathBuf::new(),
            destination: clean(target),
            driver: if kind == MountType::Volume { "local".to_owned() } else { String::new() },
            mode: String::new(),
            rw: true,
            propagation: String::new(),
            anonymous: false,
            tmpfs_options: Vec::new(),
            non_recursive: false,
            no_copy: false,
            subpath: String::new(),
        },
        create_source: false,
        volume_labels: BTreeMap::new(),
        volume_options: BTreeMap::new(),
    }
}

/// `-v`: `path`, `source:path` or `source:path:options`.
fn parse_bind(text: &str, volume_driver: &str) -> Result<WantedMount> {
    let invalid = || EngineError::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [target] if !target.is_empty() => ("", *target, ""),
        // A destination and a mode are no volume.
        [source, target] if !source.is_empty() && !is_mode(target) => (*source, *target, ""),
        [source, target, mode] if !source.is_empty() => (*source, *target, *mode),
        _ => return Err(invalid()),
    };
    if !is_mode(mode) {
        return Err(EngineError::invalid(format!("invalid mode: {mode}")));
    }
    check_target(target).map_err(|error| EngineError::invalid(format!("{}: {error}", invalid())))?;
    let kind = if source.starts_with('/') { MountType::Bind } else { MountType::Volume };
    let mut mount = blank(kind, target);
    let words: Vec<&str> = mode.split(',').collect();
    mount.point.rw = !words.contains(&"ro");
    mode.clone_into(&mut mount.point.mode);
    let misplaced =
        |field: &str| EngineError::invalid(format!("{}: field {field} must not be specified", invalid()));
    match kind {
        MountType::Bind if words.contains(&"nocopy") => return Err(misplaced("VolumeOptions")),
        MountType::Volume if words.iter().any(|word| PROPAGATIONS.contains(word)) => {
            return Err(misplaced("BindOptions"));
        }
        MountType::Bind => {
            mount.point.source = PathBuf::from(clean(source));
            mount.point.propagation =
                words.iter().find(|word| PROPAGATIONS.contains(word)).unwrap_or(&"rprivate").to_string();
            mount.create_source = true;
        }
        _ => {
            check_driver(volume_driver)?;
            mount.point.anonymous = source.is_empty();
            mount.point.name = Some(source.to_owned()).filter(|name| !name.is_empty());
            mount.point.no_copy = words.contains(&"nocopy");
            if mount.point.mode.is_empty() {
                "z".clone_into(&mut mount.point.mode);
            }
        }
    }
    Ok(mount)
}

/// One entry of `Mounts`.
fn parse_spec(spec: &MountSpec) -> Result<WantedMount> {
    let invalid = |reason: String| {
        EngineError::invalid(format!("invalid mount config for type {:?}: {reason}", spec.kind.as_str()))
    };
    if spec.target.is_empty() {
        return Err(invalid("field Target must not be empty".to_owned()));
    }
    check_target(&spec.target).map_err(|error| invalid(error.to_string()))?;
    let mut mount = blank(spec.kind, &spec.target);
    mount.point.rw = !spec.read_only;
    match spec.kind {
        MountType::Bind => {
            if spec.source.is_empty() {
                return Err(invalid("field Source must not be empty".to_owned()));
            }
            if !spec.source.starts_with('/') {
                let reason = format!("invalid mount path: '{}' mount path must be absolute", spec.source);
                return Err(invalid(reason));
            }
            let propagation = spec.propagation.as_str();
            if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation) {
                return Err(invalid(format!("invalid propagation mode: {propagation}")));
            }
            if !spec.create_mountpoint && !Path::new(&spec.source).exists() {
                return Err(invalid(format!("bind source path does not exist: {}", spec.source)));
            }
            mount.point.source = PathBuf::from(clean(&spec.source));
            mount.point.propagation =
                if propagation.is_empty() { "rprivate" } else { propagation }.to_owned();
            mount.point.non_recursive = spec.non_recursive;
            mount.create_source = spec.create_mountpoint;
        }
        MountType::Volume => {
            check_driver(&spec.volume_driver)?;
            let local =
                Path::new(&spec.volume_subpath).components().all(|c| matches!(c, Component::Normal(_)));
            if !local {
                return Err(invalid("subpath must be a relative path within the volume".to_owned()));
            }
            if spec.source.is_empty() && !spec.volume_subpath.is_empty() {
                return Err(invalid("must not set Subpath when using anonymous volumes".to_owned()));
            }
            mount.point.name = Some(spec.source.clone()).filter(|name| !name.is_empty());
            mount.point.anonymous = spec.source.is_empty();
            mount.point.no_copy = spec.no_copy;
            mount.point.subpath.clone_from(&spec.volume_subpath);
            "z".clone_into(&mut mount.point.mode);
            mount.volume_labels.clone_from(&spec.volume_labels);
            mount.volume_options.clone_from(&spec.volume_driver_opts);
        }
        MountType::Tmpfs => {
            if !spec.source.is_empty() {
                return Err(invalid("field Source must not be specified".to_owned()));
            }
            let mut options = String::new();
            if spec.tmpfs_mode != 0 {
                options.push_str(&format!("mode={:o},", spec.tmpfs_mode));
            }
            if spec.tmpfs_size_bytes != 0 {
                options.push_str(&format!("size={},", spec.tmpfs_size_bytes));
            }
            mount.point.tmpfs_options = tmpfs_options(options.trim_end_matches(','));
        }
    }
    Ok(mount)
}

/// Docker's defaults (`noexec,nosuid,nodev`), then what is asked for; a later opposite wins.
fn tmpfs_options(asked: &str) -> Vec<String> {
    let mut options = ["noexec", "nosuid", "nodev"].map(str::to_owned).to_vec();
    for option in asked.split(',').filter(|option| !option.is_empty()) {
        let opposite = match option {
            "exec" => "noexec",
            "suid" => "nosuid",
            "dev" => "nodev",
            _ => "",
        };
        options.retain(|known| known != opposite && known != option);
        options.push(option.to_owned());
    }
    options
}

fn check_driver(name: &str) -> Result<()> {
    match name {
        "" | "local" => Ok(()),
        _ => Err(EngineError::not_found(format!(
            "error looking up volume plugin {name}: plugin \"{name}\" not found"
        ))),
    }
}

fn check_target(target: &str) -> Result<()> {
    if !target.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    if clean(target) == "/" {
        return Err(EngineError::invalid("invalid specification: destination can't be '/'"));
    }
    Ok(())
}

/// Without `.`, `..`, doubled and trailing slashes (Go's `path.Clean`).
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Options of `-v`: each sort at most once.
fn is_mode(mode: &str) -> bool {
    if mode.is_empty() {
        return true;
    }
    let mut seen = [0; 5];
    mode.split(',').all(|word| {
        let sort = match word {
            "rw" | "ro" => 0,
            "z" | "Z" => 1,
            word if PROPAGATIONS.contains(&word) => 2,
            "nocopy" => 3,
            "consistent" | "cached" | "delegated" | "default" => 4,
            _ => return false,
        };
        seen[sort] += 1;
        seen[sort] == 1
    })
}

/// `VolumesFrom`: the container, and whether its mounts become read-only.
///
/// # Errors
/// `Invalid` with Docker's text.
pub(crate) fn parse_volumes_from(text: &str) -> Result<(&str, bool)> {
    if text.is_empty() {
        return Err(EngineError::invalid("volumes-from specification cannot be an empty string"));
    }
    let (container, mode) = text.split_once(':').unwrap_or((text, "rw"));
    match mode {
        "" | "rw" | "z" | "Z" => Ok((container, false)),
        "ro" => Ok((container, true)),
        _ => Err(EngineError::invalid(format!("invalid mode: {mode}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(host: HostConfig, volumes: &[&str]) -> Result<Vec<WantedMount>> {
        let volumes = volumes.iter().map(|v| (*v).to_owned()).collect();
        wanted(&ContainerConfig { volumes, ..ContainerConfig::default() }, &host, &BTreeSet::new())
    }

    fn binds(list: &[&str]) -> HostConfig {
        HostConfig { binds: list.iter().map(|b| (*b).to_owned()).collect(), ..HostConfig::default() }
    }

    #[test]
    fn binds_and_volumes() {
        let mounts = of(binds(&["/src:/a/:ro,rslave", "data:/b", "/c"]), &["/b", "/d"]).unwrap();
        let seen: Vec<_> = mounts
            .iter()
            .map(|m| (m.point.destination.as_str(), m.point.kind, m.point.rw, m.point.anonymous))
            .collect();
        assert_eq!(
            seen,
            [
                ("/a", MountType::Bind, false, false),
                ("/b", MountType::Volume, true, false),
                ("/c", MountType::Volume, true, true),
                ("/d", MountType::Volume, true, true),
            ]
        );
        assert_eq!(mounts[0].point.propagation, "rslave");
        assert_eq!(mounts[1].point.name.as_deref(), Some("data"));
    }

    #[test]
    fn mistakes_are_named() {
        for (bind, text) in [
            ("", "invalid volume specification: ''"),
            (":/a", "invalid volume specification: ':/a'"),
            ("/a:ro", "invalid volume specification: '/a:ro'"),
            ("/a:/b:rx", "invalid mode: rx"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ] {
            assert_eq!(of(binds(&[bind]), &[]).unwrap_err().message(), text);
        }
        let error = of(binds(&["/a:b"]), &[]).unwrap_err();
        assert!(error.message().ends_with("'b' mount path must be absolute"), "{error}");
        let error = of(binds(&["/a:/x/.."]), &[]).unwrap_err();
        assert!(error.message().ends_with("destination can't be '/'"), "{error}");
        let error = of(binds(&["/a:/x", "v:/x/"]), &[]).unwrap_err();
        assert_eq!(error.message(), "Duplicate mount point: /x");
        let mut host = HostConfig::default();
        host.mounts.push(MountSpec {
            kind: MountType::Bind,
            source: "/no/such".into(),
            target: "/x".into(),
            ..MountSpec::default()
        });
        assert_eq!(
            of(host, &[]).unwrap_err().message(),
            "invalid mount config for type \"bind\": bind source path does not exist: /no/such"
        );
    }

    #[test]
    fn tmpfs_has_dockers_defaults() {
        let mut host = HostConfig::default();
        host.tmpfs.insert("/run".to_owned(), "size=64k,exec,ro".to_owned());
        let mounts = of(host, &[]).unwrap();
        assert_eq!(mounts[0].point.tmpfs_options, ["nosuid", "nodev", "size=64k", "exec", "ro"]);
        assert!(!mounts[0].point.rw);
    }
}
