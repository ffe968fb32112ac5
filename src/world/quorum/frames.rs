//! Reads and writes frames of ZooKeeper's protocol on a connection. A length of four bytes, big-endian, precedes each
//! frame.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::flink::zookeeper_frames::HEADER;

/// Reads a frame and returns it without its length.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin + ?Sized), limit: usize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is longer than a connect frame can be"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

/// Returns a frame with its length, as a connection carries it.
pub fn with_length(frame: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(HEADER + frame.len());
    whole.extend(u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes());
    whole.extend(frame);
    whole
}
