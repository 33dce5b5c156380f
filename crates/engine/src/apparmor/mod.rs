//! Where the kernel has AppArmor, containers are confined by a profile of our own; it is loaded once, at the
//! daemon's start, by the host's `apparmor_parser` (no library can: compiling profiles is that program's secret).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{EngineError, Result};

/// The profile of containers that do not ask for another.
pub(crate) const PROFILE: &str = "portolan-default";
/// What Docker calls its own; whoever asks for it means the default.
const DOCKERS: &str = "docker-default";
const TEXT: &str = include_str!("profile");
/// Where the kernel tells of its profiles, and takes them.
const POLICY: &str = "sys/kernel/security/apparmor";
/// What the program gets to load one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where distributions have the program.
const PARSERS: [&str; 3] =
    ["sbin/apparmor_parser", "usr/sbin/apparmor_parser", "usr/local/sbin/apparmor_parser"];

/// What AppArmor does for containers on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AppArmor {
    /// The kernel has it not, or off.
    Off,
    /// The profile is loaded.
    On,
    /// The host has not the program that would load it: as in Docker, containers are not confined by AppArmor then.
    NoParser,
    /// The profile could not be loaded, and this is why: nobody is unconfined who does not ask for it.
    Failed(String),
}

impl AppArmor {
    /// What there is on the host that this process runs on. A container sees its host's AppArmor, where nothing is for it
    /// to load.
    pub(crate) fn of_host() -> Self {
        if std::env::var_os("container").is_some() { Self::Off } else { Self::set_up(Path::new("/")) }
    }

    /// Loads the profile if there is AppArmor. `root` is `/` but for tests. Blocks for as long as the parser takes.
    pub(crate) fn set_up(root: &Path) -> Self {
        let enabled = fs::read_to_string(root.join("sys/module/apparmor/parameters/enabled"));
        if !enabled.is_ok_and(|text| text.starts_with('Y')) || !root.join(POLICY).exists() {
            return Self::Off;
        }
        let Some(parser) = find_parser(root) else {
            // An earlier daemon may have loaded it when there was one.
            return if is_loaded(root) == Some(true) { Self::On } else { Self::NoParser };
        };
        match load(&parser, PATIENCE) {
            Ok(()) => Self::On,
            Err(reason) => Self::Failed(format!("{}: {reason}", parser.display())),
        }
    }

    /// The profile to put on; none is unconfined.
    ///
    /// # Errors
    /// The profile that is asked for cannot be put on.
    pub(crate) fn profile(&self, asked: &str, privileged: bool) -> Result<Option<String>> {
        let default = matches!(asked, "" | PROFILE | DOCKERS);
        match self {
            _ if asked == "unconfined" => Ok(None),
            _ if asked.is_empty() && privileged => Ok(None),
            Self::Off | Self::NoParser if default => Ok(None),
            Self::Off => Err(EngineError::invalid(format!(
                "apparmor is not enabled in this kernel: cannot apply profile {asked:?}"
            ))),
            _ if !default => Ok(Some(asked.to_owned())),
            Self::Failed(reason) => Err(EngineError::internal(format!(
                "the AppArmor profile {PROFILE} could not be loaded at the daemon's start: {reason} (to run \
                 without it: --security-opt apparmor=unconfined)"
            ))),
            Self::On | Self::NoParser => Ok(Some(PROFILE.to_owned())),
        }
    }

    /// What `inspect` shows as the profile.
    pub(crate) fn shown(&self, asked: &str, privileged: bool) -> String {
        match self {
            Self::Off => String::new(),
            _ => self.profile(asked, privileged).ok().flatten().unwrap_or_else(|| "unconfined".to_owned()),
        }
    }

    /// What whoever runs the host should know.
    pub(crate) fn warning(&self) -> Option<String> {
        match self {
            Self::Off | Self::On => None,
            Self::NoParser => Some(
                "AppArmor is enabled, but there is no apparmor_parser: containers run without an AppArmor profile \
                 (install the package apparmor and restart the daemon)"
                    .to_owned(),
            ),
            Self::Failed(reason) => Some(format!(
                "AppArmor is enabled, but the profile {PROFILE} cannot be loaded: {reason}; containers start only \
                 with --security-opt apparmor=unconfined"
            )),
        }
    }
}

/// Loads our profile once more if somebody has unloaded it: until the daemon's next start nothing would run with it.
/// Reads a file; blocks for as long as the parser takes.
///
/// # Errors
/// It cannot be loaded.
pub(crate) fn keep_loaded(root: &Path) -> Result<()> {
    // Where that cannot be read the kernel tells whom it concerns.
    if is_loaded(root) != Some(false) {
        return Ok(());
    }
    let reason = match find_parser(root) {
        Some(parser) => match load(&parser, PATIENCE) {
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        },
        None => "there is no apparmor_parser".to_owned(),
    };
    Err(EngineError::internal(format!(
        "the AppArmor profile {PROFILE} has been unloaded and cannot be loaded again: {reason}"
    )))
}

fn find_parser(root: &Path) -> Option<PathBuf> {
    PARSERS.iter().map(|path| root.join(path)).find(|path| path.exists())
}

