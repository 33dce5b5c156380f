//! A store from the command line: try one by hand, check archives against other tools, time the hot path.
//!
//! usage: store ROOT import NAME < TAR | load < TAR | save NAME... > TAR | list | time NAME

use std::io::{stdin, stdout};
use std::path::Path;
use std::time::Instant;

use portolan_image::{ImageStore, ImportOptions, ListFilter, Reference};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, command, rest @ ..] = arguments.as_slice() else { return Err("usage: see the source".into()) };
    let begun = Instant::now();
    let store = ImageStore::open(Path::new(root))?;
    eprintln!("open {:?}", begun.elapsed());
    match (command.as_str(), rest) {
        ("import", [name]) => {
            let reference = Some(Reference::parse(name)?);
            eprintln!("{}", store.import(stdin(), &ImportOptions { reference, ..ImportOptions::default() })?);
        }
        ("load", []) => eprintln!("{:?}", store.load(stdin(), None)?),
        ("save", names) => store.save(names, stdout().lock())?,
        ("list", []) => {
            for summary in store.list(&ListFilter::default())? {
                eprintln!("{} {:?} {}", summary.image.id, summary.repo_tags, summary.size);
            }
        }
        ("time", [name]) => time(&store, name)?,
        _ => return Err("usage: see the source".into()),
    }
    eprintln!("done {:?}", begun.elapsed());
    store.flush_removals();
    Ok(())
}

/// What `docker run` waits for, a hundred times.
fn time(store: &ImageStore, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut rounds = Vec::new();
    for round in 0..100 {
        let container = format!("timed{round}");
        let begun = Instant::now();
        let image = store.resolve(name)?;
        let resolved = begun.elapsed();
        store.prepare_rootfs(&container, &image.id)?;
        let prepared = begun.elapsed();
        store.remove_rootfs(&container)?;
        rounds.push((resolved, prepared, begun.elapsed()));
        // One after the other, as a user would: not against our own deletions.
        store.flush_removals();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    rounds.sort();
    eprintln!(
        "median: resolve {:?}, and prepare {:?}, and remove {:?}",
        rounds[50].0, rounds[50].1, rounds[50].2
    );
    Ok(())
}
