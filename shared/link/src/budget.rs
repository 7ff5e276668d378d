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
    /// A budget of `bytes`, rounded up to KiB.
    pub fn new(bytes: u64) -> Budget {
        let grains =
            u32::try_from(bytes.div_ceil(GRAIN_BYTES).max(1)).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4);
        Budget { free: Arc::new(Semaphore::new(grains as usize)), grains }
    }

    /// Waits for `bytes`; a wish larger than the whole budget waits for all of it. Served in the order of the wishes.
    pub async fn acquire(&self, bytes: u64) -> Permit {
        let grains = u32::try_from(bytes.div_ceil(GRAIN_BYTES)).unwrap_or(u32::MAX).clamp(1, self.grains);
        Permit(self.free.clone().acquire_many_owned(grains).await.ok())
    }

    /// Bytes given out.
    pub fn used(&self) -> u64 {
        (self.grains as u64).saturating_sub(self.free.available_permits() as u64) * GRAIN_BYTES
    }
}

/// Bytes taken from a [`Budget`] until dropped.
#[derive(Debug)]
pub struct Permit(#[allow(dead_code)] Option<OwnedSemaphorePermit>);
