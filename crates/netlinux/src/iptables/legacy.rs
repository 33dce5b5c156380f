//! What iptables-legacy has, of whose changes the kernel tells nobody: a digest that can be compared every
//! second, without a program run for it.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::os::fd::{AsRawFd, OwnedFd};

use portolan_netcore::firewall::ruleset::IpFamily;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::command::families;

/// `linux/netfilter_ipv4/ip_tables.h`, and the same of IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`.
const NAME_LEN: usize = 32;
/// `struct ipt_getinfo`: a name, the hooks, two tables of five offsets, then the number and the size of the rules.
const INFO_LEN: usize = NAME_LEN + 4 + 20 + 20 + 4 + 4;
/// `struct ipt_get_entries` without the entries: a name and their size, aligned to eight.
const ENTRIES_AT: usize = NAME_LEN + 8;
/// Of the rules of one table: what says more is of a kernel that speaks another way.
const MOST_BYTES: usize = 256 << 20;

/// Where in a rule (`struct ipt_entry`, `struct ip6t_entry`) things are.
struct Layout {
    level: libc::c_int,
    next_at: usize,
    counters_at: usize,
}

fn layout(family: IpFamily) -> Layout {
    match family {
        IpFamily::V4 => Layout { level: libc::SOL_IP, next_at: 90, counters_at: 96 },
        IpFamily::V6 => Layout { level: libc::SOL_IPV6, next_at: 142, counters_at: 152 },
    }
}

/// A digest of all rules that iptables-legacy has in the calling thread's network namespace, counters aside. None
/// if it has no tables.
pub(crate) fn digest() -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let mut has_any = false;
    for family in families() {
        let file = match family {
            IpFamily::V4 => "ip_tables_names",
            IpFamily::V6 => "ip6_tables_names",
        };
        // To ask for a table makes it: only for those that are there.
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        if names.is_empty() {
            continue;
        }
        has_any = true;
        hasher.write(names.as_bytes());
        let Some(socket) = socket(family) else { continue };
        for name in names.lines() {
            if let Some(rules) = rules(&socket, &layout(family), name) {
                hasher.write(&rules);
            }
        }
    }
    has_any.then(|| hasher.finish())
}

fn socket(family: IpFamily) -> Option<OwnedFd> {
    let domain = match family {
        IpFamily::V4 => AddressFamily::INET,
        IpFamily::V6 => AddressFamily::INET6,
    };
    socket_with(domain, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW)).ok()
}

/// A table's rules with their counters at zero. None if they change right now, which the next look sees.
fn rules(socket: &OwnedFd, layout: &Layout, name: &str) -> Option<Vec<u8>> {
    let mut info = named(name, INFO_LEN)?;
    get(socket, layout.level, GET_INFO, &mut info)?;
    let size = u32::from_ne_bytes(*info.last_chunk()?) as usize;
    if size > MOST_BYTES {
        return None;
    }
    let mut all = named(name, ENTRIES_AT + size)?;
    all.get_mut(NAME_LEN..NAME_LEN + 4)?.copy_from_slice(&u32::try_from(size).ok()?.to_ne_bytes());
    get(socket, layout.level, GET_ENTRIES, &mut all)?;
    let mut at = ENTRIES_AT;
    while at < all.len() {
        let next = all.get(at + layout.next_at..)?.first_chunk::<2>()?;
        let next = usize::from(u16::from_ne_bytes(*next));
        all.get_mut(at + layout.counters_at..at + layout.counters_at + 16)?.fill(0);
        if next == 0 {
            return None;
        }
        at += next;
    }
    Some(all)
}

fn named(name: &str, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    // With a zero at its end.
    bytes.get_mut(..NAME_LEN - 1)?.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    Some(bytes)
}

fn get(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, value: &mut [u8]) -> Option<()> {
    let mut length = libc::socklen_t::try_from(value.len()).ok()?;
    // SAFETY: the descriptor is open; `value` has `length` bytes, which the kernel fills at most, and both outlive
    // the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut length)
    };
    (result == 0).then_some(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn legacy(rule: &str) -> bool {
        let words: Vec<&str> = rule.split(' ').collect();
        Command::new(words[0]).args(&words[1..]).status().is_ok_and(|status| status.success())
    }

    #[test]
    fn the_digest_changes_with_the_rules_and_not_with_what_they_count() {
        let changes = || {
            assert_eq!(digest(), None, "no tables");
            if !legacy("iptables-legacy -A FORWARD -p tcp --dport 80 -j DROP") {
                return;
            }
            let first = digest();
            assert!(first.is_some() && first == digest());
            // Of the same size as before.
            assert!(legacy("iptables-legacy -R FORWARD 1 -p tcp --dport 81 -j DROP"));
            let second = digest();
            assert_ne!(first, second);
            assert!(legacy("iptables-legacy -P FORWARD DROP"));
            let third = digest();
            assert_ne!(second, third);
            assert!(legacy("iptables-legacy -A OUTPUT -o lo -j ACCEPT") && legacy("ip link set lo up"));
            let fourth = digest();
            std::net::UdpSocket::bind("127.0.0.1:0")
                .and_then(|socket| socket.send_to(b"x", "127.0.0.1:9"))
                .unwrap();
            assert_eq!(fourth, digest(), "it counted");
            assert!(legacy("ip6tables-legacy -A INPUT -p udp -j DROP"));
            assert_ne!(fourth, digest());
            assert!(legacy("iptables-legacy -F") && legacy("iptables-legacy -P FORWARD ACCEPT"));
        };
        let thread = std::thread::spawn(move || {
            // SAFETY: unshare takes no pointers and affects this thread only.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
                changes();
            }
        });
        thread.join().unwrap();
    }
}
