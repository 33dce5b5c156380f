//! The daemon's own log: to standard error, one line an event.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::LogLevel;

/// Changes how much is logged while the daemon runs.
#[derive(Clone, Debug, Default)]
pub struct LogControl {
    handle: Option<reload::Handle<LevelFilter, Registry>>,
}

/// Starts logging to standard error. Called once, before anything is logged; if somebody else has set up logging,
/// theirs stays.
pub fn init_logging(level: LogLevel) -> LogControl {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    match tracing_subscriber::registry().with(filter).with(lines).try_init() {
        Ok(()) => LogControl { handle: Some(handle) },
        Err(_) => LogControl::default(),
    }
}

impl LogControl {
    /// From now on this much.
    pub fn set_level(&self, level: LogLevel) {
        if let Some(handle) = &self.handle
            && let Err(error) = handle.modify(|filter| *filter = LevelFilter::from_level(level))
        {
            tracing::warn!("cannot change the log level: {error}");
        }
    }
}
