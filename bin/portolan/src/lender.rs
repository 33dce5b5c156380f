//! The adapter of the networks' seam to the DHCP client.

use portolan_dhcp::Dhcp;
use portolan_net::Leases;
use portolan_netcore::model::{DhcpLease, EndpointId, LeaseNews, LeaseRequest};

/// The DHCP client.
#[derive(Debug)]
pub(crate) struct Lender(Dhcp);

impl Lender {
    /// Its tasks run on this runtime.
    pub(crate) fn new(runtime: tokio::runtime::Handle) -> Self {
        Self(Dhcp::new(runtime))
    }
}

impl Leases for Lender {
    fn listen(&self, listener: Box<dyn Fn(LeaseNews) + Send + Sync>) {
        self.0.listen(listener);
    }

    fn acquire(&self, request: LeaseRequest) -> Result<DhcpLease, String> {
        self.0.acquire(request).map_err(|error| error.to_string())
    }

    fn resume(&self, request: LeaseRequest, lease: Option<DhcpLease>) {
        self.0.resume(request, lease);
    }

    fn release(&self, endpoint: &EndpointId) {
        self.0.release(endpoint);
    }
}
