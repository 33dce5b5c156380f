//! Profiles in Docker's JSON format (`--security-opt seccomp=<file>`).

use serde::Deserialize;

use super::profile::{Action, Condition, Operator, Profile, Rule};
use crate::{Error, Result};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<Entry>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Reads a profile; rules that do not apply to these capabilities or this machine are left out.
pub(super) fn parse(text: &str, capabilities: &[String]) -> Result<Profile> {
    let file: File = serde_json::from_str(text)
        .map_err(|error| Error::Invalid(format!("decoding seccomp profile failed: {error}")))?;
    if let Some(flag) = file.flags.first() {
        return Err(Error::Invalid(format!("seccomp flag {flag} is not supported")));
    }
    if !file.listener_path.is_empty() {
        return Err(Error::Invalid("seccomp listenerPath is not supported".into()));
    }
    let default = action(&file.default_action, file.default_errno_ret)?;
    let mut rules = Vec::new();
    for entry in file.syscalls {
        let included = entry.includes.as_ref().is_none_or(|filter| filter.holds(capabilities, true));
        let excluded = entry.excludes.as_ref().is_some_and(|filter| filter.holds(capabilities, false));
        if !included || excluded {
            continue;
        }
        let mut names = entry.names;
        if !entry.name.is_empty() {
            if !names.is_empty() {
                return Err(Error::Invalid(
                    "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'"
                        .into(),
                ));
            }
            names.push(entry.name);
        }
        let conditions =
            entry.args.unwrap_or_default().iter().map(Argument::condition).collect::<Result<_>>()?;
        rules.push(Rule { names, action: action(&entry.action, entry.errno_ret)?, conditions });
    }
    Ok(Profile { default, rules })
}

impl Filter {
    /// As an include all its parts must hold; as an exclude any of them does it.
    fn holds(&self, capabilities: &[String], all: bool) -> bool {
        let capability = |wanted: &String| capabilities.contains(wanted);
        let architecture = |name: &String| native().contains(&name.as_str());
        let parts = [
            self.caps
                .as_ref()
                .map(|caps| if all { caps.iter().all(capability) } else { caps.iter().any(capability) }),
            self.arches.as_ref().map(|arches| arches.iter().any(architecture)),
            self.min_kernel.as_ref().map(|minimum| kernel_is_at_least(minimum)),
        ];
        // Go's empty lists count as absent.
        let empty = [
            self.caps.as_ref().is_some_and(Vec::is_empty),
            self.arches.as_ref().is_some_and(Vec::is_empty),
            false,
        ];
        let mut parts = parts.into_iter().zip(empty).filter_map(|(part, empty)| part.filter(|_| !empty));
        if all { parts.all(|part| part) } else { parts.any(|part| part) }
    }
}

/// Names of this architecture in profiles (those of Go and those of libseccomp).
fn native() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") { &["amd64", "x86_64"] } else { &["arm64", "aarch64"] }
}

fn kernel_is_at_least(minimum: &str) -> bool {
    let version = |text: &str| {
        let mut numbers =
            text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    version(&release) >= version(minimum)
}

impl Argument {
    fn condition(&self) -> Result<Condition> {
        let operator = match self.op.as_str() {
            "SCMP_CMP_EQ" => Operator::Equal,
            "SCMP_CMP_NE" => Operator::NotEqual,
            "SCMP_CMP_LT" => Operator::Less,
            "SCMP_CMP_LE" => Operator::LessOrEqual,
            "SCMP_CMP_GT" => Operator::Greater,
            "SCMP_CMP_GE" => Operator::GreaterOrEqual,
            "SCMP_CMP_MASKED_EQ" => Operator::MaskedEqual,
            other => return Err(Error::Invalid(format!("seccomp operator {other} is not known"))),
        };
        if self.index > 5 {
            return Err(Error::Invalid(format!("seccomp argument {} does not exist", self.index)));
        }
        Ok(Condition { argument: self.index, operator, value: self.value, second: self.value_two })
    }
}

fn action(name: &str, number: Option<u16>) -> Result<Action> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(number.unwrap_or(1)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(number.unwrap_or(1)),
        "SCMP_ACT_LOG" => Action::Log,
        other => return Err(Error::Invalid(format!("seccomp action {other} is not supported"))),
    })
}
