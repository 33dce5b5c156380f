//! Archives that mean harm: each stays inside, or is refused and leaves nothing behind.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{Home, Tar, docker_archive, is_root};
use crate::archive::{ExtractOptions, extract};
use crate::tar::{Header, Kind};
use crate::types::ImportOptions;

/// A store beside a file that must never change.
struct Target {
    home: Home,
    victim: PathBuf,
}

impl Target {
    fn new() -> Self {
        let home = Home::new();
        let victim = home.path("victim");
        std::fs::write(&victim, "untouched").unwrap();
        Self { home, victim }
    }

    fn up(&self) -> String {
        // From a layer's files: new, overlay, the data root.
        "../../../../victim".to_owned()
    }

    fn assert_untouched(&self, attack: &str) {
        assert_eq!(super::read(&self.victim), "untouched", "{attack}");
        let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
        assert_eq!(names(self.home.directory.path()), 3, "{attack}: something new beside the store");
    }
}

#[test]
fn names_that_leave_the_root_are_refused() {
    if !is_root("names_that_leave_the_root_are_refused") {
        return;
    }
    let target = Target::new();
    let up = target.up();
    let inside_then_out = format!("a/../{up}");
    for path in [up.as_str(), "..", "a/../..", &inside_then_out, "./../x"] {
        let refused = target
            .home
            .store
            .import(Tar::new().file(path, "evil").bytes().as_slice(), &ImportOptions::default());
        assert!(refused.unwrap_err().to_string().contains("outside of the root"), "{path}");
        target.assert_untouched(path);
    }
    assert_eq!(target.home.leftovers(), [""; 0]);
}

#[test]
fn symlinks_on_the_way_are_resolved_inside() {
    if !is_root("symlinks_on_the_way_are_resolved_inside") {
        return;
    }
    let target = Target::new();
    let root = target.home.directory.path().display().to_string();
    for (name, link) in [("absolute", root.as_str()), ("up", "../../../.."), ("proc", "/proc/self/cwd")] {
        let tar = Tar::new().link(Kind::Symlink, "way", link).file("way/victim", "evil").bytes();
        // Either the parent is not there inside, or it is made inside: never the real one.
        let _refused_or_confined = target.home.store.import(tar.as_slice(), &ImportOptions::default());
        target.assert_untouched(name);
    }
    // A symlink in the place of the file itself is replaced, not written through.
    let tar = Tar::new()
        .link(Kind::Symlink, "f", &target.victim.display().to_string())
        .file("f", "evil")
        .link(Kind::Symlink, "d", &root)
        .dir("d")
        .file("d/victim", "inside")
        .bytes();
    let id = target.home.import("ok", &tar);
    target.assert_untouched("replaced symlink");
    let rootfs = target.home.store.prepare_rootfs("c", &id).unwrap();
    assert_eq!(super::read(rootfs.lower[1].join("f")), "evil");
    assert_eq!(super::read(rootfs.lower[1].join("d/victim")), "inside");
}

#[test]
fn hard_links_reach_only_the_archives_own_files() {
    if !is_root("hard_links_reach_only_the_archives_own_files") {
        return;
    }
    let target = Target::new();
    let root = target.home.directory.path().display().to_string();
    let up = target.up();
    let absolute = target.victim.display().to_string();
    let attacks = [
        ("up", Tar::new().link(Kind::HardLink, "x", &up)),
        ("absolute", Tar::new().link(Kind::HardLink, "x", &absolute)),
        ("to the root", Tar::new().link(Kind::HardLink, "x", "/")),
        ("to a directory", Tar::new().dir("d").link(Kind::HardLink, "x", "d")),
        ("to nothing", Tar::new().link(Kind::HardLink, "x", "none")),
        ("way", Tar::new().link(Kind::Symlink, "way", &root).link(Kind::HardLink, "x", "way/victim")),
    ];
    for (name, tar) in attacks {
        let refused =
            target.home.store.import(tar.file("x", "evil").bytes().as_slice(), &ImportOptions::default());
        assert_eq!(refused.unwrap_err().kind(), crate::ErrorKind::Invalid, "{name}");
        target.assert_untouched(name);
    }
    // A hard link to a symlink is one more name of the symlink; writing replaces it.
    let tar = Tar::new()
        .link(Kind::Symlink, "s", &absolute)
        .link(Kind::HardLink, "h", "s")
        .file("h", "evil")
        .bytes();
    target.home.import("ok", &tar);
    target.assert_untouched("hard link to a symlink");
    assert_eq!(target.home.store.index().images.len(), 1);
}

