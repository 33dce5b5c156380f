//! The Linux host: netlink codec, links, addresses, routes, namespaces, sysctls, held ports and
//! firewall backends, and `LinuxHost`, which carries out the core's steps with them.

pub mod netlink;
