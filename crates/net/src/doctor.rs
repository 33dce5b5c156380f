//! What is wrong with the host's networking, why it matters, and what puts it right.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_netcore::host::Host;
use portolan_netcore::model::{Driver, Network, SandboxId};
use portolan_netcore::plan::{Desired, Link, LinkKey, Ns, compile};

use crate::failing::Trouble;
use crate::networks::Shared;
use crate::owner::Owner;
use crate::{Conflict, Error};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Fine,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Something does not work.
    Problem,
}

impl Verdict {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The check, in a word.
    pub check: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What there is.
    pub what: String,
    /// Why it matters; empty if all is well.
    pub why: String,
    /// Commands that put it right, each as it is to be typed.
    pub fix: Vec<String>,
}

impl Diagnosis {
    fn fine(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fine, what: what.into(), why: String::new(), fix: Vec::new() }
    }

    fn note(check: &'static str, what: impl Into<String>, why: &str, fix: Vec<String>) -> Self {
        Self { check, verdict: Verdict::Note, what: what.into(), why: why.to_owned(), fix }
    }

    fn problem(check: &'static str, what: impl Into<String>, why: &str, fix: Vec<String>) -> Self {
        Self { check, verdict: Verdict::Problem, what: what.into(), why: why.to_owned(), fix }
    }
}

/// What the owner knows of it.
pub(crate) struct Wanted {
    desired: Desired,
    /// Something is being made or taken down: what is there may not be what is wanted.
    busy: bool,
    dying: BTreeSet<SandboxId>,
    /// Names of networks and what of the host overlaps with them.
    overlaps: Vec<(String, IpNet)>,
}

impl Owner {
    pub(crate) fn wanted(&self) -> Wanted {
        let networks = self.desired().networks.values();
        let of = |network: &Arc<Network>| {
            let name = network.name.clone();
            self.overlaps(network).into_iter().map(move |route| (name.clone(), route))
        };
        let overlaps = networks.flat_map(of).collect();
        Wanted { desired: self.desired().clone(), busy: self.is_busy(), dying: self.dying(), overlaps }
    }
}

/// Every check, in a fixed order.
pub(crate) fn examine(
    shared: &Shared,
    wanted: &Wanted,
    names: std::io::Result<()>,
) -> Result<Vec<Diagnosis>, Error> {
    let host = shared.host.as_ref();
    let mut all = features(host);
    all.extend(forwarding(host, &wanted.desired));
    all.extend(conflicts(&shared.foreign.conflicts(), &shared.foreign.unjudged()));
    all.extend(overlaps(&wanted.overlaps));
    all.push(bridge_netfilter(host));
    all.push(return_paths(host)?);
    all.extend(sizes(host, &wanted.desired)?);
    all.push(connections(host));
    all.push(resolver(names));
    all.extend(repairs(&shared.healing.troubles()));
    all.extend(leftovers(host, wanted)?);
    Ok(all)
}

/// Somebody else has a link of that name.
const EEXIST: i32 = 17;

/// Routes and addresses of the host where networks of ours are.
fn overlaps(found: &[(String, IpNet)]) -> Vec<Diagnosis> {
    if found.is_empty() {
        return vec![Diagnosis::fine("overlaps", "no route or address of others is in a network of ours")];
    }
    let each = |(network, route): &(String, IpNet)| {
        if route.prefix_len() == route.max_prefix_len() {
            let address = route.addr();
            return Diagnosis::problem(
                "overlaps",
                format!(
                    "{address} is led away from network {network}: it is an address of this host, or has a route"
                ),
                "the container that has this address is not reached",
                vec![format!("ip route get {address}")],
            );
        }
        Diagnosis::problem(
            "overlaps",
            format!("a route of this host to {route} overlaps with network {network}"),
            "packets for containers go elsewhere, or those for elsewhere to containers",
            vec![format!("ip route show {route}")],
        )
    };
    found.iter().map(each).collect()
}

/// What self-healing cannot put right.
fn repairs(troubles: &[Trouble]) -> Vec<Diagnosis> {
    if troubles.is_empty() {
        return vec![Diagnosis::fine("repairs", "what others did to our links and rules is put right")];
    }
    let each = |trouble: &Trouble| {
        if trouble.port().is_some() {
            return Diagnosis::problem(
                "ports",
                format!("{} ({} times so far)", trouble.reason, trouble.times),
                "the port is published, and another program has it: whoever connects to it on this host may reach that program; it is held as soon as that lets go of it",
                Vec::new(),
            );
        }
        let fix = match trouble.link() {
            Some(name) if trouble.errno == Some(EEXIST) => vec![format!("ip link del {name}")],
            _ => Vec::new(),
        };
        Diagnosis::problem(
            "repairs",
            format!("{}: {} ({} times so far)", trouble.step, trouble.reason, trouble.times),
            "somebody touched what is ours, and it cannot be put right while this is so; it is tried again every half a minute",
            fix,
        )
    };
    troubles.iter().map(each).collect()
}

