//! What was announced, and what has not arrived yet. Pure: takes what is wrong and the time, gives the changes.

use super::conditions::Condition;
use crate::registry::Now;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

/// Alerts that are open at a time; what is wrong beyond is counted, and raised when there is room.
pub const OPEN_MAX: usize = 5_000;
/// Changes that are remembered for the page. Those that wait for a webhook are remembered beyond it.
pub const HISTORY_MAX: usize = 1_000;
/// Changes that may wait for webhooks; of more the oldest are given up. All that is open may end, and begin again, meanwhile.
pub const WAITING_MAX: usize = 3 * OPEN_MAX;

/// Whether something begins or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It begins.
    Raised,
    /// It is over.
    Resolved,
}

impl AlertState {
    /// As it is stored and shown.
    pub fn word(self) -> &'static str {
        match self {
            AlertState::Raised => "raised",
            AlertState::Resolved => "resolved",
        }
    }
}

/// One change, as it is stored and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRow {
    /// Number; later ones are larger.
    pub id: i64,
    /// When, in milliseconds since 1970.
    pub unix_ms: i64,
    /// One of [`KINDS`](super::conditions::KINDS).
    pub kind: String,
    /// Whom it is about, for people.
    pub subject: String,
    /// Whether it begins or is over.
    pub state: AlertState,
    /// What is wrong, or why it is over.
    pub text: String,
    /// What became of it at each webhook: `waiting`, `sent`, `given up`.
    pub delivery: BTreeMap<String, String>,
}

impl AlertRow {
    fn waits(&self) -> bool {
        self.delivery.values().any(|word| word == WAITING)
    }

    /// It is not tried any more, where it still waits at one of `webhooks`.
    fn give_up(&mut self, is_given_up: impl Fn(&str) -> bool) {
        for (name, word) in &mut self.delivery {
            if word == WAITING && is_given_up(name) {
                GIVEN_UP.clone_into(word);
            }
        }
    }
}

/// See the module. What it holds is one file.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Book {
    next: i64,
    /// By key: what is announced and not over.
    open: BTreeMap<String, AlertRow>,
    /// Newest last.
    history: VecDeque<AlertRow>,
    /// What is other than announced, and since when.
    #[serde(skip)]
    turning: HashMap<String, Duration>,
}

impl Book {
    /// What is announced and not over, with the keys.
    pub fn open(&self) -> impl Iterator<Item = (&String, &AlertRow)> {
        self.open.iter()
    }

    /// The latest changes, newest first.
    pub fn history(&self) -> impl Iterator<Item = &AlertRow> {
        self.history.iter().rev()
    }

    /// Compares what is wrong now with what was announced. `is_over` says of an announced alert that is not among `wrong` why it is over, or
    /// nothing if that is not known. Gives the changes, which wait for the webhooks that `receivers` names.
    pub fn look(
        &mut self,
        wrong: Vec<Condition>,
        is_over: impl Fn(&str, &AlertRow) -> Option<String>,
        receivers: impl Fn(&str) -> Vec<String>,
        hold: Duration,
        now: Now,
    ) -> Vec<AlertRow> {
        let mut changes = Vec::new();
        let over: Vec<(String, String)> = {
            let wrong: HashSet<&str> = wrong.iter().map(|one| one.key.as_str()).collect();
            let gone = self.open.iter().filter(|(key, _)| !wrong.contains(key.as_str()));
            let over: Vec<_> =
                gone.filter_map(|(key, row)| Some((key.clone(), is_over(key, row)?))).collect();
            // what is as it was announced, or not known, does not turn
            let turns: HashSet<&str> =
                over.iter().map(|(key, _)| key.as_str()).chain(wrong.iter().copied()).collect();
            self.turning.retain(|key, _| turns.contains(key.as_str()));
            drop(turns);
            over
        };
        for (key, why) in over {
            if self.has_turned(&key, hold, now) {
                let Some(row) = self.open.remove(&key) else { continue };
                let deliveries = receivers(&row.kind);
                changes.push(self.change(row.kind, row.subject, AlertState::Resolved, why, deliveries, now));
            }
        }
        for one in wrong {
            if self.open.contains_key(&one.key) {
                self.turning.remove(&one.key);
            } else if self.has_turned(&one.key, hold, now) && self.open.len() < OPEN_MAX {
                let deliveries = receivers(one.kind);
                let row = self.change(
                    one.kind.to_owned(),
                    one.subject,
                    AlertState::Raised,
                    one.text,
                    deliveries,
                    now,
                );
                self.open.insert(one.key, row.clone());
                changes.push(row);
            }
        }
        changes
    }

