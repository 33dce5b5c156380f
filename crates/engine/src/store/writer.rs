//! The writer thread.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use portolan_net::RecordChange;
use rusqlite::{Connection, Transaction, params};

use super::{Acknowledge, Command, Write};

/// How long a lazy write waits for company.
const LAZY_FOR: Duration = Duration::from_millis(50);

/// Runs until told to close or until every handle is gone.
pub(super) fn run(mut connection: Connection, commands: &Receiver<Command>) {
    let mut batch = Batch::default();
    loop {
        let open = batch.collect(commands);
        if !batch.writes.is_empty() || !batch.acknowledge.is_empty() {
            batch.commit(&mut connection);
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

#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    acknowledge: Vec<Acknowledge>,
}

impl Batch {
    /// Takes commands until there is something to commit; false once the channel is closed.
    fn collect(&mut self, commands: &Receiver<Command>) -> bool {
        match commands.recv() {
            Ok(command) => {
                if !self.take(command) {
                    return false;
                }
            }
            Err(_) => return false,
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
            Command::Lazy(write) => self.writes.push(write),
            Command::Durable(writes, acknowledge) => {
                self.writes.extend(writes);
                self.acknowledge.push(acknowledge);
            }
            Command::Close => return false,
        }
        true
    }

    fn commit(&mut self, connection: &mut Connection) {
        let result = apply(connection, &self.writes).map_err(|error| format!("write the database: {error}"));
        if let Err(error) = &result {
            tracing::error!(%error, writes = self.writes.len(), "state was not stored");
        }
        self.writes.clear();
        for acknowledge in self.acknowledge.drain(..) {
            acknowledge(result.clone());
        }
    }
}

fn apply(connection: &mut Connection, writes: &[Write]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for write in writes {
        apply_one(&transaction, write)?;
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
