//! The resolver process, and its client as the networks see it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Weak};

use anyhow::Context;
use portolan_net::Names;
use portolan_netcore::dns::ZoneChange;
use portolan_netcore::model::SandboxId;
use portolan_netdns::{Client, ClientError, Holdings, Kept, Settings};
use portolan_netlinux::{Keeper, LinuxHost};

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

    /// What an earlier daemon left with it. To be asked for before anything else.
    pub(crate) fn kept(&self) -> Kept {
        self.0.kept()
    }

    /// Has it keep for the next daemon what the host holds.
    pub(crate) fn start_keeping(&self, host: &Arc<LinuxHost>) {
        // The host has us, too.
        self.0.start_keeping(Arc::new(OfHost(Arc::downgrade(host))));
    }

    /// The daemon ends; the resolver goes on if it serves or keeps anything.
    pub(crate) fn close(&self) {
        self.0.close();
    }
}

#[derive(Debug)]
struct OfHost(Weak<LinuxHost>);

impl Holdings for OfHost {
    fn names(&self) -> Vec<String> {
        self.0.upgrade().map(|host| host.held_names()).unwrap_or_default()
    }

    fn descriptor(&self, name: &str) -> Option<Arc<OwnedFd>> {
        self.0.upgrade()?.held(name)
    }
}

impl Keeper for Resolver {
    fn keep(&self, name: String) {
        self.0.keep(name);
    }

    fn forget(&self, names: Vec<String>) {
        if let Err(error) = self.0.forget(names) {
            tracing::warn!(%error, "ports may be held longer than they are published");
        }
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
