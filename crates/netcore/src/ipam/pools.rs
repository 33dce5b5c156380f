//! Where subnets of networks come from when the user names none.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::space::{address, bits_of};

/// A range that is cut into subnets of one size. Docker: an entry of `default-address-pools`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    base: IpNet,
    prefix: u8,
}

/// The pool cannot be cut that way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid address pool {base} with size {prefix}: the size must be between /{} and /{}", base.prefix_len(), base.max_prefix_len())]
pub struct InvalidPool {
    /// The range.
    pub base: IpNet,
    /// The prefix length asked for.
    pub prefix: u8,
}

impl Pool {
    /// Subnets with prefix length `prefix` out of `base`.
    pub fn new(base: IpNet, prefix: u8) -> Result<Self, InvalidPool> {
        let fits = (base.prefix_len()..=base.max_prefix_len()).contains(&prefix);
        if fits { Ok(Self { base: base.trunc(), prefix }) } else { Err(InvalidPool { base, prefix }) }
    }

    /// The lowest subnet of `prefix` (the pool's own size if none) that nothing of `occupied` blocks.
    fn first_free(&self, occupied: &Occupied, avoid: Avoid, prefix: Option<u8>) -> Option<IpNet> {
        let prefix = prefix.unwrap_or(self.prefix);
        if prefix < self.base.prefix_len() || prefix > self.base.max_prefix_len() {
            return None;
        }
        let last = bits_of(self.base.broadcast());
        let mut candidate = bits_of(self.base.network());
        loop {
            let subnet = IpNet::new(address(self.base, candidate), prefix).ok()?;
            let Some(end) = occupied.blockers(&subnet, avoid).map(|net| bits_of(net.broadcast())).max()
            else {
                return Some(subnet);
            };
            // The next candidate begins after the blocker, or after this subnet if that is later.
            let after = end.max(bits_of(subnet.broadcast()));
            candidate = after.checked_add(1).filter(|next| *next <= last)?;
        }
    }
}

/// What a new subnet stays clear of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Occupied {
    /// Never overlapped with: subnets of other networks, and those whose neighbour this host is.
    pub taken: Vec<IpNet>,
    /// What the host sends to a gateway. A subnet that contains such a destination would lose it, and is never
    /// chosen. One within it is avoided as long as there is another: that a VPN or a site claims all of
    /// 10.0.0.0/8, or half of all addresses, says little about whether a subnet of it is in use, and must
    /// not leave the host without networks.
    pub routed: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Avoid {
    Everything,
    /// All but destinations that are more than the subnet.
    WhatIsInUse,
}

impl Occupied {
    fn blockers(&self, subnet: &IpNet, avoid: Avoid) -> impl Iterator<Item = &IpNet> {
        let taken = self.taken.iter().filter(|net| overlap(net, subnet));
        let routed = self.routed.iter().filter(move |net| match avoid {
            Avoid::Everything => overlap(net, subnet),
            Avoid::WhatIsInUse => subnet.contains(*net) && *net != subnet,
        });
        taken.chain(routed)
    }
}

/// Pools in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    pools: Vec<Pool>,
}

impl Pools {
    /// These pools. Families may be mixed.
    pub fn new(pools: Vec<Pool>) -> Self {
        Self { pools }
    }