#[test]
fn whiteouts_and_devices_stay_inside() {
    if !is_root("whiteouts_and_devices_stay_inside") {
        return;
    }
    let target = Target::new();
    let root = target.home.directory.path().display().to_string();
    let up = target.up();
    let bottom = Tar::new().file("a", "a").bytes();
    let device =
        Header { path: b"way/victim".to_vec(), kind: Kind::BlockDevice, device: (8, 0), ..Header::default() };
    let attacks = [
        ("whiteout of the parent", Tar::new().file(".wh...", "")),
        ("whiteout of itself", Tar::new().file(".wh..", "")),
        ("whiteout of nothing", Tar::new().file(".wh.", "")),
        ("whiteout further up", Tar::new().file("a/../../.wh.victim", "")),
        ("below a whiteout", Tar::new().file(".wh.x/victim", "evil")),
    ];
    for (name, tar) in attacks {
        let archive = docker_archive("x:latest", &[bottom.clone(), tar.bytes()]);
        let refused = target.home.store.load(archive.as_slice(), None);
        assert!(refused.is_err(), "{name}");
        target.assert_untouched(name);
        assert_eq!(target.home.leftovers(), [""; 0], "{name}");
    }
    // Links lead to places inside, which are made.
    let through = [
        ("whiteout", Tar::new().link(Kind::Symlink, "way", &root).file("way/.wh.victim", "")),
        ("opaque", Tar::new().link(Kind::Symlink, "way", &root).file("way/.wh..wh..opq", "")),
        ("device", Tar::new().link(Kind::Symlink, "way", &root).add(device, b"")),
        ("up", Tar::new().link(Kind::Symlink, "way", &up).file("way/../victim/x", "")),
        ("circle", Tar::new().link(Kind::Symlink, "way", "a/../way").file("way/x", "")),
    ];
    for (name, tar) in through {
        let archive = docker_archive("x:latest", &[bottom.clone(), tar.bytes()]);
        let _confined_or_refused = target.home.store.load(archive.as_slice(), None);
        target.assert_untouched(name);
    }
}

#[test]
fn overlays_own_attributes_are_not_taken_from_a_layer() {
    if !is_root("overlays_own_attributes_are_not_taken_from_a_layer") {
        return;
    }
    let home = Home::new();
    let header = Header {
        path: b"d/".to_vec(),
        kind: Kind::Directory,
        mode: 0o755,
        xattrs: vec![
            (b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec()),
            (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
            (b"user.fine".to_vec(), b"1".to_vec()),
        ],
        ..Header::default()
    };
    let id = home.import("x", &Tar::new().add(header, b"").bytes());
    let layer = &home.store.prepare_rootfs("c", &id).unwrap().lower[1];
    let root = std::fs::File::open(layer).unwrap();
    let found = crate::disk::xattrs(&root, b"d", |_| true).unwrap();
    let keys: Vec<_> = found.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect();
    assert_eq!(keys, ["user.fine"]);
}

#[test]
fn an_archive_of_images_cannot_reach_files_either() {
    if !is_root("an_archive_of_images_cannot_reach_files_either") {
        return;
    }
    let target = Target::new();
    let victim = target.victim.display().to_string();
    for path in ["/etc/passwd", "../../../etc/passwd", &victim] {
        let manifest = format!(r#"[{{"Config":"{path}","RepoTags":["x:1"],"Layers":[]}}]"#);
        let tar = Tar::new().file("manifest.json", &manifest).bytes();
        assert!(target.home.store.load(tar.as_slice(), None).is_err(), "{path}");
        let link = Tar::new()
            .link(Kind::Symlink, "config.json", path)
            .file("manifest.json", r#"[{"Config":"config.json","RepoTags":["x:1"],"Layers":[]}]"#)
            .bytes();
        assert!(target.home.store.load(link.as_slice(), None).is_err(), "{path}");
    }
    let circle = Tar::new()
        .link(Kind::Symlink, "manifest.json", "other")
        .link(Kind::Symlink, "other", "manifest.json")
        .bytes();
    assert!(
        target.home.store.load(circle.as_slice(), None).unwrap_err().to_string().contains("too many links")
    );
}

fn members() -> impl Strategy<Value = (Kind, String, String)> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh..wh..opq",
        "out",
        ".wh...",
        "victim",
    ]);
    let path = prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"));
    let kind =
        prop::sample::select(vec![Kind::File, Kind::Directory, Kind::Symlink, Kind::HardLink, Kind::Fifo]);
    (kind, path.clone(), prop_oneof![path, Just("/".to_owned()), Just("../..".to_owned())])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any mixture of members, as a layer and as `docker cp`: nothing outside changes, and a failed load
    /// leaves nothing.
    #[test]
    fn no_archive_changes_anything_outside(members in prop::collection::vec(members(), 1..12)) {
        if !is_root("no_archive_changes_anything_outside") {
            return Ok(());
        }
        let target = Target::new();
        let mut tar = Tar::new();
        for (kind, path, link) in &members {
            let header = Header { path: path.clone().into(), kind: *kind, link: link.clone().into(), mode: 0o700, ..Header::default() };
            tar = tar.add(header, if *kind == Kind::File { b"evil" } else { b"" });
        }
        let tar = tar.bytes();
        let bottom = Tar::new().file("a/b", "x").dir("out").bytes();
        let loaded = target.home.store.load(docker_archive("x:latest", &[bottom, tar.clone()]).as_slice(), None);
        if loaded.is_err() {
            prop_assert_eq!(target.home.leftovers(), [""; 0]);
        } else {
            // What was taken can be given again.
            target.home.store.save(&["x".to_owned()], std::io::sink()).unwrap();
        }
        let inside = target.home.path("image");
        let root = std::fs::File::open(&inside).unwrap();
        let _any_outcome = extract(root.as_fd(), Path::new("/"), tar.as_slice(), ExtractOptions::default());
        target.assert_untouched("random");
    }
}
