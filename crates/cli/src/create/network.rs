//! `--network` in both its forms and the flags that go with it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_api::{EndpointIpamConfig, EndpointSettings, EndpointsConfig};

use crate::flags::Matches;

/// One `--network`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Attachment {
    /// Network's name or id, or a mode.
    pub(crate) target: String,
    /// Further names in the network.
    pub(crate) aliases: Vec<String>,
    /// `container:alias`.
    pub(crate) links: Vec<String>,
    /// IPv4 address.
    pub(crate) ip: String,
    /// IPv6 address.
    pub(crate) ip6: String,
    /// Further addresses of the interface.
    pub(crate) link_local_ips: Vec<String>,
    /// MAC address.
    pub(crate) mac: String,
    /// Driver options.
    pub(crate) driver_opts: BTreeMap<String, String>,
    /// Who gives the default gateway.
    pub(crate) gw_priority: i64,
}

/// Reads one `--network`: a name, or `name=...,alias=...,ip=...`.
///
/// # Errors
/// Docker's text.
pub(crate) fn attachment(text: &str) -> Result<Attachment, String> {
    let mut out = Attachment::default();
    let long = text
        .split(',')
        .any(|field| field.split_once('=').is_some_and(|(key, _)| key.eq_ignore_ascii_case("name")));
    if !long {
        out.target = text.to_owned();
        return Ok(out);
    }
    for field in csv(text) {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("invalid field {field}"))?;
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        match key.as_str() {
            "name" => out.target = value.to_owned(),
            "alias" => out.aliases.push(value.to_owned()),
            "ip" => out.ip = value.to_owned(),
            "ip6" => out.ip6 = value.to_owned(),
            "mac-address" => out.mac = value.to_owned(),
            "link-local-ip" => out.link_local_ips.push(value.to_owned()),
            "driver-opt" => {
                let (key, value) =
                    value.split_once('=').ok_or("invalid key value pair format in driver options")?;
                out.driver_opts.insert(key.trim().to_lowercase(), value.trim().to_owned());
            }
            "gw-priority" => {
                out.gw_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority ({value}): value must be a whole number"))?;
            }
            _ => return Err(format!("invalid field key {key}")),
        }
    }
    if out.target.is_empty() {
        return Err("network name/id is not specified".to_owned());
    }
    Ok(out)
}

/// Splits a line of comma-separated values; a field in double quotes may contain commas.
pub(crate) fn csv(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => push(&mut fields, '"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => push(&mut fields, c),
        }
    }
    fields
}

fn push(fields: &mut [String], c: char) {
    if let Some(field) = fields.last_mut() {
        field.push(c);
    }
}

/// Checks `--network`.
pub(crate) fn check_network(value: &str) -> Result<(), String> {
    attachment(value).map(drop)
}

/// Checks `--dns` and `--link-local-ip`.
pub(crate) fn check_address(value: &str) -> Result<(), String> {
    value
        .trim()
        .parse::<IpAddr>()
        .map(drop)
        .map_err(|_| format!("IP address is not correctly formatted: {value}"))
}

/// Checks `--sysctl` for what a container can have at all.
pub(crate) fn check_sysctl(value: &str) -> Result<(), String> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let allowed = value.split_once('=').is_some_and(|(key, _)| {
        IPC.contains(&key) || key.starts_with("net.") || key.starts_with("fs.mqueue.")
    });
    if allowed { Ok(()) } else { Err(format!("sysctl '{value}' is not allowed")) }
}

/// Checks `--link`.
pub(crate) fn check_link(value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("empty string specified for links".to_owned());
    }
    if value.split(':').count() > 2 {
        return Err(format!("bad format for links: {value}"));
    }
    Ok(())
}

/// Checks `--add-host`.
pub(crate) fn check_extra_host(value: &str) -> Result<(), String> {
    extra_host(value).map(drop)
}

/// Reads `--add-host`: `name:address`, `name=address`, an IPv6 address with or without brackets, or
/// `host-gateway`.
///
/// # Errors
/// Docker's text.
pub(crate) fn extra_host(value: &str) -> Result<String, String> {
    let (name, address) = value
        .split_once('=')
        .or_else(|| value.split_once(':'))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("bad format for add-host: {value:?}"))?;
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{bare}"))
}

/// Whether Docker treats the mode as a network that users make.
fn is_user_defined(target: &str) -> bool {
    !matches!(target, "default" | "bridge" | "host" | "none") && !target.starts_with("container:")
}

/// The mode and the endpoints that the flags ask for.
///
/// # Errors
/// Docker's text for flags that contradict each other.
pub(crate) fn endpoints(matches: &Matches) -> Result<(String, EndpointsConfig), String> {
    let mut attachments =
        matches.list("network").into_iter().map(attachment).collect::<Result<Vec<_>, _>>()?;
    let single = attachments.len() <= 1;
    let user_defined = attachments.iter().filter(|one| is_user_defined(&one.target)).count();
    if user_defined > 0 && user_defined < attachments.len() {
        return Err(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                .to_owned(),
        );
    }
    if attachments.is_empty() {
        attachments.push(Attachment { target: "default".to_owned(), ..Attachment::default() });
    }
    let mode = attachments[0].target.clone();
    let mut out = Vec::new();
    for (at, mut one) in attachments.into_iter().enumerate() {
        if at == 0 {
            merge_flags(&mut one, matches)?;
        }
        let target = one.target.clone();
        let endpoint = settings(one)?;
        if out.iter().any(|(given, _)| *given == target) {
            return Err(format!("network {target:?} is specified multiple times"));
        }
        if !single || endpoint != EndpointSettings::default() {
            out.push((target, Some(endpoint)));
        }
    }
    Ok((mode, EndpointsConfig(out)))
}

