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

/// What an hour had when it was complete. One that has grown since is told again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Packs, of which there is always one; 0: it was never told.
    pub packs: u64,
    /// Lines: a repull brings some without changing how many packs there are.
    pub lines: u64,
}

/// Hooks that have not succeeded yet.
#[derive(Debug, Default)]
pub struct HookQueue {
    waiting: BTreeMap<(HourKey, HookKind), Waiting>,
    /// By kind: those of one that hang hold up no other.
    running: [usize; HookKind::ALL.len()],
}

/// Hooks of one kind that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// How many wait, with those that have not failed.
    pub waiting: usize,
    /// How many have failed.
    pub failed: usize,
    /// The hour whose hook has failed most often.
    pub hour: HourKey,
    /// How often.
    pub failures: u32,
}

#[derive(Debug)]
struct Waiting {
    /// What it is to be told of.
    extent: Extent,
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
    /// What the hour has.
    pub extent: Extent,
}

impl HookQueue {
    /// An hour with so much is complete, and the hook was not told yet.
    pub fn add(&mut self, key: &HourKey, kind: HookKind, extent: Extent, now_ms: i64) {
        let waiting = self.waiting.entry((key.clone(), kind)).or_insert(Waiting {
            extent,
            due_ms: now_ms,
            failures: 0,
            is_running: false,
        });
        waiting.extent = extent;
    }

    /// Hooks to start, so that at most `running_max` of each kind run, those first that are due for longest. `extent_of` says what an hour
    /// has now; of one that is not complete any more nothing is told until it is added again.
    pub fn start(
        &mut self,
        now_ms: i64,
        running_max: usize,
        extent_of: impl Fn(&HourKey) -> Option<Extent>,
    ) -> Vec<DueHook> {
        let has_room = |kind: HookKind| self.running[kind as usize] < running_max;
        let is_due = |waiting: &Waiting| !waiting.is_running && waiting.due_ms <= now_ms;
        let waiting = self.waiting.iter().filter(|((_, kind), waiting)| has_room(*kind) && is_due(waiting));
        let mut by_time: Vec<_> = waiting.map(|(at, waiting)| (waiting.due_ms, at.clone())).collect();
        by_time.sort_unstable();
        let mut due = Vec::new();
        for (_, (key, kind)) in by_time {
            let running = &mut self.running[kind as usize];
            if *running >= running_max {
                continue;
            }
            let at = (key, kind);
            match (extent_of(&at.0), self.waiting.get_mut(&at)) {
                (Some(extent), Some(waiting)) => {
                    (waiting.extent, waiting.is_running) = (extent, true);
                    *running += 1;
                    due.push(DueHook { key: at.0, kind, extent });
                }
                _ => drop(self.waiting.remove(&at)),
            }
        }
        due
    }

