//! What is to be written to a connection, and since when writing stands still.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::{Duration, Instant};

/// Bytes to be written, as the buffers they came in: nothing is copied, and one system call takes many of them.
#[derive(Default)]
pub(crate) struct Outbox {
    buffers: VecDeque<Bytes>,
    bytes: usize,
    /// When the last progress was made, while there is something to write.
    progress: Option<Instant>,
}

impl Outbox {
    pub(crate) fn push(&mut self, buffer: Bytes, now: Instant) {
        if !buffer.is_empty() {
            self.progress.get_or_insert(now);
            self.bytes += buffer.len();
            self.buffers.push_back(buffer);
        }
    }

    /// Number of buffers.
    pub(crate) fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// Bytes were written.
    pub(crate) fn wrote(&mut self, now: Instant) {
        self.progress = self.has_remaining().then_some(now);
    }

    /// When writing has stood still for `limit`.
    pub(crate) fn stalled_at(&self, limit: Duration) -> Option<Instant> {
        self.progress.map(|since| since + limit)
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.buffers.front().map_or(&[], |buffer| buffer)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled =
            slices.iter_mut().zip(&self.buffers).map(|(slice, buffer)| *slice = IoSlice::new(buffer));
        filled.count()
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes -= count;
        while let Some(front) = self.buffers.front_mut().filter(|_| count > 0) {
            let step = front.len().min(count);
            front.advance(step);
            count -= step;
            if front.is_empty() {
                self.buffers.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_the_order_they_came_whatever_is_taken_at_a_time() {
        let parts: [&[u8]; 4] = [b"head", b"", b"header", b"body of the pack"];
        for step in 1..30 {
            let (mut outbox, now) = (Outbox::default(), Instant::now());
            parts.iter().for_each(|part| outbox.push(Bytes::from_static(part), now));
            assert_eq!((outbox.buffers(), outbox.remaining()), (3, 26));
            let mut taken = Vec::new();
            while outbox.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 2];
                let count = outbox.chunks_vectored(&mut slices);
                let seen: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                let step = step.min(seen.len());
                taken.extend_from_slice(&seen[..step]);
                outbox.advance(step);
                outbox.wrote(now);
            }
            assert_eq!(taken, parts.concat());
            assert_eq!(outbox.stalled_at(Duration::ZERO), None);
        }
    }

    #[test]
    fn standing_still_is_measured_from_the_last_progress() {
        let (mut outbox, now) = (Outbox::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(outbox.stalled_at(second), None);
        outbox.push(Bytes::from_static(b"abc"), now);
        outbox.push(Bytes::from_static(b"def"), now + second);
        assert_eq!(outbox.stalled_at(second), Some(now + second));
        outbox.advance(4);
        outbox.wrote(now + 3 * second);
        assert_eq!(outbox.stalled_at(second), Some(now + 4 * second));
    }
}
