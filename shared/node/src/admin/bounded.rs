//! A listener that callers cannot exhaust: connections are few, and one that is silent, or does not end its request, is closed.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Silence after which a connection is closed, and time for a whole request until its answer begins. Longer than the usual 15 s between two scrapes.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Who asks: the other end of the connection, as an extension of each request ([`ConnectInfo`](axum::extract::ConnectInfo)).
#[derive(Clone, Copy, Debug)]
pub struct Caller(pub SocketAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Caller {
        Caller(*stream.remote_addr())
    }
}

/// See the module.
pub(super) struct BoundedListener {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    idle_max: Duration,
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener) -> BoundedListener {
        BoundedListener::with_limits(listener, CONNECTIONS_MAX, IDLE_MAX)
    }

    fn with_limits(listener: TcpListener, connections_max: usize, idle_max: Duration) -> BoundedListener {
        BoundedListener { listener, slots: Arc::new(Semaphore::new(connections_max)), idle_max }
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let slot = self.slots.clone().acquire_owned().await.ok();
        // axum's own accept, which waits and goes on when there are no descriptors
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let silence = Box::pin(tokio::time::sleep(self.idle_max));
        let idle_max = self.idle_max;
        (BoundedStream { stream, silence, idle_max, in_request: false, _slot: slot }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends with `TimedOut` when for the time given no request began and nothing was written. Bytes of a request that has
/// begun are no sign of life: they may come one by one.
pub(super) struct BoundedStream {
    stream: TcpStream,
    silence: Pin<Box<Sleep>>,
    idle_max: Duration,
    /// Something was read since something was written.
    in_request: bool,
    _slot: Option<OwnedSemaphorePermit>,
}

impl BoundedStream {
    /// Passes a finished operation on; an unfinished one fails once the silence has lasted too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        is_read: bool,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            let goes_on = std::mem::replace(&mut self.in_request, is_read) && is_read;
            if !goes_on {
                self.silence.as_mut().reset(Instant::now() + self.idle_max);
            }
            return outcome;
        }
        self.silence.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(context, true, outcome)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, false, outcome)
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn served(connections_max: usize, idle_max: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let listener = BoundedListener::with_limits(listener, connections_max, idle_max);
        let router = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        addr
    }

    async fn ask(addr: SocketAddr) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("connected");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn silent_callers_make_room_for_those_that_ask() {
        let addr = served(2, Duration::from_millis(100)).await;
        let mut silent = Vec::new();
        for _ in 0..10 {
            silent.push(TcpStream::connect(addr).await.expect("connected"));
        }
        assert!(ask(addr).await.ends_with("here"));
        // the first of them was closed for its silence
        let mut nothing = [0];
        let closed = silent[0].read(&mut nothing).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }

    #[tokio::test]
    async fn callers_that_drip_their_requests_make_room_for_those_that_ask() {
        let addr = served(1, Duration::from_millis(200)).await;
        let mut dripping = TcpStream::connect(addr).await.expect("connected");
        dripping.write_all(b"GET / HTTP/1.1\r\nx: ").await.expect("begun");
        tokio::spawn(async move {
            while dripping.write_all(b"y").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let answer = tokio::time::timeout(Duration::from_secs(30), ask(addr)).await;
        assert!(answer.expect("an answer in time").ends_with("here"));
    }

    #[tokio::test]
    async fn a_caller_that_asks_again_and_again_stays() {
        let addr = served(1, Duration::from_millis(500)).await;
        let mut stream = TcpStream::connect(addr).await.expect("connected");
        for _ in 0..3 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("asked");
            let mut answer = Vec::new();
            while !answer.ends_with(b"here") {
                answer.push(stream.read_u8().await.expect("answered"));
            }
        }
    }
}
