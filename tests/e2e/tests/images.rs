//! Images: import, load, save, tag, remove.

use portolan_e2e::{has_line, inspect, is_portolan};
use portolan_testkit::{Engine, run};

/// A tar archive with one file, made by tar(1) so that nothing of ours is trusted.
fn archive(home: &std::path::Path, name: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let dir = home.join(format!("tree-{name}"));
    for (path, content) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, content).expect("a file");
    }
    let tar = home.join(format!("{name}.tar"));
    run(
        &["tar".as_ref(), "-C".as_ref(), dir.as_os_str(), "-cf".as_ref(), tar.as_os_str(), ".".as_ref()],
        None,
    )
    .ok();
    std::fs::read(tar).expect("an archive")
}

#[test]
fn import_takes_changes_and_standard_input() {
    let engine = Engine::builder().start();
    let tar = archive(engine.home(), "one", &[("etc/motd", "hello")]);
    let words = [
        "import",
        "-c",
        "ENV A=1 B=2",
        "-c",
        "CMD [\"/bin/x\", \"y\"]",
        "-c",
        "EXPOSE 80 53/udp",
        "-c",
        "LABEL l=v",
        "-m",
        "made",
        "-",
        "one:v1",
    ];
    let id = engine.docker_with(&words, Some(&tar));
    assert!(id.ok().starts_with("sha256:"));
    assert_eq!(inspect(&engine, "one:v1", "{{json .Config.Cmd}}"), r#"["/bin/x","y"]"#);
    assert_eq!(inspect(&engine, "one:v1", "{{json .Config.Env}}"), r#"["A=1","B=2"]"#);
    assert_eq!(inspect(&engine, "one:v1", "{{json .Config.ExposedPorts}}"), r#"{"53/udp":{},"80/tcp":{}}"#);
    assert_eq!(inspect(&engine, "one:v1", "{{.Id}}"), id.ok());
    let empty =
        "{{.Config.Entrypoint}} {{.Config.Volumes}} {{.Config.Labels}} {{.Config.WorkingDir}}|{{.Variant}}|";
    assert_eq!(inspect(&engine, "one:v1", empty), "[] map[] map[l:v] ||");
    assert_eq!(
        inspect(&engine, "one:v1", "{{.RootFS.Type}} {{.Config.ExposedPorts}}"),
        "layers map[53/udp:{} 80/tcp:{}]"
    );
    has_line(engine.docker(&["images"]).ok(), &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    has_line(engine.docker(&["images"]).ok(), &["one", "v1", &id.ok()[7..19]]);
    has_line(engine.docker(&["history", "one:v1"]).ok(), &["made"]);
}

#[test]
fn compressed_archives_are_imported() {
    let engine = Engine::builder().start();
    let tar = archive(engine.home(), "small", &[("etc/motd", "hello")]);
    let plain = engine.docker_with(&["import", "-", "plain:1"], Some(&tar)).ok().to_owned();
    let layers = inspect(&engine, &plain, "{{.RootFS.Layers}}");
    // dockerd asks programs of the host to undo the last.
    let modules = if is_portolan(&engine) { &["gzip", "bz2", "lzma"][..] } else { &["gzip", "bz2"] };
    for module in modules {
        let script = format!(
            "import sys, {module}; sys.stdout.buffer.write({module}.compress(open(sys.argv[1], 'rb').read()))"
        );
        let file = engine.home().join("small.tar");
        let compressed = std::process::Command::new("python3").arg("-c").arg(script).arg(file).output();
        let bytes = compressed.expect("python3 runs").stdout;
        let id = engine.docker_with(&["import", "-", "packed:1"], Some(&bytes)).ok().to_owned();
        assert_eq!(inspect(&engine, &id, "{{.RootFS.Layers}}"), layers, "{module}");
        let cut = engine.docker_with(&["import", "-", "cut:1"], Some(&bytes[..bytes.len() / 2]));
        assert_ne!(cut.code, 0, "{module}: {}", cut.all());
    }
}

#[test]
fn tags_come_and_go() {
    let engine = Engine::start();
    engine.docker(&["tag", "busybox", "example.net:5000/a/b:c"]).ok();
    has_line(engine.docker(&["images", "example.net:5000/a/b"]).ok(), &["example.net:5000/a/b", "c"]);
    has_line(engine.docker(&["rmi", "example.net:5000/a/b:c"]).ok(), &["Untagged: example.net:5000/a/b:c"]);
    has_line(engine.docker(&["tag", "busybox", "Bad:Name"]).fails(), &["invalid reference format"]);
    engine.docker(&["create", "--name", "user", "busybox"]).ok();
    has_line(engine.docker(&["rmi", "busybox"]).fails(), &["conflict", "container"]);
    engine.docker(&["rm", "user"]).ok();
    let removed = engine.docker(&["rmi", "busybox"]);
    has_line(removed.ok(), &["Untagged: busybox:latest"]);
    has_line(removed.ok(), &["Deleted: sha256:"]);
    has_line(engine.docker(&["rmi", "busybox"]).fails(), &["No such image: busybox"]);
    let missing = engine.docker(&["run", "busybox", "true"]);
    assert_eq!(missing.code, 125);
    has_line(&missing.stderr, &["Unable to find image 'busybox:latest' locally"]);
}

#[test]
fn what_is_saved_can_be_loaded() {
    let engine = Engine::start();
    let file = engine.home().join("saved.tar");
    let file = file.to_str().expect("text");
    engine.docker(&["tag", "busybox", "other:tag"]).ok();
    let id = inspect(&engine, "busybox", "{{.Id}}");
    engine.docker(&["save", "-o", file, "busybox", "other:tag"]).ok();
    engine.docker(&["rmi", "busybox", "other:tag"]).ok();
    let loaded = engine.docker(&["load", "-i", file]);
    has_line(loaded.ok(), &["Loaded image: busybox:latest"]);
    has_line(loaded.ok(), &["Loaded image: other:tag"]);
    assert_eq!(inspect(&engine, "busybox", "{{.Id}}"), id, "the same image");
    let empty = archive(engine.home(), "empty", &[("f", "")]);
    let own = engine.docker_with(&["import", "-", "other:tag"], Some(&empty)).ok().to_owned();
    let loaded = engine.docker(&["load", "-i", file]).ok().to_owned();
    has_line(&loaded, &["The image other:tag already exists, renaming the old one with ID", &own]);
    assert!(!loaded.contains("The image busybox"), "{loaded}");
    assert_eq!(engine.docker(&["run", "--rm", "other:tag", "echo", "works"]).ok(), "works");
    let whole = std::fs::read(file).expect("the archive");
    let cut = engine.docker_with(&["load"], Some(&whole[..whole.len() / 2]));
    assert!(cut.code != 0 || cut.all().contains("unexpected EOF"), "{}", cut.all());
}

#[test]
fn a_layer_cannot_leave_its_root() {
    let engine = Engine::builder().start();
    let home = engine.home().display();
    let evil = format!(
        "import io, sys, tarfile\n\
         out = tarfile.open(fileobj=sys.stdout.buffer, mode='w|')\n\
         def add(name, **kw):\n\
         \x20   info = tarfile.TarInfo(name)\n\
         \x20   data = kw.pop('data', b'')\n\
         \x20   info.size = len(data)\n\
         \x20   for k, v in kw.items(): setattr(info, k, v)\n\
         \x20   out.addfile(info, io.BytesIO(data))\n\
         add('link', type=tarfile.SYMTYPE, linkname='{home}')\n\
         add('link/escaped1', data=b'x')\n\
         add('../../../../../../..{home}/escaped2', data=b'x')\n\
         add('{home}/escaped3', data=b'x')\n\
         add('hard', type=tarfile.LNKTYPE, linkname='../../../../../../..{home}/log')\n\
         out.close()\n"
    );
    let tar = engine.host().run(&["python3", "-c", &evil]);
    assert_eq!(tar.code, 0, "{}", tar.stderr);
    let file = engine.home().join("evil.py");
    std::fs::write(&file, evil).expect("a script");
    let bytes = std::process::Command::new("python3").arg(&file).output().expect("python3 runs").stdout;
    engine.docker_with(&["import", "-", "evil:latest"], Some(&bytes));
    for name in ["escaped1", "escaped2", "escaped3"] {
        assert!(!engine.home().join(name).exists(), "{name} is outside");
    }
    assert!(!engine.log().is_empty() || engine.docker(&["version"]).code == 0, "the engine lives");
}

/// While a container runs, /proc, its volumes and files of ours are mounted in it; none of that is exported.
#[test]
fn export_of_a_running_container_has_its_own_files_only() {
    let engine = Engine::start();
    let volume = engine.home().join("volume");
    std::fs::create_dir(&volume).expect("a directory");
    std::fs::write(volume.join("mounted"), "x").expect("a file");
    let volume = format!("{}:/volume", volume.display());
    engine.docker(&["run", "-d", "--name", "writer", "-v", &volume, "busybox", "sleep", "300"]).ok();
    if is_portolan(&engine) {
        // Size 0, and with content all the same; dockerd does not look into what is mounted there.
        let status = engine.docker(&["cp", "writer:/proc/1/comm", "-"]).ok().to_owned();
        assert!(status.contains("sleep\n"), "{status:?}");
    }
    engine.docker(&["exec", "writer", "sh", "-c", "echo new >/root/new; rm /bin/vi"]).ok();
    let tar = engine.home().join("writer.tar");
    let file = tar.to_str().expect("a path");
    engine.docker(&["export", "-o", file, "writer"]).ok();
    let list = run(&["tar", "-tf", file], None).ok().to_owned();
    let names: std::collections::BTreeSet<_> = list.lines().map(|line| line.trim_end_matches('/')).collect();
    for there in ["root/new", "bin/busybox", "proc", "volume", "etc/passwd"] {
        assert!(names.contains(there), "{there} is missing in:\n{list}");
    }
    for absent in ["bin/vi", "proc/self", "proc/1", "volume/mounted"] {
        assert!(!names.contains(absent), "{absent} is in:\n{list}");
    }
}
