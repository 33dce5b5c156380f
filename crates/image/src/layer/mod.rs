//! Layers: from a tar to overlayfs's directories and back.

mod changes;
mod content;
mod pack;
mod split;
mod unpack;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::compression;
use crate::digest::{DiffId, DigestReader};
use crate::error::{Context, Result};
use crate::tar::TarReader;

pub(crate) use changes::changes;
pub(crate) use pack::{Packer, Source, join, pack_upper};
pub(crate) use split::assemble;
use split::{SideFiles, SplitWriter};
pub(crate) use unpack::{Rules, Unpacker, is_directory, split_path};

/// How overlayfs marks a directory that hides those below it.
const OPAQUE_XATTR: &[u8] = b"trusted.overlay.opaque";

/// Where one layer is being unpacked. Nothing else knows of it until it is moved into place.
#[derive(Debug)]
pub(crate) struct Staging {
    directory: PathBuf,
}

/// What a layer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    pub(crate) tar_size: u64,
    /// Bytes of file content, Docker's idea of a layer's size.
    pub(crate) size: u64,
}

impl Staging {
    /// Makes `directory`, which must not exist.
    pub(crate) fn create(directory: PathBuf) -> Result<Self> {
        std::fs::create_dir(&directory).context(|| format!("make {}", directory.display()))?;
        let staging = Self { directory };
        std::fs::create_dir(staging.files()).context(|| format!("make {}", staging.files().display()))?;
        Ok(staging)
    }

    /// The layer's files.
    pub(crate) fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    /// What is needed to write its tar again.
    pub(crate) fn split(&self) -> PathBuf {
        self.directory.join("split")
    }

    /// Content that the tar holds but the layer no longer does; made when needed.
    pub(crate) fn side_files(&self) -> PathBuf {
        self.directory.join("side")
    }

    /// The whole.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Unpacks a layer from a tar, perhaps compressed. `lowers` are the layers below, topmost first.
    pub(crate) fn unpack(&self, stream: impl Read, lowers: &[PathBuf]) -> Result<Unpacked> {
        let mut stream = DigestReader::new(compression::detect(stream)?);
        let files = self.files();
        let root = File::open(&files).context(|| format!("open {}", files.display()))?;
        let mut split = SplitWriter::create(&self.split())?;
        let mut side = SideFiles::new(self.side_files());
        let mut unpacker = Unpacker::new(root.as_fd(), Rules { layer: Some(lowers), ..Rules::default() });
        let mut tar = TarReader::new(&mut stream);
        while let Some(header) = tar.next_entry()? {
            split.raw(&tar.take_raw())?;
            unpacker.apply_to_layer(&header, &mut tar.payload(), &mut split, &mut side)?;
        }
        tar.drain(|raw| split.raw(raw))?;
        let size = unpacker.finish()?;
        split.finish()?;
        let (digest, tar_size) = stream.finish();
        Ok(Unpacked { diff_id: DiffId(digest), tar_size, size })
    }
}
