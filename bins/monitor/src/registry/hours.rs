//! The hours that outputters tell of: which are complete, and what the others lack. Bounded: of too many the oldest are forgotten.
//!
//! Packs of an hour may have gone to several outputters. What one of them has not, another may have: an hour is complete when together
//! they have all its numbers.

mod weight;

use super::{Now, said};
use logferry_node::monitor::hours::{HourNews, HourState, MISSING_RUNS_MAX};
use metrics::counter;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

const NAME_CHARS_MAX: usize = 255;

/// An hour as one outputter has it, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourRow {
    /// Id of the outputter.
    pub node: String,
    /// What it told.
    pub news: HourNews,
    /// When, in milliseconds since 1970.
    pub told_ms: i64,
}

/// Names an hour: number, host, source.
type HourKey = (u32, String, String);

/// An hour over all outputters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HourView {
    /// Host; the address in packs of legacy nodes.
    pub host: String,
    /// Source; empty in packs of legacy nodes.
    pub source: String,
    /// `YYYYMMDDHH`.
    pub hour: u32,
    /// How it stands.
    pub state: HourState,
    /// Number of packs, if it is known.
    pub total: Option<u64>,
    /// Packs that are there.
    pub packs: u64,
    /// Lines that are there, as of the last change.
    pub lines: u64,
    /// Bytes that are there, as of the last change.
    pub bytes: u64,
    /// Numbers of packs that are missing, as first and last of each run: the first runs.
    pub missing: Vec<(u64, u64)>,
    /// How many packs are missing.
    pub missing_packs: u64,
    /// When it is over by the clock of its host, in milliseconds since 1970.
    pub end_ms: i64,
    /// When it was told last, in milliseconds since 1970.
    pub told_ms: i64,
    /// Ids of the outputters that told of it.
    pub outputters: Vec<String>,
}

/// All of them.
#[derive(Debug)]
pub struct Hours {
    rows: BTreeMap<HourKey, Vec<HourRow>>,
    hours_max: usize,
    /// Bytes of memory that they take, as far as what outputters tell decides.
    bytes: usize,
    /// From here on hours are too far ahead to be true.
    ahead: u32,
    /// Outputters that are forgotten: where another one tells of an hour, theirs do not count any more.
    gone: HashSet<String>,
    forgotten: u64,
}

/// How far ahead an hour may be in milliseconds: a day, and 14 hours for the zones of hosts.
const AHEAD_MAX_MS: i64 = (24 + 14) * 3_600_000;
/// Hours further ahead that are remembered; clocks that are wrong must not cost true hours their place.
const AHEAD_HOURS_MAX: usize = 200;
/// Outputters that are told apart in one hour.
const OUTPUTTERS_MAX: usize = 64;

impl HourRow {
    /// What it is known by.
    fn key(&self) -> HourKey {
        (self.news.hour, self.news.host.clone(), self.news.source.clone())
    }

    /// Whether its outputter has all of an hour that has `total` packs.
    fn is_whole(&self, total: u64) -> bool {
        self.news.state == HourState::Complete && self.news.total == total
    }
}

impl Hours {
    /// None yet.
    pub fn new(hours_max: usize) -> Hours {
        let (rows, gone) = (BTreeMap::new(), HashSet::new());
        Hours { rows, hours_max, bytes: 0, ahead: u32::MAX, gone, forgotten: 0 }
    }

    /// What time it is: hours more than a day later are not believed.
    pub(super) fn set_time(&mut self, now: Now) {
        let latest = jiff::Timestamp::from_millisecond(now.unix_ms.saturating_add(AHEAD_MAX_MS));
        let latest = latest.unwrap_or(jiff::Timestamp::MAX).to_zoned(jiff::tz::TimeZone::UTC);
        self.ahead = latest.strftime("%Y%m%d%H").to_string().parse().unwrap_or(u32::MAX);
    }

    /// Whether an hour is too far ahead to be true.
    pub fn is_ahead(&self, hour: u32) -> bool {
        hour >= self.ahead
    }

    /// An outputter is forgotten.
    pub(super) fn is_gone(&mut self, node: &str) {
        self.gone.insert(node.to_owned());
    }

    /// It tells again.
    pub(super) fn is_there(&mut self, node: &str) {
        self.gone.remove(node);
    }

