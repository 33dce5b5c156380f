//! `/etc/hosts` of a container.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::error::{EngineError, Result};

/// What every container has, whether or not it has IPv6.
const DEFAULT: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostLine {
    pub(crate) address: IpAddr,
    pub(crate) names: String,
}

/// The whole file: `base` (the host's own file in host mode) or Docker's lines, then the user's, then the
/// container's addresses.
pub(crate) fn render(base: Option<&str>, lines: &[HostLine]) -> String {
    let mut text = base.unwrap_or(DEFAULT).to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for line in lines {
        let _ = writeln!(text, "{}\t{}", line.address, line.names);
    }
    text
}

/// The names on the lines of the container's own addresses: `host.domain host`, or `host`, or, for a host
/// name with dots, `a.b.c a`.
pub(crate) fn own_names(hostname: &str, domainname: &str) -> String {
    if !domainname.is_empty() {
        return format!("{hostname}.{domainname} {hostname}");
    }
    match hostname.split_once('.') {
        Some((short, _)) if !short.is_empty() => format!("{hostname} {short}"),
        _ => hostname.to_owned(),
    }
}

/// `--add-host name:address` or `name=address`; `host-gateway` stands for `gateways`.
///
/// # Errors
/// `Invalid` with Docker's text.
pub(crate) fn extra_hosts(extra: &[String], gateways: &[IpAddr]) -> Result<Vec<HostLine>> {
    let mut lines = Vec::new();
    for entry in extra {
        let (name, address) = split_extra_host(entry)?;
        if address == "host-gateway" {
            if gateways.is_empty() {
                return Err(EngineError::invalid("unable to derive the IP value for host-gateway"));
            }
            lines.extend(gateways.iter().map(|ip| HostLine { address: *ip, names: name.to_owned() }));
        } else {
            let address = parse_address(address).ok_or_else(|| {
                EngineError::invalid(format!("invalid IP address in add-host: {address:?}"))
            })?;
            lines.push(HostLine { address, names: name.to_owned() });
        }
    }
    Ok(lines)
}

/// Splits an entry of `ExtraHosts` and checks both parts.
///
/// # Errors
/// `Invalid` with Docker's text.
pub(crate) fn split_extra_host(entry: &str) -> Result<(&str, &str)> {
    let bad = || EngineError::invalid(format!("bad format for add-host: {entry:?}"));
    let (name, address) = entry.split_once('=').or_else(|| entry.split_once(':')).ok_or_else(bad)?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad());
    }
    if address != "host-gateway" && parse_address(address).is_none() {
        return Err(EngineError::invalid(format!("invalid IP address in add-host: {address:?}")));
    }
    Ok((name, address))
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_dockers() {
        let own = HostLine { address: "172.18.0.3".parse().unwrap(), names: own_names("0123456789ab", "") };
        let text = render(None, &[own]);
        assert_eq!(
            text.lines().collect::<Vec<_>>(),
            [
                "127.0.0.1\tlocalhost",
                "::1\tlocalhost ip6-localhost ip6-loopback",
                "fe00::\tip6-localnet",
                "ff00::\tip6-mcastprefix",
                "ff02::1\tip6-allnodes",
                "ff02::2\tip6-allrouters",
                "172.18.0.3\t0123456789ab",
            ]
        );
    }

    #[test]
    fn names_of_the_own_address() {
        assert_eq!(own_names("web", "example.org"), "web.example.org web");
        assert_eq!(own_names("web.example.org", ""), "web.example.org web");
        assert_eq!(own_names("web", ""), "web");
    }

    #[test]
    fn extra_hosts_in_every_form() {
        let gateways = ["172.17.0.1".parse().unwrap()];
        let entries = ["a:1.2.3.4", "b=::1", "c:host-gateway", "d=[fd00::2]", "e:fd00::3"].map(str::to_owned);
        let lines = extra_hosts(&entries, &gateways).unwrap();
        let text: Vec<String> = lines.iter().map(|l| format!("{} {}", l.address, l.names)).collect();
        assert_eq!(text, ["1.2.3.4 a", "::1 b", "172.17.0.1 c", "fd00::2 d", "fd00::3 e"]);
        assert!(extra_hosts(&entries, &[]).is_err());
        for bad in ["a", "a:", ":1.2.3.4", "a:1.2.3", "a b:1.2.3.4"] {
            assert!(extra_hosts(&[bad.to_owned()], &gateways).is_err(), "{bad}");
        }
    }
}
