//! Stories about the whole store, on real directories. Those that make devices or change owners need root;
//! without it they say so and pass.

mod attacks;
mod containers;
mod images;
mod layers;
#[cfg(feature = "registry")]
mod registry;

use std::path::Path;

use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::tar::{Header, Kind, TarWriter};
use crate::types::{ImageUser, ImportOptions};
use crate::{ImageStore, Reference};

/// Whether the test can run at all.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped {test}: it needs root to make devices and change owners");
    }
    root
}

/// A store in a directory that goes with it.
struct Home {
    directory: tempfile::TempDir,
    store: ImageStore,
}

impl Home {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = ImageStore::open(directory.path()).unwrap();
        Self { directory, store }
    }

    /// What a new process would see.
    fn reopen(&mut self) {
        // Two processes never delete side by side, so the threads of two stores shall not here.
        self.store.flush_removals();
        self.store = ImageStore::open(self.directory.path()).unwrap();
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().join(path)
    }

    fn import(&self, name: &str, tar: &[u8]) -> ImageId {
        let options = ImportOptions { reference: Some(name_of(name)), ..ImportOptions::default() };
        self.store.import(tar, &options).unwrap()
    }

    /// Paths left in the store's working directories.
    fn leftovers(&self) -> Vec<String> {
        self.store.flush_removals();
        let names = |path: &str| {
            let entries = std::fs::read_dir(self.path(path)).unwrap();
            entries
                .map(|e| format!("{path}/{}", e.unwrap().file_name().to_string_lossy()))
                .collect::<Vec<_>>()
        };
        let mut all = Vec::new();
        for directory in
            ["overlay/new", "overlay/trash", "overlay/l", "overlay/s", "overlay/c", "image/configs"]
        {
            all.extend(names(directory));
        }
        all
    }
}

fn name_of(text: &str) -> Reference {
    Reference::parse(text).unwrap().or_latest()
}

fn nobody(_: &ImageId) -> Vec<ImageUser> {
    Vec::new()
}

/// Builds an archive.
struct Tar(TarWriter<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(TarWriter::new(Vec::new()))
    }

    fn add(mut self, header: Header, content: &[u8]) -> Self {
        self.0.append(&Header { size: content.len() as u64, ..header }, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(
            Header { path: path.into(), mode: 0o644, mtime: (1_000_000_000, 0), ..Header::default() },
            content.as_bytes(),
        )
    }

    fn dir(self, path: &str) -> Self {
        self.add(
            Header {
                path: path.into(),
                kind: Kind::Directory,
                mode: 0o755,
                mtime: (1_000_000_000, 0),
                ..Header::default()
            },
            b"",
        )
    }

    fn link(self, kind: Kind, path: &str, target: &str) -> Self {
        self.add(
            Header { path: path.into(), kind, link: target.into(), mode: 0o777, ..Header::default() },
            b"",
        )
    }

    fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

/// A docker-archive with one image of these layers.
fn docker_archive(name: &str, layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "created": "2020-01-01T00:00:00Z",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| serde_json::json!({"created_by": "test"})).collect::<Vec<_>>(),
    })
    .to_string();
    let paths: Vec<String> = (0..layers.len()).map(|i| format!("{i}/layer.tar")).collect();
    let tags = if name.is_empty() { vec![] } else { vec![name] };
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": tags, "Layers": paths}]).to_string();
    let mut tar = Tar::new().file("config.json", &config);
    for (path, layer) in paths.iter().zip(layers) {
        tar = tar.add(Header { path: path.as_str().into(), mode: 0o644, ..Header::default() }, layer);
    }
    tar.file("manifest.json", &manifest).bytes()
}

fn chain_of(layers: &[Vec<u8>]) -> Vec<ChainId> {
    layers
        .iter()
        .scan(None, |parent, layer| {
            *parent = Some(ChainId::extend(*parent, DiffId(Digest::of(layer))));
            *parent
        })
        .collect()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}
