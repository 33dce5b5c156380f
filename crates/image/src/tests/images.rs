//! Names, lists, removal, archives.

use super::{Home, Tar, docker_archive, is_root, name_of, nobody};
use crate::digest::{Digest, ImageId};
use crate::types::{
    ImageUser, ImportOptions, ListFilter, Loaded, Platform, PruneFilter, RemoveOptions, Removed,
};
use crate::{ErrorKind, ImageStore};

fn tar(content: &str) -> Vec<u8> {
    Tar::new().file("f", content).bytes()
}

fn listed(store: &ImageStore, filter: &ListFilter) -> Vec<String> {
    let mut names: Vec<_> = store
        .list(filter)
        .unwrap()
        .iter()
        .map(|s| s.repo_tags.first().cloned().unwrap_or("<none>".into()))
        .collect();
    names.sort();
    names
}

#[test]
fn images_are_found_by_name_and_id() {
    if !is_root("images_are_found_by_name_and_id") {
        return;
    }
    let mut home = Home::new();
    let id = home.import("app:1", &tar("1"));
    home.store.tag("app:1", &name_of("localhost:5000/me/app")).unwrap();
    home.reopen();
    let hex = id.hex();
    for name in
        ["app:1", "docker.io/library/app:1", "localhost:5000/me/app", &hex, &id.to_string(), &hex[..6]]
    {
        assert_eq!(home.store.resolve(name).unwrap().id, id, "{name}");
    }
    for (name, text) in [
        ("app", "No such image: app:latest"),
        ("app:2", "No such image: app:2"),
        ("ghcr.io/x/y", "No such image: ghcr.io/x/y:latest"),
        ("app@sha256:1", "invalid reference format"),
        ("", "invalid reference format"),
    ] {
        assert_eq!(home.store.resolve(name).unwrap_err().to_string(), text, "{name}");
    }
    let inspect = home.store.inspect("app:1").unwrap();
    assert_eq!(inspect.repo_tags, ["app:1", "localhost:5000/me/app:latest"]);
    assert!(inspect.image.last_tagged.is_some());
    assert_eq!(
        Digest::of(&inspect.image.raw_config),
        id.0,
        "an image's id is the digest of its configuration"
    );
}

#[test]
fn import_takes_changes_message_and_platform() {
    if !is_root("import_takes_changes_message_and_platform") {
        return;
    }
    let home = Home::new();
    let options = ImportOptions {
        reference: Some(name_of("nginx")),
        changes: vec!["CMD [\"nginx\", \"-g\", \"daemon off;\"]".into(), "EXPOSE 80".into()],
        message: "Imported from -".into(),
        platform: Some("linux/arm64/v8".parse().unwrap()),
    };
    let id = home.store.import(tar("x").as_slice(), &options).unwrap();
    let image = home.store.get(&id).unwrap();
    let config = &image.config;
    assert_eq!(
        (config.architecture.as_str(), config.variant.as_str(), config.comment.as_str()),
        ("arm64", "v8", "Imported from -")
    );
    assert_eq!(config.config.cmd.as_ref().unwrap().len(), 3);
    assert!(config.config.exposed_ports.contains_key("80/tcp"));
    let wrong = ImportOptions { changes: vec!["RUN x".into()], ..ImportOptions::default() };
    assert_eq!(
        home.store.import(tar("y").as_slice(), &wrong).unwrap_err().to_string(),
        "RUN is not a valid change command"
    );
    assert!("linux/a/b/c".parse::<Platform>().is_err() && "".parse::<Platform>().is_err());
}

#[test]
fn a_name_moves_to_the_newest_image() {
    if !is_root("a_name_moves_to_the_newest_image") {
        return;
    }
    let home = Home::new();
    let old = home.import("app", &tar("1"));
    let new = home.import("app", &tar("2"));
    assert_eq!(home.store.resolve("app").unwrap().id, new);
    assert!(home.store.inspect(&old.hex()).unwrap().repo_tags.is_empty());
    let only = |dangling| ListFilter { dangling: Some(dangling), ..ListFilter::default() };
    assert_eq!(listed(&home.store, &only(true)), ["<none>"]);
    assert_eq!(listed(&home.store, &only(false)), ["app:latest"]);
    assert_eq!(listed(&home.store, &ListFilter::default()), ["<none>", "app:latest"]);
    let pruned = home.store.prune(&PruneFilter::default(), &nobody).unwrap();
    assert_eq!((pruned.removed[0].clone(), pruned.space_reclaimed), (Removed::Deleted(old.to_string()), 1));
    assert_eq!(home.store.disk_usage().images, 1);
}

