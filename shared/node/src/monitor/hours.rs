//! What an outputter tells the monitor of its hours: which are complete, which go on, what is missing of the others.
//!
//! It tells what changed, and everything once after each connection: the monitor may have forgotten. How much an hour has while it goes on
//! is told only together with something that matters, so that busy hours cost nothing.

use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Hours that are told after one look at them, so that they take little memory; what is left of more is told after the next look.
pub const HOURS_AT_ONCE_MAX: usize = 20_000;
/// Runs of missing numbers that are told of an hour; `missing_packs` counts them all.
pub const MISSING_RUNS_MAX: usize = 16;
/// JSON of the hours in one message, in bytes, before it is made a text within JSON, which may double it.
const TEXT_BYTES_MAX: usize = 32 << 10;

/// How an hour stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HourState {
    /// All packs are there.
    Complete,
    /// It goes on.
    Open,
    /// It was complete, and more has come since.
    Late,
    /// It is over, and nobody has said how many packs it has.
    #[default]
    Unclosed,
    /// Packs are missing.
    Missing,
}

/// An hour of a source of a host, as one outputter has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HourNews {
    /// Host; the address in packs of legacy nodes.
    pub host: String,
    /// Source; empty in packs of legacy nodes.
    pub source: String,
    /// `YYYYMMDDHH`.
    pub hour: u32,
    /// How it stands.
    pub state: HourState,
    /// Number of packs; 0: not known yet.
    pub total: u64,
    /// Packs that are there.
    pub packs: u64,
    /// Lines that are there.
    pub lines: u64,
    /// Bytes that are there.
    pub bytes: u64,
    /// Numbers of packs that are missing, as first and last of each run; at most [`MISSING_RUNS_MAX`] runs.
    pub missing: Vec<(u64, u64)>,
    /// How many packs are missing.
    pub missing_packs: u64,
    /// When it is over by the clock of its host, in milliseconds since 1970.
    pub end_ms: i64,
}

impl HourNews {
    fn key(&self) -> u64 {
        hash(&(&self.host, &self.source, self.hour))
    }

    /// What makes it worth telling.
    fn content(&self) -> u64 {
        let is_final = self.state == HourState::Complete;
        let counts = is_final.then_some((self.packs, self.lines, self.bytes));
        hash(&(self.state, self.total, &self.missing, self.missing_packs, self.end_ms, counts))
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What the monitor was told on this connection.
#[derive(Debug, Default)]
pub struct Told {
    content: HashMap<u64, u64>,
}

impl Told {
    /// Those of all hours that are news, as many as are told at once.
    pub fn news(&mut self, all: impl Iterator<Item = HourNews>) -> Vec<HourNews> {
        let (mut known, mut news) = (HashSet::new(), Vec::new());
        for hour in all {
            let key = hour.key();
            known.insert(key);
            if news.len() < HOURS_AT_ONCE_MAX && self.content.get(&key) != Some(&hour.content()) {
                news.push(hour);
            }
        }
        self.content.retain(|key, _| known.contains(key));
        news
    }

    /// They have arrived.
    pub(crate) fn arrived(&mut self, hours: &[HourNews]) {
        self.content.extend(hours.iter().map(|hour| (hour.key(), hour.content())));
    }
}

/// Hours in portions that fit into messages, with their JSON.
pub(crate) fn portions(hours: &[HourNews]) -> Vec<(&[HourNews], String)> {
    let mut portions = Vec::new();
    let (mut begin, mut text) = (0, String::from("["));
    for (at, hour) in hours.iter().enumerate() {
        let json = serde_json::to_string(hour).unwrap_or_default();
        if at > begin && text.len() + json.len() > TEXT_BYTES_MAX {
            portions.push((&hours[begin..at], text + "]"));
            (begin, text) = (at, String::from("["));
        }
        if at > begin {
            text.push(',');
        }
        text.push_str(&json);
    }
    if begin < hours.len() {
        portions.push((&hours[begin..], text + "]"));
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(number: u32, state: HourState, lines: u64) -> HourNews {
        HourNews {
            host: "web-\"1\"".into(),
            source: "access".into(),
            hour: number,
            state,
            lines,
            ..HourNews::default()
        }
    }

    #[test]
    fn an_hour_is_told_when_something_matters_and_again_on_a_new_connection() {
        let mut told = Told::default();
        let news = |told: &mut Told, all: &[HourNews]| told.news(all.iter().cloned());
        let first = news(&mut told, &[hour(1, HourState::Open, 5), hour(2, HourState::Complete, 7)]);
        assert_eq!(first.len(), 2);
        assert_eq!(news(&mut told, &first).len(), 2, "it has not arrived");
        told.arrived(&first);
        let same = [hour(1, HourState::Open, 50), hour(2, HourState::Complete, 7)];
        assert!(news(&mut told, &same).is_empty());
        let other = [hour(1, HourState::Complete, 60), hour(2, HourState::Complete, 8)];
        assert_eq!(news(&mut told, &other).len(), 2);
        assert_eq!(news(&mut Told::default(), &other).len(), 2);
        assert!(news(&mut told, &[]).is_empty());
        assert_eq!(news(&mut told, &first).len(), 2, "what was gone is new");
    }

    #[test]
    fn of_more_hours_than_are_told_at_once_the_others_are_told_next_and_each_change_of_any() {
        let mut told = Told::default();
        let count = 2 * HOURS_AT_ONCE_MAX as u32 + 1;
        let all = |state| (0..count).map(move |number| hour(number, state, 1));
        let mut looks = Vec::new();
        loop {
            let news = told.news(all(HourState::Missing));
            told.arrived(&news);
            match news.len() {
                0 => break,
                told => looks.push(told),
            }
        }
        assert_eq!(looks, [HOURS_AT_ONCE_MAX, HOURS_AT_ONCE_MAX, 1]);
        let oldest = std::iter::once(hour(0, HourState::Complete, 1));
        let news = told.news(oldest.chain(all(HourState::Missing).skip(1)));
        assert_eq!(news.iter().map(|hour| hour.state).collect::<Vec<_>>(), [HourState::Complete]);
    }

    #[test]
    fn portions_fit_into_messages_and_lose_nothing() {
        let long = |number| HourNews { host: "\"".repeat(255), ..hour(number, HourState::Missing, 0) };
        let hours: Vec<HourNews> = (0..1_000).map(long).collect();
        let mut read = Vec::new();
        for (portion, text) in portions(&hours) {
            let message = super::super::message::fields([("req", "hours"), ("hours", &text)]);
            super::super::message::encode(&message).expect("it fits");
            let of_text: Vec<HourNews> = serde_json::from_str(&text).expect("JSON");
            assert_eq!(of_text, portion);
            read.extend(of_text);
        }
        assert_eq!(read, hours);
        assert!(portions(&[]).is_empty());
    }
}
