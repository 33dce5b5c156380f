//! Telling when somebody touches what is ours in the host's namespace, and looking at just that.
//!
//! Links, addresses, routes and settings come by rtnetlink's groups, changes of the rule set by
//! nfnetlink's `NFNLGRP_NFTABLES`: a transaction's messages, then `NFT_MSG_NEWGEN`, which names the
//! process that committed it (`nf_tables_fill_gen_info`).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_netcore::firewall::{TABLE, USER_TABLE};
use portolan_netcore::host::{Disturbance, StepError, Watch};
use portolan_netcore::plan::{ALIAS_PREFIX, HostState, LinkKind, Ns, Stray};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::Failure;
use crate::host::{Aliases, LinuxHost, is_link_local, is_ours};
use crate::iptables;
use crate::look::{look, stacked, to_link};
use crate::netlink::{NetlinkError, Protocol, Reply, Socket, flags};
use crate::observe;
use crate::rt::{
    AF_BRIDGE, IFA_ADDRESS, IFA_LOCAL, IFADDRMSG_LEN, PROTOCOL, RT_TABLE_LOCAL, RT_TABLE_MAIN, RTA_OIF,
    RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE, RTM_DELRULE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWRULE,
    RTMSG_LEN, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_NETCONF, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE, RTNLGRP_LINK,
    RTPROT_KERNEL, address_from,
};
use crate::settings::WatchedSettings;

const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWGEN: u16 = 15;
/// Every other message of nf_tables has the name of its table as attribute 1.
const NFTA_TABLE: u16 = 1;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;
const NFGENMSG_LEN: usize = 4;
const RTM_NEWNETCONF: u16 = 80;
/// `struct netconfmsg`, padded.
const NETCONFMSG_LEN: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
/// -1: all links.
const NETCONFA_IFINDEX_ALL: u32 = u32::MAX;

/// The tables that iptables-nft and ebtables-nft keep their rules in.
const XTABLES: [&str; 5] = ["filter", "nat", "raw", "mangle", "security"];

/// Room for what happens while nobody listens, in bytes.
const QUEUE: usize = 4 << 20;
/// Datagrams read at a time, so that a storm cannot keep us reading.
const AT_A_TIME: usize = 512;

/// A subscription of one network namespace.
#[derive(Debug)]
pub(crate) struct NamespaceWatch {
    route: Socket,
    /// None where the kernel has no nf_tables.
    nft: Option<Socket>,
    /// The netlink port of the firewall's own socket.
    own_port: Option<u32>,
    /// The transaction of nf_tables whose end has not come yet touched a table that matters.
    touched: bool,
    aliases: Aliases,
    settings: Arc<WatchedSettings>,
}

impl NamespaceWatch {
    pub(crate) fn open(
        own_port: Option<u32>,
        aliases: Aliases,
        settings: Arc<WatchedSettings>,
    ) -> Result<Self, NetlinkError> {
        // Sockets are bound on opening: a group must not be joined before.
        let mut route = Socket::open(Protocol::Route)?;
        route.reserve_receive(QUEUE)?;
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_ROUTE,
            RTNLGRP_IPV4_RULE,
            RTNLGRP_IPV6_RULE,
            RTNLGRP_IPV4_NETCONF,
            RTNLGRP_IPV6_NETCONF,
        ] {
            route.join(group)?;
        }
        let nft = Socket::open(Protocol::Netfilter).and_then(|mut socket| {
            socket.reserve_receive(QUEUE)?;
            socket.join(NFNLGRP_NFTABLES)?;
            Ok(socket)
        });
        Ok(Self { route, nft: nft.ok(), own_port, touched: false, aliases, settings })
    }

    fn wait(&self, limit: Duration) -> Result<Ready, Errno> {
        let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        let route = self.route.as_fd();
        // Those that are not there are asked for nothing.
        let nft = self.nft.as_ref().map_or(PollFd::from_borrowed_fd(route, PollFlags::empty()), |nft| {
            PollFd::new(nft, PollFlags::IN)
        });
        let settings = match self.settings.fd() {
            Some(fd) => PollFd::from_borrowed_fd(fd, PollFlags::IN),
            None => PollFd::from_borrowed_fd(route, PollFlags::empty()),
        };
        let mut sources = [PollFd::from_borrowed_fd(route, PollFlags::IN), nft, settings];
        match poll(&mut sources, Some(&timeout)) {
            Ok(_) => {
                let [route, nft, settings] = sources.map(|source| !source.revents().is_empty());
                Ok(Ready { route, nft, settings })
            }
            Err(Errno::INTR) => Ok(Ready::default()),
            Err(errno) => Err(errno),
        }
    }

    fn read(&mut self, ready: &Ready, found: &mut Vec<Disturbance>) -> Result<(), NetlinkError> {
        if ready.route {
            let (socket, aliases) = (&self.route, &self.aliases);
            lossy(socket.receive(|reply| found.extend(of_route(socket, aliases, &reply))), found)?;
        }
        if let Some(socket) = self.nft.as_ref().filter(|_| ready.nft) {
            let (touched, own) = (&mut self.touched, self.own_port);
            lossy(socket.receive(|reply| found.extend(of_nft(&reply, own, touched))), found)?;
        }
        if ready.settings && self.settings.heard() {
            found.push(Disturbance::Setting);
        }
        Ok(())
    }
}

