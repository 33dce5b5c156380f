//! `docker top`: the host's `ps`, and of its lines those of the container's processes.

use std::collections::BTreeMap;

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::model::{Status, TopTable};

impl Engine {
    /// `GET /containers/{id}/top`; `-ef` if no arguments.
    ///
    /// # Errors
    /// `Conflict` if it does not run; `Internal` with what `ps` said.
    pub async fn container_top(&self, name: &str, ps_args: &str) -> Result<TopTable> {
        let args: Vec<&str> =
            if ps_args.is_empty() { vec!["-ef"] } else { ps_args.split_whitespace().collect() };
        check_args(&args)?;
        let container = self.inner.containers.find(name)?;
        if container.status() == Status::Restarting {
            return Err(EngineError::conflict(format!(
                "Container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let pids = container.running_shim()?.pids().await?;
        let only = format!("-q{}", pids.iter().map(i32::to_string).collect::<Vec<_>>().join(","));
        // Some options of ps do not go with -q: again without it.
        let mut output = ps(&args, Some(&only)).await?;
        if !output.status.success() {
            output = ps(&args, None).await?;
        }
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let first = text.lines().next().unwrap_or("failed");
            return Err(EngineError::internal(format!("ps: {first}")));
        }
        let table = parse(&String::from_utf8_lossy(&output.stdout), &pids)?;
        self.container_event(&container, "top", BTreeMap::new());
        Ok(table)
    }
}

async fn ps(args: &[&str], only: Option<&str>) -> Result<std::process::Output> {
    tokio::process::Command::new("ps")
        .args(args)
        .args(only)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .map_err(|error| EngineError::internal(format!("ps: {error}")))
}

/// A column renamed to PID would make us believe a number that is none.
fn check_args(args: &[&str]) -> Result<()> {
    for arg in args {
        for column in arg.split(',') {
            if let Some((key, title)) = column.split_once('=')
                && title.trim_start().starts_with("PID")
                && key.trim_start_matches("-o") != "pid"
            {
                return Err(EngineError::invalid(format!("specifying \"{key}={title}\" is not allowed")));
            }
        }
    }
    Ok(())
}

fn parse(text: &str, pids: &[i32]) -> Result<TopTable> {
    let mut lines = text.lines();
    let titles: Vec<String> =
        lines.next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or_else(|| EngineError::internal("Couldn't find PID field in ps output"))?;
    let mut table = TopTable { titles, processes: Vec::new() };
    let mut threads_follow = false;
    for line in lines {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let Some(pid) = fields.get(column) else { continue };
        let ours =
            if *pid == "-" { threads_follow } else { pid.parse().is_ok_and(|pid| pids.contains(&pid)) };
        if *pid != "-" {
            threads_follow = ours;
        }
        if ours {
            // The last column is the rest of the line.
            let last = (table.titles.len() - 1).min(fields.len() - 1);
            let mut row: Vec<String> = fields[..last].iter().map(|field| (*field).to_owned()).collect();
            row.push(fields[last..].join(" "));
            table.processes.push(row);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines() {
        let text = "UID PID CMD\nroot 1 init\nroot 7 sleep 1 2\n- - -\nroot 8 x\n- - -\n";
        let table = parse(text, &[7]).unwrap();
        assert_eq!(table.titles, ["UID", "PID", "CMD"]);
        assert_eq!(table.processes, [vec!["root", "7", "sleep 1 2"], vec!["-", "-", "-"]]);
        assert!(parse("UID CMD\n", &[7]).is_err());
    }

    #[test]
    fn a_column_must_not_pretend_to_be_the_pid() {
        assert!(check_args(&["-o", "ppid=PID,comm"]).is_err());
        assert!(check_args(&["-o", "pid=PID,comm"]).is_ok());
        assert!(check_args(&["-eo", "pid,comm"]).is_ok());
    }
}
