//! Everything that must outlive the daemon, in one SQLite database, written by one thread.
//!
//! Memory is what commands read; the database is read once, at start. A write is either *durable* (the
//! caller waits until it is on disk, before promising anything) or *lazy*: it keeps its place in the order of
//! all writes and goes to disk with the next durable write, or a moment later. A lazy write is right where a
//! crash that loses it is repaired at start, such as an exit status that the shim keeps as well.
//!
//! Writes that wait at the same time share one commit.

mod network;
mod writer;

use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use portolan_net::RecordChange;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::{EngineError, Result};

pub(crate) use network::NetworkStore;

/// The version of the tables, in `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE container (id TEXT PRIMARY KEY, definition TEXT NOT NULL, state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE volume (name TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE network (kind TEXT NOT NULL, id TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// A change of the database.
#[derive(Debug)]
pub(crate) enum Write {
    /// A new container, or a changed definition.
    Container { id: String, definition: String, state: String },
    /// The state of a container that exists; nothing happens if it does not.
    ContainerState { id: String, state: String },
    /// The container and its state are gone.
    ForgetContainer { id: String },
    /// A new or changed volume.
    Volume { name: String, record: String },
    /// The volume is gone.
    ForgetVolume { name: String },
    /// Records of the networks.
    Network(Vec<RecordChange>),
    /// A setting of the engine itself.
    Setting { key: &'static str, value: String },
}

/// What the database holds at start.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// (definition, state) of every container.
    pub(crate) containers: Vec<(String, String)>,
    /// Every volume's record.
    pub(crate) volumes: Vec<String>,
    /// Settings of the engine itself.
    pub(crate) settings: Vec<(String, String)>,
    /// Records of the networks.
    pub(crate) network: Vec<portolan_net::Record>,
}

enum Command {
    Lazy(Write),
    Durable(Vec<Write>, Acknowledge),
    Close,
}

type Acknowledge = Box<dyn FnOnce(Result<(), String>) + Send>;

/// The handle to the writer thread.
#[derive(Clone)]
pub(crate) struct Database {
    commands: mpsc::Sender<Command>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Database")
    }
}

impl Database {
    /// Opens or makes the database and starts its writer.
    ///
    /// # Errors
    /// The file cannot be opened, is no database, or was written by a newer version.
    pub(crate) fn open(path: &Path) -> Result<(Self, Loaded, JoinHandle<()>)> {
        let context = |error: rusqlite::Error| {
            EngineError::internal(format!("open the database {}: {error}", path.display()))
        };
        let connection = Connection::open(path).map_err(context)?;
        prepare(&connection).map_err(context)?;
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(context)?;
        if version > SCHEMA_VERSION {
            return Err(EngineError::internal(format!(
                "the database {} was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION})",
                path.display()
            )));
        }
        let loaded = load(&connection).map_err(context)?;
        let (commands, receiver) = mpsc::channel();
        let ballast = path.with_extension("ballast");
        let thread = std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || writer::run(connection, &receiver, &ballast))
            .map_err(|error| EngineError::internal(format!("start the database's thread: {error}")))?;
        Ok((Self { commands }, loaded, thread))
    }

    /// Writes; durable when this returns.
    pub(crate) async fn commit(&self, writes: Vec<Write>) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        let acknowledge = Box::new(move |result| {
            // The caller may have gone away; the write stands all the same.
            let _ = sender.send(result);
        });
        self.send(Command::Durable(writes, acknowledge));
        match receiver.await {
            Ok(result) => result.map_err(EngineError::internal),
            Err(_) => Err(EngineError::internal("the database is closed")),
        }
    }

    /// As [`Database::commit`], for threads that may block.
    pub(crate) fn commit_blocking(&self, writes: Vec<Write>) -> Result<(), String> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let acknowledge = Box::new(move |result| {
            let _ = sender.send(result);
        });
        self.send(Command::Durable(writes, acknowledge));
        receiver.recv().unwrap_or_else(|_| Err("the database is closed".to_owned()))
    }

    /// Writes some time soon, in order with all other writes.
    pub(crate) fn write_lazily(&self, write: Write) {
        self.send(Command::Lazy(write));
    }

    /// Writes what is left and ends the writer; later writes fail.
    pub(crate) fn close(&self) {
        self.send(Command::Close);
    }

    fn send(&self, command: Command) {
        // The writer has ended only after `close`: a dropped acknowledgement says so to those who wait.
        if self.commands.send(command).is_err() {
            tracing::debug!("a write came after the database was closed");
        }
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        connection
            .execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"))?;
    }
    Ok(())
}

fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let pairs = |sql: &str| -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement = connection.prepare(sql)?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let mut volumes = connection.prepare("SELECT record FROM volume")?;
    let volumes = volumes.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut network = connection.prepare("SELECT kind, id, record FROM network")?;
    let network = network
        .query_map([], |row| {
            Ok(portolan_net::Record { kind: row.get(0)?, id: row.get(1)?, json: row.get(2)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Loaded {
        containers: pairs("SELECT definition, state FROM container")?,
        volumes,
        settings: pairs("SELECT key, value FROM setting")?,
        network,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str) -> Write {
        Write::Container { id: id.to_owned(), definition: format!("\"{id}\""), state: "0".to_owned() }
    }

    #[test]
    fn lazy_writes_come_with_the_next_durable_one_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("portolan.db");
        let (database, loaded, thread) = Database::open(&path).unwrap();
        assert!(loaded.containers.is_empty());
        database.commit_blocking(vec![container("a")]).unwrap();
        database.write_lazily(Write::ContainerState { id: "a".to_owned(), state: "1".to_owned() });
        database.write_lazily(Write::ForgetContainer { id: "b".to_owned() });
        database.commit_blocking(vec![container("b")]).unwrap();
        database.write_lazily(Write::ContainerState { id: "a".to_owned(), state: "2".to_owned() });
        database.close();
        thread.join().unwrap();
        assert!(database.commit_blocking(vec![container("c")]).is_err());

        let (database, loaded, thread) = Database::open(&path).unwrap();
        let mut containers = loaded.containers;
        containers.sort();
        let expected = [("\"a\"", "2"), ("\"b\"", "0")].map(|(d, s)| (d.to_owned(), s.to_owned()));
        assert_eq!(containers, expected);
        database.close();
        thread.join().unwrap();
    }

    #[test]
    fn a_newer_database_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("portolan.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Database::open(&path).unwrap_err();
        assert!(error.message().contains("newer version"), "{error}");
    }

    /// On a full disk removals are stored, which make room; what nobody waits for is stored once there is some.
    #[test]
    fn a_full_disk_loses_nothing_and_lets_go_of_things() {
        let directory = tempfile::tempdir().unwrap();
        // SAFETY: moves this thread, which ends with the test, into a mount namespace of its own; others share
        // nothing with it that depends on it. The database's thread is started from here and goes along.
        if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) } != 0 {
            #[allow(clippy::print_stdout, reason = "the runner reads it")]
            {
                println!("SKIPPED: needs root to mount a small file system");
            }
            return;
        }
        use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), Some(c"size=8m")).unwrap();
        let path = directory.path().join("portolan.db");
        let (database, _, thread) = Database::open(&path).unwrap();
        database.commit_blocking(vec![container("a"), container("b")]).unwrap();
        let fill = || {
            let mut file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(directory.path().join("full"))
                .unwrap();
            while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
        };
        fill();
        let large = |id: &str| Write::Container {
            id: id.to_owned(),
            definition: format!("\"{}\"", "x".repeat(64 << 10)),
            state: "0".to_owned(),
        };
        database.write_lazily(Write::ForgetContainer { id: "b".to_owned() });
        database.commit_blocking(vec![large("c")]).unwrap();
        fill();
        assert!(database.commit_blocking(vec![large("d")]).is_err(), "now it is really full");
        database.write_lazily(Write::ContainerState { id: "a".to_owned(), state: "1".to_owned() });
        database.write_lazily(Write::Container {
            id: "e".to_owned(),
            definition: format!("\"{}\"", "e".repeat(64 << 10)),
            state: "0".to_owned(),
        });
        assert!(database.commit_blocking(vec![large("f")]).is_err());
        std::fs::remove_file(directory.path().join("full")).unwrap();
        database.commit_blocking(Vec::new()).unwrap();
        database.close();
        thread.join().unwrap();
        let (database, loaded, thread) = Database::open(&path).unwrap();
        let mut states: Vec<(String, String)> = loaded
            .containers
            .into_iter()
            .map(|(definition, state)| (definition.chars().take(2).collect(), state))
            .collect();
        states.sort();
        let expected = [("\"a", "1"), ("\"e", "0"), ("\"x", "0")].map(|(d, s)| (d.to_owned(), s.to_owned()));
        assert_eq!(states, expected, "a as it was last, e which nobody waited for, c; not d and f");
        database.close();
        thread.join().unwrap();
    }
}
