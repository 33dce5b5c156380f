//! Where networks, sandboxes, endpoints and leases are kept between runs of the daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// One record: `json` under (`kind`, `id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `network`, `sandbox`, `endpoint` or `lease`.
    pub kind: String,
    /// Unique within its kind.
    pub id: String,
    /// A JSON document; the store does not look inside.
    pub json: String,
}

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// Insert or replace.
    Put(Record),
    /// Delete; what is not there stays so.
    Delete {
        /// See [`Record::kind`].
        kind: String,
        /// See [`Record::id`].
        id: String,
    },
}

/// The store could not read or write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network store: {0}")]
pub struct StoreError(pub String);

/// Durable records. Calls block and come from one thread.
pub trait Store: Send + Sync + fmt::Debug {
    /// Every record.
    fn load(&self) -> Result<Vec<Record>, StoreError>;

    /// All of the changes or none; durable when this returns.
    fn commit(&self, changes: &[RecordChange]) -> Result<(), StoreError>;
}

/// A store that forgets, for tests and for `portolan net plan`.
#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<BTreeMap<(String, String), String>>,
}

impl Store for MemoryStore {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(records
            .iter()
            .map(|((kind, id), json)| Record { kind: kind.clone(), id: id.clone(), json: json.clone() })
            .collect())
    }

    fn commit(&self, changes: &[RecordChange]) -> Result<(), StoreError> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match change {
                RecordChange::Put(record) => {
                    records.insert((record.kind.clone(), record.id.clone()), record.json.clone());
                }
                RecordChange::Delete { kind, id } => {
                    records.remove(&(kind.clone(), id.clone()));
                }
            }
        }
        Ok(())
    }
}