    fn has_turned(&mut self, key: &str, hold: Duration, now: Now) -> bool {
        let since = *self.turning.entry(key.to_owned()).or_insert(now.tick);
        let has_turned = now.tick.saturating_sub(since) >= hold;
        if has_turned {
            self.turning.remove(key);
        }
        has_turned
    }

    fn change(
        &mut self,
        kind: String,
        subject: String,
        state: AlertState,
        text: String,
        receivers: Vec<String>,
        now: Now,
    ) -> AlertRow {
        // above all numbers of an earlier run, even if its file is lost
        let id = self.next.max(now.unix_ms);
        self.next = id + 1;
        let delivery = receivers.into_iter().map(|name| (name, WAITING.to_owned())).collect();
        let row = AlertRow { id, unix_ms: now.unix_ms, kind, subject, state, text, delivery };
        self.history.push_back(row.clone());
        row
    }

    /// Bounds what is remembered; gives the changes that are given up by it, because too many wait. To be called after
    /// [`look`](Self::look) and [`settle`](Self::settle).
    pub fn trim(&mut self) -> Vec<AlertRow> {
        let waiting = self.history.iter().filter(|row| row.waits()).count();
        let mut given_up = Vec::new();
        for row in self.history.iter_mut().filter(|row| row.waits()).take(waiting.saturating_sub(WAITING_MAX))
        {
            row.give_up(|_| true);
            given_up.push(row.clone());
        }
        let mut surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.retain(|row| {
            let stays = surplus == 0 || row.waits();
            surplus -= usize::from(!stays);
            stays
        });
        given_up
    }

    /// Nobody will ever take what waits for webhooks other than these; gives the changes that are given up by it.
    pub fn give_up_others(&mut self, webhooks: &HashSet<String>) -> Vec<AlertRow> {
        let mut given_up = Vec::new();
        for row in &mut self.history {
            let before = row.delivery.clone();
            row.give_up(|name| !webhooks.contains(name));
            given_up.extend((row.delivery != before).then(|| row.clone()));
        }
        given_up
    }

    /// What waits for a webhook, oldest first.
    pub fn waiting(&self, webhook: &str, count: usize) -> Vec<AlertRow> {
        let waits = |row: &&AlertRow| row.delivery.get(webhook).is_some_and(|word| word == WAITING);
        self.history.iter().filter(waits).take(count).cloned().collect()
    }

    /// A change as it is now, by an earlier state of it. What is not remembered any more does not wait: an earlier state in which it did is
    /// nothing to be stored.
    pub fn latest(&self, row: AlertRow) -> Option<AlertRow> {
        match self.history.binary_search_by_key(&row.id, |known| known.id) {
            Ok(at) => self.history.get(at).cloned(),
            Err(_) => (!row.waits()).then_some(row),
        }
    }

    /// What became of changes at a webhook; gives them as they are now.
    pub fn settle(&mut self, webhook: &str, ids: &[i64], outcome: &str) -> Vec<AlertRow> {
        let mut settled = Vec::new();
        for row in self.history.iter_mut().filter(|row| ids.contains(&row.id)) {
            row.delivery.insert(webhook.to_owned(), outcome.to_owned());
            settled.push(row.clone());
        }
        settled
    }
}

