//! The seam to the embedded resolver.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use portolan_netcore::dns::ZoneChange;
use portolan_netcore::model::SandboxId;

/// What the networks need from the embedded resolver. Calls block; they come from threads that may,
/// and no call holds up another sandbox's.
pub trait Names: Send + Sync + fmt::Debug {
    /// Changes zones and views, which are none at first: whatever an earlier engine left is forgotten with
    /// the first change. Nobody sees only some of the changes; all see them when this returns. What fails
    /// here is remembered, and told to the resolver once it can be reached again.
    fn change(&self, changes: Vec<ZoneChange>) -> io::Result<()>;

    /// Answers in the namespace pinned at `netns` on 127.0.0.11, for this sandbox. The (UDP, TCP)
    /// ports it listens on. A sandbox that is already served keeps its ports.
    fn serve(&self, sandbox: &SandboxId, netns: &Path) -> io::Result<(u16, u16)>;

    /// Stops answering for this sandbox; one that is not served is fine.
    fn stop(&self, sandbox: &SandboxId);

    /// At the engine's start: stops answering for all sandboxes but these, whoever began it. None is answered for
    /// that does not outlive an engine.
    fn keep_only(&self, _wanted: &BTreeSet<SandboxId>) {}
}

/// No resolver: names are not answered. For tests and for hosts without user-defined networks.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNames;

impl Names for NoNames {
    fn change(&self, _changes: Vec<ZoneChange>) -> io::Result<()> {
        Ok(())
    }

    fn serve(&self, _sandbox: &SandboxId, _netns: &Path) -> io::Result<(u16, u16)> {
        Ok((53, 53))
    }

    fn stop(&self, _sandbox: &SandboxId) {}
}
