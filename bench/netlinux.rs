//! What a sandbox costs, part by part, and the firewall's transaction for a port more beside many:
//! `cargo run --release -p portolan-netlinux --example netlinux [rounds] [background]`.
//!
//! It works in a network and mount namespace of its own (root needed) and prints medians and the 95th
//! percentile in microseconds; `background` sandboxes exist meanwhile.

#![allow(clippy::print_stdout, reason = "it is a program")]

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use portolan_netcore::firewall::{
    BridgePolicy, CarriedPort, FirewallPolicy, PolicyItem, PublishedPort, Transaction,
};
use portolan_netcore::host::Host;
use portolan_netcore::model::{IfName, MacAddr, PortBinding, Proto, SandboxId};
use portolan_netcore::plan::{Link, LinkKey, LinkKind, Ns, Route, Step};
use portolan_netlinux::firewall::Firewall;
use portolan_netlinux::{FirewallBackend, LinuxHost, LinuxHostConfig};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

type Part = (&'static str, Vec<Step>);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u16>());
    let rounds = arguments.next().transpose()?.unwrap_or(200);
    let background = arguments.next().transpose()?.unwrap_or(0);

    // SAFETY: no other thread exists yet, and what is unshared belongs to the whole program.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::FS) }?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let exec_root = std::env::temp_dir().join(format!("portolan-bench-{}", std::process::id()));
    let host = LinuxHost::open(&LinuxHostConfig {
        exec_root: exec_root.clone(),
        firewall: FirewallBackend::Nftables,
    })?;
    let bridge = (Ns::Host, IfName::new("br-bench")?);
    execute(&host, &[Step::AddBridge(bridge.clone(), Box::new(bridge_link()?)), Step::SetUp(bridge, true)])?;
    for number in 0..background {
        execute(&host, &parts(1000 + number)?.concat_steps())?;
    }

    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    let mut record = |what, time| match times.iter_mut().find(|(name, _)| *name == what) {
        Some((_, list)) => list.push(time),
        None => times.push((what, vec![time])),
    };
    // One in two of the numbers: in a row they are a range.
    for (what, beside, apart, carried) in [
        ("a port more beside one", 1, 2, false),
        ("a port more beside ten thousand", 10_000, 2, false),
        ("a port more of a range of ten thousand", 10_000, 1, false),
        ("a carried port more beside one", 1, 2, true),
        ("a carried port more beside ten thousand", 10_000, 2, true),
        ("a carried port more of a range of as many", 10_000, 1, true),
    ] {
        one_more(rounds, beside, apart, carried, |time| record(what, time))?;
    }
    for number in 0..rounds {
        for (what, steps) in parts(number)? {
            let start = Instant::now();
            execute(&host, &steps)?;
            record(what, start.elapsed());
        }
        settle();
        let all = parts(20_000 + number)?.concat_steps();
        let start = Instant::now();
        execute(&host, &all)?;
        record("all of it in one plan", start.elapsed());

        let start = Instant::now();
        execute(&host, &[Step::RemoveNamespace(id(number))])?;
        record("remove namespace", start.elapsed());
        host.await_gone(&[host_end(number)?], Duration::from_secs(5))?;
        record("remove namespace until the host end is gone", start.elapsed());
        let start = Instant::now();
        execute(&host, &[Step::RemoveLink((Ns::Host, host_end(20_000 + number)?))])?;
        record("remove the host end by itself", start.elapsed());
        execute(&host, &[Step::RemoveNamespace(id(20_000 + number))])?;
        settle();
    }
    for (what, mut list) in times {
        list.sort();
        let at = |share: usize| list[(list.len() - 1) * share / 100].as_micros();
        println!("{what:45} {:>8} {:>8}", at(50), at(95));
    }
    for number in 0..background {
        execute(&host, &[Step::RemoveNamespace(id(1000 + number))])?;
    }
    drop(host);
    rustix::mount::unmount(exec_root.join("netns"), rustix::mount::UnmountFlags::DETACH)?;
    std::fs::remove_dir_all(exec_root)?;
    Ok(())
}

