//! Finding the program in the container, with Go's words for what is wrong (they decide the exit
//! code of the docker CLI).

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::Failure;

/// A program ready to be executed.
#[derive(Debug)]
pub(super) struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    /// Looks `arguments[0]` up with the environment's PATH, as the present user in the present
    /// directory.
    pub(super) fn find(arguments: &[String], environment: &[String]) -> Result<Self, Failure> {
        let name = arguments.first().ok_or_else(|| Failure::other("no command specified"))?;
        let path = find(name, environment)?;
        let c_string = |text: &str| {
            CString::new(text).map_err(|_| Failure::other(format!("{text:?} contains a null byte")))
        };
        Ok(Self {
            path: CString::new(path.as_os_str().as_bytes())
                .map_err(|_| Failure::not_found("null byte in path"))?,
            arguments: arguments.iter().map(|text| c_string(text)).collect::<Result<_, _>>()?,
            environment: environment.iter().map(|text| c_string(text)).collect::<Result<_, _>>()?,
        })
    }

    /// Returns only on failure.
    pub(super) fn execute(&self) -> Failure {
        let error = crate::sys::execve(&self.path, &self.arguments, &self.environment);
        let path = self.path.to_string_lossy();
        match error.raw_os_error() {
            Some(libc::ENOENT) => Failure::not_found(format!("exec {path}: no such file or directory")),
            Some(libc::ENOEXEC) => Failure::not_executable(format!("exec {path}: exec format error")),
            Some(libc::EACCES) => Failure::not_executable(format!("exec {path}: permission denied")),
            _ => Failure::not_executable(format!("exec {path}: {error}")),
        }
    }
}

fn find(name: &str, environment: &[String]) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        check(name, Path::new(name))?;
        return Ok(name.into());
    }
    let path = environment.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or_default();
    let mut refused = false;
    for directory in path.split(':').filter(|_| !name.is_empty()) {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match check(name, &candidate) {
            Ok(()) => return Ok(candidate),
            Err(failure) => refused |= failure.exit_code == 126 && !candidate.is_dir(),
        }
    }
    if refused {
        return Err(Failure::not_executable(format!("exec: {name:?}: permission denied")));
    }
    Err(Failure::not_found(format!("exec: {name:?}: executable file not found in $PATH")))
}

fn check(name: &str, path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Failure::not_executable(format!("exec: {name:?}: permission denied")));
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => {
            return Err(Failure::not_executable(format!("exec: {name:?}: stat {shown}: not a directory")));
        }
        Err(_) => {
            return Err(Failure::not_found(format!(
                "exec: {name:?}: stat {shown}: no such file or directory"
            )));
        }
    };
    if metadata.is_dir() {
        return Err(Failure::not_executable(format!("exec: {name:?}: is a directory")));
    }
    // Root may execute what has any execute bit; access() knows.
    let executable =
        metadata.permissions().mode() & 0o111 != 0 && access(OsStr::new(path), Access::EXEC_OK).is_ok();
    if executable {
        Ok(())
    } else {
        Err(Failure::not_executable(format!("exec: {name:?}: permission denied")))
    }
}
