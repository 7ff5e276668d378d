//! The byte budget for packs in memory.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Grain of the budget: tokio's semaphores count in 32 bits.
const GRAIN_BYTES: u64 = 1_024;

/// Byte budget of the process. Permits give their bytes back when dropped. Clones share the budget.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    grains: u32,
}

impl Budget {
    /// A budget of `bytes`, rounded up to KiB, at least one.
    pub fn new(bytes: u64) -> Budget {
        let grains = u32::try_from(bytes.div_ceil(GRAIN_BYTES)).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 4);
        Budget { free: Arc::new(Semaphore::new(grains as usize)), grains }
    }

    fn grains(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(GRAIN_BYTES)).unwrap_or(u32::MAX).clamp(1, self.grains)
    }

    /// Waits for `bytes`; a wish larger than the whole budget waits for all of it. Served in the order of the wishes.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        Permit(self.free.clone().acquire_many_owned(self.grains(bytes)).await.ok())
    }

    /// Takes `bytes` if they are there now and nobody waits.
    pub fn try_acquire(&self, bytes: u64) -> Option<Permit> {
        let permit = self.free.clone().try_acquire_many_owned(self.grains(bytes)).ok()?;
        Some(Permit(Some(permit)))
    }

    /// Bytes given out.
    pub fn used(&self) -> u64 {
        u64::from(self.grains).saturating_sub(self.free.available_permits() as u64) * GRAIN_BYTES
    }
}

/// Bytes taken from a [`Budget`] until dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_wish_waits_until_its_bytes_are_given_back() {
        let budget = Budget::new(10 << 10);
        let first = budget.try_acquire(6 << 10).unwrap();
        assert_eq!(budget.used(), 6 << 10);
        assert!(budget.try_acquire(5 << 10).is_none());
        let mut waiting = Box::pin(budget.acquire(5 << 10));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(budget.try_acquire(1 << 10).is_none(), "nobody passes one who waits");
        drop(first);
        let second = waiting.now_or_never().unwrap();
        assert_eq!(budget.used(), 5 << 10);
        drop(second);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_wish_above_the_budget_takes_all_of_it() {
        let budget = Budget::new(1 << 10);
        let all = budget.try_acquire(u64::MAX).unwrap();
        assert_eq!(budget.used(), 1 << 10);
        drop(all);
    }
}
