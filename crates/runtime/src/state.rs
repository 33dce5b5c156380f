//! What a shim keeps on disk: `<exec_root>/shims/<id>/{s,state.json,exit.json}`.
//!
//! `state.json` exists before the container's cgroup does, with its pid once it is set up; `exit.json` is written (and
//! renamed into place) before anybody hears of the exit.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::Attempt;
use crate::identity::Identity;
use crate::status::ExitStatus;
use crate::{Error, Result};

/// Directory of all shims, in the exec root.
pub(crate) const SHIMS: &str = "shims";
/// The socket of a shim, in its directory.
pub(crate) const SOCKET: &str = "s";
const STATE: &str = "state.json";
const EXIT: &str = "exit.json";

/// A container as a later daemon finds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedState {
    /// First process; 0 while the container is being set up.
    pub(crate) pid: i32,
    /// Path of the cgroup below the hierarchies.
    pub(crate) cgroup: String,
    /// The shim itself; earlier ones did not say.
    #[serde(default)]
    pub(crate) shim: Option<Identity>,
    /// How it ended, if it has.
    #[serde(skip)]
    pub(crate) exit: Option<ExitStatus>,
}

impl SavedState {
    /// `None` if nothing of the container was ever made.
    pub(crate) fn load(directory: &Path) -> Result<Option<Self>> {
        let Some(mut saved) = read::<Self>(&directory.join(STATE))? else { return Ok(None) };
        saved.exit = load_exit(directory)?;
        Ok(Some(saved))
    }

    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        write(directory, STATE, self)
    }
}

pub(crate) fn directory(exec_root: &Path, id: &str) -> PathBuf {
    exec_root.join(SHIMS).join(id)
}

pub(crate) fn load_exit(directory: &Path) -> Result<Option<ExitStatus>> {
    read(&directory.join(EXIT))
}

pub(crate) fn save_exit(directory: &Path, exit: &ExitStatus) -> Result<()> {
    write(directory, EXIT, exit)
}

/// All ids that have a directory.
pub(crate) fn ids(exec_root: &Path) -> Result<Vec<String>> {
    let shims = exec_root.join(SHIMS);
    let mut ids = Vec::new();
    for entry in fs::read_dir(&shims).attempt(|| format!("read {}", shims.display()))? {
        let entry = entry.attempt(|| format!("read {}", shims.display()))?;
        ids.push(entry.file_name().to_string_lossy().into_owned());
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Whether the shim of a directory has ended: nobody listens there, and it does not run. What it has left says so; who
/// has left nothing has never begun.
pub(crate) fn is_dead(directory: &Path) -> Result<bool> {
    let saved = SavedState::load(directory)?;
    Ok(saved.and_then(|saved| saved.shim).is_none_or(|shim| !shim.is_alive()))
}

/// Ends a shim that does not answer, and what runs in its container.
pub(crate) fn put_down(directory: &Path) -> Result<()> {
    let Some(saved) = SavedState::load(directory)? else { return Ok(()) };
    if let Some(shim) = saved.shim {
        shim.kill();
    }
    Cgroup::open(&saved.cgroup)?.kill_all()
}

/// Kills and removes what a dead shim left running; 137 unless it had written down another end.
pub(crate) fn bury(directory: &Path, id: &str) -> Result<ExitStatus> {
    let Some(saved) = SavedState::load(directory)? else {
        return Err(Error::ShimGone { id: id.to_owned() });
    };
    let cgroup = Cgroup::open(&saved.cgroup)?;
    let oom_killed = cgroup.oom_killed();
    cgroup.kill_and_remove()?;
    if let Some(exit) = saved.exit {
        return Ok(exit);
    }
    let exit = ExitStatus { code: 137, oom_killed, finished_at: Timestamp::now(), started_at: None };
    save_exit(directory, &exit)?;
    Ok(exit)
}

/// Removes a shim's directory; one that is gone is fine.
pub(crate) fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { what: format!("remove {}", directory.display()), source: error })
        }
        _ => Ok(()),
    }
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::Io { what: format!("read {}", path.display()), source: error }),
    };
    serde_json::from_slice(&bytes).map(Some).attempt(|| format!("read {}", path.display()))
}

/// Whole or not at all, as seen by anyone who reads it after a crash of this process.
fn write<T: Serialize>(directory: &Path, name: &str, value: &T) -> Result<()> {
    let draft = directory.join(format!(".{name}"));
    let bytes = serde_json::to_vec(value).attempt(|| format!("write {name}"))?;
    fs::write(&draft, bytes).attempt(|| format!("write {}", draft.display()))?;
    fs::rename(&draft, directory.join(name)).attempt(|| format!("write {name} in {}", directory.display()))
}
