//! docs/datapath: each page says what to run and shows the rules that are in force then. A page's commands
//! are run by an engine of its own, and the rules between its markers are compared with the kernel's.
//! `PORTOLAN_BLESS=1` writes them into the pages instead.
//!
//! Markers: `<!-- scenario: FLAGS OF THE DAEMON -->` before a block of commands, and around rules
//! `<!-- rules: WHAT -->` and `<!-- end -->`, WHAT being `inet sets`, `bridge sets` (those that have
//! elements), `inet chains NAME...`, `bridge chains NAME...`, `iptables TABLE` or `ip6tables TABLE`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portolan_e2e::is_portolan;
use portolan_testkit::{Client, Engine, EngineKind, Firewall, repository, skip};

const SCENARIO: &str = "<!-- scenario: ";
const RULES: &str = "<!-- rules: ";
const END: &str = "<!-- end -->";

/// What an engine's host has, made the same for every run.
struct Rules {
    engine: Engine,
    /// Links of containers, random names, and what the pages call them.
    links: BTreeMap<String, String>,
}

impl Rules {
    /// Starts an engine with the flags of a page's scenario and runs its commands.
    fn of(page: &str) -> Self {
        let (flags, commands) = scenario(page);
        let mut builder = Engine::builder().image("busybox");
        for flag in flags.split_whitespace() {
            builder = builder.arg(flag);
        }
        let engine = builder.start();
        for command in commands.lines() {
            match command.strip_prefix("portolan ") {
                Some(words) => engine.docker(&words.split_whitespace().collect::<Vec<_>>()).ok().to_owned(),
                None => engine.host().sh(command).ok().to_owned(),
            };
        }
        let mut links = BTreeMap::new();
        let names = engine.docker(&["ps", "--format", "{{.Names}}"]);
        for name in names.ok().lines() {
            let inside = engine.docker(&["exec", name, "cat", "/sys/class/net/eth0/iflink"]).ok().to_owned();
            let link = engine.host().sh(&format!("ip -o link | sed -n 's/^{inside}: \\([^@:]*\\).*/\\1/p'"));
            links.insert(link.ok().to_owned(), format!("veth-{name}"));
        }
        Self { engine, links }
    }

    fn show(&self, what: &str) -> String {
        let words: Vec<&str> = what.split_whitespace().collect();
        let text = match words.as_slice() {
            [family @ ("inet" | "bridge"), "sets"] => {
                let has_elements =
                    |block: &&Vec<String>| block.iter().any(|line| line.contains("elements = {"));
                let blocks = self.blocks(family);
                blocks
                    .values()
                    .filter(has_elements)
                    .map(|block| sorted(block))
                    .collect::<Vec<_>>()
                    .join("\n\n")
            }
            [family @ ("inet" | "bridge"), "chains", names @ ..] => {
                let blocks = self.blocks(family);
                let chain = |name: &&str| match blocks.get(&format!("chain {name}")) {
                    Some(block) => block.join("\n"),
                    None => panic!("there is no chain {name} in table {family} portolan"),
                };
                names.iter().map(chain).collect::<Vec<_>>().join("\n\n")
            }
            [program @ ("iptables" | "ip6tables"), table] => self.saved(program, table),
            _ => panic!("a page asks for {what:?}"),
        };
        format!("```\n{text}\n```\n")
    }

    /// The sets, maps and chains of one of our tables by kind and name, without their first indent.
    fn blocks(&self, family: &str) -> BTreeMap<String, Vec<String>> {
        let listed = self.engine.host().run(&["nft", "-s", "list", "table", family, "portolan"]);
        let renamed = |text: String, (link, name): (&String, &String)| text.replace(link.as_str(), name);
        let listed = self.links.iter().fold(listed.ok().to_owned(), renamed);
        let mut blocks = BTreeMap::new();
        let mut open: Option<(String, Vec<String>)> = None;
        for line in listed.lines().filter_map(|line| line.strip_prefix('\t')) {
            // Kernels and nft differ in how a queue is told; its number is one that nobody else has.
            let queue = line.split_once("queue ").map(|(before, _)| format!("{before}queue num N"));
            let comment = line.rsplit_once(" comment ").map(|(_, comment)| format!(" comment {comment}"));
            let line = queue.map_or(line.to_owned(), |queue| queue + &comment.unwrap_or_default());
            let line = line.replace('\t', "    ");
            if let Some(name) = line.strip_suffix(" {").filter(|_| open.is_none()) {
                open = Some((name.to_owned(), vec![line.clone()]));
            } else if let Some((name, mut block)) = open.take() {
                block.push(line.clone());
                if line == "}" { drop(blocks.insert(name, block)) } else { open = Some((name, block)) }
            }
        }
        blocks
    }