/// Which sources have something to say.
#[derive(Clone, Copy, Debug, Default)]
struct Ready {
    route: bool,
    nft: bool,
    settings: bool,
}

impl Watch for NamespaceWatch {
    fn next(&mut self, limit: Duration) -> Result<Vec<Disturbance>, StepError> {
        let failed = |error: NetlinkError| Failure::from(error).at("watch the host");
        let deadline = Instant::now() + limit;
        let mut found = Vec::new();
        let mut reads = 0;
        loop {
            let rest = if found.is_empty() {
                deadline.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            let ready = self
                .wait(rest)
                .map_err(|errno| failed(NetlinkError::Io { operation: "poll", source: errno.into() }))?;
            if !(ready.route || ready.nft || ready.settings) || reads == AT_A_TIME {
                if !found.is_empty() || Instant::now() >= deadline {
                    found.dedup();
                    return Ok(found);
                }
                reads = 0;
                continue;
            }
            reads += 1;
            self.read(&ready, &mut found).map_err(failed)?;
        }
    }
}

/// Messages that did not fit the queue are lost: that is news as well.
fn lossy(result: Result<(), NetlinkError>, found: &mut Vec<Disturbance>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.errno() == Some(libc::ENOBUFS) => found.push(Disturbance::Lost),
        // Longer than we read, or cut off: something happened.
        Err(NetlinkError::Malformed(_)) => found.push(Disturbance::Lost),
        other => return other,
    }
    Ok(())
}

fn of_route(socket: &Socket, aliases: &Aliases, reply: &Reply<'_>) -> Option<Disturbance> {
    match reply.kind {
        RTM_NEWLINK | RTM_DELLINK => of_link(socket, &mut known(aliases), reply),
        RTM_NEWADDR | RTM_DELADDR => {
            let header = reply.payload.first_chunk::<IFADDRMSG_LEN>()?;
            let index = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
            let attrs = reply.attrs(IFADDRMSG_LEN);
            let address = attrs.get(IFA_LOCAL).or_else(|| attrs.get(IFA_ADDRESS))?;
            let address = address_from(address.payload)?;
            if known(aliases).contains_key(&index) {
                return (reply.kind == RTM_DELADDR).then_some(Disturbance::AddressGone(address));
            }
            // Every link has one of these, also of ours whose name is forgotten already.
            (!is_link_local(address)).then_some(match reply.kind {
                RTM_DELADDR => Disturbance::ForeignAddressGone(address),
                _ => Disturbance::Surroundings,
            })
        }
        RTM_NEWROUTE | RTM_DELROUTE => {
            let header = reply.payload.first_chunk::<RTMSG_LEN>()?;
            match (header[4], header[5], reply.kind) {
                (_, PROTOCOL, RTM_DELROUTE) => Some(Disturbance::RouteGone),
                (_, PROTOCOL, _) => None,
                (RT_TABLE_MAIN, RTPROT_KERNEL, RTM_DELROUTE) => {
                    let device = reply.attrs(RTMSG_LEN).get(RTA_OIF).and_then(|device| device.u32());
                    let alias = device.and_then(|device| known(aliases).get(&device).cloned());
                    Some(alias.map_or(Disturbance::Surroundings, Disturbance::SubnetGone))
                }
                // Of the route that was there before nothing is told.
                (RT_TABLE_MAIN, ..) if reply.flags & flags::REPLACE != 0 => {
                    let destination = observe::route(reply).map(|route| route.destination);
                    Some(destination.map_or(Disturbance::Surroundings, Disturbance::RouteReplaced))
                }
                // The kernel's own, of addresses.
                (RT_TABLE_LOCAL, ..) => None,
                _ => Some(Disturbance::Surroundings),
            }
        }
        RTM_NEWRULE | RTM_DELRULE => Some(Disturbance::Surroundings),
        RTM_NEWNETCONF => {
            // Settings of single links come with every new link; those of all of them are the host's.
            let index = reply.attrs(NETCONFMSG_LEN).get(NETCONFA_IFINDEX)?.u32()?;
            (index == NETCONFA_IFINDEX_ALL).then_some(Disturbance::Setting)
        }
        _ => None,
    }
}

