//! Datagrams of writers: udp, which the kernel drops when nobody reads, and unix datagrams, for which writers wait.

use super::config::Listen;
use super::framing::Framer;
use super::{Port, unix};
use metrics::counter;
use rustix::net::RecvFlags;
use std::io;
use std::net::{Shutdown, UdpSocket as StdUdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Largest datagram that is taken whole, in bytes; UDP has none above 65,507.
const DATAGRAM_BYTES_MAX: usize = 256 << 10;
/// Room that the kernel is asked to set aside for datagrams that were not read yet; it gives `net.core.rmem_max` at most.
const KERNEL_BYTES: usize = 4 << 20;
/// Time between two looks at what the kernel has dropped.
const DROPS_EVERY: Duration = Duration::from_secs(1);
/// Most empty datagrams in a row that are believed to be some: twice the longest queue that a unix socket has by default.
const EMPTY_MAX: usize = 1024;
/// Most datagrams that are counted as lost at a stop: more may be coming all the time.
const COUNTED_MAX: u64 = 65_536;
/// Where Linux counts them.
const DROPS_TABLES: [&str; 2] = ["/proc/net/udp", "/proc/net/udp6"];

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Socket {
    async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Udp(socket) => socket.recv(buffer).await,
            Socket::Unix(socket) => socket.recv(buffer).await,
        }
    }

    /// Writers of unix datagrams are refused from now on; what they were told is sent stays to be read.
    fn refuse(&self) {
        if let Socket::Unix(socket) = self {
            let _ = socket.shutdown(Shutdown::Read);
        }
    }

    /// What is there, without waiting and whatever the runtime knows of it.
    fn recv_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = match self {
            Socket::Udp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        };
        Ok(rustix::net::recv(fd, buffer, RecvFlags::DONTWAIT)?.0)
    }
}

/// Binds the address and takes datagrams in a task of its own.
pub(super) fn listen(port: Port, listen: &Listen, tasks: &TaskTracker) -> io::Result<()> {
    match listen {
        Listen::Udp(addr) => {
            let socket = StdUdpSocket::bind(addr.as_str())?;
            socket.set_nonblocking(true)?;
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, KERNEL_BYTES);
            let inode = rustix::fs::fstat(socket.as_fd())?.st_ino;
            let socket = UdpSocket::from_std(socket)?;
            info!(input = port.settings.name, addr = %socket.local_addr()?, "taking lines over udp");
            tasks.spawn(async move {
                let (socket, drained) = (Socket::Udp(socket), CancellationToken::new());
                let taking = async {
                    port.take_datagrams(&socket).await;
                    drained.cancel();
                };
                tokio::join!(taking, watch_drops(&port, inode, &drained));
            });
        }
        Listen::UnixDatagram(path) => {
            let connect = |path: &std::path::Path| std::os::unix::net::UnixDatagram::unbound()?.connect(path);
            unix::remove_stale(path, connect)?;
            let socket = UnixDatagram::bind(path)?;
            info!(input = port.settings.name, path = %path.display(), "taking lines over a unix datagram socket");
            let path = path.clone();
            tasks.spawn(async move {
                port.take_datagrams(&Socket::Unix(socket)).await;
                let _ = std::fs::remove_file(path);
            });
        }
        Listen::Tcp(_) | Listen::Unix(_) => {}
    }
    Ok(())
}

impl Port {
    async fn take_datagrams(&self, socket: &Socket) {
        // One more than is taken whole, to see which are longer.
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
        let mut framer = Framer::new(self.settings.max_message.0 as usize);
        loop {
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                received = socket.recv(&mut buffer) => received,
            };
            match received {
                Ok(count) => self.take_datagram(&mut framer, &buffer[..count]).await,
                Err(error) => {
                    counter!("logferry_tailer_input_receive_failures_total", "input" => self.settings.name.clone()).increment(1);
                    warn!(input = self.settings.name, %error, "datagrams cannot be received");
                    let _ = tokio::time::timeout(DROPS_EVERY, self.stop.cancelled()).await;
                }
            }
        }
        socket.refuse();
        self.drain(socket, &mut framer, &mut buffer).await;
    }

    /// Takes what the system holds: its writers were told that it is sent.
    async fn drain(&self, socket: &Socket, framer: &mut Framer, buffer: &mut [u8]) {
        let (mut empty, mut counted) = (0, 0);
        // An empty datagram looks like the end of a socket that refuses more.
        while empty < EMPTY_MAX && counted < COUNTED_MAX {
            let count = match socket.recv_now(buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            empty = if count == 0 { empty + 1 } else { 0 };
            counted += u64::from(self.grace_over.is_cancelled());
            self.take_datagram(framer, &buffer[..count]).await;
        }
    }

    /// Hands the lines of a datagram over, waiting for room until the grace of a stop is over.
    async fn take_datagram(&self, framer: &mut Framer, datagram: &[u8]) {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            self.intake.dropped(1, "datagram_too_long");
            warn!(
                input = self.settings.name,
                "a datagram was longer than {DATAGRAM_BYTES_MAX} bytes: its end is lost"
            );
        }
        let mut framed = framer.push(datagram);
        let rest = framer.finish();
        framed.bytes.extend(rest.bytes);
        framed.lines += rest.lines;
        if framed.is_empty() {
            return;
        }
        let lines = framed.lines;
        tokio::select! {
            biased;
            () = self.grace_over.cancelled() => self.intake.dropped(lines, "stopped"),
            _told = self.intake.submit(framed) => {}
        }
    }
}

