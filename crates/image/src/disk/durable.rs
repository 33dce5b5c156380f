use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::error::{Context, Result};

/// Replaces `path` by a file with this content, such that after a power cut there is the old or the new
/// file, and once this returns, the new one.
pub(crate) fn durable_write(path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().context(|| format!("write {}", path.display()))?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

/// Makes what was created, renamed and removed in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).context(|| format!("sync {}", path.display()))
}

/// Makes everything on the file system of `path` durable: one flush in place of one a file.
pub(crate) fn sync_file_system(path: &Path) -> Result<()> {
    let directory = File::open(path).context(|| format!("open {}", path.display()))?;
    rustix::fs::syncfs(&directory).context(|| format!("sync the file system of {}", path.display()))
}
