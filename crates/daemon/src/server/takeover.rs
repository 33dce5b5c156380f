//! Connections that a client takes over: attach and exec.
//!
//! After the head, what the client sends is standard input and what it gets is output, raw with a terminal, else
//! with a header before each piece (`portolan_api::FrameHeader`). Either direction may end first: a client that
//! shuts down its writing side ends the standard input and still gets all output.

use std::future::Future;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use portolan_api::{FrameHeader, StreamKind, media_type};
use portolan_engine::model::ExecStartOptions;
use portolan_engine::{Attachment, Engine, Input, Output, OutputChunk, OutputStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::stream::Stream;
use crate::state::complete;

/// Size of the buffer that standard input is read into, bytes.
const INPUT_BUFFER: usize = 32 << 10;

/// What a connection is taken over for.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// The client's version knows that framed streams have a content type of their own (from v1.42).
    pub(crate) multiplexed_type: bool,
    pub(crate) what: What,
}

/// What flows over a connection that was taken over.
#[derive(Debug)]
pub(crate) enum What {
    /// A container's or exec's streams.
    Attached(Attachment),
    /// An exec that is started once the client has its answer, so that what the client types first is there
    /// before the program writes, as with Docker.
    Exec { engine: Engine, id: String, options: ExecStartOptions },
    /// Only this, as standard output: an exec that could not be started. Docker reports it in the stream too.
    Failed { tty: bool, text: String },
}

impl Takeover {
    fn tty(&self) -> bool {
        match &self.what {
            What::Attached(attachment) => attachment.tty,
            What::Exec { options, .. } => options.tty,
            What::Failed { tty, .. } => *tty,
        }
    }

    /// The `Content-Type` of a `101`.
    pub(crate) fn content_type(&self) -> &'static str {
        if self.multiplexed_type && !self.tty() {
            media_type::MULTIPLEXED_STREAM
        } else {
            media_type::RAW_STREAM
        }
    }

    /// Starts what is still to be started.
    pub(crate) async fn started(self) -> Self {
        let What::Exec { engine, id, options } = self.what else { return self };
        let what = match complete(async move { engine.exec_start(&id, options).await }).await {
            Ok(Some(attachment)) => What::Attached(attachment),
            Ok(None) => What::Failed { tty: options.tty, text: "the exec was started detached".to_owned() },
            Err(error) => What::Failed { tty: options.tty, text: error.message },
        };
        Takeover { what, ..self }
    }

    /// Moves bytes until output ends or the client is gone. `early` is what the client sent right after the head.
    pub(crate) async fn run(self, stream: Stream, early: Bytes) -> io::Result<()> {
        let gone = stream.gone()?;
        let tty = self.tty();
        match self.started().await.what {
            What::Attached(Attachment { input, output, .. }) => {
                pump(stream, early, gone, tty, input, output).await
            }
            What::Exec { .. } => unreachable!("it has been started"),
            What::Failed { text, .. } => {
                let mut stream = stream;
                let bytes = Bytes::from(format!("{text}\r\n"));
                stream.write_all(&frame(tty, OutputChunk { stream: OutputStream::Stdout, bytes })).await?;
                stream.shutdown().await
            }
        }
    }

    /// The output alone, for an ordinary answer: clients that neither upgrade nor hijack. Call after `started`.
    pub(crate) fn into_pieces(self) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static {
        let tty = self.tty();
        // The input is kept open: the client has no way to send any, but did not close it either.
        let (input, output, text) = match self.what {
            What::Attached(Attachment { input, output, .. }) => (input, Some(output), None),
            What::Exec { .. } => unreachable!("the caller has started it"),
            What::Failed { text, .. } => (None, None, Some(text)),
        };
        futures_util::stream::unfold((input, output, text), move |(input, mut output, mut text)| async move {
            let chunk = match (&mut output, text.take()) {
                (_, Some(text)) => {
                    OutputChunk { stream: OutputStream::Stdout, bytes: Bytes::from(format!("{text}\r\n")) }
                }
                (Some(output), None) => output.next().await?,
                (None, None) => return None,
            };
            Some((Ok(frame(tty, chunk)), (input, output, text)))
        })
    }
}

/// Where standard input goes.
pub(crate) trait Sink: Send {
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Where output comes from.
pub(crate) trait Source: Send {
    fn next(&mut self) -> impl Future<Output = Option<OutputChunk>> + Send;
}

impl Sink for Input {
    async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        Input::write(self, bytes).await
    }

    async fn close(self) {
        Input::close(self).await;
    }
}

impl Source for Output {
    async fn next(&mut self) -> Option<OutputChunk> {
        Output::next(self).await
    }
}

/// A piece of output as it is sent.
pub(crate) fn frame(tty: bool, chunk: OutputChunk) -> Bytes {
    if tty {
        return chunk.bytes;
    }
    let mut bytes = BytesMut::with_capacity(portolan_api::FRAME_HEADER_LEN + chunk.bytes.len());
    bytes.extend_from_slice(&header(&chunk));
    bytes.extend_from_slice(&chunk.bytes);
    bytes.freeze()
}