/// Of what has not arrived yet.
pub const WAITING: &str = "waiting";
/// Of what has arrived.
pub const SENT: &str = "sent";
/// Of what was tried for too long.
pub const GIVEN_UP: &str = "given up";

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(10);

    fn at(second: u64) -> Now {
        Now { unix_ms: 1_000_000 + second as i64 * 1_000, tick: Duration::from_secs(second) }
    }

    fn wrong(keys: &[&str]) -> Vec<Condition> {
        let of = |key: &&str| Condition {
            key: (*key).to_owned(),
            kind: "node silent",
            subject: format!("tailer {key}"),
            text: "is silent".into(),
        };
        keys.iter().map(of).collect()
    }

    fn look(book: &mut Book, keys: &[&str], second: u64) -> Vec<(AlertState, String)> {
        let over = |_: &str, _: &AlertRow| Some("is back".to_owned());
        let changes = book.look(wrong(keys), over, |_| vec!["ops".into()], HOLD, at(second));
        changes.into_iter().map(|row| (row.state, row.subject)).collect()
    }

    #[test]
    fn only_what_holds_is_told_and_only_once() {
        let (mut book, raised) = (Book::default(), (AlertState::Raised, "tailer a".to_owned()));
        assert!(look(&mut book, &["a"], 0).is_empty());
        assert!(look(&mut book, &[], 5).is_empty(), "it was short");
        assert!(look(&mut book, &["a"], 11).is_empty(), "and counts from its new beginning");
        assert_eq!(look(&mut book, &["a"], 21), [raised]);
        assert!((22..100).all(|second| look(&mut book, &["a"], second).is_empty()));
        assert!(look(&mut book, &[], 100).is_empty());
        assert!(look(&mut book, &["a"], 105).is_empty());
        assert!(look(&mut book, &[], 106).is_empty());
        assert_eq!(look(&mut book, &[], 116), [(AlertState::Resolved, "tailer a".to_owned())]);
        assert!(look(&mut book, &[], 200).is_empty());
        assert_eq!(book.open().count(), 0);
    }

    #[test]
    fn what_was_announced_is_known_after_a_restart_and_what_is_not_known_is_not_over() {
        let mut book = Book::default();
        look(&mut book, &["a"], 0);
        assert_eq!(look(&mut book, &["a"], 10).len(), 1);
        let text = serde_json::to_string(&book).expect("written");
        let mut book: Book = serde_json::from_str(&text).expect("read");
        assert!((0..100).all(|second| look(&mut book, &["a"], second).is_empty()));
        for second in 100..200 {
            let changes = book.look(Vec::new(), |_, _| None, |_| Vec::new(), HOLD, at(second));
            assert!(changes.is_empty());
        }
        assert_eq!(book.open().count(), 1);
        look(&mut book, &[], 200);
        assert_eq!(look(&mut book, &[], 210).len(), 1);
    }

    #[test]
    fn changes_wait_for_their_webhooks_until_they_are_settled() {
        let mut book = Book::default();
        look(&mut book, &["a", "b"], 0);
        look(&mut book, &["a", "b"], 10);
        let waiting = book.waiting("ops", 10);
        assert_eq!(waiting.len(), 2);
        assert!(book.waiting("others", 10).is_empty());
        let settled = book.settle("ops", &[waiting[0].id], SENT);
        assert_eq!(settled[0].delivery["ops"], SENT);
        assert_eq!(book.waiting("ops", 10), waiting[1..]);
        assert!(waiting[0].id < waiting[1].id);
    }

    #[test]
    fn open_alerts_and_history_are_bounded() {
        let mut book = Book::default();
        let keys: Vec<String> = (0..OPEN_MAX + 10).map(|number| number.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        look(&mut book, &keys, 0);
        assert_eq!(look(&mut book, &keys, 10).len(), OPEN_MAX);
        assert!(book.trim().is_empty());
        let ids: Vec<i64> = book.history().map(|row| row.id).collect();
        book.settle("ops", &ids, SENT);
        assert!(book.trim().is_empty());
        assert_eq!((book.open().count(), book.history().count()), (OPEN_MAX, HISTORY_MAX));
    }

    #[test]
    fn what_waits_for_a_webhook_is_never_trimmed_and_beyond_its_bound_given_up() {
        let mut book = Book::default();
        let keys: Vec<String> = (0..OPEN_MAX).map(|number| number.to_string()).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut changes = Vec::new();
        for round in 0..3 {
            changes.push(look(&mut book, &keys, 100 * round).len());
            changes.push(look(&mut book, &keys, 100 * round + 10).len());
            assert!(book.trim().is_empty() || round == 2);
            changes.push(look(&mut book, &[], 100 * round + 20).len());
            changes.push(look(&mut book, &[], 100 * round + 30).len());
            let given_up = book.trim();
            let count = (2 * OPEN_MAX * (round as usize + 1)).saturating_sub(WAITING_MAX).min(OPEN_MAX);
            assert_eq!(given_up.len(), count, "round {round}");
            assert!(given_up.iter().all(|row| row.delivery["ops"] == GIVEN_UP));
        }
        assert_eq!(changes.iter().sum::<usize>(), 6 * OPEN_MAX);
        assert_eq!(book.waiting("ops", usize::MAX).len(), WAITING_MAX);
        assert_eq!(book.history().count(), WAITING_MAX, "what is settled makes room first");
        let webhooks = HashSet::from(["others".to_owned()]);
        assert_eq!(book.give_up_others(&webhooks).len(), WAITING_MAX);
        assert_eq!(book.waiting("ops", 1), []);
        book.trim();
        assert_eq!(book.history().count(), HISTORY_MAX);
    }
}
