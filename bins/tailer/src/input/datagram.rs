//! Datagrams of writers: udp, which the kernel drops when nobody reads, and unix datagrams, for which writers wait.

use super::config::Listen;
use super::framing::Framer;
use super::{Port, unix};
use metrics::counter;
use std::io;
use std::net::UdpSocket as StdUdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Largest datagram that is taken whole, in bytes; UDP has none above 65,507.
const DATAGRAM_BYTES_MAX: usize = 256 << 10;
/// Room that the kernel is asked to set aside for datagrams that were not read yet; it gives `net.core.rmem_max` at most.
const KERNEL_BYTES: usize = 4 << 20;
/// Time between two looks at what the kernel has dropped.
const DROPS_EVERY: Duration = Duration::from_secs(1);
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
            tasks.spawn(watch_drops(port.clone(), inode));
            tasks.spawn(async move { port.take_datagrams(&Socket::Udp(socket)).await });
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
                () = self.stop.cancelled() => return,
                received = socket.recv(&mut buffer) => received,
            };
            match received {
                Ok(count) => {
                    if count > DATAGRAM_BYTES_MAX {
                        self.intake.dropped(1, "datagram_too_long");
                        warn!(
                            input = self.settings.name,
                            "a datagram was longer than {DATAGRAM_BYTES_MAX} bytes: its end is lost"
                        );
                    }
                    let mut framed = framer.push(&buffer[..count]);
                    let rest = framer.finish();
                    framed.bytes.extend(rest.bytes);
                    framed.lines += rest.lines;
                    if framed.is_empty() {
                        continue;
                    }
                    let lines = framed.lines;
                    tokio::select! {
                        _told = self.intake.submit(framed) => {}
                        () = self.stop.cancelled() => {
                            self.intake.dropped(lines, "stopped");
                            return;
                        }
                    }
                }
                Err(error) => {
                    counter!("logferry_tailer_input_receive_failures_total", "input" => self.settings.name.clone()).increment(1);
                    warn!(input = self.settings.name, %error, "datagrams cannot be received");
                    tokio::time::sleep(DROPS_EVERY).await;
                }
            }
        }
    }
}

/// Counts what the kernel drops because nobody read it in time.
async fn watch_drops(port: Port, inode: u64) {
    let mut known = 0;
    loop {
        let stopped = tokio::time::timeout(DROPS_EVERY, port.stop.cancelled()).await.is_ok();
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
    use super::*;

    #[test]
    fn drops_are_found_by_the_sockets_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     301: 0100007F:04B2 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 42\n";
        assert_eq!((drops_of(table, 4711), drops_of(table, 42), drops_of("", 1)), (Some(42), None, None));
    }
}
