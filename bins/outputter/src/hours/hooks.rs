//! Which hooks are due, running, or to be tried again. Pure.
//!
//! At least once: a hook is due for every complete hour until it is known, durably, to have run for it.

use super::fact::HourKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// First wait after a failure, in milliseconds; doubles.
const BACKOFF_MIN_MS: i64 = 1_000;
/// Longest wait between two attempts, in milliseconds.
const BACKOFF_MAX_MS: i64 = 300_000;

/// What is told of a complete hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HookKind {
    /// `hours.on_complete`.
    Command = 0,
    /// `hours.webhook`.
    Webhook = 1,
    /// `[etl]`: the hour is put into the queue of those that become tables.
    Etl = 2,
}

impl HookKind {
    /// All.
    pub const ALL: [HookKind; 3] = [HookKind::Command, HookKind::Webhook, HookKind::Etl];

    /// For metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            HookKind::Command => "command",
            HookKind::Webhook => "webhook",
            HookKind::Etl => "etl",
        }
    }
}

/// Hooks that have not succeeded yet.
#[derive(Debug, Default)]
pub struct HookQueue {
    waiting: BTreeMap<(HourKey, HookKind), Waiting>,
    running: usize,
}

#[derive(Debug)]
struct Waiting {
    /// Packs of the hour that it is to be told of.
    total: u64,
    due_ms: i64,
    failures: u32,
    is_running: bool,
}

/// A hook that is to run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueHook {
    /// The hour.
    pub key: HourKey,
    /// Which hook.
    pub kind: HookKind,
    /// Packs of the hour.
    pub total: u64,
}

impl HookQueue {
    /// An hour of `total` packs is complete, and the hook was not told yet.
    pub fn add(&mut self, key: &HourKey, kind: HookKind, total: u64, now_ms: i64) {
        let waiting = self.waiting.entry((key.clone(), kind)).or_insert(Waiting {
            total,
            due_ms: now_ms,
            failures: 0,
            is_running: false,
        });
        waiting.total = waiting.total.max(total);
    }

    /// Hooks to start, so that at most `running_max` run: of hours that are complete now, as lines may have come since.
    pub fn start(
        &mut self,
        now_ms: i64,
        running_max: usize,
        is_complete: impl Fn(&HourKey) -> bool,
    ) -> Vec<DueHook> {
        let mut due = Vec::new();
        for ((key, kind), waiting) in &mut self.waiting {
            if self.running >= running_max {
                break;
            }
            if !waiting.is_running && waiting.due_ms <= now_ms && is_complete(key) {
                waiting.is_running = true;
                self.running += 1;
                due.push(DueHook { key: key.clone(), kind: *kind, total: waiting.total });
            }
        }
        due
    }

    /// A hook has ended. Returns whether it succeeded, so that it is to be remembered as told.
    pub fn ended(&mut self, hook: &DueHook, is_success: bool, now_ms: i64) -> bool {
        self.running = self.running.saturating_sub(1);
        let at = (hook.key.clone(), hook.kind);
        let Some(waiting) = self.waiting.get_mut(&at) else { return is_success };
        waiting.is_running = false;
        if !is_success {
            let wait_ms = BACKOFF_MIN_MS << waiting.failures.min(20);
            waiting.failures += 1;
            waiting.due_ms = now_ms + wait_ms.min(BACKOFF_MAX_MS);
        } else if waiting.total > hook.total {
            // More has come meanwhile.
            waiting.due_ms = now_ms;
            waiting.failures = 0;
        } else {
            self.waiting.remove(&at);
        }
        is_success
    }

    /// An hour is forgotten.
    pub fn forget(&mut self, is_known: impl Fn(&HourKey) -> bool) {
        self.waiting.retain(|(key, _), waiting| waiting.is_running || is_known(key));
    }

    /// Hooks that have not succeeded yet.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(host: &str) -> HourKey {
        HourKey { source: "access".into(), host: host.into(), hour: 2026112100.try_into().unwrap() }
    }

    #[test]
    fn only_so_many_run_at_a_time_and_each_hour_once() {
        let mut queue = HookQueue::default();
        ["a", "b", "c"].iter().for_each(|host| queue.add(&key(host), HookKind::Command, 3, 0));
        queue.add(&key("a"), HookKind::Command, 3, 0);
        let first = queue.start(0, 2, |_| true);
        assert_eq!(first.iter().map(|due| due.key.host.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(queue.start(0, 2, |_| true), []);
        assert!(queue.ended(&first[0], true, 1));
        assert_eq!(queue.start(1, 2, |_| true)[0].key, key("c"));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn a_failed_hook_is_tried_again_later_and_later() {
        let mut queue = HookQueue::default();
        queue.add(&key("a"), HookKind::Webhook, 3, 0);
        let mut now_ms = 0;
        for wait_ms in [1_000, 2_000, 4_000] {
            let due = queue.start(now_ms, 1, |_| true);
            assert!(!queue.ended(&due[0], false, now_ms));
            assert_eq!(queue.start(now_ms + wait_ms - 1, 1, |_| true), []);
            now_ms += wait_ms;
        }
        assert_eq!(queue.start(now_ms, 1, |_| true).len(), 1);
    }

    #[test]
    fn an_hour_that_grew_while_its_hook_ran_is_told_again() {
        let mut queue = HookQueue::default();
        queue.add(&key("a"), HookKind::Command, 3, 0);
        let due = queue.start(0, 1, |_| true);
        queue.add(&key("a"), HookKind::Command, 5, 1);
        assert!(queue.ended(&due[0], true, 2));
        let again = queue.start(2, 1, |_| true);
        assert_eq!(again[0].total, 5);
        queue.ended(&again[0], true, 3);
        assert!(queue.is_empty());
    }
}
