//! `top`.

use super::create::container_path;
use crate::client::target;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flags::Matches;
use crate::json::Json;
use crate::session::{Session, write_out};
use crate::table::columns;

/// `top`.
pub(super) const TOP: Command = Command {
    stop_at_word: true,
    also: &["container top", "top"],
    examples: &[("", "top web"), ("With columns of your own", "top web -o pid,rss,args")],
    ..Command::new(
        "top",
        "CONTAINER [ps OPTIONS]",
        "Display the running processes of a container",
        Arity::AtLeast(1),
        |session, matches| Box::pin(top(session, matches)),
    )
};

async fn top(session: Session, matches: Matches) -> Outcome {
    let options = matches.args[1..].join(" ");
    let path = target(&container_path(&matches.args[0], "/top"), &[("ps_args", &options)]);
    let table = session.client.get(&path).await?;
    let mut text = table.texts("Titles").join("\t") + "\n";
    for process in table.items("Processes") {
        let row: Vec<_> = process
            .as_array()
            .map_or(&[][..], Vec::as_slice)
            .iter()
            .filter_map(|cell| cell.as_str())
            .collect();
        text.push_str(&row.join("\t"));
        text.push('\n');
    }
    write_out(&columns::align(&text, 20, 3))?;
    Ok(0)
}
