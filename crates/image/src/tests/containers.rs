//! Root file systems of containers.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use super::{Home, Tar, is_root, nobody, read};
use crate::archive::{self, ExtractOptions};
use crate::tar::Kind;
use crate::types::{ChangeKind, CommitOptions, RemoveOptions, Removed};
use crate::{ErrorKind, RunConfig};

fn shell_image(home: &Home) -> crate::ImageId {
    let tar = Tar::new()
        .dir("./")
        .dir("etc/")
        .file("etc/passwd", "root:x:0:0::/:/bin/sh")
        .file("etc/old", "old")
        .file("bin/sh", "#!")
        .bytes();
    home.import("shell", &tar)
}

fn marks(home: &Home) -> Vec<String> {
    let letter = |kind| match kind {
        ChangeKind::Modified => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    };
    let changes = home.store.changes("c").unwrap();
    changes.iter().map(|change| format!("{} {}", letter(change.kind), change.path.display())).collect()
}

#[test]
fn a_root_file_system_comes_and_goes() {
    if !is_root("a_root_file_system_comes_and_goes") {
        return;
    }
    let mut home = Home::new();
    let id = shell_image(&home);
    let rootfs = home.store.prepare_rootfs("c", &id).unwrap();
    assert!(
        rootfs.lower.iter().chain([&rootfs.upper, &rootfs.work, &rootfs.target]).all(|path| path.is_dir())
    );
    assert!(rootfs.lower[0].join("proc").is_dir() && rootfs.lower[0].join("etc/hosts").is_file());
    assert_eq!(home.store.prepare_rootfs("c", &id).unwrap(), rootfs, "asking again gives the same");
    home.reopen();
    assert_eq!(home.store.rootfs("c").unwrap(), rootfs, "a new process finds it");
    home.store.remove_rootfs("c").unwrap();
    home.store.remove_rootfs("c").unwrap();
    assert!(!rootfs.upper.exists());
    assert_eq!(home.store.rootfs("c").unwrap_err().kind(), ErrorKind::NotFound);
    for bad in ["", "../c", "a/b", "."] {
        assert_eq!(home.store.prepare_rootfs(bad, &id).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
    }
}

#[test]
fn a_container_keeps_the_layers_of_a_removed_image() {
    if !is_root("a_container_keeps_the_layers_of_a_removed_image") {
        return;
    }
    let mut home = Home::new();
    let id = shell_image(&home);
    let rootfs = home.store.prepare_rootfs("c", &id).unwrap();
    let force = RemoveOptions { force: true, ..RemoveOptions::default() };
    let removed = home.store.remove("shell", force, &nobody).unwrap();
    assert_eq!(removed, [Removed::Untagged("shell:latest".into()), Removed::Deleted(id.to_string())]);
    home.reopen();
    assert_eq!(home.store.rootfs("c").unwrap(), rootfs);
    assert_eq!(read(rootfs.lower[1].join("bin/sh")), "#!");
    home.store.remove_rootfs("c").unwrap();
    assert_eq!(home.leftovers(), [""; 0], "the last user takes the layers along");
}

#[test]
fn changes_commit_and_export_tell_what_a_container_did() {
    if !is_root("changes_commit_and_export_tell_what_a_container_did") {
        return;
    }
    let home = Home::new();
    let id = shell_image(&home);
    home.store.prepare_rootfs("c", &id).unwrap();
    assert_eq!(marks(&home), [""; 0], "the init layer does not show");
    {
        let root = home.store.open_rootfs("c").unwrap();
        let path = format!("/proc/self/fd/{}", root.as_raw_fd());
        let at = |name: &str| Path::new(&path).join(name);
        std::fs::write(at("etc/passwd"), "changed").unwrap();
        std::fs::remove_file(at("etc/old")).unwrap();
        std::fs::create_dir(at("srv")).unwrap();
        std::fs::write(at("srv/data"), "new").unwrap();
        std::fs::hard_link(at("srv/data"), at("srv/same")).unwrap();
        std::fs::remove_file(at("bin/sh")).unwrap();
        std::fs::remove_dir(at("bin")).unwrap();
        std::fs::create_dir(at("bin")).unwrap();
        std::fs::write(at("bin/ash"), "").unwrap();
    }
    assert_eq!(
        marks(&home),
        [
            "C /bin",
            "A /bin/ash",
            "C /etc",
            "D /etc/old",
            "C /etc/passwd",
            "A /srv",
            "A /srv/data",
            "A /srv/same"
        ]
    );
    assert_eq!(home.store.rootfs_size("c").unwrap().writable, 10);

    let options = CommitOptions {
        reference: Some(super::name_of("changed")),
        config: RunConfig { cmd: Some(vec!["sh".into()]), ..RunConfig::default() },
        changes: vec!["ENV A=1".into()],
        comment: "why".into(),
        ..CommitOptions::default()
    };
    let child = home.store.commit("c", &id, &options).unwrap();
    let image = home.store.get(&child).unwrap();
    assert_eq!(
        (image.parent, image.chain.len(), image.config.config.env.as_slice()),
        (Some(id), 2, &["A=1".to_owned()][..])
    );
    home.store.prepare_rootfs("c2", &child).unwrap();
    let root = home.store.open_rootfs("c2").unwrap();
    let path = format!("/proc/self/fd/{}", root.as_raw_fd());
    assert_eq!(read(format!("{path}/etc/passwd")), "changed");
    assert!(!Path::new(&format!("{path}/etc/old")).exists());
    assert!(!Path::new(&format!("{path}/bin/sh")).exists(), "a directory made anew hides the old one");
    assert!(Path::new(&format!("{path}/bin/ash")).exists());

    let mut exported = Vec::new();
    archive::export(root.as_fd(), &mut exported).unwrap();
    let flat = home.import("flat", &exported);
    let layer = home.store.prepare_rootfs("c3", &flat).unwrap().lower[1].clone();
    assert_eq!(read(layer.join("srv/same")), "new");
    assert!(layer.join(".dockerenv").exists());
    let conflict =
        home.store.remove("shell", RemoveOptions { force: true, ..RemoveOptions::default() }, &nobody);
    assert!(conflict.is_ok(), "quietly keeps what has children");
    let conflict =
        home.store.remove(&id.hex(), RemoveOptions { force: true, ..RemoveOptions::default() }, &nobody);
    assert!(
        conflict.unwrap_err().to_string().ends_with("(cannot be forced) - image has dependent child images")
    );
}

#[test]
fn a_commit_without_changes_adds_no_layer() {
    if !is_root("a_commit_without_changes_adds_no_layer") {
        return;
    }
    let home = Home::new();
    let id = shell_image(&home);
    home.store.prepare_rootfs("c", &id).unwrap();
    let child = home.store.commit("c", &id, &CommitOptions::default()).unwrap();
    let image = home.store.get(&child).unwrap();
    assert_eq!(image.chain.len(), 1);
    assert!(image.config.history.last().unwrap().empty_layer);
    let history = home.store.history(&child.hex()).unwrap();
    assert_eq!((history.len(), history[0].id, history[1].id), (2, Some(child), Some(id)));
    assert_eq!(history[1].tags, ["shell:latest"]);
}

#[test]
fn cp_goes_by_the_containers_own_links() {
    if !is_root("cp_goes_by_the_containers_own_links") {
        return;
    }
    let home = Home::new();
    let tar = Tar::new()
        .dir("data/")
        .file("data/f", "content")
        .link(Kind::Symlink, "link", "/data")
        .link(Kind::Symlink, "out", "/../../../../etc")
        .bytes();
    let id = home.import("x", &tar);
    home.store.prepare_rootfs("c", &id).unwrap();
    let root = home.store.open_rootfs("c").unwrap();
    let root = root.as_fd();

    let link = archive::stat(root, Path::new("/link")).unwrap();
    assert_eq!((link.name.as_str(), link.link_target.to_str()), ("link", Some("/data")));
    assert_eq!(archive::stat(root, Path::new("/link/f")).unwrap().size, 7);
    let missing = archive::stat(root, Path::new("/out/passwd")).unwrap_err();
    assert_eq!(missing.to_string(), "Could not find the file /out/passwd in container");

    let mut copied = Vec::new();
    archive::write_path(root, Path::new("/link/"), &mut copied).unwrap();
    let at = home.path("copied");
    std::fs::create_dir(&at).unwrap();
    let into = std::fs::File::open(&at).unwrap();
    archive::extract(into.as_fd(), Path::new("/"), copied.as_slice(), ExtractOptions::default()).unwrap();
    assert_eq!(read(at.join("link/f")), "content");

    let owned = ExtractOptions { owner: Some((5, 6)), keep_kinds: true };
    let tar = Tar::new().file("new/file", "n").bytes();
    archive::extract(root, Path::new("/link"), tar.as_slice(), owned).unwrap();
    let file = Path::new("/proc/self/fd").join(root.as_raw_fd().to_string()).join("data/new/file");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file.metadata().unwrap()), 5);
    let over = Tar::new().file("data", "n").bytes();
    let refused = archive::extract(root, Path::new("/"), over.as_slice(), owned).unwrap_err();
    assert!(refused.to_string().starts_with("cannot overwrite directory"), "{refused}");
    let nowhere = archive::extract(root, Path::new("/data/f"), over.as_slice(), owned).unwrap_err();
    assert_eq!(nowhere.to_string(), "extraction point is not a directory");
}

#[test]
fn a_hundred_layers_fit_into_the_options_of_one_mount() {
    if !is_root("a_hundred_layers_fit_into_the_options_of_one_mount") {
        return;
    }
    let home = Home::new();
    let layers: Vec<_> = (0..125).map(|i| Tar::new().file(&format!("f{i}"), "x").bytes()).collect();
    home.store.load(super::docker_archive("x:latest", &layers).as_slice(), None).unwrap();
    let id = home.store.resolve("x").unwrap().id;
    home.store.prepare_rootfs("c", &id).unwrap();
    let root = home.store.open_rootfs("c").unwrap();
    let names = crate::disk::read_names(&crate::disk::open_directory(&root, ".").unwrap()).unwrap();
    assert_eq!(names.iter().filter(|name| name.starts_with(b"f")).count(), 125);
}
