//! What a process is told by way of files in /proc: how willingly the kernel kills it for want of memory, and its
//! AppArmor profile.
//!
//! All of it is written before the container's root is entered, through the host's /proc: what a container
//! has at /proc may be anything, and a profile that is written there put on nobody (CVE-2019-16884).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::Result;
use crate::error::Attempt;
use crate::spec::ContainerSpec;

/// An AppArmor profile that is still to be put on.
#[derive(Debug, Default)]
pub(super) struct Confinement {
    later: Option<(File, String)>,
}

impl Confinement {
    /// Tells the kernel. The profile is put on by the next exec, which those inherit that are forked before it; a
    /// process that executes nothing (`stays`) puts it on by [`Self::put_on`].
    ///
    /// Whether a privileged process has a profile was decided by whoever wrote the specification.
    pub(super) fn arrange(spec: &ContainerSpec, stays: bool) -> Result<Self> {
        if let Some(score) = spec.oom_score_adj {
            match fs::write("/proc/self/oom_score_adj", score.to_string()) {
                // The daemon's own is higher and it may not lower it; nobody has asked for this one.
                Err(error) if score == 0 && error.kind() == io::ErrorKind::PermissionDenied => {}
                other => other.attempt(|| format!("set oom_score_adj to {score}"))?,
            }
        }
        let Some(profile) = spec.apparmor.as_deref() else { return Ok(Self::default()) };
        let what = || format!("apply the AppArmor profile {profile}");
        let modern = Path::new("/proc/self/attr/apparmor");
        let directory = if modern.exists() { modern } else { Path::new("/proc/self/attr") };
        if stays {
            let file = OpenOptions::new().write(true).open(directory.join("current")).attempt(what)?;
            return Ok(Self { later: Some((file, profile.to_owned())) });
        }
        fs::write(directory.join("exec"), format!("exec {profile}")).attempt(what)?;
        Ok(Self::default())
    }

    /// Puts the profile on.
    pub(super) fn put_on(self) -> Result<()> {
        let Some((mut file, profile)) = self.later else { return Ok(()) };
        file.write_all(format!("changeprofile {profile}").as_bytes())
            .attempt(|| format!("apply the AppArmor profile {profile}"))
    }

    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.later.iter().map(|(file, _)| file.as_fd())
    }
}
