//! `network create`, `ls`, `rm`, `connect`, `disconnect` and `prune`.

use std::collections::BTreeMap;

use ipnet_lite::{contains, is_link_of, is_subnet};
use portolan_api::{
    ConfigReference, EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnect, NetworkCreate,
    NetworkDisconnect, NetworkUpdate,
};
use serde_json::Value;

use super::exec::to_json;
use super::inspect::NETWORK_INSPECT;
use super::prune::{confirm, list_deleted};
use super::ps::{check_filter, filters};
use crate::client::{escape, target};
use crate::command::{Arity, Command};
use crate::create::env::{check_label, pairs};
use crate::create::network::{check_address, check_link, is_mac, link};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Kind, Matches, any};
use crate::json::Json;
use crate::session::{Session, line_err, line_out};
use crate::table::{List, labels};
use crate::template::truncate_id;

mod ipnet_lite;

/// `network`.
pub(super) const NETWORK: Command = Command::group(
    "network",
    "Manage networks",
    &[&CREATE, &LS, &NETWORK_INSPECT, &RM, &CONNECT, &DISCONNECT, &UPDATE, &PRUNE],
);

const CREATE_FLAGS: &[Flag] = &[
    Flag::switch("attachable", "Let containers join a swarm's network"),
    Flag::new("aux-address", Kind::List(any), "map", "Reserve an address (name=address)"),
    Flag::text("config-from", "Network whose configuration is taken"),
    Flag::switch("config-only", "Make only a configuration for other networks"),
    Flag::text("driver", "Driver: bridge (default), macvlan, ipvlan, ...").short('d'),
    Flag::new("gateway", Kind::Csv, "strings", "Gateway of the subnet"),
    Flag::switch("ingress", "Make the routing mesh of a swarm"),
    Flag::switch("internal", "No way out of the network"),
    Flag::new("ip-range", Kind::Csv, "strings", "Where addresses of containers come from"),
    Flag::text("ipam-driver", "Driver that manages addresses"),
    Flag::new("ipam-opt", Kind::List(any), "map", "Option of the driver that manages addresses"),
    Flag::new("ipv4", Kind::Switch(true), "", "Give IPv4 addresses"),
    Flag::switch("ipv6", "Give IPv6 addresses"),
    Flag::list("label", "Set metadata").checked(check_label),
    Flag::new("opt", Kind::List(any), "map", "Option of the driver").short('o'),
    Flag::text("scope", "Scope of the network"),
    Flag::new("subnet", Kind::Csv, "strings", "Subnet (10.1.0.0/24)"),
];

const CREATE: Command = Command {
    flags: &[CREATE_FLAGS],
    examples: &[
        ("A network whose containers know each other by name", "network create mynet"),
        ("With a subnet of your own", "network create --subnet 10.1.0.0/24 --gateway 10.1.0.254 mynet"),
        ("Without a way out", "network create --internal backend"),
    ],
    ..Command::new(
        "create",
        "[OPTIONS] NETWORK",
        "Create a network",
        Arity::Exactly(1),
        |session, matches| Box::pin(create(session, matches)),
    )
};

const LS: Command = Command {
    aliases: &["list"],
    flags: &[&[
        Flag::list("filter", "Show only what matches (driver=bridge, name=..., ...)")
            .checked(check_filter)
            .short('f'),
        Flag::text("format", "table, json, a Go template, or 'table TEMPLATE'"),
        Flag::switch("no-trunc", "Do not shorten anything"),
        Flag::switch("quiet", "Show only network IDs").short('q'),
    ]],
    also: &["network ls", "network list"],
    ..Command::new("ls", "[OPTIONS]", "List networks", Arity::Exactly(0), |session, matches| {
        Box::pin(ls(session, matches))
    })
};

const RM: Command = Command {
    aliases: &["remove"],
    flags: &[&[Flag::switch("force", "A network that is not there is no failure").short('f')]],
    also: &["network rm", "network remove"],
    ..Command::new(
        "rm",
        "NETWORK [NETWORK...]",
        "Remove one or more networks",
        Arity::AtLeast(1),
        |session, matches| Box::pin(rm(session, matches)),
    )
};

const CONNECT: Command = Command {
    flags: &[&[
        Flag::new("alias", Kind::Csv, "strings", "Further name in the network"),
        Flag::new("driver-opt", Kind::Csv, "strings", "Option of the driver"),
        Flag::int("gw-priority", "Who gives the default gateway: the highest"),
        Flag::text("ip", "IPv4 address (172.30.100.104)"),
        Flag::text("ip6", "IPv6 address (2001:db8::33)"),
        Flag::list("link", "Link to another container").checked(check_link),
        Flag::new("link-local-ip", Kind::Csv, "strings", "Further address of the interface"),
        Flag::text("mac-address", "MAC address").hidden(),
    ]],
    examples: &[("", "network connect --ip 10.1.0.9 mynet web")],
    ..Command::new(
        "connect",
        "[OPTIONS] NETWORK CONTAINER",
        "Connect a container to a network",
        Arity::Exactly(2),
        |session, matches| Box::pin(connect(session, matches)),
    )
};

