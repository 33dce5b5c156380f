//! The ports column of `ps`.

use std::net::IpAddr;

use serde_json::Value;

use crate::json::Json;

struct Port<'p> {
    ip: &'p str,
    private: i64,
    public: i64,
    kind: &'p str,
}

/// Ports as one text: `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 90-92/udp`.
pub(crate) fn display(ports: &[Value]) -> String {
    let mut ports: Vec<Port<'_>> = ports
        .iter()
        .map(|port| Port {
            ip: port.text("IP"),
            private: port.int("PrivatePort"),
            public: port.int("PublicPort"),
            kind: port.text("Type"),
        })
        .collect();
    ports.sort_by(|a, b| (a.private, a.ip, a.public, a.kind).cmp(&(b.private, b.ip, b.public, b.kind)));
    let mut out = Vec::new();
    let mut mapped = Vec::new();
    // Runs of equal numbers inside and outside, by address and protocol, in the order they began.
    let mut runs: Vec<((&str, &str), i64, i64)> = Vec::new();
    for port in &ports {
        if !port.ip.is_empty() && port.public != port.private {
            mapped.push(format!("{}:{}->{}/{}", bracketed(port.ip), port.public, port.private, port.kind));
            continue;
        }
        let key = (port.ip, port.kind);
        match runs.iter_mut().find(|(known, _, _)| *known == key) {
            None => runs.push((key, port.private, port.private)),
            Some((_, _, last)) if port.private == *last + 1 => *last = port.private,
            Some((_, first, last)) => {
                out.push(run(key, *first, *last));
                (*first, *last) = (port.private, port.private);
            }
        }
    }
    out.extend(runs.into_iter().map(|(key, first, last)| run(key, first, last)));
    out.extend(mapped);
    out.join(", ")
}

fn run((ip, kind): (&str, &str), first: i64, last: i64) -> String {
    let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
    if ip.is_empty() {
        format!("{numbers}/{kind}")
    } else {
        format!("{}:{numbers}->{numbers}/{kind}", bracketed(ip))
    }
}

/// An address as it stands before a colon: IPv6 in brackets.
pub(crate) fn bracketed(ip: &str) -> String {
    match ip.parse() {
        Ok(IpAddr::V6(_)) => format!("[{ip}]"),
        _ => ip.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn show(ports: &[(&str, i64, i64, &str)]) -> String {
        let ports: Vec<_> = ports
            .iter()
            .map(|(ip, private, public, kind)| {
                json!({"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": kind})
            })
            .collect();
        display(&ports)
    }

    #[test]
    fn ports_as_docker_shows_them() {
        assert_eq!(
            show(&[("0.0.0.0", 80, 18080, "tcp"), ("::", 80, 18080, "tcp")]),
            "0.0.0.0:18080->80/tcp, [::]:18080->80/tcp"
        );
        assert_eq!(
            show(&[("", 443, 0, "tcp"), ("", 80, 0, "tcp"), ("", 81, 0, "tcp")]),
            "80-81/tcp, 443/tcp"
        );
        assert_eq!(
            show(&[("0.0.0.0", 80, 80, "tcp"), ("0.0.0.0", 81, 81, "tcp"), ("0.0.0.0", 90, 9000, "udp")]),
            "0.0.0.0:80-81->80-81/tcp, 0.0.0.0:9000->90/udp"
        );
    }
}
