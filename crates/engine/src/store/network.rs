//! The networks' records, in the same database.

use std::sync::{Mutex, PoisonError};

use portolan_net::{Record, RecordChange, Store, StoreError};

use super::{Database, Write};

/// Implements the networks' seam on the engine's database.
#[derive(Debug)]
pub(crate) struct NetworkStore {
    database: Database,
    loaded: Mutex<Option<Vec<Record>>>,
}

impl NetworkStore {
    /// `loaded` is what the database held at start: it is asked for once.
    pub(crate) fn new(database: Database, loaded: Vec<Record>) -> Self {
        Self { database, loaded: Mutex::new(Some(loaded)) }
    }
}

impl Store for NetworkStore {
    fn load(&self) -> Result<Vec<Record>, StoreError> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        loaded.ok_or_else(|| StoreError("the records were loaded already".to_owned()))
    }

    fn commit(&self, changes: &[RecordChange]) -> Result<(), StoreError> {
        self.database.commit_blocking(vec![Write::Network(changes.to_vec())]).map_err(StoreError)
    }
}
