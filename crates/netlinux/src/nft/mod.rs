//! nf_tables over netlink: our own synchronous codec and the backend made of it.
//!
//! `wire` writes and reads bytes, `batch` is a transaction under construction, `encode` and `expr`
//! turn netcore's syntax tree into messages, `socket` commits them. Nothing here decides anything.

mod backend;
mod batch;
mod consts;
mod encode;
mod expr;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

use portolan_netcore::firewall::ruleset::{Chain, Queue, QueueForm, Rule, Statement, Table, TableFamily};
use portolan_netcore::firewall::{DNS_TABLE, dns_table};

use self::batch::Batch;
use self::consts::{NFPROTO_IPV4, NFT_MSG_GETCHAIN, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE};
use self::socket::NftSocket;
use crate::firewall::FirewallError;

pub(crate) use self::backend::{NftFirewall, remove_tables};

/// Leads port 53 of 127.0.0.11 in the calling thread's network namespace to the resolver's sockets on
/// the same address at these ports, statelessly (no conntrack entries), and leaves the container's
/// own port 53 alone. Replaces an earlier redirect as a whole.
pub fn redirect_dns(udp: u16, tcp: u16) -> Result<(), FirewallError> {
    let socket = NftSocket::open()?;
    let there = backend::table(&socket, TableFamily::Ip, DNS_TABLE)?.is_some();
    let mut batch = Batch::new();
    let table = dns_table(udp, tcp);
    if there {
        encode::delete_table(&mut batch, table.family, table.name);
    }
    encode::add_table(&mut batch, &table, 0);
    socket.commit(batch)
}

/// Whether the calling thread's namespace has a redirect of [`redirect_dns`].
pub fn has_dns_redirect() -> Result<bool, FirewallError> {
    let socket = NftSocket::open()?;
    backend::table(&socket, TableFamily::Ip, DNS_TABLE).map(|table| table.is_some())
}

/// How this kernel can be told to queue packets, if it can.
pub(crate) fn queue_form(number: u16) -> Result<QueueForm, FirewallError> {
    let socket = NftSocket::open()?;
    let takes = |form| {
        let mut batch = Batch::new();
        encode::add_table(&mut batch, &trial_table(Queue { number, form }), 0);
        socket.rehearse(batch).map(|()| form)
    };
    takes(QueueForm::Native).or_else(|why| takes(QueueForm::Xtables).map_err(|_| why))
}

/// A chain that is called from nowhere.
fn trial_table(queue: Queue) -> Table {
    let rule = Rule { statements: vec![Statement::Opens, Statement::Queue(queue)], comment: "" };
    let chain = Chain { name: "trial", hook: None, rules: vec![rule] };
    Table { family: TableFamily::Inet, name: "portolan-trial", sets: Vec::new(), chains: vec![chain] }
}

/// Whether a chain is there, of whatever table of family ip: how iptables-nft's chains are seen
/// without running it.
pub(crate) fn has_ip_chain(table: &str, chain: &str) -> Result<bool, FirewallError> {
    let socket = NftSocket::open()?;
    let found = socket.get(NFT_MSG_GETCHAIN, NFPROTO_IPV4, "look for a chain", |w| {
        w.text(NFTA_CHAIN_TABLE, table);
        w.text(NFTA_CHAIN_NAME, chain);
    })?;
    Ok(found.is_some())
}