#[test]
fn filters_choose() {
    if !is_root("filters_choose") {
        return;
    }
    let home = Home::new();
    for (name, label) in [("a:1", "x=1"), ("a:2", "x=2"), ("ghcr.io/me/b:1", "y")] {
        let changes = vec![format!("LABEL {}", if label == "y" { "y=" } else { label })];
        let options = ImportOptions { reference: Some(name_of(name)), changes, ..ImportOptions::default() };
        home.store.import(tar(name).as_slice(), &options).unwrap();
    }
    let filter = |edit: fn(&mut ListFilter)| {
        let mut filter = ListFilter::default();
        edit(&mut filter);
        listed(&home.store, &filter)
    };
    assert_eq!(filter(|f| f.labels = vec!["x".into()]), ["a:1", "a:2"]);
    assert_eq!(filter(|f| f.labels = vec!["x=2".into()]), ["a:2"]);
    assert_eq!(filter(|f| f.not_labels = vec!["x".into()]), ["ghcr.io/me/b:1"]);
    assert_eq!(filter(|f| f.references = vec!["a".into()]), ["a:1", "a:2"]);
    assert_eq!(
        filter(|f| f.references = vec!["*:1".into(), "ghcr.io/*/b".into()]),
        ["a:1", "ghcr.io/me/b:1"]
    );
    assert_eq!(filter(|f| f.before = vec!["a:2".into()]), ["a:1"]);
    assert_eq!(filter(|f| f.since = vec!["a:2".into()]), ["ghcr.io/me/b:1"]);
    assert!(home.store.list(&ListFilter { before: vec!["none".into()], ..ListFilter::default() }).is_err());
}

#[test]
fn removal_follows_dockers_rules_and_words() {
    if !is_root("removal_follows_dockers_rules_and_words") {
        return;
    }
    let home = Home::new();
    let id = home.import("app", &tar("1"));
    home.store.tag("app", &name_of("other")).unwrap();
    let plain = RemoveOptions::default();
    let force = RemoveOptions { force: true, ..plain };
    let text = |name: &str, options, users: &dyn Fn(&ImageId) -> Vec<ImageUser>| {
        let error = home.store.remove(name, options, users).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        error.to_string()
    };
    let short = id.short();
    assert_eq!(
        text(&id.hex(), plain, &nobody),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    );
    assert_eq!(
        home.store.remove("other", plain, &nobody).unwrap(),
        [Removed::Untagged("other:latest".into())]
    );

    let container =
        |running| move |_: &ImageId| vec![ImageUser { container_id: "0123456789abcdef".into(), running }];
    assert_eq!(
        text("app", plain, &container(true)),
        format!(
            "conflict: unable to remove repository reference \"app\" (must force) - container 0123456789ab is using \
             its referenced image {short}"
        )
    );
    assert_eq!(
        text(&id.hex(), plain, &container(false)),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
        )
    );
    assert_eq!(
        text(&id.hex(), force, &container(true)),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container 0123456789ab"
        )
    );
    let gone = home.store.remove(&short, plain, &nobody).unwrap();
    assert_eq!(gone.len(), 3);
    assert_eq!(gone[..2], [Removed::Untagged("app:latest".into()), Removed::Deleted(id.to_string())]);
    assert_eq!(home.leftovers(), [""; 0]);
    assert_eq!(
        home.store.remove("app", force, &nobody).unwrap_err().to_string(),
        "No such image: app:latest"
    );
}

