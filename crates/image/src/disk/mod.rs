//! The file system under the store: confined walks, durable writes, removal behind the caller's back.

mod durable;
mod trash;
mod tree;

pub(crate) use durable::{durable_write, sync_directory, sync_file_system};
pub(crate) use trash::Trash;
pub(crate) use tree::{
    Tree, lexical_path, mtime_of, open_directory, open_plain, read_names, set_xattr, stat_name, xattrs,
};
