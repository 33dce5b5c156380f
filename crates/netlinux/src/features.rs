//! Trying out what networks need of the kernel, in a namespace that goes with its thread.

use portolan_netcore::host::Feature;
use rustix::thread::UnshareFlags;

use crate::firewall::FirewallError;
use crate::netlink::{Batch, NetlinkError, Protocol, Socket, flags};
use crate::nft;
use crate::rt::{IFLA_INFO_KIND, IFLA_LINKINFO, RTM_NEWLINK, ifinfomsg};

/// `IPCTNL_MSG_CT_GET_STATS_CPU` of nfnetlink's subsystem of connection tracking.
const CONNTRACK_STATS: u16 = (1 << 8) | 4;

/// Each feature, and why it cannot be used if it cannot.
pub(crate) fn try_out() -> Vec<Feature> {
    let all = ["nf_tables", "bridges", "veth pairs", "connection tracking"];
    let feature = |name, result: Result<(), String>| Feature { name, missing: result.err() };
    let run = move || {
        // SAFETY: the thread was started for this and ends with it; it shares nothing that others rely on
        // but its network namespace, which is left here.
        if let Err(errno) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
            let why = format!("no network namespace can be made to try it in: {errno}");
            return all.map(|name| feature(name, Err(why.clone()))).to_vec();
        }
        let links = |error: NetlinkError| error.to_string();
        let tables = |error: FirewallError| error.to_string();
        vec![
            feature(all[0], nft::redirect_dns(1, 1).map_err(tables)),
            feature(all[1], link("bridge").map_err(links)),
            feature(all[2], link("veth").map_err(links)),
            feature(all[3], conntrack().map_err(links)),
        ]
    };
    let failed = |why: &str| all.map(|name| feature(name, Err(why.to_owned()))).to_vec();
    match std::thread::Builder::new().name("features".to_owned()).spawn(run) {
        Ok(thread) => thread.join().unwrap_or_else(|_| failed("trying it out failed")),
        Err(error) => failed(&error.to_string()),
    }
}

fn link(kind: &str) -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    let mut message = batch.message(RTM_NEWLINK, flags::CREATE | flags::EXCL, &ifinfomsg(0, 0, 0));
    message.nest(IFLA_LINKINFO, |info| {
        info.attr_text(IFLA_INFO_KIND, kind);
    });
    Socket::open(Protocol::Route)?.transact(&mut batch)
}

fn conntrack() -> Result<(), NetlinkError> {
    let mut batch = Batch::new();
    batch.message(CONNTRACK_STATS, flags::DUMP, &[0; 4]);
    Socket::open(Protocol::Netfilter)?.dump(&mut batch, || (), |(), _| ())
}
