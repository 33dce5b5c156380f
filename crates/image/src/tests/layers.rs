//! Layers become what overlayfs wants, and come out as they went in.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::{Home, Tar, chain_of, docker_archive, is_root, read};
use crate::digest::Digest;
use crate::disk::xattrs;
use crate::tar::{Header, Kind};
use crate::types::ImportOptions;

#[test]
fn owners_modes_times_links_and_devices_are_kept() {
    if !is_root("owners_modes_times_links_and_devices_are_kept") {
        return;
    }
    let home = Home::new();
    let capability =
        b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
    let special = Header {
        path: b"bin/su".to_vec(),
        mode: 0o4755,
        uid: 1000,
        gid: 2000,
        mtime: (1_234_567_890, 5),
        xattrs: vec![(b"security.capability".to_vec(), capability.clone())],
        ..Header::default()
    };
    let device = |path: &str, kind| Header {
        path: path.into(),
        kind,
        mode: 0o620,
        gid: 5,
        device: (4, 300),
        ..Header::default()
    };
    let dir = Header {
        path: b"./var/".to_vec(),
        kind: Kind::Directory,
        mode: 0o1777,
        mtime: (77, 0),
        ..Header::default()
    };
    let tar = Tar::new()
        .add(dir, b"")
        .add(special, b"hello")
        .file("var/late", "changes the time of its directory")
        .link(Kind::HardLink, "su2", "/bin/su")
        .link(Kind::Symlink, "sh", "/bin/none")
        .add(device("tty", Kind::CharDevice), b"")
        .add(device("disk", Kind::BlockDevice), b"")
        .add(device("pipe", Kind::Fifo), b"")
        .bytes();
    let id = home.import("x", &tar);
    let layer = home.store.prepare_rootfs("c", &id).unwrap().lower[1].clone();

    let su = layer.join("bin/su").metadata().unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.size(), su.nlink()), (0o4755, 1000, 2000, 5, 2));
    assert_eq!((su.mtime(), su.mtime_nsec()), (1_234_567_890, 5));
    assert_eq!(layer.join("su2").metadata().unwrap().ino(), su.ino());
    let bin = std::fs::File::open(layer.join("bin")).unwrap();
    assert_eq!(xattrs(&bin, b"su", |_| true).unwrap(), [(b"security.capability".to_vec(), capability)]);
    let var = layer.join("var").metadata().unwrap();
    assert_eq!((var.mode() & 0o7777, var.mtime()), (0o1777, 77));
    assert_eq!(layer.join("sh").read_link().unwrap().to_str(), Some("/bin/none"));
    let tty = layer.join("tty").metadata().unwrap();
    assert!(tty.file_type().is_char_device());
    assert_eq!((tty.mode() & 0o7777, tty.gid(), tty.rdev()), (0o620, 5, rustix::fs::makedev(4, 300)));
    assert!(layer.join("disk").metadata().unwrap().file_type().is_block_device());
    assert!(layer.join("pipe").metadata().unwrap().file_type().is_fifo());
    assert_eq!(home.store.inspect("x").unwrap().size, 5 + 33);
}