    /// A table as `iptables-save` prints it, without counters and remarks.
    fn saved(&self, program: &str, table: &str) -> String {
        let saved = self.engine.host().run(&[&format!("{program}-save"), "-t", table]);
        let lines = saved.ok().lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" [").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
    }
}

/// A set with its elements one a line, in order: the kernel's is that of a hash table.
fn sorted(block: &[String]) -> String {
    let text = block.join("\n");
    let Some((head, rest)) = text.split_once("elements = { ") else { return text };
    let Some((elements, tail)) = rest.split_once(" }") else { return text };
    let mut elements: Vec<&str> = elements.split(',').map(str::trim).collect();
    elements.sort_unstable();
    format!("{head}elements = {{\n        {}\n    }}{tail}", elements.join(",\n        "))
}

/// The daemon's flags and the commands of a page.
fn scenario(page: &str) -> (&str, &str) {
    let (_, rest) = page.split_once(SCENARIO).expect("a page has a scenario");
    let (flags, rest) = rest.split_once("-->").expect("the marker ends");
    let (_, rest) = rest.split_once("```sh\n").expect("a block of commands follows");
    (flags, rest.split_once("```").expect("the block ends").0)
}

/// The page with the rules that are in force.
fn filled(page: &str, rules: &Rules) -> String {
    let mut parts = page.split(RULES);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (what, rest) = part.split_once(" -->\n").expect("the marker ends");
        let (_, after) = rest.split_once(END).expect("the rules end");
        text.push_str(&format!("{RULES}{what} -->\n{}{END}{after}", rules.show(what)));
    }
    text
}

fn pages() -> Vec<PathBuf> {
    let folder = repository().join("docs/datapath");
    let mut pages: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("docs/datapath")
        .map(|entry| entry.expect("a file").path())
        .collect();
    pages.sort();
    pages
}

fn check(path: &Path) -> Result<(), String> {
    let page = std::fs::read_to_string(path).expect("a page");
    let found = filled(&page, &Rules::of(&page));
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(path, &found).expect("the page can be written");
        return Ok(());
    }
    if found == page {
        return Ok(());
    }
    let differs = found.lines().zip(page.lines()).find(|(is, was)| is != was);
    Err(format!("{}: {differs:?} (in force, in the page); PORTOLAN_BLESS=1 writes it", path.display()))
}

#[test]
fn the_pages_show_what_is_in_force() {
    // The pages name their own backend, and the rules do not depend on the client.
    if EngineKind::from_env() == EngineKind::Docker {
        skip!("the rules are Portolan's");
    }
    if Firewall::from_env() == Firewall::Iptables || Client::from_env() == Client::Portolan {
        return;
    }
    let wrong: Vec<String> = pages().iter().filter_map(|path| check(path).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every chain, set and map has a word of explanation.
#[test]
fn every_chain_and_map_is_explained() {
    let engine = Engine::start();
    if !is_portolan(&engine) {
        skip!("the rules are Portolan's");
    }
    let text: String = pages().iter().map(|path| std::fs::read_to_string(path).expect("a page")).collect();
    let rules = Rules { engine, links: BTreeMap::new() };
    for family in ["inet", "bridge"] {
        for block in rules.blocks(family).keys() {
            let name = block.split(' ').next_back().unwrap_or_default();
            assert!(text.contains(&format!("| `{name}` |")), "{family} {block} is explained nowhere");
        }
    }
}