const DISCONNECT: Command = Command {
    flags: &[&[Flag::switch("force", "Even if the container is gone").short('f')]],
    ..Command::new(
        "disconnect",
        "[OPTIONS] NETWORK CONTAINER",
        "Disconnect a container from a network",
        Arity::Exactly(2),
        |session, matches| Box::pin(disconnect(session, matches)),
    )
};

const UPDATE: Command = Command {
    flags: &[&[
        Flag::new("dns-add", Kind::Csv, "addresses", "Resolver that containers are to ask as well"),
        Flag::new("dns-drop", Kind::Csv, "addresses", "Resolver that containers are to ask no more"),
    ]],
    examples: &[(
        "Change who answers for names outside, at once",
        "network update --dns-add 192.0.2.53 mynet",
    )],
    ..Command::new(
        "update",
        "[OPTIONS] NETWORK",
        "Change a network while it is in use (Portolan only)",
        Arity::Exactly(1),
        |session, matches| Box::pin(update(session, matches)),
    )
};

const PRUNE: Command = Command {
    flags: &[&[
        Flag::list("filter", "Remove only what matches (until=24h, label=...)").checked(check_filter),
        Flag::switch("force", "Do not ask").short('f'),
    ]],
    ..Command::new(
        "prune",
        "[OPTIONS]",
        "Remove all unused networks",
        Arity::Exactly(0),
        |session, matches| Box::pin(prune(session, matches)),
    )
};

async fn create(session: Session, matches: Matches) -> Outcome {
    let map = |flag: &str| pairs(matches.list(flag));
    let body = NetworkCreate {
        name: matches.args[0].clone(),
        // Daemons before API 1.44 allow a second network of the same name unless told not to.
        check_duplicate: Some(true),
        driver: matches.text("driver").unwrap_or("bridge").to_owned(),
        scope: matches.text_or_empty("scope").to_owned(),
        enable_ipv4: matches.has("ipv4").then(|| matches.on("ipv4")),
        enable_ipv6: matches.has("ipv6").then(|| matches.on("ipv6")),
        ipam: Some(Ipam {
            driver: matches.text("ipam-driver").unwrap_or("default").to_owned(),
            options: Some(map("ipam-opt")),
            config: Some(pools(&matches)?),
        }),
        internal: matches.on("internal"),
        attachable: matches.on("attachable"),
        ingress: matches.on("ingress"),
        config_only: matches.on("config-only"),
        config_from: matches
            .text("config-from")
            .map(|network| ConfigReference { network: network.to_owned() }),
        options: Some(map("opt")),
        labels: Some(map("label")),
    };
    let created = session.client.post("/networks/create", to_json(&body)?).await?;
    if !created.text("Warning").is_empty() {
        line_err(&format!("WARNING: {}", created.text("Warning")));
    }
    line_out(created.text("Id"))?;
    Ok(0)
}

/// Puts ranges, gateways and reserved addresses to the subnets that they belong to.
fn pools(matches: &Matches) -> Result<Vec<IpamConfig>, Failure> {
    let subnets = matches.list("subnet");
    let ranges = matches.list("ip-range");
    let gateways = matches.list("gateway");
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err(Failure::new("every ip-range or gateway must have a corresponding subnet"));
    }
    let mut pools: Vec<IpamConfig> = Vec::new();
    for subnet in subnets {
        for other in &pools {
            if is_subnet(&other.subnet, subnet) || is_subnet(subnet, &other.subnet) {
                return Err(Failure::new("multiple overlapping subnet configuration is not supported"));
            }
        }
        pools.push(IpamConfig { subnet: subnet.to_owned(), ..IpamConfig::default() });
    }
    for range in ranges {
        let Some(pool) = pools.iter_mut().find(|pool| is_subnet(&pool.subnet, range)) else {
            return Err(Failure::new(format!("no matching subnet for range {range}")));
        };
        if !pool.ip_range.is_empty() {
            return Err(Failure::new("cannot configure multiple ranges on the same subnet"));
        }
        pool.ip_range = range.to_owned();
    }
    for gateway in gateways {
        let own = pools.iter().position(|pool| contains(&pool.subnet, gateway));
        // Routers of IPv6 are known by their link-local addresses, which are in none of the subnets.
        let any =
            || pools.iter().position(|pool| pool.gateway.is_empty() && is_link_of(&pool.subnet, gateway));
        let Some(pool) = own.or_else(any).and_then(|at| pools.get_mut(at)) else {
            return Err(Failure::new(format!("no matching subnet for gateway {gateway}")));
        };
        if !pool.gateway.is_empty() {
            return Err(Failure::new("cannot configure multiple gateways for the same subnet"));
        }
        pool.gateway = gateway.to_owned();
    }
    for (name, address) in pairs(matches.list("aux-address")) {
        let Some(pool) = pools.iter_mut().find(|pool| contains(&pool.subnet, &address)) else {
            return Err(Failure::new(format!("no matching subnet for aux-address {address}")));
        };
        pool.auxiliary_addresses.insert(name, address);
    }
    Ok(pools)
}