/// The transaction that publishes a port beside so many, whose numbers are so far apart.
fn one_more(
    rounds: u16,
    beside: u16,
    apart: u16,
    carried: bool,
    mut record: impl FnMut(Duration),
) -> Result<(), Box<dyn Error>> {
    let bridge = BridgePolicy::new(IfName::new("br-bench")?, vec!["10.77.0.0/16".parse()?]);
    let port = |number: u16| {
        let (proto, host_port) = (Proto::Tcp, 20_000 + apart * number);
        let binding = |host_ip| PortBinding { proto, container_port: host_port, host_ip, host_port };
        let (bridge, from) = (bridge.bridge.clone(), Vec::new());
        match carried {
            true => PolicyItem::Carried(CarriedPort {
                binding: binding(Ipv6Addr::UNSPECIFIED.into()),
                bridge,
                from,
            }),
            false => PolicyItem::Port(PublishedPort {
                binding: binding(Ipv4Addr::UNSPECIFIED.into()),
                bridge,
                target: [10, 77, 0, 2].into(),
                from,
            }),
        }
    };
    let firewall = Firewall::open(FirewallBackend::Nftables)?;
    firewall.apply(&Transaction::Replace(FirewallPolicy::default()))?;
    let mut add = vec![PolicyItem::Bridge(bridge.clone())];
    add.extend((0..beside).map(port));
    firewall.apply(&Transaction::Change { remove: Vec::new(), add })?;
    settle();
    for _ in 0..rounds {
        let change = Transaction::Change { remove: Vec::new(), add: vec![port(beside)] };
        let start = Instant::now();
        firewall.apply(&change)?;
        record(start.elapsed());
        firewall.apply(&Transaction::Change { remove: vec![port(beside)], add: Vec::new() })?;
    }
    firewall.apply(&Transaction::Clear)?;
    Ok(())
}

/// Lets the kernel finish what it does behind: its clean-up keeps new namespaces waiting.
fn settle() {
    std::thread::sleep(Duration::from_millis(60));
}

trait ConcatSteps {
    fn concat_steps(self) -> Vec<Step>;
}

impl ConcatSteps for Vec<Part> {
    fn concat_steps(self) -> Vec<Step> {
        self.into_iter()
            .flat_map(|(_, steps)| steps)
            .filter(|step| !matches!(step, Step::HoldPort(_) | Step::ReleasePort(_)))
            .collect()
    }
}

fn execute(host: &LinuxHost, steps: &[Step]) -> Result<(), Box<dyn Error>> {
    match host.execute(steps).error {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn id(number: u16) -> SandboxId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    SandboxId::from_bytes(bytes)
}

fn host_end(number: u16) -> Result<IfName, Box<dyn Error>> {
    Ok(IfName::new(&format!("veth{number:07x}"))?)
}

fn bridge_link() -> Result<Link, Box<dyn Error>> {
    Ok(Link {
        kind: LinkKind::Bridge,
        mac: Some(MacAddr([2, 0x50, 0, 0, 0, 1])),
        mtu: None,
        master: None,
        hairpin: false,
        addresses: BTreeSet::new(),
        up: true,
        alias: Some("portolan:bench".to_owned()),
        vlan: None,
        learns_link_local: false,
        altered: Default::default(),
    })
}

/// What the core plans to start a container with one endpoint and one port.
fn parts(number: u16) -> Result<Vec<Part>, Box<dyn Error>> {
    let id = id(number);
    let ns = Ns::Sandbox(id.clone());
    let eth0: LinkKey = (ns.clone(), IfName::new("eth0")?);
    let host: LinkKey = (Ns::Host, host_end(number)?);
    let [high, low] = number.to_be_bytes();
    let host_link = Box::new(Link {
        kind: LinkKind::Veth { peer: eth0.clone() },
        mac: None,
        master: Some(IfName::new("br-bench")?),
        alias: Some(format!("portolan:{number}")),
        vlan: None,
        ..bridge_link()?
    });
    let container_link = Box::new(Link {
        kind: LinkKind::Veth { peer: host.clone() },
        mac: Some(MacAddr([2, 0x42, 10, 77, high, low])),
        alias: None,
        vlan: None,
        ..bridge_link()?
    });
    let sysctl = |key: &str, value: &str| Step::SetSysctl(ns.clone(), key.to_owned(), value.to_owned());
    let port = PortBinding { proto: Proto::Tcp, container_port: 0, host_ip: [0; 4].into(), host_port: 8080 };
    let default = Route {
        kind: Default::default(),
        destination: "0.0.0.0/0".parse()?,
        gateway: Some("10.77.255.254".parse()?),
        dev: eth0.1.clone(),
        metric: 0,
    };
    Ok(vec![
        ("add namespace", vec![Step::AddNamespace(id.clone())]),
        (
            "3 sysctls",
            vec![
                sysctl("net/ipv4/ip_unprivileged_port_start", "0"),
                sysctl("net/ipv4/ping_group_range", "0 2147483647"),
                sysctl("net/ipv6/conf/default/accept_ra", "0"),
            ],
        ),
        ("add veth", vec![Step::AddVeth { host, host_link, container: eth0.clone(), container_link }]),
        ("sysctl of eth0", vec![sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")]),
        (
            "address, up, route",
            vec![
                Step::AddAddress(eth0.clone(), format!("10.77.{high}.{low}/16").parse()?),
                Step::SetUp(eth0, true),
                Step::AddRoute(ns, default),
            ],
        ),
        ("redirect dns", vec![Step::RedirectDns { sandbox: id, udp: 40_000, tcp: 40_001 }]),
        ("hold port", vec![Step::HoldPort(port.clone())]),
        ("release port", vec![Step::ReleasePort(port)]),
    ])
}
