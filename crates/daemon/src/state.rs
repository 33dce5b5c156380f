//! What all requests share.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::RwLock;

use portolan_engine::Engine;

use crate::config::Config;
use crate::host::HostFacts;
use crate::http::ApiError;

/// What all requests share.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) engine: Engine,
    pub(crate) config: Config,
    pub(crate) host: HostFacts,
    /// What SIGHUP can change.
    reloadable: RwLock<Reloadable>,
}

/// What SIGHUP can change.
#[derive(Clone, Debug)]
pub(crate) struct Reloadable {
    pub(crate) debug: bool,
    pub(crate) labels: Vec<String>,
    pub(crate) registry_mirrors: Vec<String>,
    pub(crate) insecure_registries: Vec<String>,
    pub(crate) default_runtime: Option<String>,
    pub(crate) runtimes: BTreeMap<String, PathBuf>,
}

impl Reloadable {
    fn of(config: &Config) -> Self {
        Reloadable {
            debug: config.log_level >= tracing::Level::DEBUG,
            labels: config.labels.clone(),
            registry_mirrors: config.registry_mirrors.clone(),
            insecure_registries: config.insecure_registries.clone(),
            default_runtime: config.engine.default_runtime.clone(),
            runtimes: config.engine.runtimes.clone(),
        }
    }
}

impl State {
    pub(crate) fn new(config: Config, engine: Engine) -> Self {
        let host = HostFacts::read(&config.engine.data_root);
        let reloadable = RwLock::new(Reloadable::of(&config));
        State { engine, config, host, reloadable }
    }

    /// Takes over what of a new configuration can change while the daemon runs.
    pub(crate) fn reload(&self, config: &Config) {
        *self.reloadable.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Reloadable::of(config);
    }

    pub(crate) fn reloadable(&self) -> Reloadable {
        self.reloadable.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Runs a command to its end even if the client goes away: a container that is half started because somebody
/// pressed Ctrl-C helps nobody.
pub(crate) async fn complete<T, E>(
    command: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, ApiError>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    match tokio::spawn(command).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(ApiError::internal(format!("the command failed: {error}"))),
    }
}
