//! Volumes.

use portolan_api as api;
use portolan_engine::model::{Volume, VolumeSpec};

use super::rfc3339;
use crate::http::ApiError;

/// The body of `POST /volumes/create`; what we do not have is refused by name.
pub(crate) fn volume_spec(body: api::VolumeCreate) -> Result<VolumeSpec, ApiError> {
    if body.cluster_volume_spec.is_some() {
        return Err(ApiError::invalid("ClusterVolumeSpec needs a swarm, which is not supported"));
    }
    Ok(VolumeSpec { name: body.name, driver: body.driver, options: body.driver_opts, labels: body.labels })
}

/// A volume.
pub(crate) fn volume(volume: Volume) -> api::Volume {
    // Docker writes this time in whole seconds.
    let created = jiff::Timestamp::from_second(volume.created_at.as_second()).ok();
    api::Volume {
        created_at: rfc3339(created),
        driver: "local".to_owned(),
        labels: Some(volume.labels).filter(|labels| !labels.is_empty()),
        mountpoint: volume.mountpoint.to_string_lossy().into_owned(),
        name: volume.name,
        options: Some(volume.options).filter(|options| !options.is_empty()),
        scope: "local".to_owned(),
        usage_data: None,
    }
}

/// A volume with its size in bytes and the number of containers that use it.
pub(crate) fn volume_usage((stored, size, users): (Volume, u64, usize)) -> api::Volume {
    api::Volume {
        usage_data: Some(api::VolumeUsageData {
            ref_count: i64::try_from(users).unwrap_or(i64::MAX),
            size: i64::try_from(size).unwrap_or(i64::MAX),
        }),
        ..volume(stored)
    }
}
