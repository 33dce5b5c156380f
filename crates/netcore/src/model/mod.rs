//! Networks, endpoints and sandboxes as values. Holding one of these types means it is valid.

mod ask;
mod boolean;
mod dhcp;
mod ids;
mod link;
mod network;
mod port;
pub mod runs;
mod sandbox;

pub use ask::{Ask, ForSome, bindings_of};
pub use boolean::parse_bool;
pub use dhcp::{DhcpClient, DhcpLease, DhcpRoute, LeaseNews, LeaseRequest};
pub use ids::{ContainerId, EndpointId, InvalidId, NetworkId, SandboxId};
pub use link::{IfName, InvalidIfName, InvalidMac, MacAddr};
pub use network::{
    Adopted, BridgeOptions, Driver, GatewayMode, IPV6_MIN_MTU, IpamConfig, IpvlanFlag, IpvlanMode,
    IpvlanOptions, MacvlanMode, MacvlanOptions, MadeParent, Network, ParentOptions, RouteTarget, Routing,
    StaticRoute,
};
pub use port::{PortBinding, PortRange, Proto, UnknownProto};
pub use sandbox::{Allowed, Endpoint, Family, Sandbox, SandboxMode};