#[test]
fn whiteouts_hide_what_is_below_and_only_that() {
    if !is_root("whiteouts_hide_what_is_below_and_only_that") {
        return;
    }
    let home = Home::new();
    let bottom = Tar::new()
        .file(".wh.nothing-below", "")
        .file("gone", "1")
        .file("dir/old", "1")
        .file("opaque/old", "1")
        .file("replaced/old", "1")
        .file("stays/old", "1")
        .bytes();
    let top = Tar::new()
        .file(".wh.gone", "")
        .file(".wh.dir", "")
        .file("opaque/new", "2")
        .file("opaque/.wh..wh..opq", "")
        .file(".wh.replaced", "")
        .file("replaced/new", "2")
        .file("stays/.wh..wh.plnk", "aufs")
        .bytes();
    home.store.load(docker_archive("x:latest", &[bottom, top]).as_slice(), None).unwrap();
    let id = home.store.resolve("x").unwrap().id;
    home.store.prepare_rootfs("c", &id).unwrap();
    let root = home.store.open_rootfs("c").unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&root));
    let names = |dir: &str| {
        let mut names: Vec<_> = std::fs::read_dir(format!("{path}/{dir}"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|name| !["dev", "etc", "proc", "sys", ".dockerenv"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["opaque", "replaced", "stays"]);
    assert_eq!(names("opaque"), ["new"]);
    assert_eq!(names("replaced"), ["new"]);
    assert_eq!(names("stays"), ["old"]);
}

#[test]
fn directories_that_a_layer_does_not_list_keep_their_looks() {
    if !is_root("directories_that_a_layer_does_not_list_keep_their_looks") {
        return;
    }
    let home = Home::new();
    let dir = Header {
        path: b"tmp/".to_vec(),
        kind: Kind::Directory,
        mode: 0o1777,
        uid: 7,
        mtime: (99, 0),
        ..Header::default()
    };
    let root = Header { path: b"./".to_vec(), kind: Kind::Directory, mode: 0o751, ..Header::default() };
    let layers = [Tar::new().add(root, b"").add(dir, b"").bytes(), Tar::new().file("tmp/a/b", "x").bytes()];
    home.store.load(docker_archive("x:latest", &layers).as_slice(), None).unwrap();
    let id = home.store.resolve("x").unwrap().id;
    let rootfs = home.store.prepare_rootfs("c", &id).unwrap();
    let tmp = rootfs.lower[1].join("tmp").metadata().unwrap();
    assert_eq!((tmp.mode() & 0o7777, tmp.uid(), tmp.mtime()), (0o1777, 7, 99));
    assert_eq!(
        rootfs.upper.metadata().unwrap().mode() & 0o7777,
        0o755,
        "the root as the container sees it: Docker's"
    );
}

/// What a distribution with a merged /usr does: the directory that a link leads to is in the layer below.
#[test]
fn links_lead_to_directories_of_the_layers_below() {
    if !is_root("links_lead_to_directories_of_the_layers_below") {
        return;
    }
    let home = Home::new();
    let lib = Header {
        path: b"usr/lib/".to_vec(),
        kind: Kind::Directory,
        mode: 0o711,
        gid: 7,
        ..Header::default()
    };
    let below = Tar::new().add(lib, b"").file("usr/lib/old", "old").bytes();
    for (number, target) in ["/usr/lib", "usr/lib", "../usr/./lib"].into_iter().enumerate() {
        let above = Tar::new().link(Kind::Symlink, "lib", target).file("lib/new/f", "new").bytes();
        home.store.load(docker_archive("x:latest", &[below.clone(), above]).as_slice(), None).unwrap();
        let id = home.store.resolve("x").unwrap().id;
        let layers = home.store.prepare_rootfs(&format!("c{number}"), &id).unwrap().lower;
        let (top, bottom) = (&layers[1], &layers[2]);
        assert_eq!(top.join("lib").read_link().unwrap().to_str(), Some(target));
        assert_eq!(read(top.join("usr/lib/new/f")), "new");
        assert_eq!(read(bottom.join("usr/lib/old")), "old");
        let made = top.join("usr/lib").metadata().unwrap();
        assert_eq!((made.mode() & 0o7777, made.gid()), (0o711, 7), "as below");
    }
}

#[test]
fn any_tar_comes_out_bit_by_bit() {
    if !is_root("any_tar_comes_out_bit_by_bit") {
        return;
    }
    let home = Home::new();
    // Replaced files, replaced directories with files, odd names, trailing garbage, members that are dropped.
    let mut odd = Tar::new()
        .file("./a", "first")
        .file("a", "second")
        .file("d/x", "in a directory that goes")
        .link(Kind::HardLink, "hard", "d/x")
        .file("d", "which is now a file")
        .file("//b/./c/../e", "odd name")
        .file(".wh.e", "a whiteout with content")
        .file(&"long/".repeat(60), "")
        .file("empty", "")
        .bytes();
    odd.extend_from_slice(&[0; 10_000]);
    odd.extend_from_slice(b"garbage");
    let no_end = {
        let mut tar = Tar::new().file("z", "z").bytes();
        tar.truncate(1024);
        tar
    };
    let layers = [Tar::new().file("e", "").bytes(), odd, no_end];
    home.store.load(docker_archive("x:latest", &layers).as_slice(), None).unwrap();
    let mut saved = Vec::new();
    home.store.save(&["x".to_owned()], &mut saved).unwrap();
    for layer in &layers {
        let whole = saved.windows(layer.len()).any(|window| window == layer.as_slice());
        assert!(whole, "a layer of {} bytes is not in the archive", layer.len());
    }
    let other = Home::new();
    other.store.load(saved.as_slice(), None).unwrap();
    assert_eq!(other.store.resolve("x").unwrap().id, home.store.resolve("x").unwrap().id);
}

#[test]
fn compressed_layers_and_archives_are_the_same_image() {
    if !is_root("compressed_layers_and_archives_are_the_same_image") {
        return;
    }
    let home = Home::new();
    let tar = Tar::new().file("f", &"x".repeat(100_000)).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&tar).unwrap();
    let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let forms = [tar.clone(), gzip.finish().unwrap(), zstd, bzip2.finish().unwrap()];
    for form in &forms {
        let id = home.store.import(form.as_slice(), &ImportOptions::default()).unwrap();
        assert_eq!(home.store.get(&id).unwrap().chain, chain_of(std::slice::from_ref(&tar)));
    }
    assert_eq!(home.store.disk_usage().layers_size, 100_000, "one layer, shared");
}

#[test]
fn cut_and_wrong_layers_leave_nothing_behind() {
    if !is_root("cut_and_wrong_layers_leave_nothing_behind") {
        return;
    }
    let mut home = Home::new();
    let good = Tar::new().file("f", &"x".repeat(5000)).bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(&good).unwrap();
    let gzip = gzip.finish().unwrap();
    for cut in [&good[..700], &good[..3000], &gzip[..gzip.len() - 4], &gzip[..2000]] {
        let refused = home.store.import(cut, &ImportOptions::default()).unwrap_err();
        assert_eq!(refused.kind(), crate::ErrorKind::Invalid, "{refused}");
    }
    let mut wrong = docker_archive("x:latest", &[Tar::new().file("below", "").bytes(), good]);
    let at = wrong.windows(8).position(|window| window == b"xxxxxxxx").unwrap();
    wrong[at] = b'y';
    let refused = home.store.load(wrong.as_slice(), None).unwrap_err();
    assert!(refused.to_string().contains("invalid diffID"), "{refused}");
    assert_eq!(home.leftovers(), [""; 0]);
    home.reopen();
    assert_eq!(home.store.disk_usage().images, 0);
}

#[test]
fn what_a_crash_leaves_is_swept_and_what_counts_stays() {
    if !is_root("what_a_crash_leaves_is_swept_and_what_counts_stays") {
        return;
    }
    let mut home = Home::new();
    let id = home.import("keep", &Tar::new().file("f", "kept").bytes());
    home.store.prepare_rootfs("c1", &id).unwrap();
    let before = home.leftovers();
    for path in [
        "overlay/new/5/files/deep",
        "overlay/l/zz/x",
        "overlay/l/zz.i",
        "overlay/s/zz.d",
        "overlay/c/half/upper",
        "overlay/trash/9",
    ] {
        std::fs::create_dir_all(home.path(path)).unwrap();
    }
    let hex = Digest::of(b"x").hex();
    std::fs::write(home.path(&format!("image/configs/{hex}")), "{}").unwrap();
    std::fs::write(home.path("image/store.new"), "half").unwrap();
    home.reopen();
    assert_eq!(home.leftovers(), before);
    assert_eq!(home.store.rootfs_ids(), ["c1"]);
    assert_eq!(read(home.store.rootfs("c1").unwrap().lower[1].join("f")), "kept");
    assert_eq!(home.store.resolve("keep").unwrap().id, id);
}
