//! Images from registries.

use std::sync::Arc;

use portolan_image::registry::{Credentials, Distribution, Progress};
use portolan_image::{Platform, Reference};

use crate::engine::Engine;
use crate::error::Result;

/// Where a pull's progress goes.
pub type PullReport = Arc<dyn Fn(Progress) + Send + Sync>;

impl Engine {
    /// `POST /images/create?fromImage=`: pulls an image, or without tag and digest all of a repository. Dropping
    /// the future ends the pull, and leaves nothing of the image under way.
    ///
    /// # Errors
    /// Docker's: `NotFound` for an unknown manifest and where access is denied, `Unauthorized`, `Invalid` for what
    /// is no image, `Internal` if the registry cannot be reached.
    pub async fn image_pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        credentials: &Credentials,
        report: PullReport,
    ) -> Result<()> {
        let inner = &self.inner;
        let live = self.live();
        let one = reference.tag().is_some() || reference.digest().is_some();
        let wanted = if one {
            vec![reference.clone()]
        } else {
            let tags = live.registries.tags(reference, credentials).await?;
            tags.iter().map(|tag| reference.with_tag(tag)).collect::<Result<_, _>>()?
        };
        let (mut updated, mut mismatches) = (false, Vec::new());
        for image in &wanted {
            let report = report.clone();
            let tell = move |progress| report(progress);
            let pulled = live.registries.pull(&inner.images, image, platform, credentials, tell).await?;
            updated |= pulled.updated;
            // An image that is for one platform only is taken all the same, as in Docker.
            if let Some(Err(mismatch)) = platform
                .map(|wanted| self.image_check_platform(&pulled.image.to_string(), &image.familiar(), wanted))
            {
                mismatches.push(mismatch);
            }
        }
        let name = reference.familiar();
        let text = if updated { "Downloaded newer image for" } else { "Image is up to date for" };
        report(Progress::Message { id: String::new(), text: format!("Status: {text} {name}") });
        for mismatch in mismatches {
            tracing::warn!(image = name, %mismatch, "ignoring the platform of an image for one platform");
            report(Progress::Message { id: String::new(), text: format!("WARNING: {mismatch}") });
        }
        self.image_event("pull", &name, &reference.familiar_name());
        Ok(())
    }

    /// `GET /distribution/{name}/json`.
    ///
    /// # Errors
    /// As [`Engine::image_pull`].
    pub async fn image_look_up(
        &self,
        reference: &Reference,
        credentials: &Credentials,
    ) -> Result<Distribution> {
        Ok(self.live().registries.look_up(reference, credentials).await?)
    }

    /// `POST /auth`: checks credentials. A token to be used instead of the password, if the registry gives one.
    ///
    /// # Errors
    /// `Unauthorized`; `Internal` if the registry cannot be reached.
    pub async fn registry_login(&self, server: &str, credentials: &Credentials) -> Result<Option<String>> {
        Ok(self.live().registries.login(server, credentials).await?)
    }
}
