//! portolan-netlinux

pub mod firewall;
pub mod iptables;
pub mod nft;
