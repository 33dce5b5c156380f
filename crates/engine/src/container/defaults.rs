//! What a request leaves open, filled in as Docker does when it makes a container: `inspect` shows what is in force.

use portolan_runtime::{MASKED_PATHS, NamespaceMode, READONLY_PATHS};

use super::security;
use crate::engine::Engine;
use crate::error::Result;
use crate::model::{HostConfig, NamespaceSetting};

/// Docker's word for the runtime that is built in.
const BUILT_IN: &str = "runc";
/// Size of /dev/shm, bytes.
pub(crate) const SHM_BYTES: u64 = 64 << 20;

impl Engine {
    /// Fills in what the request leaves open.
    ///
    /// # Errors
    /// A security option that makes no sense.
    pub(crate) fn fill_in(&self, host: &mut HostConfig) -> Result<()> {
        let config = &self.inner.config;
        if host.runtime.is_empty() {
            host.runtime = self.live().default_runtime.clone().unwrap_or_else(|| BUILT_IN.to_owned());
        }
        if host.shm_size_bytes == 0 {
            host.shm_size_bytes = match config.default_shm_size_bytes {
                0 => SHM_BYTES,
                bytes => bytes,
            };
        }
        if host.ipc_mode == NamespaceSetting::Default {
            host.ipc_mode = NamespaceSetting::Private;
        }
        if host.cgroupns_mode == NamespaceSetting::Default {
            host.cgroupns_mode = match self.cgroupns(host) {
                NamespaceMode::Host => NamespaceSetting::Host,
                _ => NamespaceSetting::Private,
            };
        }
        let limits = &mut host.resources;
        if limits.memory > 0 && limits.memory_swap == 0 {
            // As much swap as memory.
            limits.memory_swap = limits.memory.saturating_mul(2);
        }
        limits.pids_limit = limits.pids_limit.filter(|limit| *limit > 0);
        let options = security::security_options(&host.security_opt, false)?;
        if !options.system_paths_unconfined && !host.privileged {
            let all = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
            host.masked_paths.get_or_insert_with(|| all(&MASKED_PATHS));
            host.readonly_paths.get_or_insert_with(|| all(&READONLY_PATHS));
        }
        Ok(())
    }
}
