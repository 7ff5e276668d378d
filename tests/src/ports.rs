//! Ports that the programs of one test listen on.

use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;

/// Below the range from which Linux takes the ports of outgoing connections (`ip_local_port_range`), so that no connection of
/// another program takes a port while its owner is restarted.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Locks on the ports that this process has given out; the system drops them with the process, however it ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of 127.0.0.1 that nobody listens on, and that no other process gets from here while this one lives.
pub fn free_port() -> u16 {
    // Not in TMPDIR: two runs with different ones share the ports of the machine.
    let folder = PathBuf::from(format!("/tmp/logferry-test-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).expect("folder of the locks on ports");
    let mut held = HELD.lock().expect("locks on ports");
    for port in PORTS {
        let lock = File::create(folder.join(port.to_string())).expect("lock on a port");
        let locked = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if locked && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            held.push(lock);
            return port;
        }
    }
    panic!("no port is free in {PORTS:?}");
}

#[cfg(test)]
mod tests {
    use super::free_port;
    use std::collections::BTreeSet;
    use std::thread;

    #[test]
    fn no_port_is_given_out_twice() {
        let threads: Vec<_> =
            (0..8).map(|_| thread::spawn(|| (0..4).map(|_| free_port()).collect())).collect();
        let ports: Vec<Vec<u16>> = threads.into_iter().map(|thread| thread.join().expect("ports")).collect();
        assert_eq!(ports.iter().flatten().collect::<BTreeSet<_>>().len(), 32);
    }
}
