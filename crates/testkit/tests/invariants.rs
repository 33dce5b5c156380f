//! ARCHITECTURE.md's rules about who may know whom, read off the manifests.

use std::collections::BTreeMap;

use portolan_testkit::repository;

/// The dependencies (not those of tests) of each package of the workspace.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    let folders = ["bin", "crates"].map(|folder| repository().join(folder));
    for entry in folders.iter().flat_map(|f| std::fs::read_dir(f).expect("a folder of crates")).flatten() {
        let text = std::fs::read_to_string(entry.path().join("Cargo.toml")).expect("a manifest");
        let section = text
            .split("\n[dependencies]\n")
            .nth(1)
            .unwrap_or_default()
            .split("\n[")
            .next()
            .unwrap_or_default();
        let names = section.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
        let names =
            names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect();
        found.insert(entry.file_name().to_string_lossy().into_owned(), names);
    }
    assert!(found.contains_key("netcore") && found.contains_key("portolan"), "{found:?}");
    found
}

fn users_of(package: &str) -> Vec<String> {
    dependencies()
        .into_iter()
        .filter(|(_, names)| names.iter().any(|n| n == package))
        .map(|(user, _)| user)
        .collect()
}

#[test]
fn the_core_is_pure() {
    let allowed = ["ipnet", "serde", "thiserror"];
    let found = &dependencies()["netcore"];
    assert!(found.iter().all(|name| allowed.contains(&name.as_str())), "netcore depends on {found:?}");
}

#[test]
fn only_the_binary_builds_the_real_host() {
    assert_eq!(users_of("portolan-netlinux"), ["portolan"]);
    assert!(users_of("portolan-netsim").is_empty(), "the simulation is for tests");
}

#[test]
fn only_daemon_and_cli_know_docker_s_json() {
    assert_eq!(users_of("portolan-api"), ["cli", "daemon"]);
}

#[test]
fn arrows_point_at_what_knows_less() {
    let order = [
        "netcore", "api", "dhcp", "netlinux", "netsim", "netdns", "net", "image", "runtime", "engine",
        "daemon", "cli", "portolan",
    ];
    let rank = |folder: &str| order.iter().position(|o| *o == folder);
    for (user, names) in dependencies() {
        for used in names.iter().filter_map(|name| name.strip_prefix("portolan-")) {
            let (Some(user_rank), Some(used_rank)) = (rank(&user), rank(used)) else { continue };
            assert!(used_rank < user_rank, "{user} may not depend on {used}");
        }
    }
}