/// Adds what the flags of their own say to the first network.
fn merge_flags(one: &mut Attachment, matches: &Matches) -> Result<(), String> {
    let conflict = |what: &str, field: &str| {
        Err(format!("conflicting options: cannot specify both --{what} and per-network {field}"))
    };
    let aliases = matches.list("network-alias");
    if !aliases.is_empty() && !one.aliases.is_empty() {
        return conflict("network-alias", "alias");
    }
    one.aliases.extend(aliases.into_iter().map(str::to_owned));
    // On networks without names, links are the host configuration's affair.
    if is_user_defined(&one.target) {
        one.links = matches.list("link").into_iter().map(link).collect();
    }
    for (flag, field, what) in [
        ("ip", &mut one.ip, "IPv4 address"),
        ("ip6", &mut one.ip6, "IPv6 address"),
        ("mac-address", &mut one.mac, "MAC address"),
    ] {
        let value = matches.text_or_empty(flag).trim();
        if !value.is_empty() && !field.is_empty() {
            return conflict(flag, what);
        }
        if !value.is_empty() {
            *field = value.to_owned();
        }
    }
    let link_local = matches.list("link-local-ip");
    if !link_local.is_empty() && !one.link_local_ips.is_empty() {
        return conflict("link-local-ip", "link-local IP addresses");
    }
    one.link_local_ips.extend(link_local.into_iter().map(str::to_owned));
    Ok(())
}

/// `name` as `name:name`.
pub(crate) fn link(value: &str) -> String {
    match value.contains(':') {
        true => value.to_owned(),
        false => format!("{value}:{value}"),
    }
}

fn settings(one: Attachment) -> Result<EndpointSettings, String> {
    if one.target.trim().is_empty() {
        return Err("no name set for network".to_owned());
    }
    if !is_user_defined(&one.target) {
        if !one.aliases.is_empty() {
            return Err("network-scoped aliases are only supported for user-defined networks".to_owned());
        }
        if !one.links.is_empty() {
            return Err("links are only supported for user-defined networks".to_owned());
        }
    }
    if !one.mac.is_empty() && !is_mac(&one.mac) {
        return Err(format!("{} is not a valid mac address", one.mac));
    }
    let ipam = EndpointIpamConfig {
        ipv4_address: one.ip,
        ipv6_address: one.ip6,
        link_local_ips: one.link_local_ips,
    };
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    Ok(EndpointSettings {
        ipam_config: (ipam != EndpointIpamConfig::default()).then_some(ipam),
        links: some(one.links),
        aliases: some(one.aliases),
        mac_address: one.mac,
        driver_opts: (!one.driver_opts.is_empty()).then_some(one.driver_opts),
        gw_priority: (one.gw_priority != 0).then_some(one.gw_priority),
        ..EndpointSettings::default()
    })
}

/// Whether the text is a MAC address of 6 bytes in one of the usual forms.
pub(crate) fn is_mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let parts: Vec<_> = text.split(separator).collect();
    parts.len() == 6
        && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::flags::{CREATE, LIMITS};

    fn read(line: &str) -> Result<String, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let matches = Matches::parse(&[CREATE, LIMITS], &words, true)?;
        let (mode, endpoints) = endpoints(&matches)?;
        let names: Vec<_> = endpoints
            .0
            .iter()
            .map(|(name, one)| {
                let one = one.clone().unwrap_or_default();
                let ipam = one.ipam_config.unwrap_or_default();
                format!(
                    "{name}[{}|{}|{}|{}]",
                    one.aliases.unwrap_or_default().join("+"),
                    ipam.ipv4_address,
                    one.mac_address,
                    one.gw_priority.unwrap_or_default()
                )
            })
            .collect();
        Ok(format!("{mode} {}", names.join(" ")))
    }

    #[test]
    fn both_forms_of_network() {
        for (line, wanted) in [
            ("", "default "),
            ("--net=host", "host "),
            ("--network container:web", "container:web "),
            ("--net n1 --ip 10.0.0.2 --net-alias a", "n1 n1[a|10.0.0.2||0]"),
            ("--network name=n1,alias=a,alias=b,gw-priority=5 --network n2", "n1 n1[a+b|||5] n2[|||0]"),
            ("--network z --network a --network k", "z z[|||0] a[|||0] k[|||0]"),
            ("--network n1 --mac-address 02:00:00:00:00:01", "n1 n1[||02:00:00:00:00:01|0]"),
        ] {
            assert_eq!(read(line).as_deref(), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn contradictions_read_as_in_docker() {
        for (line, wanted) in [
            (
                "--net host --net n1",
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            ),
            (
                "--net host --net-alias a",
                "network-scoped aliases are only supported for user-defined networks",
            ),
            ("--net n --net n", "network \"n\" is specified multiple times"),
            ("--mac-address x", "x is not a valid mac address"),
            (
                "--network name=n,foo=1",
                "invalid argument \"name=n,foo=1\" for \"--network\" flag: invalid field key foo",
            ),
        ] {
            assert_eq!(read(line).unwrap_err(), wanted, "{line}");
        }
    }

    #[test]
    fn hosts() {
        assert_eq!(extra_host("a:1.2.3.4").unwrap(), "a:1.2.3.4");
        assert_eq!(extra_host("a:::1").unwrap(), "a:::1");
        assert_eq!(extra_host("a=[::1]").unwrap(), "a:::1");
        assert_eq!(extra_host("a:host-gateway").unwrap(), "a:host-gateway");
        assert!(extra_host("a:b").is_err());
    }
}