/// `name (mode)`, a line each; none if that cannot be read.
fn is_loaded(root: &Path) -> Option<bool> {
    let profiles = fs::read_to_string(root.join(POLICY).join("profiles")).ok()?;
    Some(profiles.lines().any(|line| line.split(" (").next() == Some(PROFILE)))
}

/// Replaces what is loaded: it may be another version's.
fn load(parser: &Path, patience: Duration) -> std::result::Result<(), String> {
    let run = || {
        let mut child = Command::new(parser)
            .args(["--replace", "--skip-cache"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // One that does not read all of it says why.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(TEXT.as_bytes()));
        let deadline = Instant::now() + patience;
        while child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::other(format!("no end within {} seconds", patience.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().next_back().unwrap_or_default();
    Err(if said.is_empty() { format!("ended with {}", output.status) } else { said.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A root with AppArmor on or off and a parser that does as it is told.
    fn root(enabled: &str, parser: Option<&str>) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        };
        write("sys/module/apparmor/parameters/enabled", enabled);
        write("sys/kernel/security/apparmor/profiles", "docker-default (enforce)\nsnap.x (complain)\n");
        if let Some(script) = parser {
            write(
                "usr/sbin/apparmor_parser",
                &format!("#!/bin/sh\ncat > {}/loaded\n{script}", root.path().display()),
            );
        }
        root
    }

    #[test]
    fn the_profile_is_loaded_where_there_is_apparmor() {
        let host = root("Y\n", Some("exit 0"));
        let on = AppArmor::set_up(host.path());
        assert_eq!(on, AppArmor::On);
        assert_eq!(fs::read_to_string(host.path().join("loaded")).unwrap(), TEXT);
        assert_eq!(AppArmor::set_up(root("N\n", Some("exit 0")).path()), AppArmor::Off);
        assert_eq!(AppArmor::set_up(Path::new("/nonexistent")), AppArmor::Off);
        let failed = AppArmor::set_up(root("Y\n", Some("echo syntax error >&2; exit 1")).path());
        assert!(
            matches!(&failed, AppArmor::Failed(reason) if reason.ends_with("syntax error")),
            "{failed:?}"
        );
        assert!(failed.profile("", false).is_err(), "nobody is unconfined by accident");
        assert_eq!(failed.profile("unconfined", false).unwrap(), None);
    }

    #[test]
    fn a_kernel_that_takes_no_profiles_has_no_apparmor() {
        let host = root("Y\n", Some("exit 1"));
        fs::remove_dir_all(host.path().join(POLICY)).unwrap();
        assert_eq!(AppArmor::set_up(host.path()), AppArmor::Off);
    }

    #[test]
    fn what_somebody_unloads_is_loaded_again() {
        let host = root("Y\n", Some("exit 0"));
        let profiles = host.path().join(POLICY).join("profiles");
        fs::write(&profiles, "portolan-default (enforce)\n").unwrap();
        keep_loaded(host.path()).unwrap();
        assert!(!host.path().join("loaded").exists(), "it is there");
        fs::write(&profiles, "docker-default (enforce)\n").unwrap();
        keep_loaded(host.path()).unwrap();
        assert_eq!(fs::read_to_string(host.path().join("loaded")).unwrap(), TEXT);
        let error = keep_loaded(root("Y\n", None).path()).unwrap_err().to_string();
        assert!(error.contains("cannot be loaded again"), "{error}");
    }

    #[test]
    fn a_parser_that_hangs_is_given_up() {
        let host = root("Y\n", Some("exec sleep 1000 2>/dev/null"));
        let parser = find_parser(host.path()).unwrap();
        let reason = load(&parser, Duration::from_millis(100)).unwrap_err();
        assert!(reason.contains("no end within"), "{reason}");
    }

    #[test]
    fn without_a_parser_the_host_is_told() {
        let host = root("Y\n", None);
        let none = AppArmor::set_up(host.path());
        assert_eq!(none, AppArmor::NoParser);
        assert!(none.warning().unwrap().contains("apparmor_parser"));
        assert_eq!(none.profile("", false).unwrap(), None);
        fs::write(host.path().join("sys/kernel/security/apparmor/profiles"), "portolan-default (enforce)\n")
            .unwrap();
        assert_eq!(AppArmor::set_up(host.path()), AppArmor::On);
    }

    #[test]
    fn who_asks_for_what() {
        let profile = |on: &AppArmor, asked: &str, privileged| on.profile(asked, privileged).unwrap();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(profile(&AppArmor::On, "", false), some(PROFILE));
        assert_eq!(profile(&AppArmor::On, "", true), None);
        assert_eq!(profile(&AppArmor::On, DOCKERS, true), some(PROFILE));
        assert_eq!(profile(&AppArmor::On, "mine", false), some("mine"));
        assert_eq!(profile(&AppArmor::On, "unconfined", false), None);
        assert_eq!(profile(&AppArmor::Off, DOCKERS, false), None);
        assert!(AppArmor::Off.profile("mine", false).is_err());
        assert_eq!(AppArmor::On.shown("", true), "unconfined");
        assert_eq!(AppArmor::Off.shown("", false), "");
    }
}
