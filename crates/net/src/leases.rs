//! The seam to the DHCP client.

use std::fmt;

use portolan_netcore::model::{DhcpLease, EndpointId, LeaseNews, LeaseRequest};

/// What the networks need from a DHCP client. Calls block, but for [`Leases::resume`], and come from
/// threads that may.
pub trait Leases: Send + Sync + fmt::Debug {
    /// Whom to tell of leases that change or are lost. Called once, before anything else.
    fn listen(&self, listener: Box<dyn Fn(LeaseNews) + Send + Sync>);

    /// Gets an address for a link that is up, and keeps it until [`Leases::release`]. Why there is none,
    /// in words.
    fn acquire(&self, request: LeaseRequest) -> Result<DhcpLease, String>;

    /// Goes on with a lease of an earlier process, or asks for one in the background if there is none.
    fn resume(&self, request: LeaseRequest, lease: Option<DhcpLease>);

    /// Gives an address back while its link is still there. An endpoint without one is fine.
    fn release(&self, endpoint: &EndpointId);
}

/// No DHCP client: networks that need one cannot be used. For tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLeases;

impl Leases for NoLeases {
    fn listen(&self, _listener: Box<dyn Fn(LeaseNews) + Send + Sync>) {}

    fn acquire(&self, _request: LeaseRequest) -> Result<DhcpLease, String> {
        Err("there is no DHCP client".to_owned())
    }

    fn resume(&self, _request: LeaseRequest, _lease: Option<DhcpLease>) {}

    fn release(&self, _endpoint: &EndpointId) {}
}
