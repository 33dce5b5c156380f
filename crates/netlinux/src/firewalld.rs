//! Making our bridges known to firewalld, where it runs.
//!
//! firewalld rejects what is forwarded from links of no zone. Our bridges get a zone of their own,
//! `portolan`, whose target is ACCEPT, and a policy that lets packets of every zone in: what may pass is
//! decided by our own rules. Both are made once, as firewalld's permanent configuration, so that they
//! outlive its reloads; bridges are put in at run time, and again after each reload, of which its changes
//! of the rule set tell us.
//!
//! A bridge that somebody has put into another zone stays there, and so does what somebody has put into
//! ours. A firewalld of another network namespace (its bus is often reached from containers and test
//! beds) does not hear of our bridges: it has not got them.
//!
//! The interface is described in `firewalld.dbus(5)`; zones and policies as dictionaries came with 0.9.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use portolan_netcore::model::IfName;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;
use zbus::names::BusName;
use zbus::zvariant::Value;
use zbus::{Connection, Proxy};

use crate::netns::OWN_NAMESPACE;

const SERVICE: &str = "org.fedoraproject.FirewallD1";
const ROOT: &str = "/org/fedoraproject/FirewallD1";
const CONFIG: &str = "/org/fedoraproject/FirewallD1/config";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";
const PERMANENT: &str = "org.fedoraproject.FirewallD1.config";
const ZONE: &str = "portolan";
const POLICY: &str = "portolan-forward";
const WHAT: &str = "Bridges of Portolan: its own rules decide what passes.";

/// For all of it. A reload takes seconds, and firewalld answers nobody meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// The well-known place, unless `DBUS_SYSTEM_BUS_ADDRESS` names another.
const SOCKET: &str = "/run/dbus/system_bus_socket";

/// Puts these bridges into our zone, and takes out of it what is no link any more. Nothing happens on a host
/// without a running firewalld. Blocks for 30 seconds at most, and must not be called from a task of tokio.
pub(crate) fn introduce(bridges: &BTreeSet<IfName>, links: &BTreeSet<IfName>) -> Result<(), String> {
    if std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").is_none() && !Path::new(SOCKET).exists() {
        return Ok(());
    }
    // One of its own: whatever hangs ends with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
    let talk = async { tokio::time::timeout(PATIENCE, talk(bridges, links)).await };
    match runtime.block_on(talk) {
        Ok(said) => said.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer for {} s", PATIENCE.as_secs())),
    }
}

async fn talk(bridges: &BTreeSet<IfName>, links: &BTreeSet<IfName>) -> zbus::Result<()> {
    let bus = Builder::system()?.build().await?;
    if !manages_our_namespace(&bus).await? {
        return Ok(());
    }
    let zones = Proxy::new(&bus, SERVICE, ROOT, ZONES).await?;
    let known: Vec<String> = zones.call("getZones", &()).await?;
    if !known.iter().any(|name| name == ZONE) {
        if bridges.is_empty() {
            return Ok(());
        }
        make_zone(&bus).await?;
    }
    let members: Vec<String> = zones.call("getInterfaces", &(ZONE,)).await?;
    let among = |names: &BTreeSet<IfName>, member: &str| names.iter().any(|name| name.as_str() == member);
    for gone in members.iter().filter(|member| !among(links, member)) {
        let _: String = zones.call("removeInterface", &(ZONE, gone)).await?;
    }
    for bridge in bridges.iter().map(IfName::as_str).filter(|bridge| !members.iter().any(|m| m == bridge)) {
        let zone: String = zones.call("getZoneOfInterface", &(bridge,)).await?;
        if zone.is_empty() {
            let _: String = zones.call("addInterface", &(ZONE, bridge)).await?;
            tracing::info!(bridge, "put into firewalld's zone {ZONE}");
        } else {
            tracing::debug!(bridge, zone, "somebody has put it into another zone of firewalld");
        }
    }
    Ok(())
}

/// firewalld runs, in the network namespace of this thread. What cannot be told is no.
async fn manages_our_namespace(bus: &Connection) -> zbus::Result<bool> {
    let names = DBusProxy::new(bus).await?;
    let service = || BusName::try_from(SERVICE);
    if !names.name_has_owner(service()?).await? {
        return Ok(false);
    }
    let pid = names.get_connection_unix_process_id(service()?).await?;
    let namespace = |path: &str| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let its = namespace(&format!("/proc/{pid}/ns/net"));
    Ok(its.is_some() && its == namespace(OWN_NAMESPACE))
}

/// Makes the zone and the policy as permanent configuration and has it take effect.
async fn make_zone(bus: &Connection) -> zbus::Result<()> {
    let config = Proxy::new(bus, SERVICE, CONFIG, PERMANENT).await?;
    let text = |text: &'static str| Value::from(text);
    let zones: Vec<String> = config.call("getZoneNames", &()).await?;
    if !zones.iter().any(|name| name == ZONE) {
        let settings =
            BTreeMap::from([("short", text(ZONE)), ("description", text(WHAT)), ("target", text("ACCEPT"))]);
        config.call_method("addZone2", &(ZONE, settings)).await?;
    }
    let policies: Vec<String> = config.call("getPolicyNames", &()).await?;
    if !policies.iter().any(|name| name == POLICY) {
        let settings = BTreeMap::from([
            ("short", text(POLICY)),
            ("description", text(WHAT)),
            ("target", text("ACCEPT")),
            ("ingress_zones", Value::from(vec!["ANY"])),
            ("egress_zones", Value::from(vec![ZONE])),
        ]);
        config.call_method("addPolicy", &(POLICY, settings)).await?;
    }
    tracing::info!("made the zone {ZONE} and the policy {POLICY} of firewalld, which reloads now");
    Proxy::new(bus, SERVICE, ROOT, SERVICE).await?.call_method("reload", &()).await?;
    Ok(())
}
