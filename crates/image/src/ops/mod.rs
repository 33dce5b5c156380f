//! What the engine asks of the store.

mod archive_file;
mod commit;
mod filter;
mod import;
mod load;
mod query;
mod receive;
mod remove;
mod save;

pub use receive::Incoming;
