use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::StatusCode;
use tokio::sync::mpsc;

use super::failure::Failure;
use super::manifest::Descriptor;
use super::progress::{LayerReport, LayerStatus};
use super::session::Session;
use crate::digest::{Digest, DigestWriter};
use crate::error::{Context, Error};
use crate::store::ImageStore;

/// How often a layer's progress is told.
pub(super) const TELL_EVERY: Duration = Duration::from_millis(100);
/// Pieces of a body on their way to the disk.
const PIECES: usize = 16;
const LONGEST_DELAY: u64 = 30;

/// A blob on disk, in a file without a name. Clones read from the start.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    file: Arc<File>,
    pub(super) size: u64,
}

impl Blob {
    pub(super) fn reader(&self) -> BlobReader {
        BlobReader { file: self.file.clone(), offset: 0 }
    }
}

/// Reads a blob from its start, whoever else reads it.
pub(super) struct BlobReader {
    file: Arc<File>,
    offset: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

enum Piece {
    Data(Bytes),
    /// Forget what came so far.
    Restart,
}

/// Downloads a blob, and tries again from where it broke off.
///
/// # Errors
/// What the registry said last; a digest that is not the blob's is never tried again.
pub(super) async fn download(
    session: &Session,
    store: &ImageStore,
    layer: &Descriptor,
    attempts: u32,
    report: &LayerReport,
) -> Result<Blob, Failure> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let store = store.clone();
    let writing = tokio::task::spawn_blocking(move || write(&store, pieces));
    let mut arriving = Arriving { session, layer, report, sender, offset: 0, told: Instant::now() };
    let arrived = arriving.all(attempts).await;
    let Arriving { sender, .. } = arriving;
    drop(sender);
    let written = writing.await;
    let written =
        written.map_err(|error| Failure::content(format!("the download was interrupted: {error}")))?;
    // What the disk says explains why nothing more was taken in.
    let (blob, digest) = written?;
    arrived?;
    report.tell(LayerStatus::Verifying);
    if digest != layer.digest {
        let wanted = layer.digest;
        tracing::error!(%wanted, %digest, "a layer is not what its digest says");
        return Err(Failure::content(format!("filesystem layer verification failed for digest {wanted}")));
    }
    report.tell(LayerStatus::Downloaded);
    Ok(blob)
}

/// Writes and digests on a thread that may block.
fn write(store: &ImageStore, mut pieces: mpsc::Receiver<Piece>) -> Result<(Blob, Digest), Error> {
    let file = store.spool()?;
    let mut writer = DigestWriter::new(&file);
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Data(bytes) => writer.write_all(&bytes).context(|| "write a layer".to_owned())?,
            Piece::Restart => {
                file.set_len(0).context(|| "write a layer".to_owned())?;
                io::Seek::rewind(&mut &file).context(|| "write a layer".to_owned())?;
                writer = DigestWriter::new(&file);
            }
        }
    }
    let (digest, size) = writer.finish();
    Ok((Blob { file: Arc::new(file), size }, digest))
}

struct Arriving<'a> {
    session: &'a Session,
    layer: &'a Descriptor,
    report: &'a LayerReport,
    sender: mpsc::Sender<Piece>,
    /// Bytes that have arrived.
    offset: u64,
    told: Instant,
}

impl Arriving<'_> {
    async fn all(&mut self, attempts: u32) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            let failure = match self.once().await {
                Ok(()) => return Ok(()),
                Err(failure) if failure.is_passing() && attempt < attempts => failure,
                Err(failure) => return Err(failure),
            };
            tracing::info!(?failure, digest = %self.layer.digest, attempt, "download failed, trying again");
            let delay = (1 << (attempt - 1).min(5)).min(LONGEST_DELAY);
            for seconds in (1..=delay).rev() {
                self.report.tell(LayerStatus::Retrying { seconds });
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            attempt += 1;
        }
    }

    /// One request; what it brings is kept even if it breaks off.
    async fn once(&mut self) -> Result<(), Failure> {
        let answer = self.session.blob(self.layer.digest, self.offset).await?;
        if self.offset > 0 && answer.status() != StatusCode::PARTIAL_CONTENT {
            self.offset = 0;
            self.send(Piece::Restart).await?;
        }
        let total = match self.layer.size {
            0 => answer.content_length().unwrap_or(0) + self.offset,
            size => size,
        };
        let url = self.session.blob_url(self.layer.digest);
        let mut pieces = answer.bytes_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| Failure::of_body(&url, &error))?;
            self.offset += piece.len() as u64;
            if self.layer.size > 0 && self.offset > self.layer.size {
                let digest = self.layer.digest;
                return Err(Failure::content(format!(
                    "filesystem layer verification failed for digest {digest}: longer than {} bytes",
                    self.layer.size
                )));
            }
            self.send(Piece::Data(piece)).await?;
            if self.told.elapsed() >= TELL_EVERY || self.offset == total {
                self.told = Instant::now();
                self.report.tell(LayerStatus::Downloading { current: self.offset, total });
            }
        }
        if self.layer.size > 0 && self.offset < self.layer.size {
            return Err(Failure::Passing(format!("Get {url:?}: unexpected EOF")));
        }
        Ok(())
    }

    /// Passes on to the writer; if that has failed, its error is the one to tell.
    async fn send(&self, piece: Piece) -> Result<(), Failure> {
        self.sender.send(piece).await.map_err(|_| Failure::content("cannot write to the image store"))
    }
}
