//! Telling when somebody touches what is ours in the host's namespace, and looking at just that.
//!
//! Links, addresses, routes and settings come by rtnetlink's groups, changes of the rule set by
//! nfnetlink's `NFNLGRP_NFTABLES`: a transaction's messages, then `NFT_MSG_NEWGEN`, which names the
//! process that committed it (`nf_tables_fill_gen_info`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portolan_netcore::firewall::TABLE;
use portolan_netcore::host::{Disturbance, StepError, Watch};
use portolan_netcore::model::IfName;
use portolan_netcore::plan::{HostState, LinkKind, Ns};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::Failure;
use crate::host::{ALIAS_PREFIX, LinuxHost, is_ours, stacked, to_link};
use crate::iptables;
use crate::netlink::{NetlinkError, Protocol, Reply, Socket};
use crate::observe;
use crate::rt::{
    IFA_ADDRESS, IFA_LOCAL, IFADDRMSG_LEN, IFF_UP, IFINFOMSG_LEN, IFLA_IFALIAS, IFLA_IFNAME, IFLA_MASTER,
    PROTOCOL, RT_TABLE_LOCAL, RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE, RTM_DELRULE, RTM_NEWLINK, RTM_NEWROUTE,
    RTM_NEWRULE, RTMSG_LEN, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_NETCONF, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE, RTNLGRP_LINK,
    address_from,
};

const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
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
}

impl NamespaceWatch {
    pub(crate) fn open(own_port: Option<u32>) -> Result<Self, NetlinkError> {
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
        Ok(Self { route, nft: nft.ok(), own_port, touched: false })
    }

    fn wait(&self, limit: Duration) -> Result<(bool, bool), Errno> {
        let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        let mut sockets = vec![PollFd::new(&self.route, PollFlags::IN)];
        sockets.extend(self.nft.iter().map(|nft| PollFd::new(nft, PollFlags::IN)));
        match poll(&mut sockets, Some(&timeout)) {
            Ok(_) => {
                let ready =
                    |at: usize| sockets.get(at).is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty());
                Ok((ready(0), ready(1)))
            }
            Err(Errno::INTR) => Ok((false, false)),
            Err(errno) => Err(errno),
        }
    }

    fn read(&mut self, route: bool, nft: bool, found: &mut Vec<Disturbance>) -> Result<(), NetlinkError> {
        if route {
            let socket = &self.route;
            lossy(socket.receive(|reply| found.extend(of_route(socket, &reply))), found)?;
        }
        if let Some(socket) = self.nft.as_ref().filter(|_| nft) {
            let (touched, own) = (&mut self.touched, self.own_port);
            lossy(socket.receive(|reply| found.extend(of_nft(&reply, own, touched))), found)?;
        }
        Ok(())
    }
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
            let (route, nft) = self
                .wait(rest)
                .map_err(|errno| failed(NetlinkError::Io { operation: "poll", source: errno.into() }))?;
            if !(route || nft) || reads == AT_A_TIME {
                if !found.is_empty() || Instant::now() >= deadline {
                    found.dedup();
                    return Ok(found);
                }
                reads = 0;
                continue;
            }
            reads += 1;
            self.read(route, nft, &mut found).map_err(failed)?;
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

fn of_route(socket: &Socket, reply: &Reply<'_>) -> Option<Disturbance> {
    match reply.kind {
        RTM_NEWLINK | RTM_DELLINK => {
            let header = reply.payload.first_chunk::<IFINFOMSG_LEN>()?;
            // Bridges tell about their ports once more, in their own family.
            if header[0] != libc::AF_UNSPEC as u8 {
                return None;
            }
            let attrs = reply.attrs(IFINFOMSG_LEN);
            let alias = attrs.get(IFLA_IFALIAS).and_then(|alias| alias.text());
            let Some(alias) = alias.filter(|alias| alias.starts_with(ALIAS_PREFIX)) else {
                return Some(Disturbance::Surroundings);
            };
            let flags = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
            let master = attrs.get(IFLA_MASTER).and_then(|index| index.u32());
            Some(Disturbance::Link {
                name: IfName::new(attrs.get(IFLA_IFNAME)?.text()?).ok()?,
                alias: alias.to_owned(),
                up: reply.kind == RTM_NEWLINK && flags & IFF_UP != 0,
                master: master.and_then(|index| socket.name_of(index)),
            })
        }
        RTM_DELADDR => {
            let attrs = reply.attrs(IFADDRMSG_LEN);
            let address = attrs.get(IFA_LOCAL).or_else(|| attrs.get(IFA_ADDRESS))?;
            address_from(address.payload).map(Disturbance::AddressGone)
        }
        RTM_NEWROUTE | RTM_DELROUTE => {
            let header = reply.payload.first_chunk::<RTMSG_LEN>()?;
            match (header[4], header[5], reply.kind) {
                (_, PROTOCOL, RTM_DELROUTE) => Some(Disturbance::RouteGone),
                (_, PROTOCOL, _) => None,
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

fn of_nft(reply: &Reply<'_>, own_port: Option<u32>, touched: &mut bool) -> Option<Disturbance> {
    if reply.kind >> 8 != NFNL_SUBSYS_NFTABLES {
        return None;
    }
    let attrs = reply.attrs(NFGENMSG_LEN);
    if reply.kind & 0xff != NFT_MSG_NEWGEN {
        let table = attrs.get(NFTA_TABLE).and_then(|name| name.text());
        *touched |= table.is_some_and(|name| name == TABLE || XTABLES.contains(&name));
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
        let read = |socket: &mut Socket| {
            Ok((observe::links(socket)?, observe::addresses(socket)?, observe::routes(socket)?))
        };
        let (links, addresses, routes) = self.with_socket(read)?;
        let mut state = HostState::default();
        for link in links.values().filter(|link| is_ours(link)) {
            let key = (Ns::Host, link.name.clone());
            let kind = match link.kind.as_deref() {
                Some("bridge") => LinkKind::Bridge,
                Some("veth") => LinkKind::Veth { peer: key.clone() },
                _ => match stacked(link, &links) {
                    Some(kind) => kind,
                    None => continue,
                },
            };
            let master = link.master.and_then(|index| links.get(&index)).map(|master| master.name.clone());
            state.links.insert(key, to_link(link, kind, master, addresses.get(&link.index)));
        }
        for route in routes.iter().filter(|route| route.is_ours()) {
            if let Some(link) = route.device.and_then(|index| links.get(&index)) {
                state.routes.insert((Ns::Host, route.to_route(link.name.clone())));
            }
        }
        let keys: Vec<String> = self
            .memory()
            .sysctls
            .iter()
            .filter(|(ns, _)| *ns == Ns::Host)
            .map(|(_, key)| key.clone())
            .collect();
        let values: BTreeMap<_, _> = keys
            .into_iter()
            .filter_map(|key| Some(((Ns::Host, key.clone()), self.sysctls.read(&key).ok()?)))
            .collect();
        state.sysctls = values;
        Ok(state)
    }
}
