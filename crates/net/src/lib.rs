//! Networks for containers, as a library: create networks, attach sandboxes, publish ports; the
//! reconciler keeps the host as desired.
//!
//! [`Networks`] is the handle. It takes requests ([`NetworkSpec`], [`SandboxSpec`], [`AttachSpec`])
//! and answers with what there is ([`NetworkInfo`], [`SandboxInfo`]). The embedder gives it a
//! [`Host`](portolan_netcore::host::Host), a [`Store`] and [`Names`].

mod apply;
mod create;
mod doctor;
mod error;
mod exposure;
mod failing;
mod foreign;
mod heal;
mod info;
mod leases;
mod names;
mod networks;
mod options;
mod owner;
mod parent;
mod publisher;
mod records;
mod spec;
mod store;
mod template;

pub use doctor::{Diagnosis, Verdict};
pub use error::{Error, ErrorKind};
pub use exposure::{Exposure, Reach};
pub use foreign::Conflict;
pub use heal::Healing;
pub use info::{
    EndpointInfo, HostEvent, NetworkAction, NetworkEndpoint, NetworkEvent, NetworkInfo, SandboxInfo,
    SubnetUsage,
};
pub use leases::{Leases, NoLeases};
pub use names::{Names, NoNames};
pub use networks::Networks;
pub use spec::{
    AttachSpec, DnsUpdate, IpamPoolSpec, NetConfig, NetworkSpec, PortChange, PortRequest, SandboxSpec,
};
pub use store::{MemoryStore, Record, RecordChange, Store, StoreError};