    /// A hook has ended. Returns whether it succeeded, so that it is to be remembered as told.
    pub fn ended(&mut self, hook: &DueHook, is_success: bool, now_ms: i64) -> bool {
        let running = &mut self.running[hook.kind as usize];
        *running = running.saturating_sub(1);
        let at = (hook.key.clone(), hook.kind);
        let Some(waiting) = self.waiting.get_mut(&at) else { return is_success };
        waiting.is_running = false;
        if !is_success {
            let wait_ms = BACKOFF_MIN_MS << waiting.failures.min(20);
            waiting.failures += 1;
            waiting.due_ms = now_ms + wait_ms.min(BACKOFF_MAX_MS);
        } else if waiting.extent != hook.extent {
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

    /// Those of a kind that fail, if there are any.
    pub fn failing(&self, kind: HookKind) -> Option<Failing> {
        let of_kind = || self.waiting.iter().filter(move |((_, other), _)| *other == kind);
        let failed = || of_kind().filter(|(_, waiting)| waiting.failures > 0);
        let ((hour, _), worst) = failed().max_by_key(|(_, waiting)| waiting.failures)?;
        let (waiting, failed) = (of_kind().count(), failed().count());
        Some(Failing { waiting, failed, hour: hour.clone(), failures: worst.failures })
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

    fn extent(packs: u64) -> Extent {
        Extent { packs, lines: 10 * packs }
    }

    #[test]
    fn commands_that_hang_hold_up_neither_webhooks_nor_tables_nor_for_ever_other_commands() {
        let mut queue = HookQueue::default();
        for host in ["a", "b", "c"] {
            HookKind::ALL.into_iter().for_each(|kind| queue.add(&key(host), kind, extent(3), 0));
        }
        let first = queue.start(0, 1, |_| Some(extent(3)));
        let kinds: Vec<HookKind> = first.iter().map(|due| due.kind).collect();
        assert_eq!(kinds, HookKind::ALL, "one of each kind");
        let mut now_ms = 0;
        let mut tried = Vec::new();
        let mut running = first[0].clone();
        for _ in 0..3 {
            now_ms += 300_000;
            queue.ended(&running, false, now_ms);
            let next = queue.start(now_ms, 1, |_| Some(extent(3)));
            tried.push(running.key.host);
            running = next.into_iter().find(|due| due.kind == HookKind::Command).unwrap();
        }
        assert_eq!(tried, ["a", "b", "c"], "the one that is due for longest comes next");
        let failing = queue.failing(HookKind::Command).unwrap();
        assert_eq!((failing.waiting, failing.failed, failing.failures), (3, 3, 1));
        assert_eq!(queue.failing(HookKind::Etl), None);
    }

    #[test]
    fn an_hour_that_is_not_complete_any_more_is_told_when_it_is_added_again() {
        let mut queue = HookQueue::default();
        queue.add(&key("a"), HookKind::Command, extent(3), 0);
        assert_eq!(queue.start(0, 1, |_| None), []);
        assert_eq!(queue.start(0, 1, |_| Some(extent(3))), []);
        queue.add(&key("a"), HookKind::Command, extent(4), 0);
        assert_eq!(queue.start(0, 1, |_| Some(extent(4))).len(), 1);
    }

    #[test]
    fn only_so_many_run_at_a_time_and_each_hour_once() {
        let mut queue = HookQueue::default();
        ["a", "b", "c"].iter().for_each(|host| queue.add(&key(host), HookKind::Command, extent(3), 0));
        queue.add(&key("a"), HookKind::Command, extent(3), 0);
        let first = queue.start(0, 2, |_| Some(extent(3)));
        assert_eq!(first.iter().map(|due| due.key.host.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(queue.start(0, 2, |_| Some(extent(3))), []);
        assert!(queue.ended(&first[0], true, 1));
        assert_eq!(queue.start(1, 2, |_| Some(extent(3)))[0].key, key("c"));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn a_failed_hook_is_tried_again_later_and_later() {
        let mut queue = HookQueue::default();
        queue.add(&key("a"), HookKind::Webhook, extent(3), 0);
        let mut now_ms = 0;
        for wait_ms in [1_000, 2_000, 4_000] {
            let due = queue.start(now_ms, 1, |_| Some(extent(3)));
            assert!(!queue.ended(&due[0], false, now_ms));
            assert_eq!(queue.start(now_ms + wait_ms - 1, 1, |_| Some(extent(3))), []);
            now_ms += wait_ms;
        }
        assert_eq!(queue.start(now_ms, 1, |_| Some(extent(3))).len(), 1);
    }

    #[test]
    fn an_hour_that_grew_while_its_hook_ran_is_told_again() {
        let mut queue = HookQueue::default();
        queue.add(&key("a"), HookKind::Command, extent(3), 0);
        let due = queue.start(0, 1, |_| Some(extent(3)));
        queue.add(&key("a"), HookKind::Command, extent(5), 1);
        assert!(queue.ended(&due[0], true, 2));
        let again = queue.start(2, 1, |_| Some(extent(5)));
        assert_eq!(again[0].extent, extent(5));
        queue.ended(&again[0], true, 3);
        assert!(queue.is_empty());
    }
}
