//! What bounds the documents that are on their way, and keeps packs in their order: the threads that parse wait here.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Memory for documents between the parser and the server.
pub(super) struct Room {
    bytes_max: usize,
    taken: Mutex<usize>,
    freed: Condvar,
}

impl Room {
    pub(super) fn new(bytes_max: usize) -> Arc<Room> {
        Arc::new(Room { bytes_max, taken: Mutex::default(), freed: Condvar::new() })
    }

    /// Waits until there are so many bytes; what is larger than all gets all.
    pub(super) fn take(self: &Arc<Room>, bytes: usize) -> Arc<Held> {
        let bytes = bytes.min(self.bytes_max);
        let mut taken = lock(&self.taken);
        while *taken + bytes > self.bytes_max {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += bytes;
        Arc::new(Held { room: self.clone(), bytes })
    }
}

/// A part of a [`Room`], given back when the last document that was made in it is gone.
pub(super) struct Held {
    room: Arc<Room>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        *lock(&self.room.taken) -= self.bytes;
        self.room.freed.notify_all();
    }
}

/// Whose turn it is to give documents on, by the numbers of packs.
#[derive(Default)]
pub(super) struct Turn {
    state: Mutex<Next>,
    moved: Condvar,
}

#[derive(Default)]
struct Next {
    number: u64,
    /// Later packs that have nothing more to give.
    done: BTreeSet<u64>,
}

impl Turn {
    /// Waits until all packs before this one are done.
    pub(super) fn wait(&self, number: u64) {
        let mut next = lock(&self.state);
        while next.number != number {
            next = self.moved.wait(next).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A pack has nothing more to give.
    pub(super) fn done(&self, number: u64) {
        let mut next = lock(&self.state);
        next.done.insert(number);
        loop {
            let number = next.number;
            if !next.done.remove(&number) {
                break;
            }
            next.number += 1;
        }
        self.moved.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn who_finds_no_room_waits_for_the_last_of_what_was_made_in_it() {
        let room = Room::new(10);
        let first = room.take(7);
        let copy = first.clone();
        let (taken, took) = mpsc::channel();
        let other = room.clone();
        let waiter = std::thread::spawn(move || {
            let larger_than_all = other.take(25);
            taken.send(larger_than_all.bytes).unwrap();
        });
        drop(first);
        assert!(took.try_recv().is_err());
        drop(copy);
        assert_eq!(took.recv(), Ok(10));
        waiter.join().unwrap();
        assert_eq!(*lock(&room.taken), 0);
    }

    #[test]
    fn turns_come_in_the_order_of_the_numbers_whoever_is_done_first() {
        let turn = Turn::default();
        turn.done(1);
        turn.wait(0);
        turn.done(0);
        turn.wait(2);
    }
}
