//! A thread in fresh namespaces, and plans for it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ipnet::IpNet;
use portolan_netcore::host::Host;
use portolan_netcore::model::{IfName, MacAddr, SandboxId};
use portolan_netcore::plan::{Link, LinkKey, LinkKind, Ns, Route, Step};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::UnshareFlags;

use crate::{FirewallBackend, LinuxHost, LinuxHostConfig};

/// A host of its own for one test.
pub(super) struct Lab {
    pub(super) host: LinuxHost,
    pub(super) exec_root: PathBuf,
}

impl Lab {
    /// Runs a test on a thread with a network and mount namespace of its own; threads started from it
    /// share them. Without the rights for that the test is skipped, and says so.
    pub(super) fn run(title: &str, test: impl FnOnce(&Lab) + Send) {
        Self::run_with(title, FirewallBackend::Off, test);
    }

    /// The same with a firewall.
    pub(super) fn run_with(title: &str, firewall: FirewallBackend, test: impl FnOnce(&Lab) + Send) {
        let run = || {
            let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::FS;
            // SAFETY: the thread was started for this test and ends with it.
            if let Err(errno) = unsafe { rustix::thread::unshare_unsafe(flags) } {
                println!("skipped {title}: no namespaces of its own ({errno}); run as root");
                return;
            }
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let exec_root =
                std::env::temp_dir().join(format!("portolan-netlinux-{}-{title}", std::process::id()));
            let lab = Lab { host: open_with(&exec_root, firewall), exec_root: exec_root.clone() };
            lab.execute(&[Step::SetUp((Ns::Host, name("lo")), true)]);
            test(&lab);
            drop(lab);
            for id in crate::netns::Pins::open(&exec_root).unwrap().list().unwrap() {
                crate::netns::Pins::open(&exec_root).unwrap().remove(&id).unwrap();
            }
            let _ = rustix::mount::unmount(exec_root.join("netns"), rustix::mount::UnmountFlags::DETACH);
            std::fs::remove_dir_all(&exec_root).unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
    }

    /// Carries out steps that must all succeed.
    pub(super) fn execute(&self, steps: &[Step]) {
        let report = self.host.execute(steps);
        assert_eq!((report.done, report.error), (steps.len(), None));
    }

    /// Calls `task` in a sandbox.
    pub(super) fn inside<R: Send>(&self, id: &SandboxId, task: impl FnOnce() -> R + Send) -> R {
        let namespace = std::fs::File::open(self.host.namespace_path(id)).unwrap();
        crate::netns::inside(std::os::fd::AsFd::as_fd(&namespace), task).unwrap()
    }
}

pub(super) fn open(exec_root: &std::path::Path) -> LinuxHost {
    open_with(exec_root, FirewallBackend::Off)
}

pub(super) fn open_with(exec_root: &std::path::Path, firewall: FirewallBackend) -> LinuxHost {
    let config = LinuxHostConfig { exec_root: exec_root.to_owned(), firewall };
    LinuxHost::open(&config).unwrap()
}

pub(super) fn sandbox_id(number: u8) -> SandboxId {
    SandboxId::from_bytes([number; 32])
}

pub(super) fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

pub(super) fn bridge() -> LinkKey {
    (Ns::Host, name("br-test"))
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The bridge with 10.77.0.1/16 and fd77::1/64.
pub(super) fn bridge_link() -> Link {
    Link {
        kind: LinkKind::Bridge,
        mac: Some(MacAddr([2, 0x50, 1, 2, 3, 4])),
        mtu: Some(1400),
        master: None,
        hairpin: false,
        addresses: [net("10.77.0.1/16"), net("fd77::1/64")].into(),
        up: true,
        alias: Some("portolan:net".to_owned()),
        vlan: None,
        learns_link_local: false,
        altered: Default::default(),
    }
}

pub(super) fn add_bridge() -> Vec<Step> {
    let mut steps = vec![Step::AddBridge(bridge(), Box::new(bridge_link()))];
    steps.extend(bridge_link().addresses.into_iter().map(|address| Step::AddAddress(bridge(), address)));
    steps.push(Step::SetUp(bridge(), true));
    steps
}

/// One sandbox: its two ends and its routes, by number.
pub(super) struct Guest {
    pub(super) id: SandboxId,
    pub(super) host: LinkKey,
    pub(super) host_link: Link,
    pub(super) container: LinkKey,
    pub(super) container_link: Link,
    pub(super) routes: BTreeSet<(Ns, Route)>,
}

impl Guest {
    /// 10.77.1.`number` and fd77::1:`number`.
    pub(super) fn new(number: u8) -> Self {
        let id = sandbox_id(number);
        let ns = Ns::Sandbox(id.clone());
        let (host, container) = ((Ns::Host, name(&format!("veth{number:07x}"))), (ns.clone(), name("eth0")));
        let host_link = Link {
            kind: LinkKind::Veth { peer: container.clone() },
            mac: None,
            mtu: Some(1400),
            master: Some(bridge().1),
            hairpin: true,
            addresses: BTreeSet::new(),
            up: true,
            alias: Some(format!("portolan:{number}")),
            vlan: None,
            learns_link_local: false,
            altered: Default::default(),
        };
        let container_link = Link {
            kind: LinkKind::Veth { peer: host.clone() },
            mac: Some(MacAddr([2, 0x42, 10, 77, 1, number])),
            mtu: Some(1400),
            master: None,
            hairpin: false,
            addresses: [net(&format!("10.77.1.{number}/16")), net(&format!("fd77::1:{number}/64"))].into(),
            up: true,
            alias: None,
            vlan: None,
            learns_link_local: false,
            altered: Default::default(),
        };
        let route = |destination, gateway: &str| {
            let gateway = Some(gateway.parse().unwrap());
            (
                ns.clone(),
                Route {
                    destination: net(destination),
                    gateway,
                    dev: name("eth0"),
                    metric: 0,
                    kind: Default::default(),
                },
            )
        };
        let routes = [route("0.0.0.0/0", "10.77.0.1"), route("::/0", "fd77::1")].into();
        Self { id, host, host_link, container, container_link, routes }
    }

    /// What the core plans for a start, in its order.
    pub(super) fn add(&self) -> Vec<Step> {
        let ns = Ns::Sandbox(self.id.clone());
        let sysctl = |key: &str, value: &str| Step::SetSysctl(ns.clone(), key.to_owned(), value.to_owned());
        let mut steps = vec![
            Step::AddNamespace(self.id.clone()),
            sysctl("net/ipv4/ip_unprivileged_port_start", "0"),
            sysctl("net/ipv4/ping_group_range", "0 2147483647"),
            Step::AddVeth {
                host: self.host.clone(),
                host_link: Box::new(self.host_link.clone()),
                container: self.container.clone(),
                container_link: Box::new(self.container_link.clone()),
            },
            Step::SetHairpin(self.host.clone(), true),
            sysctl("net/ipv6/conf/eth0/disable_ipv6", "0"),
        ];
        let addresses = self.container_link.addresses.iter();
        steps.extend(addresses.map(|address| Step::AddAddress(self.container.clone(), *address)));
        steps.push(Step::SetUp(self.container.clone(), true));
        steps.extend(self.routes.iter().map(|(ns, route)| Step::AddRoute(ns.clone(), route.clone())));
        steps
    }
}
