//! `reorder_wait`: a pack that leaves a gap waits, unanswered, for what is missing; after the wait it is written anyway, which
//! is counted and logged; what was missing may still come, once.

#![allow(clippy::unwrap_used)] // test code outside of test functions

use crate::common::running::{Client, folders_in, start, until};
use crate::common::{Bodies, Stream, assert_exactly, stream};
use logferry_durable::RealDisk;
use logferry_durable::faulty::Random;
use logferry_link::Outcome;
use logferry_node::config::Interval;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_millis(300);

/// What was logged. One subscriber for the process: lines are written by threads of the outputter.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Logged {
    /// The line that says that a gap was passed over. Other tests of this program say such things of theirs.
    fn passed_over(&self, gap: &str) -> Option<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().find(|line| line.contains("passed over") && line.contains(gap)).map(str::to_owned)
    }
}

/// As the log names the range of a stream's pack 1.
fn gap_before_2(stream: &Stream) -> String {
    let [from, to] = [0, 1].map(|index| crate::common::identity(&stream.packs[index]).end());
    format!("from={from} to={to}")
}

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_waited_for_given_up_counted_and_logged_and_a_late_pack_arrives_once() {
    let logged = Logged::default();
    let writer = logged.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let dir = tempfile::tempdir().unwrap();
    let streams: Vec<_> =
        [0, 2].map(|number| stream(number, 5, Bodies::Verbatim, &mut Random::new(4))).into();
    let running = start(dir.path(), |file| file.reorder_wait = Interval(WAIT)).await;
    let figure = |name: &str| running.figures.by_name(&Default::default())[name];
    let (mut client, mut other) = (Client::new(&running.addr), Client::new(&running.addr));

    // The gap closes in time: nothing is told, and the order is that of the stream.
    assert_eq!(other.deliver(streams[1].packs.iter().take(1)).await, [Outcome::Ok]);
    for index in [3, 2] {
        other.submit(&streams[1].packs[index]).await;
    }
    until("two packs are held", || (running.order_figures)().held_packs == 2).await;
    assert_eq!(other.deliver(streams[1].packs.iter().skip(1).take(1)).await, [Outcome::Ok]);
    assert_eq!([other.outcome().await, other.outcome().await], [Outcome::Ok, Outcome::Ok]);
    assert_eq!(figure("inversions_total"), 0);
    assert_eq!(logged.passed_over(&gap_before_2(&streams[1])), None);

    // It does not close: pack 1 of the other stream is missing.
    assert_eq!(client.deliver(streams[0].packs.iter().take(1)).await, [Outcome::Ok]);
    let begin = Instant::now();
    assert_eq!(client.deliver(streams[0].packs.iter().skip(2).take(2)).await, [Outcome::Ok, Outcome::Ok]);
    assert!(begin.elapsed() >= WAIT, "given up after {:?}", begin.elapsed());
    assert_eq!(figure("inversions_total"), 1);
    let line = logged.passed_over(&gap_before_2(&streams[0])).expect("the gap is logged");
    assert!(line.contains("WARN"), "{line}");

    // The wait is over for what follows: no pack waits for that gap again.
    assert_eq!(client.deliver(streams[0].packs.iter().skip(4)).await, [Outcome::Ok]);

    assert_eq!(client.deliver(streams[0].packs.iter().skip(1).take(1)).await, [Outcome::Ok]);
    assert_eq!(client.deliver(streams[0].packs.iter().skip(1).take(1)).await, [Outcome::Duplicate]);
    assert_eq!(other.deliver(streams[1].packs.iter().skip(4)).await, [Outcome::Ok]);
    assert_eq!(figure("inversions_total"), 1);
    running.stop().await;
    assert_exactly(&RealDisk, &folders_in(dir.path()), &streams, false);
}
