//! The host's own resolvers.

use std::net::{IpAddr, SocketAddr};

/// libc asks at most this many (`MAXNS` in resolv.h), and Docker too.
const MAX_SERVERS: usize = 3;

/// The `nameserver` lines, resolv.conf(5); zone ids of link-local addresses are left out with their line.
pub(crate) fn servers(text: &str) -> Vec<SocketAddr> {
    let addresses = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse::<IpAddr>().ok()
    });
    addresses.take(MAX_SERVERS).map(|address| SocketAddr::new(address, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_manual_has_it() {
        let text = "# nameserver 9.9.9.9\nsearch corp\nnameserver 127.0.0.53\n nameserver ::1 # home\nnameserver fe80::1%eth0\nnameserver\nnameservers 1.1.1.1\n";
        let want: Vec<SocketAddr> = vec!["127.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(servers(text), want);
        assert_eq!(servers(&"nameserver 192.0.2.1\n".repeat(5)).len(), 3);
    }
}
