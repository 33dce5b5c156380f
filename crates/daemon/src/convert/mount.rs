//! Mounts.

use portolan_api::{self as api, ApiVersion};
use portolan_engine::model::{MountPoint, MountSpec, MountType};

use crate::http::ApiError;

/// One entry of `HostConfig.Mounts`.
pub(super) fn mount_from_api(mount: api::Mount, version: ApiVersion) -> Result<MountSpec, ApiError> {
    let kind = match mount.kind.as_str() {
        "bind" => MountType::Bind,
        "volume" => MountType::Volume,
        "tmpfs" => MountType::Tmpfs,
        other => {
            return Err(ApiError::invalid(format!(
                "invalid mount config for type {other:?}: mount type unknown"
            )));
        }
    };
    for (given, name, of) in [
        (mount.bind_options.is_some(), "BindOptions", MountType::Bind),
        (mount.volume_options.is_some(), "VolumeOptions", MountType::Volume),
        (mount.tmpfs_options.is_some(), "TmpfsOptions", MountType::Tmpfs),
    ] {
        if given && kind != of {
            return Err(ApiError::invalid(format!(
                "{name} must not be specified on mount type {:?}",
                kind.as_str()
            )));
        }
    }
    let bind = mount.bind_options.unwrap_or_default();
    let volume = mount.volume_options.unwrap_or_default();
    let tmpfs = mount.tmpfs_options.unwrap_or_default();
    if bind.read_only_force_recursive && version < ApiVersion::new(1, 44) {
        return Err(ApiError::invalid("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"));
    }
    if bind.read_only_force_recursive {
        return Err(ApiError::invalid("BindOptions.ReadOnlyForceRecursive is not supported yet"));
    }
    if bind.read_only_non_recursive {
        return Err(ApiError::invalid("BindOptions.ReadOnlyNonRecursive is not supported yet"));
    }
    if !volume.subpath.is_empty() && version < ApiVersion::new(1, 45) {
        return Err(ApiError::invalid("VolumeOptions.Subpath needs API v1.45 or newer"));
    }
    if !tmpfs.options.is_empty() {
        return Err(ApiError::invalid("TmpfsOptions.Options is not supported yet: use HostConfig.Tmpfs"));
    }
    let driver = volume.driver_config.unwrap_or_default();
    Ok(MountSpec {
        kind,
        source: mount.source,
        target: mount.target,
        read_only: mount.read_only,
        consistency: mount.consistency,
        propagation: bind.propagation,
        non_recursive: bind.non_recursive,
        create_mountpoint: bind.create_mountpoint,
        no_copy: volume.no_copy,
        volume_labels: volume.labels,
        volume_subpath: volume.subpath,
        volume_driver: driver.name,
        volume_driver_opts: driver.options,
        tmpfs_size_bytes: tmpfs.size_bytes,
        tmpfs_mode: tmpfs.mode,
    })
}

/// One entry of `HostConfig.Mounts` as inspect shows it.
pub(super) fn mount_to_api(mount: MountSpec) -> api::Mount {
    let bind = api::BindOptions {
        propagation: mount.propagation,
        non_recursive: mount.non_recursive,
        create_mountpoint: mount.create_mountpoint,
        ..api::BindOptions::default()
    };
    let driver = api::MountDriver { name: mount.volume_driver, options: mount.volume_driver_opts };
    let volume = api::VolumeOptions {
        no_copy: mount.no_copy,
        labels: mount.volume_labels,
        subpath: mount.volume_subpath,
        driver_config: unless_default(driver),
    };
    let tmpfs =
        api::TmpfsOptions { size_bytes: mount.tmpfs_size_bytes, mode: mount.tmpfs_mode, options: Vec::new() };
    api::Mount {
        kind: mount.kind.as_str().to_owned(),
        source: mount.source,
        target: mount.target,
        read_only: mount.read_only,
        consistency: mount.consistency,
        bind_options: unless_default(bind),
        volume_options: unless_default(volume),
        tmpfs_options: unless_default(tmpfs),
    }
}

fn unless_default<T: Default + PartialEq>(value: T) -> Option<T> {
    Some(value).filter(|value| *value != T::default())
}

/// An entry of `Mounts`.
pub(super) fn mount_point(mount: MountPoint) -> api::MountPoint {
    api::MountPoint {
        kind: mount.kind.as_str().to_owned(),
        name: mount.name.unwrap_or_default(),
        source: mount.source.to_string_lossy().into_owned(),
        destination: mount.destination,
        driver: mount.driver,
        mode: mount.mode,
        rw: mount.rw,
        propagation: mount.propagation,
    }
}