const HEADINGS: &[(&str, &str)] = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

async fn ls(session: Session, matches: Matches) -> Outcome {
    let filters = filters(&matches.list("filter"))?;
    let mut found = session.client.get(&target("/networks", &[("filters", &filters)])).await?;
    if let Some(found) = found.as_array_mut() {
        found.sort_by(|a, b| super::port::natural(a.text("Name"), b.text("Name")));
    }
    let truncate = !matches.on("no-trunc");
    let field = |network: &Value, name: &str| {
        let text = match name {
            "ID" if truncate => truncate_id(network.text("Id")),
            "ID" => network.text("Id").to_owned(),
            "Name" | "Driver" | "Scope" => network.text(name).to_owned(),
            "IPv4" => network.on("EnableIPv4").to_string(),
            "IPv6" => network.on("EnableIPv6").to_string(),
            "Internal" => network.on("Internal").to_string(),
            "Labels" => return Some(labels(network)),
            "CreatedAt" => crate::units::go_time(network.text("Created")),
            _ => return None,
        };
        Some(Value::from(text))
    };
    List {
        type_name: "*network.networkContext",
        headings: HEADINGS,
        default: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
        quiet: "{{.ID}}",
        field: &field,
    }
    .write(
        session.format(&matches, "networksFormat"),
        matches.on("quiet"),
        found.as_array().map_or(&[][..], Vec::as_slice),
    )?;
    Ok(0)
}

async fn rm(session: Session, matches: Matches) -> Outcome {
    let mut status = 0;
    for name in &matches.args {
        match session.client.delete(&format!("/networks/{}", escape(name))).await {
            Ok(_) => line_out(name)?,
            Err(why) if why.is_not_found() && matches.on("force") => {}
            Err(why) => {
                line_err(&why.to_string());
                status = 1;
            }
        }
    }
    if status != 0 {
        // Docker's CLI ends with this line.
        line_err("exit status 1");
    }
    Ok(status)
}

async fn connect(session: Session, matches: Matches) -> Outcome {
    let text = |flag: &str| matches.text_or_empty(flag).to_owned();
    let link_local_ips = matches.list("link-local-ip");
    for address in &link_local_ips {
        check_address(address)?;
    }
    let mac = text("mac-address");
    if !mac.is_empty() && !is_mac(&mac) {
        return Err(Failure::new(format!("{mac} is not a valid mac address")));
    }
    let mut driver_opts = BTreeMap::new();
    for option in matches.list("driver-opt") {
        let (key, value) = option
            .split_once('=')
            .ok_or_else(|| Failure::new("invalid key/value pair format in driver options"))?;
        driver_opts.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    let owned = |list: Vec<&str>| {
        let list: Vec<_> = list.into_iter().map(str::to_owned).collect();
        (!list.is_empty()).then_some(list)
    };
    let links: Vec<_> = matches.list("link").into_iter().map(link).collect();
    let body = NetworkConnect {
        container: matches.args[1].clone(),
        endpoint_config: Some(EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: text("ip"),
                ipv6_address: text("ip6"),
                link_local_ips: link_local_ips.into_iter().map(str::to_owned).collect(),
            }),
            links: (!links.is_empty()).then_some(links),
            aliases: owned(matches.list("alias")),
            mac_address: mac,
            driver_opts: (!driver_opts.is_empty()).then_some(driver_opts),
            gw_priority: matches.int("gw-priority"),
            ..EndpointSettings::default()
        }),
    };
    let path = format!("/networks/{}/connect", escape(&matches.args[0]));
    session.client.post(&path, to_json(&body)?).await?;
    Ok(0)
}

async fn disconnect(session: Session, matches: Matches) -> Outcome {
    let body = NetworkDisconnect { container: matches.args[1].clone(), force: matches.on("force") };
    let path = format!("/networks/{}/disconnect", escape(&matches.args[0]));
    session.client.post(&path, to_json(&body)?).await?;
    Ok(0)
}

async fn update(session: Session, matches: Matches) -> Outcome {
    let owned = |flag: &str| matches.list(flag).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let body = NetworkUpdate { add_dns_servers: owned("dns-add"), remove_dns_servers: owned("dns-drop") };
    if body == NetworkUpdate::default() {
        return Err(Failure::new("nothing to change: give --dns-add or --dns-drop"));
    }
    let path = format!("/networks/{}/update", escape(&matches.args[0]));
    session.client.post(&path, to_json(&body)?).await?;
    line_out(&matches.args[0])?;
    Ok(0)
}

async fn prune(session: Session, matches: Matches) -> Outcome {
    let warning = "WARNING! This will remove all custom networks not used by at least one container.";
    if !matches.on("force") && !confirm(warning)? {
        return Ok(0);
    }
    let filters = filters(&matches.list("filter"))?;
    let path = target("/networks/prune", &[("filters", &filters)]);
    let report = session.client.post(&path, Value::Null).await?;
    list_deleted("Deleted Networks:", &report.texts("NetworksDeleted"))?;
    Ok(0)
}
