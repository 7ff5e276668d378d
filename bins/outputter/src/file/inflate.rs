//! Inflates packs on several threads, in a bounded amount of memory, reusing buffers.

use super::archive::{Archiver, Form};
use super::headers::{self, Stored};
use super::order::{Accepted, Parcel};
use super::replace::End;
use super::trim;
use crate::hours::fact::Fact;
use crossbeam_channel::{Receiver, Sender};
use logferry_pack::{Decompressor, Limits};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Idle buffers kept, so that looking for one that fits stays cheap.
const IDLE_BUFFERS_MAX: usize = 64;
/// Smallest buffer: below that, accounting costs more than memory.
const BUFFER_BYTES_MIN: usize = 4 << 10;
/// A buffer this many times too large is left for somebody else.
const BUFFER_WASTE_MAX: usize = 4;

/// A pack on its way from judging to writing.
pub struct Job {
    /// Its place in the order.
    pub accepted: Accepted,
    /// The pack.
    pub parcel: Parcel,
}

/// A pack ready to be written.
pub struct Inflated {
    /// Its place in the order.
    pub accepted: Accepted,
    /// Path of the log file below the folder.
    pub path: String,
    /// Number of lines that are written.
    pub lines: u64,
    /// Line for the header file, or lines where only parts of the pack are missing.
    pub header_lines: Vec<u8>,
    /// What these lines tell the books of the hours.
    pub facts: Vec<Fact>,
    /// What is to be written, or the label of what is wrong with it.
    pub body: Result<Body, &'static str>,
    /// It is the last pack of a replacement.
    pub end: Option<End>,
}

/// The bytes of a pack that are to be written.
pub struct Body {
    buffer: RawBuffer,
    /// Ranges of the buffer.
    parts: Vec<Range<usize>>,
}

impl Body {
    /// The bytes, in one part unless the pack was trimmed.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().filter_map(|part| self.buffer.as_slice().get(part.clone()))
    }

    /// Bytes of all parts.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Range::len).sum()
    }

    /// Whether there is nothing to write but header lines.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that it takes until it is written.
    pub fn bytes_held(&self) -> usize {
        self.buffer.as_slice().len()
    }
}

/// Decompressed bytes in memory: given out up to a total, in use and idle together.
pub struct RawPool {
    bytes_max: usize,
    inner: Mutex<PoolInner>,
    given_back: Condvar,
}

#[derive(Default)]
struct PoolInner {
    in_use_bytes: usize,
    idle_bytes: usize,
    idle: Vec<Vec<u8>>,
}

/// A buffer of a [`RawPool`], back there when dropped.
pub struct RawBuffer {
    bytes: Vec<u8>,
    charged: usize,
    pool: Arc<RawPool>,
}