    /// What is other than it was known, cut to what is kept. It is remembered by [`keep`](Self::keep), once it is stored. What would be
    /// forgotten at once is left out: its outputter tells it again at each of its connections.
    pub fn changed(&mut self, node: &str, told: Vec<HourNews>, now: Now) -> Vec<HourRow> {
        let rows = told.into_iter().filter(|news| is_hour(news.hour)).map(|mut news| {
            news.host = said::clip(news.host.trim_end(), NAME_CHARS_MAX);
            news.source = said::clip(news.source.trim_end(), NAME_CHARS_MAX);
            news.missing.retain(|(first, last)| first <= last);
            news.missing.truncate(MISSING_RUNS_MAX);
            HourRow { node: node.to_owned(), news, told_ms: now.unix_ms }
        });
        let mut changed: Vec<HourRow> =
            rows.filter(|row| self.row(row).is_none_or(|known| known.news != row.news)).collect();
        let count = changed.len();
        changed.retain(|row| !self.is_beyond(&row.key()));
        (changed.len()..count).for_each(|_| self.forgot_one());
        changed
    }

    /// Whether there is no room for an hour, because it is older than all that there are.
    fn is_beyond(&self, key: &HourKey) -> bool {
        let is_older_than_all = self.rows.first_key_value().is_some_and(|(first, _)| key < first);
        self.rows.len() >= self.hours_max && is_older_than_all && self.ahead_count() == 0
    }

    /// Whether its outputter has told of this hour.
    pub fn has(&self, row: &HourRow) -> bool {
        self.row(row).is_some()
    }

    fn row(&self, row: &HourRow) -> Option<&HourRow> {
        self.rows.get(&row.key())?.iter().find(|known| known.node == row.node)
    }

    /// Remembers what is stored.
    pub fn keep(&mut self, row: HourRow) {
        let key = row.key();
        if self.is_beyond(&key) {
            self.forgot_one();
            return;
        }
        if self.is_ahead(key.0) && !self.rows.contains_key(&key) && self.ahead_count() >= AHEAD_HOURS_MAX {
            counter!("logferry_monitor_hours_ahead_left_out_total").increment(1);
            return;
        }
        let of_hour = self.rows.entry(key).or_default();
        self.bytes -= weight::of_all(of_hour);
        of_hour.retain(|known| known.node != row.node);
        if of_hour.len() < OUTPUTTERS_MAX {
            of_hour.push(row);
        }
        self.bytes += weight::of_all(of_hour);
        while self.rows.len() > self.hours_max || self.bytes > self.hours_max * weight::HOUR_BYTES {
            let gone = if self.ahead_count() > 0 { self.rows.pop_last() } else { self.rows.pop_first() };
            self.bytes -= gone.map_or(0, |(_, rows)| weight::of_all(&rows));
            self.forgot_one();
        }
    }

    fn ahead_count(&self) -> usize {
        self.rows.range((self.ahead, String::new(), String::new())..).take(AHEAD_HOURS_MAX).count()
    }

    fn forgot_one(&mut self) {
        self.forgotten += 1;
        counter!("logferry_monitor_hours_forgotten_total").increment(1);
    }

    /// How many were forgotten because there were too many.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Forgets hours from before this one.
    pub fn forget_before(&mut self, hour: u32) {
        self.rows = self.rows.split_off(&(hour, String::new(), String::new()));
        self.bytes = self.rows.values().map(|rows| weight::of_all(rows)).sum();
        let tell: HashSet<&str> = self.rows.values().flatten().map(|row| row.node.as_str()).collect();
        self.gone.retain(|node| tell.contains(node.as_str()));
    }

