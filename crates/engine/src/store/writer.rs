//! The writer thread.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use portolan_net::RecordChange;
use rusqlite::{Connection, Transaction, params};

use super::{Acknowledge, Command, Write};

/// How long a lazy write waits for company.
const LAZY_FOR: Duration = Duration::from_millis(50);

/// How long after a failure lazy writes are tried again, unless others come.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// What is given up on a full disk, in bytes, so that things can be removed from it: a removal is a write.
const BALLAST: u64 = 4 << 20;

/// Runs until told to close or until every handle is gone. `ballast`: a file beside the database.
pub(super) fn run(mut connection: Connection, commands: &Receiver<Command>, ballast: &Path) {
    let mut batch = Batch::default();
    put_on(ballast);
    loop {
        let open = batch.collect(commands);
        if !batch.writes.is_empty() || !batch.acknowledge.is_empty() {
            batch.commit(&mut connection, ballast);
        }
        if !open {
            break;
        }
    }
    // Closing checkpoints the log into the database.
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "close the database");
    }
}

/// Takes room, if there is any.
fn put_on(ballast: &Path) {
    let taken =
        File::options().create(true).append(true).open(ballast).and_then(|file| {
            Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BALLAST)?)
        });
    if let Err(error) = taken {
        tracing::debug!(%error, "keep room for the database");
        // Half of it would be in the way.
        let _ = std::fs::remove_file(ballast);
    }
}

/// What waits to be stored.
struct Waiting {
    write: Write,
    /// Nobody waits for it: if it fails, it is tried again.
    is_lazy: bool,
}

#[derive(Default)]
struct Batch {
    writes: Vec<Waiting>,
    acknowledge: Vec<Acknowledge>,
    /// The last commit failed; its lazy writes are still there.
    failed: bool,
}

impl Batch {
    /// Takes commands until there is something to commit; false once the channel is closed.
    fn collect(&mut self, commands: &Receiver<Command>) -> bool {
        let first = match self.failed {
            true => commands.recv_timeout(AGAIN_AFTER),
            false => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match first {
            Ok(command) => {
                if !self.take(command) {
                    return false;
                }
            }
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        let deadline = Instant::now() + LAZY_FOR;
        loop {
            // Someone waits: take what is there and go. Nobody does: wait a little for more.
            let next = if self.acknowledge.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                match commands.recv_timeout(left) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => return true,
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            } else {
                match commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                }
            };
            if !self.take(next) {
                return false;
            }
        }
    }

    fn take(&mut self, command: Command) -> bool {
        match command {
            Command::Lazy(write) => self.writes.push(Waiting { write, is_lazy: true }),
            Command::Durable(writes, acknowledge) => {
                self.writes.extend(writes.into_iter().map(|write| Waiting { write, is_lazy: false }));
                self.acknowledge.push(acknowledge);
            }
            Command::Close => return false,
        }
        true
    }

    /// Stores what waits. Where that fails, those who wait are told and take their part back; the rest is tried
    /// again before whatever comes next.
    fn commit(&mut self, connection: &mut Connection, ballast: &Path) {
        let mut result = apply(connection, &self.writes);
        if result.as_ref().is_err_and(is_full) && std::fs::remove_file(ballast).is_ok() {
            tracing::warn!("the disk is full: giving up what was kept free for removals");
            result = apply(connection, &self.writes);
        }
        let result = result.map_err(|error| format!("write the database: {error}"));
        match &result {
            Ok(()) => {
                self.writes.clear();
                if !ballast.exists() {
                    put_on(ballast);
                }
            }
            Err(error) => {
                self.writes.retain(|waiting| waiting.is_lazy);
                forget_what_is_superseded(&mut self.writes);
                tracing::error!(%error, again = self.writes.len(), "state was not stored");
            }
        }
        self.failed = !self.writes.is_empty();
        for acknowledge in self.acknowledge.drain(..) {
            acknowledge(result.clone());
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

/// Of the states of one container only the last counts: what cannot be stored does not grow.
fn forget_what_is_superseded(writes: &mut Vec<Waiting>) {
    let mut seen = HashSet::new();
    let mut keep: Vec<bool> = writes
        .iter()
        .rev()
        .map(|waiting| match &waiting.write {
            Write::ContainerState { id, .. } => seen.insert(id.clone()),
            _ => true,
        })
        .collect();
    writes.retain(|_| keep.pop().unwrap_or(true));
}

fn apply(connection: &mut Connection, writes: &[Waiting]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for waiting in writes {
        apply_one(&transaction, &waiting.write)?;
    }
    transaction.commit()
}

fn apply_one(transaction: &Transaction<'_>, write: &Write) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| -> rusqlite::Result<()> {
        transaction.prepare_cached(sql)?.execute(values).map(drop)
    };
    match write {
        Write::Container { id, definition, state } => run(
            "INSERT OR REPLACE INTO container (id, definition, state) VALUES (?1, ?2, ?3)",
            params![id, definition, state],
        ),
        Write::ContainerState { id, state } => {
            run("UPDATE container SET state = ?2 WHERE id = ?1", params![id, state])
        }
        Write::ForgetContainer { id } => run("DELETE FROM container WHERE id = ?1", params![id]),
        Write::Volume { name, record } => {
            run("INSERT OR REPLACE INTO volume (name, record) VALUES (?1, ?2)", params![name, record])
        }
        Write::ForgetVolume { name } => run("DELETE FROM volume WHERE name = ?1", params![name]),
        Write::Setting { key, value } => {
            run("INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)", params![key, value])
        }
        Write::Network(changes) => changes.iter().try_for_each(|change| match change {
            RecordChange::Put(record) => run(
                "INSERT OR REPLACE INTO network (kind, id, record) VALUES (?1, ?2, ?3)",
                params![record.kind, record.id, record.json],
            ),
            RecordChange::Delete { kind, id } => {
                run("DELETE FROM network WHERE kind = ?1 AND id = ?2", params![kind, id])
            }
        }),
    }
}
