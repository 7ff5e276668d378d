//! An open file of the faulty disk.

use super::content::{Change, apply};
use super::{FaultyDisk, Inner};
use crate::disk::DiskFile;
use std::io::{self, ErrorKind};
use std::sync::MutexGuard;

pub(super) struct FaultyFile {
    pub(super) disk: FaultyDisk,
    pub(super) node: usize,
    pub(super) epoch: u64,
}

impl FaultyFile {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.inner();
        inner.alive()?;
        if inner.epoch != self.epoch {
            return Err(io::Error::other("opened before the crash"));
        }
        Ok(inner)
    }
}

/// Counts down to a fault; true when it is due.
pub(super) fn due(fault: &mut Option<u64>) -> bool {
    let Some(left) = fault else { return false };
    *left = left.saturating_sub(1);
    let due = *left == 0;
    if due {
        *fault = None;
    }
    due
}

impl DiskFile for FaultyFile {
    fn append(&self, parts: &[&[u8]]) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.changing()?;
        let mut bytes = parts.concat();
        let mut result = Ok(());
        let room = usize::try_from(inner.room()).unwrap_or(usize::MAX);
        if room < bytes.len() {
            bytes.truncate(room);
            result = Err(inner.no_room());
        }
        if due(&mut inner.faults.fail_append_in) {
            let part = inner.random.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(part);
            result = Err(io::Error::other("input/output error on write"));
        }
        let offset = inner.nodes[self.node].data.len();
        inner.nodes[self.node].change(Change::Write { offset, bytes });
        result
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.counts.read_bytes += buf.len() as u64;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        inner.range_readable(self.node, start as u64..end as u64)?;
        buf.copy_from_slice(inner.nodes[self.node].data.get(start..end).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.inner()?.nodes[self.node].data.len() as u64)
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let inner = self.inner()?;
        if inner.room() < bytes { Err(inner.no_room()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.changing()?;
        inner.nodes[self.node].change(Change::SetLen(len as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner()?;
        inner.changing()?;
        inner.counts.syncs += 1;
        let failed = due(&mut inner.faults.fail_sync_in);
        let node = &mut inner.nodes[self.node];
        if failed {
            // The pages are marked clean: readers still see them, the disk never will.
            node.pending.clear();
            return Err(io::Error::other("input/output error on fsync"));
        }
        let pending = std::mem::take(&mut node.pending);
        let mut durable = std::mem::take(&mut node.durable);
        pending.iter().for_each(|change| apply(&mut durable, change));
        node.durable = durable;
        Ok(())
    }
}
