//! The `filters` parameter.

use jiff::Timestamp;
use portolan_api::Filters;
use portolan_image::{ListFilter, PruneFilter};

use super::parse_time;
use crate::http::ApiError;

/// For the engine, which checks the keys.
pub(crate) fn filters(given: Filters) -> portolan_engine::model::Filters {
    portolan_engine::model::Filters(given.0)
}

fn values(given: &Filters, key: &str) -> Vec<String> {
    given.get(key).map(str::to_owned).collect()
}

fn until(given: &Filters) -> Result<Option<Timestamp>, ApiError> {
    given.get("until").next().map(|text| parse_time(text, Timestamp::now())).transpose()
}

/// `GET /images/json`.
pub(crate) fn image_list_filter(given: &Filters, all: bool) -> Result<ListFilter, ApiError> {
    given.validate(&["dangling", "label", "label!", "before", "since", "reference", "until"])?;
    Ok(ListFilter {
        all,
        dangling: if given.contains("dangling") { Some(given.flag("dangling", false)?) } else { None },
        labels: values(given, "label"),
        not_labels: values(given, "label!"),
        references: values(given, "reference"),
        before: values(given, "before"),
        since: values(given, "since"),
        until: until(given)?,
    })
}

/// `POST /images/prune`: `dangling=false` prunes all that no container uses.
pub(crate) fn image_prune_filter(given: &Filters) -> Result<PruneFilter, ApiError> {
    given.validate(&["dangling", "label", "label!", "until"])?;
    Ok(PruneFilter {
        all: !given.flag("dangling", true)?,
        until: until(given)?,
        labels: values(given, "label"),
        not_labels: values(given, "label!"),
    })
}
