//! The framing of attach, exec and logs without a terminal ("stdcopy"): before every piece of output a header of
//! 8 bytes: the stream, three zeros, and the length of the piece as a big-endian number.

/// Length of a frame's header, bytes.
pub const FRAME_HEADER_LEN: usize = 8;

/// Content types of streams.
pub mod media_type {
    /// Bytes as they come: with a terminal.
    pub const RAW_STREAM: &str = "application/vnd.docker.raw-stream";
    /// Framed: without a terminal, from v1.42.
    pub const MULTIPLEXED_STREAM: &str = "application/vnd.docker.multiplexed-stream";
}

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    /// Never sent by Docker, but defined.
    Stdin = 0,
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
    /// An error of the daemon while it streams.
    Systemerr = 3,
}

/// Header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The stream.
    pub kind: StreamKind,
    /// Length of what follows, bytes.
    pub len: u32,
}

impl FrameHeader {
    /// The header as sent.
    pub fn encode(self) -> [u8; FRAME_HEADER_LEN] {
        let [a, b, c, d] = self.len.to_be_bytes();
        [self.kind as u8, 0, 0, 0, a, b, c, d]
    }

    /// Reads a header; `None` if the first byte names no stream.
    pub fn decode(bytes: [u8; FRAME_HEADER_LEN]) -> Option<Self> {
        let [kind, _, _, _, a, b, c, d] = bytes;
        let kind = match kind {
            0 => StreamKind::Stdin,
            1 => StreamKind::Stdout,
            2 => StreamKind::Stderr,
            3 => StreamKind::Systemerr,
            _ => return None,
        };
        Some(FrameHeader { kind, len: u32::from_be_bytes([a, b, c, d]) })
    }
}