/// Counts what the kernel drops because nobody read it in time.
async fn watch_drops(port: &Port, inode: u64, drained: &CancellationToken) {
    let mut known = 0;
    loop {
        let stopped = tokio::time::timeout(DROPS_EVERY, drained.cancelled()).await.is_ok();
        let tables = DROPS_TABLES.iter().map(|table| std::fs::read_to_string(table).unwrap_or_default());
        let drops = tables.filter_map(|table| drops_of(&table, inode)).sum::<u64>();
        if drops > known {
            port.intake.dropped(drops - known, "kernel");
            warn!(
                input = port.settings.name,
                datagrams = drops - known,
                "the kernel dropped datagrams that were not read in time"
            );
            known = drops;
        }
        if stopped {
            return;
        }
    }
}

/// The drops of a socket in a table as of `/proc/net/udp`: `inode` is the tenth word of its line, the last word counts.
fn drops_of(table: &str, inode: u64) -> Option<u64> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let of_socket = |words: &Vec<String>| words.get(9).is_some_and(|word| word.parse() == Ok(inode));
    table.lines().map(words).find(of_socket)?.last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::InputSettings;
    use super::super::trial::Trial;
    use super::*;

    /// As many as any system lets wait for one reader.
    const LINES: usize = 10;

    fn lines() -> String {
        (0..LINES).map(|number| format!("line {number}\n")).collect()
    }

    #[tokio::test]
    async fn a_stop_takes_the_datagrams_that_the_system_holds_and_refuses_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("datagrams");
        let trial = Trial::new(InputSettings::default());
        let socket = Socket::Unix(UnixDatagram::bind(&path).expect("bound"));
        let writer = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        for line in lines().lines() {
            writer.send_to(line.as_bytes(), &path).expect("sent");
        }
        trial.port.stop.cancel();
        trial.port.take_datagrams(&socket).await;
        assert!(writer.send_to(b"too late", &path).is_err(), "nobody would read it");
        assert_eq!((trial.dropped(), trial.stored()), (0, lines()));
    }

    #[tokio::test]
    async fn a_stop_takes_the_datagrams_of_udp_that_came_before() {
        let trial = Trial::new(InputSettings::default());
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let addr = socket.local_addr().expect("bound");
        let writer = StdUdpSocket::bind("127.0.0.1:0").expect("bound");
        for line in lines().lines() {
            writer.send_to(line.as_bytes(), addr).expect("sent");
        }
        trial.port.stop.cancel();
        trial.port.take_datagrams(&Socket::Udp(socket)).await;
        assert_eq!((trial.dropped(), trial.stored()), (0, lines()));
    }

    #[tokio::test]
    async fn datagrams_that_nobody_can_take_within_the_grace_of_a_stop_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("datagrams");
        let trial = Trial::new(InputSettings::default());
        let socket = Socket::Unix(UnixDatagram::bind(&path).expect("bound"));
        let writer = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        for line in lines().lines() {
            writer.send_to(line.as_bytes(), &path).expect("sent");
        }
        trial.port.stop.cancel();
        trial.port.grace_over.cancel();
        trial.port.take_datagrams(&socket).await;
        assert_eq!((trial.dropped(), trial.stored()), (LINES as u64, String::new()));
    }

    #[test]
    fn drops_are_found_by_the_sockets_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     301: 0100007F:04B2 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 42\n";
        assert_eq!((drops_of(table, 4711), drops_of(table, 42), drops_of("", 1)), (Some(42), None, None));
    }
}