/// Of a link that has an alias of ours, or has lost it.
fn of_link(socket: &Socket, aliases: &mut BTreeMap<u32, String>, reply: &Reply<'_>) -> Option<Disturbance> {
    let family = *reply.payload.first()?;
    let seen = observe::link(reply)?;
    let of_port = family == AF_BRIDGE;
    // Bridges tell about their ports in their own family: attributes of a port come by that alone. That a
    // port is gone comes by the other one as well.
    if of_port && (reply.kind == RTM_DELLINK || seen.master.is_none()) {
        return None;
    }
    if let Some(alias) = seen.alias.as_ref().filter(|alias| alias.starts_with(ALIAS_PREFIX)) {
        aliases.insert(seen.index, alias.clone());
    }
    let Some(alias) = aliases.get(&seen.index).cloned() else {
        return (!of_port).then_some(Disturbance::Surroundings);
    };
    if reply.kind == RTM_DELLINK {
        aliases.remove(&seen.index);
        return Some(Disturbance::Link { name: seen.name, alias, found: None });
    }
    let kind = match seen.kind.as_deref() {
        Some("bridge") => LinkKind::Bridge,
        Some("veth") => LinkKind::Veth { peer: (Ns::Host, seen.name.clone()) },
        // Only our pairs are ports.
        _ if of_port => LinkKind::Veth { peer: (Ns::Host, seen.name.clone()) },
        _ => LinkKind::Dummy,
    };
    let mut found = to_link(&seen, kind, seen.master.and_then(|index| socket.name_of(index)), None);
    if of_port {
        // It is not told.
        found.alias = Some(alias.clone());
    }
    Some(Disturbance::Link { name: seen.name, alias, found: Some(Box::new(found)) })
}

fn of_nft(reply: &Reply<'_>, own_port: Option<u32>, touched: &mut bool) -> Option<Disturbance> {
    if reply.kind >> 8 != NFNL_SUBSYS_NFTABLES {
        return None;
    }
    let attrs = reply.attrs(NFGENMSG_LEN);
    if reply.kind & 0xff != NFT_MSG_NEWGEN {
        let table = attrs.get(NFTA_TABLE).and_then(|name| name.text());
        // What is in the user's table is the user's affair; that it is there is ours.
        let users = || reply.kind & 0xff == NFT_MSG_DELTABLE && table == Some(USER_TABLE);
        *touched |= table.is_some_and(|name| name == TABLE || XTABLES.contains(&name)) || users();
        return None;
    }
    let ours = std::mem::take(touched);
    let name = attrs.get(NFTA_GEN_PROC_NAME).and_then(|name| name.text()).unwrap_or("?");
    let pid = attrs.get(NFTA_GEN_PROC_PID).and_then(|pid| pid.array()).map_or(0, u32::from_be_bytes);
    if own_port == Some(reply.port) || iptables::started(pid) {
        return None;
    }
    Some(Disturbance::Ruleset { by: format!("{name} (pid {pid})"), ours })
}

impl LinuxHost {
    /// What is ours in the host's namespace, without a look into sandboxes.
    pub(crate) fn observe_namespace(&self) -> Result<HostState, Failure> {
        let look = self.with_socket(look)?;
        self.note_aliases(&look.links);
        let mut state = HostState {
            held_ports: self.ports.list(),
            proxied_ports: self.proxies.list(),
            ..HostState::default()
        };
        for link in look.links.values() {
            let key = (Ns::Host, link.name.clone());
            let kind = match link.kind.as_deref() {
                Some("bridge") => LinkKind::Bridge,
                Some("veth") => LinkKind::Veth { peer: key.clone() },
                _ => match stacked(link, &look.links) {
                    Some(kind) => kind,
                    None => continue,
                },
            };
            if is_ours(link) {
                state.links.insert(key, look.host_link(link, kind));
            } else if let Some(alias) = known(&self.aliases).get(&link.index) {
                let stray = Stray { once: Some(alias.clone()), ..look.stray(link, kind) };
                state.strays.insert(key.1, stray);
            } else if kind == LinkKind::Bridge {
                // A network may have adopted it.
                state.strays.insert(key.1, look.stray(link, kind));
            }
        }
        state.routes.extend(look.our_routes());
        state.sysctls = self.observe_settings();
        Ok(state)
    }

    /// The host's sysctls that we have set. Those of links that are gone are forgotten.
    fn observe_settings(&self) -> BTreeMap<(Ns, String), String> {
        let mut values = BTreeMap::new();
        self.memory().sysctls.retain(|(ns, key)| {
            if *ns != Ns::Host {
                return true;
            }
            let value = self.sysctls.read(key);
            let gone = value.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            if gone {
                self.settings.forget(key);
            }
            values.extend(value.ok().map(|value| ((Ns::Host, key.clone()), value)));
            !gone
        });
        values
    }
}

pub(crate) fn known(aliases: &Aliases) -> MutexGuard<'_, BTreeMap<u32, String>> {
    aliases.lock().unwrap_or_else(PoisonError::into_inner)
}
