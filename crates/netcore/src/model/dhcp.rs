//! An address that a DHCP server of the link lends (RFC 2131), and who asks for it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{EndpointId, IfName, MacAddr};

/// A lease, as the server's last acknowledgement has it. Times are seconds since the Unix epoch;
/// [`DhcpLease::NEVER`] does not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpLease {
    /// The address, with the prefix length of its subnet.
    pub address: Ipv4Net,
    /// The server's identifier (option 54): whom renewals and the release are sent to.
    pub server: Ipv4Addr,
    /// Where its packets came from on the link: its own hardware address, or its relay's.
    pub server_mac: MacAddr,
    /// Next hop of the default route (option 3, or the default route of option 121).
    pub gateway: Option<Ipv4Addr>,
    /// Other routes (option 121, RFC 3442).
    pub routes: Vec<DhcpRoute>,
    /// Resolvers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// Domains to look short names up in (option 119, else option 15), fit for resolv.conf.
    #[serde(default)]
    pub domains: Vec<String>,
    /// MTU in bytes (option 26).
    pub mtu: Option<u32>,
    /// When its server is asked for more time (T1).
    pub renew_at: u64,
    /// When any server is asked (T2).
    pub rebind_at: u64,
    /// When the address must not be used any more.
    pub expires_at: u64,
}

impl DhcpLease {
    /// A time that does not come: the lease has no end.
    pub const NEVER: u64 = u64::MAX;

    /// Both give the same to the container: only the times differ.
    pub fn same_but_for_time(&self, other: &Self) -> bool {
        let timeless = |lease: &Self| Self {
            renew_at: 0,
            rebind_at: 0,
            expires_at: 0,
            server: Ipv4Addr::UNSPECIFIED,
            server_mac: MacAddr([0; 6]),
            ..lease.clone()
        };
        timeless(self) == timeless(other)
    }
}

/// A route that comes with a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpRoute {
    /// Where to.
    pub destination: Ipv4Net,
    /// The next hop; none if the destination is on the link itself.
    pub gateway: Option<Ipv4Addr>,
}

/// An endpoint whose address comes from a DHCP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpClient {
    /// The host name that servers are told; none if empty.
    pub hostname: String,
    /// What is lent at present.
    pub lease: Option<DhcpLease>,
}

/// Who asks for an address, and how the server is to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The endpoint whose address it is going to be.
    pub endpoint: EndpointId,
    /// The namespace of the link, pinned.
    pub netns: PathBuf,
    /// The link, which is up.
    pub ifname: IfName,
    /// The client identifier (option 61), which stays the container's: type and value.
    pub client_id: Vec<u8>,
    /// Its host name (option 12); none if empty.
    pub hostname: String,
    /// The address that it had before and would like again.
    pub previous: Option<Ipv4Addr>,
}

/// What became of a lease behind its owner's back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseNews {
    /// Whose.
    pub endpoint: EndpointId,
    /// As it is now; none if it is lost: the address must not be used any more.
    pub lease: Option<DhcpLease>,
}
