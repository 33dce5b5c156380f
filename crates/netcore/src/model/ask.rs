//! Which published port came of what was asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{PortBinding, PortRange};

/// Where one port of a container was asked to be published.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The host address; the default ones if none.
    pub host_ip: Option<IpAddr>,
    /// The host ports to choose from; ephemeral if none.
    pub host_ports: Option<PortRange>,
    /// Who may use it; everybody if there is none.
    pub from: &'a [IpNet],
}

impl Ask<'_> {
    /// Exact ports are taken first, then those of ranges; what names its address leaves the others to what
    /// names none.
    fn rank(&self) -> (u8, bool) {
        let choice = match self.host_ports {
            Some(range) if range.first == range.last => 0,
            Some(_) => 1,
            None => 2,
        };
        (choice, self.host_ip.is_none())
    }
}

/// A binding and who may use it.
pub type ForSome<'b> = (&'b PortBinding, &'b [IpNet]);

/// For each of the asks for one port of a container, the bindings that it has: on one host port, and on one
/// address if it named one. What has no host port comes of none of them.
pub fn bindings_of<'b>(asks: &[Ask<'_>], bindings: &[ForSome<'b>]) -> Vec<Vec<&'b PortBinding>> {
    let mut free: BTreeMap<u16, Vec<ForSome<'b>>> = BTreeMap::new();
    for one in bindings.iter().filter(|(binding, _)| binding.host_port != 0) {
        free.entry(one.0.host_port).or_default().push(*one);
    }
    let mut order: Vec<usize> = (0..asks.len()).collect();
    order.sort_by_key(|at| asks[*at].rank());
    let mut owned = vec![Vec::new(); asks.len()];
    for at in order {
        let ask = &asks[at];
        let range = ask.host_ports.map_or(1..=u16::MAX, |range| range.first..=range.last);
        let suits = |binding: &PortBinding| ask.host_ip.is_none_or(|address| address == binding.host_ip);
        let with = |same_sources: bool| {
            let fits = |(binding, from): &ForSome<'_>| suits(binding) && (!same_sources || *from == ask.from);
            free.range(range.clone()).find(|(_, there)| there.iter().any(fits)).map(|(port, _)| *port)
        };
        let Some(port) = with(true).or_else(|| with(false)) else { continue };
        let there = free.remove(&port).unwrap_or_default();
        let (taken, left): (Vec<_>, Vec<_>) = there.into_iter().partition(|(binding, _)| suits(binding));
        owned[at] = taken.into_iter().map(|(binding, _)| binding).collect();
        if !left.is_empty() {
            free.insert(port, left);
        }
    }
    owned
}

#[cfg(test)]
mod tests {
    use super::super::Proto;
    use super::*;

    /// `address:port`, `address:first-last`, `port`, or nothing for an ephemeral one.
    fn ask(text: &str) -> Ask<'static> {
        let (ip, ports) = text.rsplit_once('@').map_or((None, text), |(ip, ports)| (Some(ip), ports));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| text.parse().expect("a port");
        Ask {
            host_ip: ip.map(|ip| ip.parse().expect("an address")),
            host_ports: (!ports.is_empty()).then(|| PortRange { first: number(first), last: number(last) }),
            from: &[],
        }
    }

    fn owners(asks: &[&str], live: &[&str]) -> Vec<Vec<String>> {
        let binding = |text: &&str| {
            let (ip, port) = text.split_once('@').expect("address@port");
            PortBinding {
                proto: Proto::Tcp,
                container_port: 80,
                host_ip: ip.parse().expect("an address"),
                host_port: port.parse().expect("a port"),
            }
        };
        let live: Vec<PortBinding> = live.iter().map(binding).collect();
        let live: Vec<ForSome<'_>> = live.iter().map(|binding| (binding, &[][..])).collect();
        let asks: Vec<Ask<'_>> = asks.iter().map(|text| ask(text)).collect();
        let text = |binding: &PortBinding| format!("{}@{}", binding.host_ip, binding.host_port);
        bindings_of(&asks, &live).into_iter().map(|own| own.into_iter().map(text).collect()).collect()
    }

    #[test]
    fn each_ask_has_what_came_of_it() {
        for (asks, live, owned) in [
            // An ephemeral port beside an exact one, in either order.
            (
                &["", "8200"][..],
                &["0.0.0.0@32768", "0.0.0.0@8200"][..],
                &[&["0.0.0.0@32768"][..], &["0.0.0.0@8200"]][..],
            ),
            (
                &["8203-8209", "8205"],
                &["0.0.0.0@8203", "0.0.0.0@8205"],
                &[&["0.0.0.0@8203"], &["0.0.0.0@8205"]],
            ),
            (
                &["8200", "10.0.0.1@8200"],
                &["127.0.0.1@8200", "10.0.0.1@8200"],
                &[&["127.0.0.1@8200"], &["10.0.0.1@8200"]],
            ),
            (&["8200"], &["0.0.0.0@8200", "::@8200"], &[&["0.0.0.0@8200", "::@8200"]]),
            (
                &["", ""],
                &["0.0.0.0@1", "::@1", "0.0.0.0@2", "::@2"],
                &[&["0.0.0.0@1", "::@1"], &["0.0.0.0@2", "::@2"]],
            ),
            // What differs in the address only has the same ephemeral port.
            (&["::@", "0.0.0.0@"], &["0.0.0.0@1", "::@1"], &[&["::@1"], &["0.0.0.0@1"]]),
            (&["80", "90"], &["0.0.0.0@0", "0.0.0.0@90"], &[&[], &["0.0.0.0@90"]]),
        ] {
            assert_eq!(owners(asks, live), owned, "{asks:?}");
        }
    }

    #[test]
    fn what_is_for_others_came_of_another_ask() {
        let binding = |host_port| PortBinding {
            proto: Proto::Tcp,
            container_port: 80,
            host_ip: IpAddr::from([0, 0, 0, 0]),
            host_port,
        };
        let (one, other) = (binding(1), binding(2));
        let [some]: [IpNet; 1] = ["10.0.0.0/8".parse().expect("a network")];
        let asks = [Ask { from: &[some], ..ask("") }, ask("")];
        assert_eq!(bindings_of(&asks, &[(&one, &[]), (&other, &[some])]), [[&other], [&one]]);
    }
}
