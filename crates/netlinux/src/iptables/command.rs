//! Running the programs of iptables.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use portolan_netcore::firewall::ruleset::IpFamily;

use crate::firewall::FirewallError;

/// How many of the processes started last are remembered.
const REMEMBERED: usize = 64;
/// The processes started last.
static STARTED: Mutex<VecDeque<u32>> = Mutex::new(VecDeque::new());

/// Whether this process was one of ours: what it commits is our own doing. Events of nf_tables carry a
/// process id.
pub(crate) fn started(pid: u32) -> bool {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
}

fn remember(pid: u32) {
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if started.len() == REMEMBERED {
        started.pop_front();
    }
    started.push_back(pid);
}

/// One of iptables' sets of programs: the host's choice, or one variant by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// What the host calls `iptables`.
    Default,
    /// iptables-legacy.
    Legacy,
    /// iptables-nft.
    Nft,
}

impl Variant {
    fn program(self, family: IpFamily, verb: &str) -> String {
        let name = if family == IpFamily::V4 { "iptables" } else { "ip6tables" };
        match self {
            Self::Default => format!("{name}-{verb}"),
            Self::Legacy => format!("{name}-legacy-{verb}"),
            Self::Nft => format!("{name}-nft-{verb}"),
        }
    }
}

/// The kernel has this family. Its iptables cannot be asked otherwise.
pub(super) fn family_exists(family: IpFamily) -> bool {
    family == IpFamily::V4 || std::fs::exists("/proc/sys/net/ipv6").unwrap_or(false)
}

/// The families that this kernel has.
pub(super) fn families() -> impl Iterator<Item = IpFamily> {
    IpFamily::BOTH.into_iter().filter(|family| family_exists(*family))
}

/// All rules of a family, as `iptables-save` prints them.
pub(super) fn save(variant: Variant, family: IpFamily) -> Result<String, FirewallError> {
    run(&variant.program(family, "save"), &[], "")
}

/// Feeds `iptables-restore --noflush`; waits for the lock that other programs of iptables may hold.
pub(super) fn restore(variant: Variant, family: IpFamily, input: &str) -> Result<(), FirewallError> {
    if input.is_empty() {
        return Ok(());
    }
    run(&variant.program(family, "restore"), &["--noflush", "--wait"], input).map(drop)
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, FirewallError> {
    let failed = |status: String, stderr: String| FirewallError::Program {
        program: format!("{program} {}", arguments.join(" ")).trim_end().to_owned(),
        status,
        stderr,
    };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(FirewallError::NoProgram { program: program.to_owned() });
        }
        Err(error) => return Err(failed("not started".to_owned(), error.to_string())),
    };
    remember(child.id());
    // The programs read all input before they say anything, so writing it out first cannot block; one
    // that ends early breaks the pipe, and then its own words are the error worth showing.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed("lost".to_owned(), error.to_string()))?;
    if !output.status.success() {
        return Err(failed(
            output.status.to_string(),
            explain(&String::from_utf8_lossy(&output.stderr), input),
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the program said, with the line of the input that it names.
fn explain(stderr: &str, input: &str) -> String {
    let said = stderr.trim();
    let number = said.split("line").skip(1).find_map(|rest| {
        let digits: String =
            rest.trim_start_matches([':', ' ']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    match number.and_then(|number| input.lines().nth(number.checked_sub(1)?)) {
        Some(line) => format!("{said}: {line:?}"),
        None => said.to_owned(),
    }
}

/// All rules of iptables-legacy of a family, whoever made them.
pub(crate) fn save_legacy(family: IpFamily) -> Result<String, FirewallError> {
    save(Variant::Legacy, family)
}
