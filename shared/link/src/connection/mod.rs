//! The tasks of connections: thin shells around [`crate::session`] and [`crate::decoder`], over any byte stream.

mod blocker;
mod receiving;
mod sending;

pub(crate) use receiving::Connection;
pub(crate) use sending::run;

use bytes::buf::Limit;
use bytes::{Buf, BytesMut};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a closing connection may take for its last words.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads once into `room`; without room, never.
async fn read_into(
    reader: &mut (impl AsyncRead + Unpin),
    room: Option<Limit<&mut BytesMut>>,
) -> io::Result<usize> {
    match room {
        Some(mut room) => reader.read_buf(&mut room).await,
        None => std::future::pending().await,
    }
}

/// Writes what is left, and reads on until the peer closes: closing a socket with unread bytes would reset the connection and take
/// our last answers with it.
pub(crate) async fn say_last_words(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    words: &mut impl Buf,
) {
    let saying = async {
        if writer.write_all_buf(words).await.is_ok() && writer.shutdown().await.is_ok() {
            let mut ignored = [0; 1_024];
            while matches!(reader.read(&mut ignored).await, Ok(1..)) {}
        }
    };
    let _ = timeout(LAST_WORDS_TIMEOUT, saying).await;
}