    /// What each outputter told of each.
    pub fn all(&self) -> impl Iterator<Item = &HourRow> {
        self.rows.values().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The newest of those that are not too far ahead, if there are any.
    pub fn newest(&self) -> Option<u32> {
        let believed = self.rows.range(..(self.ahead, String::new(), String::new())).next_back();
        believed.or_else(|| self.rows.last_key_value()).map(|((hour, ..), _)| *hour)
    }

    /// One hour.
    pub fn get(&self, hour: u32, host: &str, source: &str) -> Option<HourView> {
        let key = (hour, host.to_owned(), source.to_owned());
        self.rows.get(&key).map(|rows| self.view(&key, rows))
    }

    /// Those that were over before `unix_ms` and are not complete.
    pub fn overdue(&self, unix_ms: i64) -> impl Iterator<Item = HourView> {
        let complete = |row: &HourRow| row.news.state == HourState::Complete;
        let may_be = move |rows: &[HourRow]| {
            !rows.iter().all(complete) && rows.iter().all(|row| row.news.end_ms < unix_ms)
        };
        let overdue =
            self.rows.iter().filter(move |(_, rows)| may_be(rows)).map(|(key, rows)| self.view(key, rows));
        overdue.filter(|hour| hour.state != HourState::Complete)
    }

    /// Those of a range of numbers, both ends included, in order.
    pub fn between(&self, first: u32, last: u32) -> impl DoubleEndedIterator<Item = HourView> {
        let begin = (first, String::new(), String::new());
        let end = (last.saturating_add(1), String::new(), String::new());
        self.rows
            .range(begin..end.max((first, String::new(), String::new())))
            .map(|(key, rows)| self.view(key, rows))
    }

    fn view(&self, key: &HourKey, rows: &[HourRow]) -> HourView {
        let there: Vec<&HourRow> = rows.iter().filter(|row| !self.gone.contains(&row.node)).collect();
        if there.is_empty() { view(key, &rows.iter().collect::<Vec<_>>()) } else { view(key, &there) }
    }
}

/// How many numbers runs have. What a node tells, or the database holds, may be nonsense.
pub fn covered(runs: &[(u64, u64)]) -> u64 {
    let length =
        |(first, last): &(u64, u64)| last.checked_sub(*first).map_or(0, |beyond| beyond.saturating_add(1));
    runs.iter().map(length).fold(0, u64::saturating_add)
}

fn is_hour(number: u32) -> bool {
    let (month, day, hour) = (number / 10_000 % 100, number / 100 % 100, number % 100);
    number >= 1_000_000 && (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24
}

fn view(key: &HourKey, rows: &[&HourRow]) -> HourView {
    let total = rows.iter().map(|row| row.news.total).max().unwrap_or(0);
    // an outputter that has all of it needs no others, whatever they tell
    let whole = rows.iter().find(|row| row.is_whole(total));
    let sum = |figure: fn(&HourNews) -> u64| match whole {
        Some(row) => figure(&row.news),
        None => rows.iter().map(|row| figure(&row.news)).fold(0, u64::saturating_add),
    };
    let (state, missing) = together(rows, total);
    let missing_packs = match rows {
        [row] => row.news.missing_packs,
        _ => covered(&missing),
    };
    let latest = |figure: fn(&HourRow) -> i64| rows.iter().map(|row| figure(row)).max().unwrap_or(0);
    let (hour, host, source) = key.clone();
    HourView {
        host,
        source,
        hour,
        state,
        total: (total > 0).then_some(total),
        packs: sum(|news| news.packs),
        lines: sum(|news| news.lines),
        bytes: sum(|news| news.bytes),
        missing,
        missing_packs,
        end_ms: latest(|row| row.news.end_ms),
        told_ms: latest(|row| row.told_ms),
        outputters: rows.iter().map(|row| row.node.clone()).collect(),
    }
}

/// State and missing numbers over all outputters.
fn together(rows: &[&HourRow], total: u64) -> (HourState, Vec<(u64, u64)>) {
    if let [row] = rows {
        return (row.news.state, row.news.missing.clone());
    }
    if let Some(whole) = rows.iter().find(|row| row.is_whole(total)) {
        return (whole.news.state, Vec::new());
    }
    let lacks = |row: &HourRow| {
        let seen_to = row.news.packs.saturating_add(row.news.missing_packs);
        let mut runs = row.news.missing.clone();
        if seen_to < total {
            runs.push((seen_to + 1, total));
        }
        runs
    };
    let mut missing = lacks(rows[0]);
    for row in &rows[1..] {
        missing = common(&missing, &lacks(row));
    }
    // what it lacks is in no number: bytes, or a done pack that tells of what came late
    let lacks_more = |row: &HourRow| match row.news.state {
        HourState::Late => true,
        HourState::Missing => row.news.missing_packs == 0,
        _ => false,
    };
    let is_whole = total > 0
        && missing.is_empty()
        && rows.iter().all(|row| row.news.missing.len() < MISSING_RUNS_MAX && !lacks_more(row));
    let worst = rows.iter().map(|row| row.news.state).max().unwrap_or_default();
    (if is_whole { HourState::Complete } else { worst }, missing)
}

/// Numbers that are in both.
fn common(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let of_both = |a: &(u64, u64)| {
        let a = *a;
        other.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))).filter(|(first, last)| first <= last)
    };
    one.iter().flat_map(of_both).take(MISSING_RUNS_MAX * 2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { unix_ms: 1_000, tick: std::time::Duration::ZERO };

    fn news(hour: u32, state: HourState, (packs, total): (u64, u64), missing: &[(u64, u64)]) -> HourNews {
        let missing_packs = missing.iter().map(|(first, last)| last - first + 1).sum();
        let (host, source) = ("web-1".to_owned(), "access".to_owned());
        HourNews {
            host,
            source,
            hour,
            state,
            packs,
            total,
            missing: missing.to_vec(),
            missing_packs,
            ..HourNews::default()
        }
    }

    fn tell(hours: &mut Hours, node: &str, told: HourNews) -> usize {
        let changed = hours.changed(node, vec![told], NOW);
        let count = changed.len();
        changed.into_iter().for_each(|row| hours.keep(row));
        count
    }

    #[test]
    fn what_is_told_again_is_no_change_and_what_is_no_hour_is_left_out() {
        let mut hours = Hours::new(10);
        let open = news(2026112101, HourState::Open, (1, 0), &[]);
        assert_eq!([tell(&mut hours, "a", open.clone()), tell(&mut hours, "a", open)], [1, 0]);
        assert_eq!(tell(&mut hours, "a", news(2026112101, HourState::Complete, (2, 2), &[])), 1);
        for number in [0, 7, 2026132101, 2026110001, 2026112124, u32::MAX] {
            assert_eq!(tell(&mut hours, "a", news(number, HourState::Open, (1, 0), &[])), 0, "{number}");
        }
        let all: Vec<HourView> = hours.between(2026112100, 2026112123).collect();
        assert_eq!((all.len(), all[0].state, all[0].total), (1, HourState::Complete, Some(2)));
    }

    #[test]
    fn names_that_differ_in_blanks_at_the_end_are_one_as_columns_compare_them() {
        let mut hours = Hours::new(10);
        let open = news(2026112101, HourState::Open, (1, 0), &[]);
        assert_eq!(tell(&mut hours, "a", HourNews { host: "web-1  ".into(), ..open.clone() }), 1);
        assert_eq!(tell(&mut hours, "a", HourNews { source: "access ".into(), ..open.clone() }), 0);
        assert_eq!(tell(&mut hours, "a", open), 0);
    }

    #[test]
    fn outputters_together_have_what_each_alone_lacks() {
        let mut hours = Hours::new(10);
        tell(&mut hours, "a", news(2026112101, HourState::Missing, (2, 4), &[(2, 3)]));
        let state = |hours: &Hours| hours.between(2026112101, 2026112101).next().expect("the hour");
        assert_eq!((state(&hours).state, state(&hours).missing), (HourState::Missing, vec![(2, 3)]));
        tell(&mut hours, "b", news(2026112101, HourState::Missing, (1, 0), &[(1, 1)]));
        assert_eq!((state(&hours).state, state(&hours).missing), (HourState::Missing, vec![(3, 3)]));
        tell(&mut hours, "b", news(2026112101, HourState::Missing, (2, 0), &[(1, 1)]));
        assert_eq!((state(&hours).state, state(&hours).missing_packs), (HourState::Complete, 0));
        assert_eq!(state(&hours).outputters, ["a", "b"]);
    }

    #[test]
    fn what_lacks_bytes_or_is_late_is_not_complete_because_another_outputter_tells_of_it() {
        for lacking in [HourState::Missing, HourState::Late] {
            let mut hours = Hours::new(10);
            let state = |hours: &Hours| hours.get(2026112101, "web-1", "access").expect("the hour").state;
            tell(&mut hours, "a", news(2026112101, lacking, (4, 4), &[]));
            for other in [HourState::Open, HourState::Unclosed, HourState::Missing] {
                tell(&mut hours, "b", news(2026112101, other, (1, 0), &[(1, 1)]));
                assert_ne!(state(&hours), HourState::Complete, "{lacking:?} and {other:?}");
                assert_eq!(hours.overdue(1).count(), 1);
            }
            tell(&mut hours, "b", news(2026112101, HourState::Complete, (3, 3), &[]));
            assert_eq!(state(&hours), lacking, "the other has not all of it");
            tell(&mut hours, "b", news(2026112101, HourState::Complete, (4, 4), &[]));
            assert_eq!(state(&hours), HourState::Complete, "one alone has all of it");
        }
    }

    #[test]
    fn nonsense_in_runs_and_figures_is_no_end_of_the_program() {
        let mut hours = Hours::new(10);
        let strange = HourNews {
            lines: u64::MAX,
            missing: vec![(5, 3), (0, u64::MAX), (2, u64::MAX)],
            missing_packs: u64::MAX,
            ..news(2026112101, HourState::Missing, (u64::MAX, u64::MAX), &[])
        };
        tell(&mut hours, "a", strange.clone());
        tell(&mut hours, "b", HourNews { packs: 1, ..strange.clone() });
        // As an earlier version has stored it.
        hours.keep(HourRow { node: "c".into(), news: strange, told_ms: 0 });
        let hour = hours.get(2026112101, "web-1", "access").expect("the hour");
        assert_eq!((hour.lines, covered(&[(5, 3), (0, u64::MAX)])), (u64::MAX, u64::MAX));
    }

    #[test]
    fn of_too_many_hours_the_oldest_are_forgotten_and_counted() {
        let mut hours = Hours::new(5);
        for number in (0..20).rev() {
            tell(&mut hours, "a", news(2026112100 + number, HourState::Open, (1, 0), &[]));
        }
        let kept: Vec<u32> = hours.between(0, u32::MAX).map(|hour| hour.hour).collect();
        assert_eq!(kept, [2026112115, 2026112116, 2026112117, 2026112118, 2026112119]);
        tell(&mut hours, "a", news(2026112120, HourState::Open, (1, 0), &[]));
        assert_eq!(hours.forgotten(), 16, "15 came too late, and one made room");
        let of_yesterday = news(2026112023, HourState::Open, (1, 0), &[]);
        assert_eq!(tell(&mut hours, "a", of_yesterday), 0, "it is not stored each time it is told");
        assert_eq!(hours.forgotten(), 17);
        hours.forget_before(2026112118);
        assert_eq!((hours.len(), hours.newest()), (3, Some(2026112120)));
    }

    #[test]
    fn an_outputter_that_has_all_of_an_hour_needs_no_figures_of_others() {
        let mut hours = Hours::new(10);
        let whole = HourNews { lines: 1_000, ..news(2026112101, HourState::Complete, (3, 3), &[]) };
        tell(&mut hours, "old", whole.clone());
        tell(&mut hours, "new", whole);
        let hour = hours.get(2026112101, "web-1", "access").expect("the hour");
        assert_eq!((hour.packs, hour.lines, hour.total), (3, 1_000, Some(3)));
    }

    #[test]
    fn an_outputter_that_is_forgotten_does_not_count_where_another_tells_of_the_hour() {
        let mut hours = Hours::new(10);
        let some = |packs, lines| HourNews { lines, ..news(2026112101, HourState::Open, (packs, 0), &[]) };
        tell(&mut hours, "old", some(2, 20));
        hours.is_gone("old");
        let lines = |hours: &Hours| hours.get(2026112101, "web-1", "access").map(|hour| hour.lines);
        assert_eq!(lines(&hours), Some(20), "nobody else knows of it");
        tell(&mut hours, "new", some(3, 30));
        assert_eq!(lines(&hours), Some(30));
        hours.is_there("old");
        assert_eq!(lines(&hours), Some(50));
    }

    #[test]
    fn hours_that_are_far_ahead_are_neither_the_newest_nor_cost_others_their_place() {
        let mut hours = Hours::new(AHEAD_HOURS_MAX + 24);
        // 2026-11-21 12:00 UTC
        hours.set_time(Now { unix_ms: 1_795_262_400_000, ..NOW });
        assert!(!hours.is_ahead(2026112223) && hours.is_ahead(2026112302));
        for host in 0..2 * AHEAD_HOURS_MAX {
            let host = format!("web-{host}");
            tell(&mut hours, "a", HourNews { host, ..news(2099010100, HourState::Open, (1, 0), &[]) });
        }
        assert_eq!((hours.len(), hours.newest()), (AHEAD_HOURS_MAX, Some(2099010100)));
        for day in [20, 21] {
            (0..24).for_each(|number| {
                tell(&mut hours, "a", news(2026110000 + day * 100 + number, HourState::Open, (1, 0), &[]));
            });
        }
        assert_eq!(hours.newest(), Some(2026112123));
        assert_eq!(hours.between(2026112000, 2026112123).count(), 48);
        assert_eq!(hours.len(), AHEAD_HOURS_MAX + 24);
    }
}
