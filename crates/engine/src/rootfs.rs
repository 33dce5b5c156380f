//! A container's root directory from outside, whether it runs or not.

use std::fs::File;
use std::os::fd::OwnedFd;

use crate::container::record::Container;
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};

impl Engine {
    /// The root directory as the container's processes see it; of one that does not run, its own layer on
    /// its image.
    ///
    /// # Errors
    /// It cannot be opened or mounted.
    pub(crate) async fn open_root(&self, container: &Container) -> Result<OwnedFd> {
        let pid = container.with(|record| record.state.shown.pid);
        let (images, id) = (self.inner.images.clone(), container.id.to_string());
        blocking(move || {
            if pid > 0 {
                match File::open(format!("/proc/{pid}/root")) {
                    Ok(root) => return Ok(OwnedFd::from(root)),
                    // It has ended, and we have yet to hear of it.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
                    Err(error) => {
                        return Err(EngineError::internal(format!(
                            "open the root directory of container {id}: {error}"
                        )));
                    }
                }
            }
            Ok(images.open_rootfs(&id)?)
        })
        .await
    }
}
