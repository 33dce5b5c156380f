//! `--publish` and `--expose`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use portolan_api::{Empty, PortBinding};

/// Ports by container port (`80/tcp`).
pub(crate) type Bindings = BTreeMap<String, Option<Vec<PortBinding>>>;

/// Reads one `--publish` into `bindings`: `[[ip:][host]:]container[/proto]`, both ports possibly
/// ranges, or the long form `target=80,published=8080,protocol=tcp,host_ip=...`.
///
/// # Errors
/// Docker's text.
pub(crate) fn publish(spec: &str, bindings: &mut Bindings) -> Result<(), String> {
    let (spec, from) = split_sources(spec)?;
    let short;
    let spec = match spec.contains('=') {
        true => {
            short = short_form(spec)?;
            short.as_str()
        }
        false => spec,
    };
    let (address, protocol) = match spec.split_once('/') {
        Some((address, protocol)) => (address, protocol.to_lowercase()),
        None => (spec, "tcp".to_owned()),
    };
    let (ip, host, container) = split_address(address);
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let inside = range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let ip = checked_ip(ip)?;
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let outside = match host {
        "" => None,
        host => Some(range(host).map_err(|_| format!("invalid hostPort: {host}"))?),
    };
    let count = |range: &RangeInclusive<u16>| usize::from(range.end() - range.start()) + 1;
    if let Some(outside) = &outside
        && count(outside) != count(&inside)
        // One container port may take any free port of a range.
        && count(&inside) != 1
    {
        return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
    }
    let one_of_many = count(&inside) == 1 && outside.as_ref().is_some_and(|range| count(range) > 1);
    for (at, port) in inside.enumerate() {
        let host_port = match &outside {
            None => String::new(),
            Some(range) if one_of_many => format!("{}-{}", range.start(), range.end()),
            Some(range) => (usize::from(*range.start()) + at).to_string(),
        };
        bindings.entry(format!("{port}/{protocol}")).or_default().get_or_insert_default().push(PortBinding {
            host_ip: ip.clone(),
            host_port,
            from: from.clone(),
        });
    }
    Ok(())
}

/// Splits `,from=10.0.0.0/8` off: who may use the port; it may be given several times.
fn split_sources(spec: &str) -> Result<(&str, Vec<String>), String> {
    let Some((spec, sources)) = spec.split_once(",from=") else {
        return Ok((spec, Vec::new()));
    };
    let mut from = Vec::new();
    for source in sources.split(",from=") {
        let (address, length) = source.split_once('/').unwrap_or((source, "0"));
        if address.parse::<IpAddr>().is_err() || length.parse::<u8>().is_err() {
            return Err(format!("invalid source of a published port: {source:?} is not a network"));
        }
        from.push(source.to_owned());
    }
    Ok((spec, from))
}

/// Splits `ip:host:container`; an IPv6 address is in brackets or has colons of its own.
fn split_address(address: &str) -> (&str, &str, &str) {
    let Some((before, container)) = address.rsplit_once(':') else {
        return ("", "", address);
    };
    match before.rsplit_once(':') {
        Some((ip, host)) => (ip, host, container),
        None => ("", before, container),
    }
}

fn checked_ip(ip: &str) -> Result<String, String> {
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if bare.is_empty() || bare.parse::<IpAddr>().is_ok() {
        return Ok(bare.to_owned());
    }
    Err(format!("invalid IP address: {ip}"))
}

fn range(text: &str) -> Result<RangeInclusive<u16>, ()> {
    let number = |text: &str| text.parse::<u16>().map_err(drop);
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (number(text)?, number(text)?),
    };
    if low > high { Err(()) } else { Ok(low..=high) }
}

fn short_form(spec: &str) -> Result<String, String> {
    let (mut target, mut published, mut protocol, mut ip) = ("", "", "tcp", String::new());
    for field in spec.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field: {field}"))?;
        match key.to_lowercase().as_str() {
            "target" | "dst" | "dest" => target = value,
            "published" | "src" => published = value,
            "protocol" | "proto" => protocol = value,
            "host_ip" | "ip" => ip = format!("{value}:"),
            "mode" if matches!(value, "host" | "ingress") => {}
            "mode" => {
                return Err(format!(
                    "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                ));
            }
            _ => return Err(format!("invalid field key: {key}")),
        }
    }
    if target.is_empty() {
        return Err(format!("invalid publish opts format (should be name=value but got '{spec}')"));
    }
    Ok(format!("{ip}{published}:{target}/{protocol}"))
}

/// Reads one `--expose` into the set of exposed ports: `port[-port][/proto]`.
///
/// # Errors
/// Docker's text.
pub(crate) fn expose(spec: &str, ports: &mut BTreeMap<String, Empty>) -> Result<(), String> {
    let (numbers, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let numbers = range(numbers).map_err(|()| {
        format!(
            "invalid range format for --expose: {spec}, error: strconv.ParseUint: parsing {numbers:?}: invalid syntax"
        )
    })?;
    for port in numbers {
        ports.insert(format!("{port}/{}", protocol.to_lowercase()), Empty);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(spec: &str) -> Result<String, String> {
        let mut bindings = Bindings::new();
        publish(spec, &mut bindings)?;
        let mut out = Vec::new();
        for (port, list) in bindings {
            for binding in list.unwrap_or_default() {
                out.push(format!("{}:{}->{port}", binding.host_ip, binding.host_port));
            }
        }
        Ok(out.join(" "))
    }

    #[test]
    fn every_form_of_publish() {
        for (spec, wanted) in [
            ("80", ":->80/tcp"),
            ("8080:80", ":8080->80/tcp"),
            ("8080:80/UDP", ":8080->80/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080->80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:->80/tcp"),
            ("[::1]:8080:80", "::1:8080->80/tcp"),
            ("8080-8081:80-81", ":8080->80/tcp :8081->81/tcp"),
            ("8080-8090:80", ":8080-8090->80/tcp"),
            ("target=80,published=8080,protocol=udp", ":8080->80/udp"),
        ] {
            assert_eq!(text(spec).as_deref(), Ok(wanted), "{spec}");
        }
    }

    #[test]
    fn mistakes_read_as_in_docker() {
        for (spec, wanted) in [
            ("foo", "invalid containerPort: foo"),
            ("foo:80", "invalid hostPort: foo"),
            ("1.2.3:80:80", "invalid IP address: 1.2.3"),
            ("80/icmp", "invalid proto: icmp"),
            ("80-82:80-81", "invalid ranges specified for container and host Ports: 80-81 and 80-82"),
        ] {
            assert_eq!(text(spec).unwrap_err(), wanted, "{spec}");
        }
    }
}
