//! Capabilities and `--security-opt`.

use portolan_netcore::model::parse_bool;
use portolan_runtime::{ALL_CAPABILITIES, DEFAULT_CAPABILITIES, SeccompProfile};

use crate::error::{EngineError, Result};
use crate::model::HostConfig;

/// `--security-opt`, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SecurityOptions {
    pub(crate) no_new_privileges: bool,
    /// As given; empty is the default profile.
    pub(crate) apparmor: String,
    pub(crate) seccomp: Option<SeccompProfile>,
    /// `systempaths=unconfined`: nothing is masked or read-only.
    pub(crate) system_paths_unconfined: bool,
}

/// Understands `--security-opt`.
///
/// # Errors
/// `Invalid` for an option that is unknown, or that this engine cannot honour.
pub(crate) fn security_options(options: &[String], no_new_privileges: bool) -> Result<SecurityOptions> {
    let mut parsed = SecurityOptions { no_new_privileges, ..SecurityOptions::default() };
    for option in options {
        let invalid = |number| EngineError::invalid(format!("invalid --security-opt {number}: {option:?}"));
        match option.as_str() {
            "no-new-privileges" => {
                parsed.no_new_privileges = true;
                continue;
            }
            // Without SELinux there is nothing to disable.
            "disable" => continue,
            _ => {}
        }
        let (key, value) =
            option.split_once('=').or_else(|| option.split_once(':')).ok_or_else(|| invalid(1))?;
        match key {
            "no-new-privileges" => parsed.no_new_privileges = parse_bool(value).ok_or_else(|| invalid(2))?,
            "apparmor" => value.clone_into(&mut parsed.apparmor),
            "seccomp" => {
                parsed.seccomp = Some(match value {
                    "unconfined" => SeccompProfile::Unconfined,
                    "builtin" => SeccompProfile::Default,
                    json => SeccompProfile::Json(json.to_owned()),
                });
            }
            "label" if value == "disable" => {}
            "label" => {
                return Err(EngineError::invalid(format!(
                    "invalid --security-opt: {option:?}: SELinux labels are not supported"
                )));
            }
            "systempaths" if value == "unconfined" => parsed.system_paths_unconfined = true,
            _ => return Err(invalid(2)),
        }
    }
    Ok(parsed)
}

/// The capabilities of a container: Docker's defaults, changed by `--cap-add` and `--cap-drop`.
///
/// # Errors
/// `Invalid` for an unknown capability.
pub(crate) fn capabilities(host: &HostConfig) -> Result<Vec<String>> {
    let add = normalize(&host.cap_add).map_err(|error| error.context("invalid CapAdd"))?;
    let drop = normalize(&host.cap_drop).map_err(|error| error.context("invalid CapDrop"))?;
    let all = |list: &[String]| list.iter().any(|cap| cap == "ALL");
    let owned = |list: &[&str]| list.iter().map(|cap| (*cap).to_owned()).collect::<Vec<_>>();
    if host.privileged {
        return Ok(owned(&ALL_CAPABILITIES));
    }
    let mut result = if all(&add) {
        owned(&ALL_CAPABILITIES)
    } else if all(&drop) {
        return Ok(unique(add));
    } else {
        owned(&DEFAULT_CAPABILITIES)
    };
    result.retain(|cap| !drop.contains(cap));
    if !all(&add) {
        result.extend(add);
    }
    Ok(unique(result))
}

fn unique(mut list: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|cap| seen.insert(cap.clone()));
    list
}

fn normalize(names: &[String]) -> Result<Vec<String>> {
    names
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            if upper == "ALL" || upper == "CAP_ALL" {
                return Ok("ALL".to_owned());
            }
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            if ALL_CAPABILITIES.contains(&full.as_str()) {
                Ok(full)
            } else {
                Err(EngineError::invalid(format!("unknown capability: {full:?}")))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities_of(add: &[&str], drop: &[&str]) -> Result<Vec<String>> {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        capabilities(&HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() })
    }

    #[test]
    fn adds_and_drops() {
        let default = capabilities_of(&[], &[]).unwrap();
        assert_eq!(default.len(), DEFAULT_CAPABILITIES.len());
        assert!(capabilities_of(&["net_admin"], &[]).unwrap().contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!capabilities_of(&[], &["CAP_CHOWN"]).unwrap().contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(capabilities_of(&["CHOWN", "chown"], &["ALL"]).unwrap(), ["CAP_CHOWN"]);
        let all_but_one = capabilities_of(&["ALL"], &["SYS_ADMIN"]).unwrap();
        assert_eq!(all_but_one.len(), ALL_CAPABILITIES.len() - 1);
        let error = capabilities_of(&["FLY"], &[]).unwrap_err();
        assert_eq!(error.message(), "invalid CapAdd: unknown capability: \"CAP_FLY\"");
    }

    #[test]
    fn security_options_are_all_understood_or_refused() {
        let parse = |options: &[&str]| {
            security_options(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>(), false)
        };
        let options =
            parse(&["no-new-privileges", "seccomp=unconfined", "apparmor:mine", "label=disable"]).unwrap();
        assert!(options.no_new_privileges);
        assert_eq!(options.seccomp, Some(SeccompProfile::Unconfined));
        assert_eq!(options.apparmor, "mine");
        assert!(parse(&["systempaths=unconfined"]).unwrap().system_paths_unconfined);
        for bad in ["x", "colour=red", "no-new-privileges=maybe", "label=type:x"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