impl RawPool {
    /// A pool of `bytes_max`.
    pub fn new(bytes_max: u64) -> Arc<RawPool> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Arc::new(RawPool { bytes_max, inner: Mutex::default(), given_back: Condvar::new() })
    }

    /// Waits for a buffer that takes `bytes` without growing. A wish larger than the pool waits until it has it for itself.
    pub fn acquire(self: &Arc<Self>, bytes: usize) -> RawBuffer {
        let want = bytes.max(BUFFER_BYTES_MIN);
        let mut inner = self.lock();
        while inner.in_use_bytes > 0 && inner.in_use_bytes + want > self.bytes_max {
            inner = self.given_back.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = inner.take_idle(want, self.bytes_max);
        let charged = bytes.capacity().max(want);
        inner.in_use_bytes += charged;
        inner.trim(self.bytes_max);
        drop(inner);
        bytes.reserve_exact(want.saturating_sub(bytes.len()));
        RawBuffer { bytes, charged, pool: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, PoolInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolInner {
    /// The smallest idle buffer that fits, or a new one.
    fn take_idle(&mut self, want: usize, bytes_max: usize) -> Vec<u8> {
        let room = bytes_max.saturating_sub(self.in_use_bytes);
        let fits =
            |capacity: usize| capacity >= want && capacity / BUFFER_WASTE_MAX <= want && capacity <= room;
        let fitting = self.idle.iter().enumerate().filter(|(_, buffer)| fits(buffer.capacity()));
        let Some((at, _)) = fitting.min_by_key(|(_, buffer)| buffer.capacity()) else { return Vec::new() };
        let buffer = self.idle.swap_remove(at);
        self.idle_bytes -= buffer.capacity();
        buffer
    }

    fn trim(&mut self, bytes_max: usize) {
        while self.in_use_bytes + self.idle_bytes > bytes_max {
            let Some(buffer) = self.idle.pop() else { return };
            self.idle_bytes -= buffer.capacity();
        }
    }
}

impl RawBuffer {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for RawBuffer {
    fn drop(&mut self) {
        // Not cleared: what is there need not be zeroed before it is written over.
        let bytes = std::mem::take(&mut self.bytes);
        let mut inner = self.pool.lock();
        inner.in_use_bytes -= self.charged;
        let capacity = bytes.capacity();
        let keep = inner.idle.len() < IDLE_BUFFERS_MAX
            && inner.in_use_bytes + inner.idle_bytes + capacity <= self.pool.bytes_max;
        if keep && capacity > 0 {
            inner.idle_bytes += capacity;
            inner.idle.push(bytes);
        }
        drop(inner);
        self.pool.given_back.notify_one();
    }
}

/// What the inflating threads share.
pub struct Inflaters {
    /// Packs to inflate, in their order.
    pub jobs: Receiver<Job>,
    /// Where inflated packs go, in any order.
    pub done: Sender<Inflated>,
    /// Memory.
    pub pool: Arc<RawPool>,
    /// Limits.
    pub limits: Limits,
    /// What log files hold.
    pub form: Form,
}

/// Starts `threads` threads. They end when the jobs end, or nobody takes what they did.
pub fn start(shared: Inflaters, threads: usize) -> std::io::Result<Vec<thread::JoinHandle<()>>> {
    let shared = Arc::new(shared);
    let turn = Arc::new(Mutex::new(()));
    (0..threads.max(1))
        .map(|number| {
            let (shared, turn) = (shared.clone(), turn.clone());
            thread::Builder::new().name(format!("inflate-{number}")).spawn(move || shared.run(&turn))
        })
        .collect()
}

impl Inflaters {
    fn run(&self, turn: &Mutex<()>) {
        let (mut decompressor, mut archiver) = (Decompressor::new(), Archiver::new(self.form));
        while let Some((job, buffer)) = self.next_job(turn) {
            if self.done.send(self.inflate((&mut decompressor, &mut archiver), job, buffer)).is_err() {
                return;
            }
        }
    }

    /// One thread at a time takes a job and its memory, so that memory is given out in the order of writing: else packs
    /// further back could have it all, and the one to be written next would wait for ever.
    fn next_job(&self, turn: &Mutex<()>) -> Option<(Job, RawBuffer)> {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let job = self.jobs.recv().ok()?;
        let raw = job.parcel.pack.header.ours.as_ref().map_or(0, |ours| ours.raw);
        let raw = usize::try_from(raw).unwrap_or(usize::MAX).min(self.limits.raw_bytes_max);
        Some((job, self.pool.acquire(raw)))
    }

    /// Inflates one pack into `buffer`.
    pub fn inflate(
        &self,
        (decompressor, archiver): (&mut Decompressor, &mut Archiver),
        job: Job,
        mut buffer: RawBuffer,
    ) -> Inflated {
        let Job { accepted, mut parcel } = job;
        let (mut lines, mut header_lines) = (parcel.pack.header.lines, Vec::new());
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let mut facts = Vec::new();
        let body = match decompressor.decompress(&parcel.pack, &self.limits, &mut buffer.bytes) {
            Ok(()) if parcel.trimmed_to.is_empty() => {
                lines = lines_of(&parcel, &buffer.bytes);
                parcel.pack.header.lines = lines;
                if let Some(stored) = archiver.stored(&parcel.pack, &buffer.bytes) {
                    header_lines = headers::stored_line(Stored::of(&stored));
                    buffer.bytes = stored;
                }
                header_lines.extend(headers::pack_line(&parcel.pack));
                facts.push(Fact::new(&parcel.pack.header, now_ms));
                let parts = std::iter::once(0..buffer.bytes.len()).collect();
                Ok(Body { buffer, parts })
            }
            Ok(()) => {
                let mut parts = trim::parts(&parcel, &buffer.bytes);
                let mut all = Vec::new();
                for part in &mut parts {
                    if let Some(stored) = archiver.stored(&part.pack, &part.pack.body) {
                        header_lines.extend(headers::stored_line(Stored::of(&stored)));
                        part.range = all.len()..all.len() + stored.len();
                        all.extend(stored);
                    }
                    header_lines.extend(headers::pack_line(&part.pack));
                }
                if archiver.is_on() {
                    buffer.bytes = all;
                }
                facts.extend(parts.iter().map(|part| Fact::new(&part.pack.header, now_ms)));
                lines = parts.iter().map(|part| part.pack.header.lines).sum();
                Ok(Body { buffer, parts: parts.into_iter().map(|part| part.range).collect() })
            }
            Err(bad) => {
                tracing::warn!(path = parcel.path, stream = %accepted.identity.stream, offset = accepted.identity.offset, "pack refused: {bad}");
                Err(bad.reason())
            }
        };
        // What is aside is not in the output yet.
        facts.retain(|_| parcel.replaces.is_none());
        let end = End::of(accepted, &parcel);
        Inflated { accepted, lines, header_lines, facts, path: parcel.path, body, end }
    }
}

/// How many lines a body has: what the header says, if that may be. Marks and hooks tell this number.
fn lines_of(parcel: &Parcel, body: &[u8]) -> u64 {
    let told = parcel.pack.header.lines;
    let newlines = bytecount::count(body, b'\n') as u64;
    let with_unended = newlines + u64::from(body.last().is_some_and(|last| *last != b'\n'));
    // In UTF-16 not each such byte is a newline; a newline has a zero byte.
    let may_be_wide = || told < newlines && body.contains(&0);
    if (newlines..=with_unended).contains(&told) || may_be_wide() {
        return told;
    }
    tracing::warn!(path = parcel.path, stream = %parcel.identity.stream, told, counted = with_unended, "a pack says that it has another number of lines than it has: counted");
    metrics::counter!("logferry_outputter_lines_miscounted_total").increment(1);
    with_unended
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::order::Parcel;
    use logferry_pack::{Header, Pack, PackIdentity, StreamId};

    #[test]
    fn lines_are_those_of_the_body_whatever_the_header_says() {
        let told = |lines: u64, body: &'static [u8]| {
            let header = Header {
                ip: "10.0.0.7".into(),
                hour: 2026112113.try_into().unwrap(),
                id: 1,
                lines,
                done: false,
                repull: false,
                ours: None,
                origin_rest: Default::default(),
                hops: Vec::new(),
            };
            let identity = PackIdentity { stream: StreamId(1), offset: 0, span: body.len() as u64, sum: 0 };
            let pack = Pack { header, body: bytes::Bytes::from_static(body) };
            let path = "10.0.0.7_2026112113".to_owned();
            let parcel = Parcel { identity, first: 0, path, pack, trimmed_to: Vec::new(), replaces: None };
            lines_of(&parcel, body)
        };
        assert_eq!(told(2, b"one\ntwo\n"), 2);
        assert_eq!((told(999_999, b"one\ntwo\n"), told(u64::MAX, b"one\n"), told(7, b"")), (2, 1, 0));
        assert_eq!(told(0, b"one\ntwo\n"), 2);
        // The beginning of a line that is too long for a pack, and the last line of a file without an end.
        assert_eq!(
            (told(0, b"one"), told(1, b"one"), told(2, b"one\ntwo"), told(3, b"one\ntwo")),
            (0, 1, 2, 2)
        );
        // The second character has the byte of a newline.
        assert_eq!((told(1, b"\n\0\x05\n"), told(3, b"\n\0\x05\n")), (1, 2));
    }

    #[test]
    fn buffers_are_used_again() {
        let pool = RawPool::new(1 << 20);
        let address = pool.acquire(100_000).bytes.as_ptr();
        assert_eq!(pool.acquire(90_000).bytes.as_ptr(), address);
    }

    #[test]
    fn in_use_and_idle_stay_within_the_pool() {
        let pool = RawPool::new(1 << 20);
        for round in 0..200_usize {
            let held: Vec<_> = (1..4).map(|n| pool.acquire((round * 7_919 * n) % 300_000)).collect();
            let inner = pool.lock();
            assert!(inner.in_use_bytes + inner.idle_bytes <= 1 << 20);
            drop(inner);
            drop(held);
        }
        assert_eq!(pool.lock().in_use_bytes, 0);
    }

    #[test]
    fn a_wish_larger_than_the_pool_waits_for_all_of_it() {
        let pool = RawPool::new(1 << 20);
        let small = pool.acquire(10);
        let other = pool.clone();
        let waiting = thread::spawn(move || other.acquire(5 << 20).bytes.capacity());
        drop(small);
        assert!(waiting.join().unwrap() >= 5 << 20);
    }
}
