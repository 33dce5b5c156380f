//! What the owner decided, done on threads that may block, and reported back to the owner.

use std::sync::Arc;
use std::time::Duration;

use portolan_netcore::host::StepError;
use portolan_netcore::plan::{Ns, Step};

use super::{Networks, Shared, blocking};
use crate::foreign::Changed;
use crate::owner::{Announcements, NetworkWork, Removal, Work};
use crate::{Error, SandboxInfo, apply};

/// How long the kernel gets to clean up after a sandbox before its links are removed one by one.
const CLEAN_UP: Duration = Duration::from_secs(2);

impl Networks {
    pub(super) async fn change_network(
        &self,
        work: NetworkWork,
    ) -> Result<(NetworkWork, Result<(), StepError>), Error> {
        let host = Arc::clone(&self.shared.host);
        blocking(move || {
            let back = |done: &[Step], not_done: &[Step]| work.undo(done, not_done);
            let result = apply::run_or_undo(host.as_ref(), &work.steps, back);
            (work, result)
        })
        .await
    }

    pub(super) async fn carry_out(&self, work: Work) -> Result<SandboxInfo, Error> {
        let shared = Arc::clone(&self.shared);
        let (work, result) = blocking(move || {
            let result = shared.do_work(&work);
            (work, result)
        })
        .await?;
        match result {
            Ok(dns) => {
                let mut work = work;
                for announcements in std::mem::take(&mut work.announcements) {
                    tokio::spawn(self.clone().announce(announcements));
                }
                let info = self.call(move |owner| owner.finish_sandbox(work, dns)).await?;
                self.shared.foreign.wake(Changed::Ports);
                info
            }
            Err(error) => {
                if let Some(removal) = self.call(move |owner| owner.abort_sandbox(work)).await? {
                    self.clean_up_behind(removal).await?;
                }
                Err(error)
            }
        }
    }

    /// Announces an endpoint's addresses for as long as it is there.
    async fn announce(self, announcements: Announcements) {
        let announcements = Arc::new(announcements);
        let mut delay = announcements.delay;
        for _ in 0..announcements.count {
            tokio::time::sleep(delay).await;
            delay = announcements.interval;
            let asked = Arc::clone(&announcements);
            let step = self.call(move |owner| owner.announcement(&asked)).await;
            let Ok(Some(step)) = step else { return };
            let host = Arc::clone(&self.shared.host);
            // It may go away right now; the host tells its log.
            let _ = blocking(move || host.execute(&[step])).await;
        }
    }

    pub(super) async fn take_down(&self, removal: Removal) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let removal = blocking(move || {
            removal.release.iter().for_each(|endpoint| shared.leases.release(endpoint));
            if removal.served {
                shared.names.stop(&removal.sandbox);
            }
            apply::run_whatever_fails(shared.host.as_ref(), &removal.steps);
            // Nobody is told the address of one that is gone. A resolver that cannot be told, which is in
            // the log, keeps nobody from going.
            let _ = shared.wait_for_names(removal.zones);
            removal
        })
        .await?;
        self.clean_up_behind(removal).await
    }

    /// The rest is the kernel's; once it is done the addresses are free.
    async fn clean_up_behind(&self, removal: Removal) -> Result<(), Error> {
        let removal = Arc::new(removal);
        let done = Arc::clone(&removal);
        self.call(move |owner| owner.finish_removal(&done)).await?;
        self.shared.foreign.wake(Changed::Ports);
        let me = self.clone();
        tokio::spawn(async move {
            let (shared, gone) = (Arc::clone(&me.shared), Arc::clone(&removal));
            let waited = blocking(move || shared.await_gone(&gone)).await;
            let left = Arc::clone(&removal);
            if let Ok(Some(step)) = me.call(move |owner| owner.take_stale(&left.addresses)).await {
                let host = Arc::clone(&me.shared.host);
                // What is left of a connection ends by itself; the host tells its log.
                let _ = blocking(move || apply::run_whatever_fails(host.as_ref(), &[step])).await;
            }
            let ended = me.call(move |owner| owner.end_quarantine(&removal.sandbox)).await;
            if let Err(error) = waited.and(ended) {
                tracing::warn!(%error, "the clean-up after a sandbox was not seen to its end");
            }
        });
        Ok(())
    }
}

impl Shared {
    /// All of it, or nothing: the resolver's ports, if it serves the sandbox from now on.
    fn do_work(&self, work: &Work) -> Result<Option<(u16, u16)>, Error> {
        work.release.iter().for_each(|endpoint| self.leases.release(endpoint));
        let back = |done: &[Step], not_done: &[Step]| work.undo(done, not_done);
        apply::run_or_undo(self.host.as_ref(), &work.steps, back)?;
        let result = self.serve_names(work);
        if result.is_err() {
            self.names.stop(&work.sandbox);
            apply::run_whatever_fails(self.host.as_ref(), &work.undo(&work.steps, &[]));
        }
        result
    }

    fn serve_names(&self, work: &Work) -> Result<Option<(u16, u16)>, Error> {
        let mut ports = None;
        if let Some(netns) = &work.serve {
            let (udp, tcp) = self.names.serve(&work.sandbox, netns).map_err(|error| {
                Error::unavailable(format!(
                    "the embedded resolver cannot serve sandbox {}: {error}",
                    work.sandbox.short()
                ))
            })?;
            let step = Step::RedirectDns { sandbox: work.sandbox.clone(), udp, tcp };
            apply::run(self.host.as_ref(), &[step]).map_err(|stopped| Error::from(stopped.error))?;
            ports = Some((udp, tcp));
        }
        self.wait_for_names(work.zones)?;
        Ok(ports)
    }

    pub(super) fn wait_for_names(&self, zones: Option<u64>) -> Result<(), Error> {
        match zones {
            Some(version) => self.publisher.wait(version).map_err(|error| {
                Error::unavailable(format!("the embedded resolver does not take names: {error}"))
            }),
            None => Ok(()),
        }
    }

    /// Waits for the kernel; links that something keeps alive beyond reason are removed.
    fn await_gone(&self, removal: &Removal) {
        let gone = self.host.await_gone(&removal.links, CLEAN_UP).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot watch the kernel clean up");
            false
        });
        if !gone {
            let links: Vec<Step> =
                removal.links.iter().map(|name| Step::RemoveLink((Ns::Host, name.clone()))).collect();
            apply::run_whatever_fails(self.host.as_ref(), &links);
        }
    }
}
