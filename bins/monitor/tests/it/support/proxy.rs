//! A way to a server that takes its time: each piece of bytes arrives later, however many are on their way.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Starts one before `server`; each direction takes `delay`.
pub(crate) async fn delayed(server: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let addr = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.expect("accepted");
            let Ok(server) = TcpStream::connect(server).await else { continue };
            client.set_nodelay(true).expect("set");
            server.set_nodelay(true).expect("set");
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pass(from_client, to_server, delay));
            tokio::spawn(pass(from_server, to_client, delay));
        }
    });
    addr
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Duration) {
    let (pieces, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((when, piece)) = arriving.recv().await {
            tokio::time::sleep_until(when).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let mut piece = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        if pieces.send((Instant::now() + delay, piece[..count].to_vec())).is_err() {
            return;
        }
    }
}
