//! Where the build left things.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the sources are where they were built")
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// The binary under test.
pub fn portolan_binary() -> PathBuf {
    std::env::var_os("PORTOLAN_BIN").map_or_else(|| target().join("release/portolan"), PathBuf::from)
}

/// The tar file of an image that `scripts/images.sh` builds.
pub fn image_tar(name: &str) -> PathBuf {
    let path = target().join("images").join(format!("{name}.tar"));
    assert!(path.exists(), "{} is missing: run scripts/images.sh", path.display());
    path
}
