//! The resolver process, and its client as the networks see it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use portolan_net::Names;
use portolan_netcore::dns::ZoneChange;
use portolan_netcore::model::SandboxId;
use portolan_netdns::{Client, ClientError, Settings};

/// The hidden subcommand `resolver SOCKET`.
pub(crate) fn main(socket: Option<&OsString>) -> anyhow::Result<()> {
    let socket = socket.context("the daemon starts this with the path of a socket")?;
    Ok(portolan_netdns::run(Path::new(socket))?)
}

/// The embedded resolver of an engine whose runtime files are in `exec_root`.
#[derive(Clone, Debug)]
pub(crate) struct Resolver(Client);

impl Resolver {
    /// Nothing is started before the first sandbox is served.
    pub(crate) fn new(exec_root: &Path, resolv_conf: &Path, host_names: Option<SocketAddr>) -> Self {
        let socket = exec_root.join("resolver.sock");
        let command = vec!["/proc/self/exe".into(), "resolver".into(), socket.clone().into()];
        Self(Client::new(socket, command, Settings { resolv_conf: resolv_conf.to_owned(), host_names }))
    }

    /// Serves the host itself, if it is to be.
    pub(crate) fn open(&self) -> Result<(), ClientError> {
        self.0.open()
    }

    /// The descriptor that an earlier daemon left with it. To be asked for before anything else.
    pub(crate) fn kept(&self) -> Option<OwnedFd> {
        self.0.kept()
    }

    /// Leaves a descriptor with it for the next daemon.
    pub(crate) fn keep(&self, descriptor: OwnedFd) {
        if let Err(error) = self.0.keep(descriptor) {
            tracing::warn!(%error, "the firewall's tables are not kept while no daemon runs");
        }
    }

    /// The daemon ends; the resolver goes on if it serves anybody.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

impl Names for Resolver {
    fn change(&self, changes: Vec<ZoneChange>) -> io::Result<()> {
        self.0.change(changes).map_err(io::Error::other)
    }

    fn serve(&self, sandbox: &SandboxId, netns: &Path) -> io::Result<(u16, u16)> {
        self.0.serve(sandbox, netns).map_err(io::Error::other)
    }

    fn stop(&self, sandbox: &SandboxId) {
        if let Err(error) = self.0.stop(sandbox) {
            tracing::warn!(sandbox = sandbox.short(), %error, "a sandbox may still be served");
        }
    }

    fn keep_only(&self, wanted: &BTreeSet<SandboxId>) {
        if let Err(error) = self.0.keep_only(wanted) {
            tracing::warn!(%error, "sandboxes that are gone may still be served");
        }
    }
}
