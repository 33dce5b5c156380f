//! A network namespace that plays a host.

use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::output::{Output, run};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A host: a named network namespace with `lo` up and no link to the machine. Gone when dropped.
#[derive(Debug)]
pub struct Host {
    name: String,
}

impl Host {
    /// A new host; `purpose` is part of its name, for a person who looks.
    pub fn new(purpose: &str) -> Self {
        let name = format!("pt-{purpose}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(&["ip", "netns", "add", &name], None).ok();
        let host = Self { name };
        host.run(&["ip", "link", "set", "lo", "up"]).ok();
        host
    }

    /// The namespace's name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The words that run a command in this host. Not `ip netns exec`, which hides the cgroup mounts.
    pub fn prefix(&self) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.name).into(), "--".into()]
    }

    /// Runs a command in this host.
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        self.run_with(words, None)
    }

    /// Runs a command in this host with something on its standard input.
    pub fn run_with<S: AsRef<OsStr>>(&self, words: &[S], input: Option<&[u8]>) -> Output {
        let mut all = self.prefix();
        all.extend(words.iter().map(|word| word.as_ref().to_owned()));
        run(&all, input)
    }

    /// Runs a shell line in this host.
    pub fn sh(&self, line: &str) -> Output {
        self.run(&["sh", "-c", line])
    }

    /// A wire between two hosts, with an address with prefix length at each end.
    pub fn wire(&self, ifname: &str, address: &str, other: &Self, other_ifname: &str, other_address: &str) {
        let peer = ["peer", "name", other_ifname, "netns", &other.name];
        self.run(&[&["ip", "link", "add", ifname, "type", "veth"], peer.as_slice()].concat()).ok();
        for (host, ifname, address) in [(self, ifname, address), (other, other_ifname, other_address)] {
            host.run(&["ip", "address", "add", address, "dev", ifname]).ok();
            host.run(&["ip", "link", "set", ifname, "up"]).ok();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        run(&["ip", "netns", "del", &self.name], None);
    }
}