    /// Docker's: 172.17.0.0/16 to 172.31.0.0/16, then sixteen /20 of 192.168.0.0/16. Where Docker has
    /// no more, 16,384 times /24 of 10.64.0.0/10. For IPv6 /64 subnets of the given unique local /48
    /// (RFC 4193), one per host.
    pub fn standard(ula: Ipv6Net) -> Self {
        let v4 = |a, b, length, prefix| Pool {
            base: Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, 0, 0), length).into(),
            prefix,
        };
        let mut pools =
            vec![v4(172, 17, 16, 16), v4(172, 18, 15, 16), v4(172, 20, 14, 16), v4(172, 24, 13, 16)];
        pools.push(v4(192, 168, 16, 20));
        pools.push(v4(10, 64, 10, 24));
        pools.push(Pool { base: ula.trunc().into(), prefix: 64 });
        Self { pools }
    }

    /// Adds a pool that is used once those before it are full.
    pub fn push(&mut self, pool: Pool) {
        self.pools.push(pool);
    }

    /// There is a pool of IPv6.
    pub fn has_ipv6(&self) -> bool {
        self.pools.iter().any(|pool| matches!(pool.base, IpNet::V6(_)))
    }

    /// The first IPv4 subnet that is clear of `occupied`, of the pools' sizes or of `prefix`.
    pub fn choose_ipv4(&self, occupied: &Occupied, prefix: Option<u8>) -> Option<Ipv4Net> {
        match self.choose(|base| matches!(base, IpNet::V4(_)), occupied, prefix) {
            Some(IpNet::V4(subnet)) => Some(subnet),
            _ => None,
        }
    }

    /// The same for IPv6.
    pub fn choose_ipv6(&self, occupied: &Occupied, prefix: Option<u8>) -> Option<Ipv6Net> {
        match self.choose(|base| matches!(base, IpNet::V6(_)), occupied, prefix) {
            Some(IpNet::V6(subnet)) => Some(subnet),
            _ => None,
        }
    }

    fn choose(
        &self,
        family: impl Fn(&IpNet) -> bool,
        occupied: &Occupied,
        prefix: Option<u8>,
    ) -> Option<IpNet> {
        let pools = || self.pools.iter().filter(|pool| family(&pool.base));
        let first = |avoid| pools().find_map(|pool| pool.first_free(occupied, avoid, prefix));
        first(Avoid::Everything).or_else(|| first(Avoid::WhatIsInUse))
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn taken(nets: &[IpNet]) -> Occupied {
        Occupied { taken: nets.to_vec(), routed: Vec::new() }
    }

    fn routed(nets: &[&str]) -> Occupied {
        Occupied { taken: Vec::new(), routed: nets.iter().map(|text| net(text)).collect() }
    }

    fn docker() -> Pools {
        Pools::standard("fd00:1:2::/48".parse().unwrap())
    }

    #[test]
    fn thirty_one_networks_as_in_docker_and_many_more() {
        let mut used = Vec::new();
        while let Some(subnet) = docker().choose_ipv4(&taken(&used), None).filter(|_| used.len() < 300) {
            used.push(IpNet::V4(subnet));
        }
        assert_eq!(used.len(), 300);
        assert_eq!(used[31], net("10.64.0.0/24"));
        assert_eq!(used[299], net("10.65.12.0/24"));
        assert_eq!(used[0], net("172.17.0.0/16"));
        assert_eq!(used[1], net("172.18.0.0/16"));
        assert_eq!(used[14], net("172.31.0.0/16"));
        assert_eq!(used[15], net("192.168.0.0/20"));
        assert_eq!(used[30], net("192.168.240.0/20"));
    }

    #[test]
    fn a_hole_is_filled_first_and_foreign_routes_are_avoided() {
        let used = [net("172.17.0.0/16"), net("172.19.0.0/16"), net("172.18.4.0/24")];
        assert_eq!(docker().choose_ipv4(&taken(&used), None), Some("172.20.0.0/16".parse().unwrap()));
        assert_eq!(docker().choose_ipv4(&taken(&used[..2]), None), Some("172.18.0.0/16".parse().unwrap()));
        // A VPN that claims all of 172.16.0.0/12 leaves 192.168.
        assert_eq!(
            docker().choose_ipv4(&taken(&[net("172.16.0.0/12")]), None),
            Some("192.168.0.0/20".parse().unwrap())
        );
        assert_eq!(docker().choose_ipv4(&taken(&[net("0.0.0.0/0")]), None), None);
    }

    #[test]
    fn what_is_led_elsewhere_is_avoided_while_there_is_something_else() {
        let first = |occupied: &Occupied| docker().choose_ipv4(occupied, None).map(|net| net.to_string());
        assert_eq!(first(&routed(&["172.16.0.0/12"])).as_deref(), Some("192.168.0.0/20"));
        // A VPN that claims everything, in the ways that they do.
        let vpn = ["0.0.0.0/1", "128.0.0.0/1"];
        assert_eq!(first(&routed(&vpn)).as_deref(), Some("172.17.0.0/16"));
        let sites = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "172.17.4.0/24", "172.18.0.0/16"];
        let sites = routed(&sites);
        assert_eq!(first(&sites).as_deref(), Some("172.18.0.0/16"), "not around a smaller one");
        let both = Occupied { taken: vec![net("172.16.0.0/13")], ..sites.clone() };
        assert_eq!(first(&both).as_deref(), Some("172.24.0.0/16"), "never what is taken");
        assert_eq!(first(&taken(&vpn.map(net))), None);
        let v6 = docker().choose_ipv6(&routed(&["fd00::/8"]), None);
        assert_eq!(v6, Some("fd00:1:2::/64".parse().unwrap()));
    }

    #[test]
    fn a_size_can_be_asked_for() {
        let used = [net("172.17.0.0/16")];
        assert_eq!(docker().choose_ipv4(&taken(&used), Some(24)), Some("172.18.0.0/24".parse().unwrap()));
        assert_eq!(
            docker().choose_ipv6(&taken(&[net("fd00:1:2::/64")]), None),
            Some("fd00:1:2:1::/64".parse().unwrap())
        );
    }

    #[test]
    fn further_pools_come_after() {
        let mut pools = Pools::new(vec![Pool::new(net("10.0.0.0/23"), 24).unwrap()]);
        pools.push(Pool::new(net("10.9.0.0/16"), 24).unwrap());
        let used = [net("10.0.0.0/24"), net("10.0.1.0/24")];
        assert_eq!(pools.choose_ipv4(&taken(&used), None), Some("10.9.0.0/24".parse().unwrap()));
        assert!(Pool::new(net("10.0.0.0/24"), 16).is_err());
    }
}