fn resolver(names: std::io::Result<()>) -> Diagnosis {
    match names {
        Ok(()) => Diagnosis::fine("resolver", "the resolver answers"),
        Err(error) => Diagnosis::problem(
            "resolver",
            format!("the resolver does not answer: {error}"),
            "names of containers and of the outside are not resolved in containers on user-defined networks",
            vec!["systemctl restart portolan".to_owned()],
        ),
    }
}

fn features(host: &dyn Host) -> Vec<Diagnosis> {
    let missing = host.features().into_iter().filter_map(|one| Some((one.name, one.missing?)));
    let (unasked, missing): (Vec<_>, Vec<_>) = missing.partition(|(name, _)| *name == "queue of packets");
    let unasked = unasked.into_iter().map(|(_, why)| {
        Diagnosis::note(
            "kernel",
            format!("there is no queue of packets for the engine: {why}"),
            "clients of ports that are carried over (to a container of the other family, or from ::1) are accepted \
             before the container is asked, and reset where nobody listens there. Kernels with \
             CONFIG_NETFILTER_NETLINK_QUEUE and CONFIG_NFT_QUEUE have it",
            Vec::new(),
        )
    });
    if missing.is_empty() {
        let fine = Diagnosis::fine("kernel", "it has nf_tables, bridges, veth pairs and connection tracking");
        return [fine].into_iter().chain(unasked).collect();
    }
    let each = |(name, why): (&'static str, String)| {
        let (module, config) = match name {
            "nf_tables" => ("nf_tables", "CONFIG_NF_TABLES"),
            "bridges" => ("bridge", "CONFIG_BRIDGE"),
            "veth pairs" => ("veth", "CONFIG_VETH"),
            _ => ("nf_conntrack", "CONFIG_NF_CONNTRACK"),
        };
        Diagnosis::problem(
            "kernel",
            format!("the kernel has no {name}: {why}"),
            &format!("networks cannot be made without it; a kernel built without {config} cannot run them"),
            vec![format!("modprobe {module}")],
        )
    };
    missing.into_iter().map(each).chain(unasked).collect()
}

fn forwarding(host: &dyn Host, desired: &Desired) -> Vec<Diagnosis> {
    let bridges = || desired.networks.values().filter(|net| matches!(net.driver, Driver::Bridge(_)));
    let mut keys = vec![("IPv4", "net/ipv4/ip_forward")];
    if bridges().any(|network| network.ipv6) {
        keys.push(("IPv6", "net/ipv6/conf/all/forwarding"));
    }
    let judge = |(family, key): (&str, &str)| {
        if host.setting(key).as_deref() == Some("0") {
            return Diagnosis::problem(
                "forwarding",
                format!("this host does not forward {family}"),
                "containers reach nothing beyond this host, and nobody beyond it reaches published ports",
                vec![format!("sysctl -w {}=1", key.replace('/', "."))],
            );
        }
        Diagnosis::fine("forwarding", format!("this host forwards {family}"))
    };
    keys.into_iter().map(judge).collect()
}

fn conflicts(conflicts: &[Conflict], unjudged: &[String]) -> Vec<Diagnosis> {
    if conflicts.is_empty() && unjudged.is_empty() {
        return vec![Diagnosis::fine("firewalls", "no other firewall is in the way")];
    }
    let judge = |conflict: &Conflict| {
        let what = format!("network {}: {}", conflict.name, conflict.finding);
        let fix = conflict.finding.fix.clone();
        if conflict.finding.is_severe() {
            let why = "an accept of ours does not overrule another table's drop, and what others have is not ours to change";
            return Diagnosis::problem("firewalls", what, why, fix);
        }
        let why = if conflict.finding.partly {
            "it may be meant: some rule there lets a part through"
        } else {
            "containers do not reach services of this host; nothing else depends on it"
        };
        Diagnosis::note("firewalls", what, why, fix)
    };
    let of_links = |chain: &String| {
        let why = "what it drops of our traffic is not known";
        Diagnosis::note("firewalls", format!("{chain} is not judged"), why, Vec::new())
    };
    conflicts.iter().map(judge).chain(unjudged.iter().map(of_links)).collect()
}

fn bridge_netfilter(host: &dyn Host) -> Diagnosis {
    let on: Vec<&str> = ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"]
        .into_iter()
        .filter(|key| host.setting(key).as_deref() == Some("1"))
        .collect();
    if on.is_empty() {
        return Diagnosis::fine("br_netfilter", "bridged frames do not pass the firewalls of IP");
    }
    let fix = on.iter().map(|key| format!("sysctl -w {}=0", key.replace('/', "."))).collect();
    Diagnosis::note(
        "br_netfilter",
        "frames between containers of one network pass every firewall of IP on this host",
        "Portolan does not need it; it costs time and lets others' rules drop what never leaves a bridge. Kubernetes needs it",
        fix,
    )
}