#[test]
fn layers_go_with_their_last_image() {
    if !is_root("layers_go_with_their_last_image") {
        return;
    }
    let home = Home::new();
    let (shared, a, b) = (tar("shared"), tar("a"), tar("b"));
    home.store.load(docker_archive("a:1", &[shared.clone(), a]).as_slice(), None).unwrap();
    home.store.load(docker_archive("b:1", &[shared.clone(), b]).as_slice(), None).unwrap();
    let sizes: Vec<_> =
        home.store.list(&ListFilter::default()).unwrap().iter().map(|s| (s.size, s.shared_size)).collect();
    assert_eq!(sizes, [(7, 6), (7, 6)]);
    let deleted = |removed: Vec<Removed>| removed.iter().filter(|r| matches!(r, Removed::Deleted(_))).count();
    assert_eq!(deleted(home.store.remove("a:1", RemoveOptions::default(), &nobody).unwrap()), 2);
    assert_eq!(deleted(home.store.remove("b:1", RemoveOptions::default(), &nobody).unwrap()), 3);
    assert_eq!(home.leftovers(), [""; 0]);
}

#[test]
fn several_images_are_saved_and_loaded_with_their_names() {
    if !is_root("several_images_are_saved_and_loaded_with_their_names") {
        return;
    }
    let home = Home::new();
    let a = home.import("a:1", &tar("1"));
    let b = home.import("b:1", &tar("2"));
    home.store.tag("a:1", &name_of("a:2")).unwrap();
    let mut saved = Vec::new();
    home.store.save(&["a".into(), b.hex()], &mut saved).unwrap();
    assert!(home.store.save(&["none".into()], &mut Vec::new()).is_err());

    let other = Home::new();
    let loaded = other.store.load(saved.as_slice(), None).unwrap();
    assert_eq!(loaded, [Loaded::Name(name_of("a:1"), a), Loaded::Name(name_of("a:2"), a), Loaded::Id(b)]);
    assert_eq!(other.store.load(saved.as_slice(), None).unwrap(), loaded, "again changes nothing");
    assert_eq!(other.store.disk_usage(), home.store.disk_usage());

    // The same without Docker's part: an OCI layout, which names only what has a name.
    let start = saved.windows(13).position(|window| window == b"manifest.json").unwrap();
    saved[start..start + 13].copy_from_slice(b"manifesto.son");
    let header = &mut saved[start..start + 512];
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let oci = Home::new();
    assert_eq!(oci.store.load(saved.as_slice(), None).unwrap(), loaded);

    let arm: Platform = "linux/arm64".parse().unwrap();
    assert!(oci.store.load(saved.as_slice(), Some(&arm)).unwrap_err().to_string().contains("linux/arm64"));
}

#[test]
fn malformed_archives_are_named() {
    if !is_root("malformed_archives_are_named") {
        return;
    }
    let home = Home::new();
    let manifest = |text: &str| Tar::new().file("manifest.json", text).bytes();
    for (archive, text) in [
        (tar("x"), "does not contain a manifest.json"),
        (Vec::new(), "does not contain a manifest.json"),
        (manifest("{"), "failed to decode manifest.json"),
        (manifest("null"), "failed to decode manifest.json"),
        (manifest(r#"[{"Config":"c","Layers":[]}]"#), "does not contain a c"),
        (b"PK\x03\x04 this is a zip file, which is no tar at all".repeat(20), "invalid tar header"),
        (docker_archive("Bad Name", &[tar("x")]), "invalid reference format"),
    ] {
        let error = home.store.load(archive.as_slice(), None).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    assert_eq!(home.leftovers(), [""; 0]);
}

#[test]
fn concurrent_operations_do_not_lose_each_others_work() {
    if !is_root("concurrent_operations_do_not_lose_each_others_work") {
        return;
    }
    let mut home = Home::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &home.store;
            scope.spawn(move || {
                for round in 0..10 {
                    let name = format!("t{thread}:{round}");
                    // The same layer again and again, while others remove it.
                    let archive = docker_archive(&name, &[tar("same"), tar(&round.to_string())]);
                    store.load(archive.as_slice(), None).unwrap();
                    let id = store.resolve(&name).unwrap().id;
                    let container = format!("c{thread}-{round}");
                    store.prepare_rootfs(&container, &id).unwrap();
                    store
                        .remove(&name, RemoveOptions { force: true, ..RemoveOptions::default() }, &nobody)
                        .unwrap();
                    assert!(store.rootfs(&container).unwrap().lower.iter().all(|path| path.is_dir()));
                    store.remove_rootfs(&container).unwrap();
                }
            });
        }
    });
    home.reopen();
    assert_eq!(home.store.disk_usage().images, 0);
    assert_eq!(home.leftovers(), [""; 0]);
}
