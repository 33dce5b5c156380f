//! Who we say we are.

use portolan_api::ApiVersion;

/// Version of the engine.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The product, as `docker version` shows it.
pub(crate) const PLATFORM: &str = "Portolan";

/// Newest version of the API that is served, Docker 28.3's.
pub(crate) const NEWEST_API: ApiVersion = ApiVersion::new(1, 51);

/// Oldest version of the API that is served, Docker 19.03's.
pub(crate) const OLDEST_API: ApiVersion = ApiVersion::new(1, 40);

/// The `Server` header.
pub(crate) const SERVER_HEADER: &str = concat!("Portolan/", env!("CARGO_PKG_VERSION"), " (linux)");