/// Strict reverse-path filtering drops what comes in by another link than answers would take.
fn return_paths(host: &dyn Host) -> Result<Diagnosis, Error> {
    let all: u8 =
        host.setting("net/ipv4/conf/all/rp_filter").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mode = |link: &str| {
        let key = format!("net/ipv4/conf/{link}/rp_filter");
        host.setting(&key).and_then(|value| value.parse::<u8>().ok()).unwrap_or(0).max(all)
    };
    let uplinks = host.uplinks()?;
    let strict: Vec<_> = uplinks.iter().filter(|link| mode(link.as_str()) == 1).collect();
    if uplinks.len() < 2 || strict.is_empty() {
        return Ok(Diagnosis::fine("rp_filter", "no packet is dropped for the link that it comes by"));
    }
    let names: Vec<&str> = strict.iter().map(|link| link.as_str()).collect();
    let fix = names.iter().map(|link| format!("sysctl -w net.ipv4.conf.{link}.rp_filter=2")).collect();
    Ok(Diagnosis::problem(
        "rp_filter",
        format!(
            "{} filters by the strict reverse path, and there are {} default routes",
            names.join(", "),
            uplinks.len()
        ),
        "requests to published ports that come by another link than the preferred default route's are dropped",
        fix,
    ))
}

fn sizes(host: &dyn Host, desired: &Desired) -> Result<Vec<Diagnosis>, Error> {
    let links = host.links()?;
    let egress = host.egress()?;
    let Some((uplink, mtu)) = egress.and_then(|link| links.get(&link).map(|mtu| (link, *mtu))) else {
        return Ok(vec![Diagnosis::fine("mtu", "there is no default route to compare with")]);
    };
    let size = |network: &Network| match &network.driver {
        Driver::Bridge(options) if !network.internal => Some(options.mtu.unwrap_or(1500)),
        _ => None,
    };
    let larger: Vec<Diagnosis> = desired
        .networks
        .values()
        .filter_map(|network| Some((network, size(network)?)))
        .filter(|(_, own)| *own > mtu)
        .map(|(network, own)| {
            let fix = if network.predefined {
                format!("portolan daemon --mtu {mtu}")
            } else {
                format!("portolan network create -o portolan.mtu=auto {}", network.name)
            };
            Diagnosis::problem(
                "mtu",
                format!("network {} sends packets of {own} bytes, {uplink} takes {mtu}", network.name),
                "downloads and TLS handshakes hang wherever the message that says so is filtered; make the network again with the uplink's MTU",
                vec![fix],
            )
        })
        .collect();
    if larger.is_empty() {
        return Ok(vec![Diagnosis::fine(
            "mtu",
            format!("no network sends larger packets than {uplink} takes"),
        )]);
    }
    Ok(larger)
}

/// The table of connections is nearly full from here, in per cent.
const NEARLY_FULL: u64 = 90;

fn connections(host: &dyn Host) -> Diagnosis {
    let number = |key: &str| host.setting(key).and_then(|value| value.parse::<u64>().ok());
    let count = number("net/netfilter/nf_conntrack_count");
    let Some((count, max)) = count.zip(number("net/netfilter/nf_conntrack_max")) else {
        return Diagnosis::fine("conntrack", "connections are not counted here");
    };
    if max > 0 && count * 100 >= max * NEARLY_FULL {
        return Diagnosis::problem(
            "conntrack",
            format!("{count} of {max} connections are in use"),
            "when the table is full the kernel drops new connections of everybody on this host",
            vec![format!("sysctl -w net.netfilter.nf_conntrack_max={}", max * 2)],
        );
    }
    Diagnosis::fine("conntrack", format!("{count} of {max} connections are in use"))
}

fn leftovers(host: &dyn Host, wanted: &Wanted) -> Result<Vec<Diagnosis>, Error> {
    if wanted.busy {
        return Ok(vec![Diagnosis::note(
            "leftovers",
            "not looked for",
            "containers are being started or removed",
            Vec::new(),
        )]);
    }
    let should = compile(&wanted.desired);
    let is = host.observe()?;
    let extra = |(key, _): &(&LinkKey, &Link)| key.0 == Ns::Host && !should.links.contains_key(key);
    let mut found: Vec<Diagnosis> = is
        .links
        .iter()
        .filter(extra)
        .map(|((_, name), _)| {
            Diagnosis::problem(
                "leftovers",
                format!("link {name} is Portolan's and belongs to nothing"),
                "it holds an address or a place in a bridge",
                vec![format!("ip link del {name}")],
            )
        })
        .collect();
    let known = |id: &&SandboxId| !wanted.desired.sandboxes.contains_key(*id) && !wanted.dying.contains(*id);
    found.extend(is.namespaces.iter().filter(known).map(|id| {
        Diagnosis::problem(
            "leftovers",
            format!("network namespace {} belongs to no container", id.short()),
            "it keeps its links and addresses alive; a start of the daemon takes it away",
            vec!["systemctl restart portolan".to_owned()],
        )
    }));
    if found.is_empty() {
        found.push(Diagnosis::fine("leftovers", "nothing of removed containers and networks is left"));
    }
    Ok(found)
}
