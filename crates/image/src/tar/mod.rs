//! The tar format as images use it: ustar, GNU long names, pax records.
//!
//! Our own, because a layer's tar has to come out of `save` bit by bit as it came in, so whoever unpacks it
//! needs the bytes between the files too; and because what is refused is part of the store's safety.

mod reader;
mod writer;

pub(crate) use reader::{TarReader, stream_error};
pub(crate) use writer::TarWriter;

pub(crate) const BLOCK: usize = 512;

/// One member of an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// As written, `./` and trailing slashes included.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Target of a symbolic or hard link.
    pub(crate) link: Vec<u8>,
    /// Permission bits, with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes that follow; 0 but for files.
    pub(crate) size: u64,
    /// Seconds since 1970, and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    /// `SCHILY.xattr.*`.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// Bytes that fill the last block of `size` bytes.
pub(crate) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn read_all(bytes: &[u8]) -> crate::Result<Vec<(Header, Vec<u8>)>> {
        let mut reader = TarReader::new(bytes);
        let mut entries = Vec::new();
        while let Some(header) = reader.next_entry()? {
            let mut data = Vec::new();
            reader.payload().read_to_end(&mut data).map_err(reader::stream_error)?;
            entries.push((header, data));
        }
        Ok(entries)
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![
            Kind::File,
            Kind::Directory,
            Kind::Symlink,
            Kind::HardLink,
            Kind::CharDevice,
            Kind::BlockDevice,
            Kind::Fifo,
        ])
    }

    prop_compose! {
        fn headers()(kind in kinds(), path in "[a-zé/.]{1,300}", link in "[a-z/.]{1,300}", mode in 0..0o7777u32,
                     uid: u32, gid: u32, secs in -5_000_000_000i64..5_000_000_000, nanos in 0..1_000_000_000u32,
                     major in 0..0xfffu32, minor in 0..0xfffffu32, value: Vec<u8>, has_xattr: bool, data: Vec<u8>)
                     -> (Header, Vec<u8>) {
            let link_kind = matches!(kind, Kind::Symlink | Kind::HardLink);
            let device_kind = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
            let data = if kind == Kind::File { data } else { Vec::new() };
            // A file whose name ends in a slash is a directory to a reader.
            let path = if kind == Kind::File { path.trim_end_matches('/').to_owned() + "x" } else { path };
            (Header {
                path: path.into_bytes(), kind, mode, uid, gid, mtime: (secs, nanos), size: data.len() as u64,
                link: if link_kind { link.into_bytes() } else { Vec::new() },
                device: if device_kind { (major, minor) } else { (0, 0) },
                xattrs: if has_xattr { vec![(b"user.x".to_vec(), value)] } else { Vec::new() },
            }, data)
        }
    }

    /// What tar(1) writes with --sparse in its three forms: refused by the name that it would have.
    #[test]
    fn sparse_files_are_refused_by_name() {
        for (records, path) in [
            (
                &["GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=dir/disk"][..],
                "GNUSparseFile.7/disk",
            ),
            (&["GNU.sparse.size=9", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,9"], "dir/disk"),
        ] {
            let text: String = records
                .iter()
                .map(|record| {
                    let rest = record.len() + 2;
                    let length = if rest + 2 > 99 { rest + 3 } else { rest + 2 };
                    format!("{length} {record}\n")
                })
                .collect();
            let mut bytes = Vec::new();
            let carrier = Header { path: b"x".to_vec(), size: text.len() as u64, ..Header::default() };
            let mut writer = TarWriter::new(&mut bytes);
            writer.append(&carrier, text.as_bytes()).unwrap();
            writer.append(&Header { path: path.into(), ..Header::default() }, &b""[..]).unwrap();
            writer.finish().unwrap();
            bytes[156] = b'x';
            fix_checksum(&mut bytes[..BLOCK]);
            let refused = read_all(&bytes).unwrap_err().to_string();
            assert!(refused.contains("\"dir/disk\" is a sparse file"), "{refused}");
        }
    }

    fn fix_checksum(block: &mut [u8]) {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(entries in prop::collection::vec(headers(), 0..4)) {
            let mut writer = TarWriter::new(Vec::new());
            for (header, data) in &entries {
                writer.append(header, data.as_slice()).unwrap();
            }
            let bytes = writer.finish().unwrap();
            prop_assert_eq!(bytes.len() % BLOCK, 0);
            prop_assert_eq!(read_all(&bytes).unwrap(), entries);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..2048), fix: bool) {
            if fix && bytes.len() >= BLOCK {
                fix_checksum(&mut bytes[..BLOCK]);
            }
            let _any_outcome = read_all(&bytes);
        }

        #[test]
        fn a_cut_archive_is_an_error_or_ends_at_a_member(cut in 0usize..4000) {
            let mut writer = TarWriter::new(Vec::new());
            for name in ["a", "b"] {
                let header = Header { path: name.into(), size: 700, mode: 0o644, ..Header::default() };
                writer.append(&header, vec![7; 700].as_slice()).unwrap();
            }
            let bytes = writer.finish().unwrap();
            let cut = cut.min(bytes.len());
            match read_all(&bytes[..cut]) {
                Ok(entries) => prop_assert!(cut == entries.len() * (BLOCK + 1024) || cut > 2 * (BLOCK + 1024)),
                Err(error) => prop_assert!(error.to_string().contains("unexpected EOF"), "{}", error),
            }
        }
    }
}
