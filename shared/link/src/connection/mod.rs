//! The tasks of connections: thin shells around [`crate::session`] and [`crate::decoder`], over any byte stream.

mod blocker;
mod receiving;
mod sending;

pub(crate) use receiving::Connection;
pub(crate) use sending::run;

use bytes::BytesMut;
use bytes::buf::Limit;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

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
