//! Finding what is published on a port of the host, in lists that are in the order of the container's.

use portolan_netcore::model::{PortBinding, PortRange};
use portolan_netcore::shared::Piece;

use crate::model::{ContainerPort, HostPort};

/// Something on ports of the host.
pub(crate) trait OnHost {
    /// From the lowest to the highest; none if it was asked for none.
    fn host_ports(&self) -> Option<PortRange>;
}

impl OnHost for (PortBinding, ()) {
    fn host_ports(&self) -> Option<PortRange> {
        Some(PortRange::one(self.0.host_port))
    }
}

impl OnHost for (ContainerPort, Vec<HostPort>) {
    fn host_ports(&self) -> Option<PortRange> {
        span(self.1.iter().filter_map(|host| host.ports))
    }
}

/// The entries of a piece that may be on these ports of the host. Where the host's ports go up with the
/// container's, as they mostly do, no others are looked at.
pub(crate) fn near<K, V>(piece: &Piece<K, V>, ports: PortRange, tell: &mut impl FnMut(&K, &V))
where
    (K, V): OnHost,
{
    if host_ports(piece).is_none_or(|span| span.last < ports.first || ports.last < span.first) {
        return;
    }
    piece.entries().into_iter().flatten().for_each(|(key, value)| tell(key, value));
    piece.pieces().for_each(|piece| near(piece, ports, tell));
}

/// The ports of the host that the entries of a piece are on, from the lowest to the highest.
fn host_ports<K, V>(piece: &Piece<K, V>) -> Option<PortRange>
where
    (K, V): OnHost,
{
    *piece.noted(|piece| match piece.entries() {
        Some(entries) => span(entries.iter().filter_map(OnHost::host_ports)),
        None => span(piece.pieces().filter_map(host_ports)),
    })
}

/// From the lowest of them to the highest.
fn span(ranges: impl Iterator<Item = PortRange>) -> Option<PortRange> {
    ranges
        .reduce(|one, other| PortRange { first: one.first.min(other.first), last: one.last.max(other.last) })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use portolan_netcore::model::Proto;
    use portolan_netcore::shared::SharedSet;

    use super::*;

    /// Those of ten thousand that are looked at for some ports.
    fn looked_at(ports: PortRange, host_port: fn(u16) -> u16) -> Vec<u16> {
        let binding = |port| PortBinding {
            proto: Proto::Tcp,
            container_port: port,
            host_ip: Ipv4Addr::UNSPECIFIED.into(),
            host_port: host_port(port),
        };
        let all: SharedSet<PortBinding> = (10_000..20_000).map(binding).collect();
        let mut told = Vec::new();
        near(all.root().unwrap(), ports, &mut |binding, ()| told.push(binding.host_port));
        told
    }

    #[test]
    fn one_of_ten_thousand_is_found_without_looking_at_them() {
        let up = |port| port + 30_000;
        let told = looked_at(PortRange::one(44_444), up);
        assert!(told.contains(&44_444) && told.len() < 100, "{}", told.len());
        assert_eq!(looked_at(PortRange { first: 1, last: u16::MAX }, up).len(), 10_000);
        assert!(looked_at(PortRange::one(39_999), up).is_empty());
        // In whatever order they are, none is missed.
        let down = |port| u16::MAX - port;
        assert!(looked_at(PortRange::one(50_000), down).contains(&50_000));
    }
}
