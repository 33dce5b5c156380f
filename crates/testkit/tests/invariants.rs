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

/// All of a folder's, one after the other.
fn rust_files(folder: &std::path::Path) -> String {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let sources = entries.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources.map(|path| std::fs::read_to_string(path).expect("a source file")).collect()
}

/// docs/security.md names tests as `file::test`, and by the test's name alone behind their file, where the table says
/// where they all are, or with a footnote that says which folder.
#[test]
fn what_holds_the_security_properties_is_there() {
    let text = std::fs::read_to_string(repository().join("docs/security.md")).expect("docs/security.md");
    let read = |file: &str| std::fs::read_to_string(repository().join(file)).unwrap_or_default();
    let packets = rust_files(&repository().join("crates/netlinux/tests/firewall_packets"));
    let folder = text.lines().find_map(|line| line.strip_prefix("\u{b9} `")?.split('`').next());
    let noted = rust_files(&repository().join(folder.expect("the footnote")));
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let holders = row.trim_end_matches([' ', '|', '*']).rsplit('|').next().unwrap_or_default();
        let words = || holders.split('`').skip(1).step_by(2);
        let mut files: String = words().filter(|word| word.ends_with(".rs")).map(read).collect();
        if holders.contains('\u{b9}') {
            files += &noted;
        }
        for word in words() {
            let there = match word.split_once("::") {
                _ if word.ends_with(".rs") => {
                    read(word).contains("#[test]") || read(&format!("crates/{word}")).contains("#[test]")
                }
                Some((file, test)) if !test.contains("::") && !file.starts_with("net") => {
                    read(&format!("tests/e2e/tests/{file}.rs")).contains(&format!("fn {test}("))
                }
                None if word.contains('_') => {
                    [&packets, &files].iter().any(|text| text.contains(&format!("fn {word}(")))
                }
                _ => continue,
            };
            assert!(there, "{word} is not there: {row}");
            named += 1;
        }
    }
    assert!(named > 20, "only {named} tests are named");
}

#[test]
fn what_holds_the_invariants_is_there() {
    let text = std::fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let table = text.split("| invariant | held by |").nth(1).expect("the table of invariants");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut files = 0;
    for row in rows {
        let holders = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
        for file in holders.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs")) {
            let text = std::fs::read_to_string(repository().join(file)).unwrap_or_default();
            let is_test = ["#[test]", "#[tokio::test]", "proptest!"].iter().any(|mark| text.contains(mark));
            assert!(is_test, "{file} holds nothing: {row}");
            files += 1;
        }
        for lint in holders.split("clippy `").skip(1).filter_map(|rest| rest.split('`').next()) {
            let manifest = std::fs::read_to_string(repository().join("Cargo.toml")).expect("a manifest");
            assert!(manifest.contains(&format!("\n{lint} = \"")), "the lint {lint} is not set: {row}");
        }
    }
    assert!(files > 5, "only {files} files of tests are named");
}