fn header(chunk: &OutputChunk) -> [u8; portolan_api::FRAME_HEADER_LEN] {
    let kind = match chunk.stream {
        OutputStream::Stdout => StreamKind::Stdout,
        OutputStream::Stderr => StreamKind::Stderr,
    };
    let len = u32::try_from(chunk.bytes.len()).expect("pieces of output are far smaller than 4 GiB");
    FrameHeader { kind, len }.encode()
}

async fn pump<S, I, O>(
    stream: S,
    early: Bytes,
    gone: impl Future<Output = ()>,
    tty: bool,
    input: Option<I>,
    output: O,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite,
    I: Sink,
    O: Source,
{
    let (reader, writer) = tokio::io::split(stream);
    let inward = async {
        read_input(reader, early, input).await;
        gone.await;
    };
    tokio::select! {
        result = write_output(writer, tty, output) => result,
        () = inward => Ok(()),
    }
}

async fn write_output(
    mut writer: impl AsyncWrite + Unpin,
    tty: bool,
    mut output: impl Source,
) -> io::Result<()> {
    while let Some(mut chunk) = output.next().await {
        if tty {
            writer.write_all_buf(&mut chunk.bytes).await?;
        } else {
            let header = header(&chunk);
            writer.write_all_buf(&mut Buf::chain(&header[..], chunk.bytes)).await?;
        }
    }
    writer.shutdown().await
}

/// Reads until the client has nothing more to say.
async fn read_input<I: Sink>(mut reader: impl AsyncRead + Unpin, early: Bytes, mut input: Option<I>) {
    let mut buffer = BytesMut::from(early);
    loop {
        if !buffer.is_empty() {
            let bytes = buffer.split().freeze();
            // A process that does not read any more does not end the output: the rest is read and forgotten.
            if let Some(sink) = &mut input
                && sink.write(bytes).await.is_err()
            {
                input = None;
            }
        }
        buffer.reserve(INPUT_BUFFER);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => break,
            Ok(_) => {}
            // The connection broke: that is leaving, not the end of the input.
            Err(_) => return,
        }
    }
    if let Some(sink) = input {
        sink.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;
    use tokio::sync::mpsc;

    /// A process that answers its whole input, in capitals, when the input has ended.
    struct Fake {
        sender: mpsc::Sender<Option<Bytes>>,
    }

    impl Sink for Fake {
        async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
            self.sender.send(Some(bytes)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
        }
        async fn close(self) {
            let _ = self.sender.send(None).await;
        }
    }

    struct Pieces(mpsc::Receiver<OutputChunk>);

    impl Source for Pieces {
        async fn next(&mut self) -> Option<OutputChunk> {
            self.0.recv().await
        }
    }

    fn upper_case_process() -> (Fake, Pieces) {
        let (sender, mut input) = mpsc::channel::<Option<Bytes>>(4);
        let (output, pieces) = mpsc::channel(4);
        tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(Some(bytes)) = input.recv().await {
                all.extend_from_slice(&bytes.to_ascii_uppercase());
            }
            let chunk = |stream, bytes| OutputChunk { stream, bytes };
            output.send(chunk(OutputStream::Stdout, Bytes::from(all))).await.unwrap();
            output.send(chunk(OutputStream::Stderr, Bytes::from_static(b"done"))).await.unwrap();
        });
        (Fake { sender }, Pieces(pieces))
    }

    #[tokio::test]
    async fn output_flows_after_the_client_closed_its_side() {
        let (client, server) = UnixStream::pair().unwrap();
        let (sink, source) = upper_case_process();
        let stream = Stream::Unix(server);
        let gone = stream.gone().unwrap();
        let serving =
            tokio::spawn(pump(stream, Bytes::from_static(b"early "), gone, false, Some(sink), source));
        let (mut reader, mut writer) = client.into_split();
        writer.write_all(b"bird").await.unwrap();
        writer.shutdown().await.unwrap();
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"\x01\0\0\0\0\0\0\x0aEARLY BIRD\x02\0\0\0\0\0\0\x04done");
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_terminal_has_no_headers() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (sink, source) = upper_case_process();
        tokio::spawn(pump(server, Bytes::new(), std::future::pending(), true, Some(sink), source));
        client.write_all(b"hi").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"HIdone");
    }

    #[tokio::test]
    async fn a_client_that_is_gone_ends_the_attachment() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let (_never_sends, pieces) = mpsc::channel(1);
        let stream = Stream::Unix(server);
        let gone = stream.gone().unwrap();
        let serving = tokio::spawn(pump(stream, Bytes::new(), gone, false, None::<Fake>, Pieces(pieces)));
        client.shutdown().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert!(!serving.is_finished(), "closing one side is not leaving");
        drop(client);
        tokio::time::timeout(std::time::Duration::from_secs(5), serving).await.unwrap().unwrap().unwrap();
    }
}
