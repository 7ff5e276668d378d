//! Hours of the calendar and the clock, in the node's time zone.
//!
//! An hour is a label, `2026102502`, and the time in which clocks on the wall show it. Where clocks are set back that is
//! two hours, and the label counts once; where they are set forward there is no such time, and nobody waits for it.

use anyhow::Context;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use logferry_pack::Hour;
use std::time::Duration;

/// Length of an hour.
pub const HOUR: Duration = Duration::from_secs(3600);
/// Where time begins that runs at another speed: 2026-01-01T00:00:00Z.
const ORIGIN_SECS: i64 = 1_767_225_600;
/// Such time begins again after so many of its seconds (about 1,000 years), so that its years stay within those of packs.
const CYCLE_NS: i128 = 31_557_600_000 * 1_000_000_000;

/// The time zone that `[node] time_zone` names: "Local" or an IANA name.
pub fn zone(name: &str) -> anyhow::Result<TimeZone> {
    match name {
        "Local" => Ok(TimeZone::system()),
        name => TimeZone::get(name).with_context(|| format!("time_zone \"{name}\"")),
    }
}

/// The hour of a moment.
pub fn of(at: &Zoned) -> anyhow::Result<Hour> {
    let year = u16::try_from(at.year()).context("the clock says a year before 0")?;
    let (month, day, hour) = (at.month() as u8, at.day() as u8, at.hour() as u8);
    Hour::new(year, month, day, hour).with_context(|| format!("the clock says {at}"))
}

/// Tells the hour, and when hours end.
#[derive(Clone, Debug)]
pub struct HourClock {
    zone: TimeZone,
    length: Duration,
}

impl HourClock {
    /// Hours of `zone`. A `length` below an hour makes calendar time run faster, for tests.
    pub fn new(zone: TimeZone, length: Duration) -> HourClock {
        HourClock { zone, length: length.clamp(Duration::from_millis(1), HOUR) }
    }

    /// What clocks on the wall show at a moment.
    pub fn wall(&self, at: Timestamp) -> Zoned {
        self.faster(at).unwrap_or(at).to_zoned(self.zone.clone())
    }

    /// The hour of a moment.
    ///
    /// # Errors
    /// The clock shows a year that packs cannot name.
    pub fn hour_at(&self, at: Timestamp) -> anyhow::Result<Hour> {
        of(&self.wall(at))
    }

    /// When `hour` is over. `now` tells which of the cycles of faster time is meant.
    pub fn end_of(&self, hour: Hour, now: Timestamp) -> Timestamp {
        let after = start_of(hour).and_then(|start| start.checked_add(1.hour()).ok());
        let wall = after.and_then(|after| after.to_zoned(self.zone.clone()).ok());
        wall.and_then(|wall| self.slower(wall.timestamp(), now)).unwrap_or(Timestamp::MAX)
    }

    /// The next hour that clocks show.
    pub fn after(&self, hour: Hour) -> Option<Hour> {
        let next = start_of(hour)?.checked_add(1.hour()).ok()?;
        // In a gap the time after it is meant: an hour that does not exist is passed over.
        of(&next.to_zoned(self.zone.clone()).ok()?).ok().filter(|next| *next > hour)
    }

    /// All hours from `from` on and before `to`, the newest `count_max` of them.
    pub fn between(&self, from: Hour, to: Hour, count_max: usize) -> Vec<Hour> {
        let earliest = start_of(to).and_then(|end| end.checked_sub((count_max as i64 + 24).hours()).ok());
        let earliest = earliest.and_then(|at| of(&at.to_zoned(TimeZone::UTC).ok()?).ok());
        let first = earliest.map_or(from, |earliest| earliest.max(from));
        let hours = std::iter::successors(Some(first), |hour| self.after(*hour));
        let mut hours: Vec<Hour> = hours.take_while(|hour| *hour < to).collect();
        let surplus = hours.len().saturating_sub(count_max);
        hours.drain(..surplus);
        hours
    }

    fn is_real(&self) -> bool {
        self.length == HOUR
    }

    fn faster(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_real() {
            return None;
        }
        let (label, _) = self.label(at);
        moment(label)
    }

    /// Nanoseconds of faster time within its cycle, and the number of the cycle.
    fn label(&self, at: Timestamp) -> (i128, i128) {
        let since = at.as_nanosecond() - i128::from(ORIGIN_SECS) * 1_000_000_000;
        let scaled = since * HOUR.as_nanos() as i128 / self.length.as_nanos() as i128;
        (scaled.rem_euclid(CYCLE_NS), scaled.div_euclid(CYCLE_NS))
    }

    fn slower(&self, wall: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if self.is_real() {
            return Some(wall);
        }
        let label = wall.as_nanosecond() - i128::from(ORIGIN_SECS) * 1_000_000_000;
        let scaled = label + self.label(now).1 * CYCLE_NS;
        moment(scaled * self.length.as_nanos() as i128 / HOUR.as_nanos() as i128)
    }
}

fn moment(since_origin: i128) -> Option<Timestamp> {
    Timestamp::from_nanosecond(since_origin + i128::from(ORIGIN_SECS) * 1_000_000_000).ok()
}

fn start_of(hour: Hour) -> Option<DateTime> {
    let (month, day) = (hour.month() as i8, hour.day() as i8);
    DateTime::new(i16::try_from(hour.year()).ok()?, month, day, hour.hour() as i8, 0, 0, 0).ok()
}

/// `at` and so much later.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// Time from `now` to `then`; zero when that is past.
pub fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(name: &str, length: Duration) -> HourClock {
        HourClock::new(zone(name).expect("known"), length)
    }
    fn hour(text: &str) -> Hour {
        text.parse().expect("an hour")
    }
    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn the_hour_is_that_of_the_time_zone() {
        let at = Timestamp::from_second(1_795_233_600).expect("a time");
        let text = |name: &str| clock(name, HOUR).hour_at(at).expect("an hour").to_string();
        assert_eq!(text("UTC"), "2026112104");
        assert_eq!(text("Asia/Tokyo"), "2026112113");
        assert!(zone("Nowhere/Land").is_err());
    }

    #[test]
    fn an_hour_that_occurs_twice_counts_once_and_ends_after_the_second() {
        let berlin = clock("Europe/Berlin", HOUR);
        let now = at("2026-10-25T00:30:00Z");
        for twice in ["2026-10-25T00:10:00Z", "2026-10-25T01:50:00Z"] {
            assert_eq!(berlin.hour_at(at(twice)).expect("an hour"), hour("2026102502"));
        }
        assert_eq!(berlin.end_of(hour("2026102501"), now), at("2026-10-25T00:00:00Z"));
        assert_eq!(berlin.end_of(hour("2026102502"), now), at("2026-10-25T02:00:00Z"));
        assert_eq!(berlin.after(hour("2026102502")), Some(hour("2026102503")));
    }

    #[test]
    fn an_hour_that_does_not_exist_is_not_waited_for() {
        let berlin = clock("Europe/Berlin", HOUR);
        let now = at("2026-03-29T00:30:00Z");
        assert_eq!(berlin.after(hour("2026032901")), Some(hour("2026032903")));
        assert_eq!(berlin.end_of(hour("2026032901"), now), at("2026-03-29T01:00:00Z"));
        assert_eq!(berlin.end_of(hour("2026032902"), now), at("2026-03-29T01:00:00Z"));
        let day = berlin.between(hour("2026032900"), hour("2026033000"), 100);
        assert_eq!((day.len(), day.contains(&hour("2026032902"))), (23, false));
    }

    #[test]
    fn hours_between_are_bounded_to_the_newest() {
        let clock = clock("UTC", HOUR);
        let all = clock.between(hour("2016010100"), hour("2026112107"), 30);
        assert_eq!((all.len(), all[0], all[29]), (30, hour("2026112001"), hour("2026112106")));
        assert_eq!(clock.between(hour("2026112107"), hour("2026112107"), 30), []);
        assert_eq!(clock.between(hour("2026112108"), hour("2026112107"), 30), []);
    }

    #[test]
    fn shorter_hours_follow_one_another_and_end_when_the_next_begins() {
        let clock = clock("UTC", Duration::from_secs(5));
        for start in ["2026-11-21T07:00:00Z", "2031-01-01T00:00:00Z"] {
            let start = at(start);
            let mut hours = vec![clock.hour_at(start).expect("an hour")];
            for step in 1..20 {
                let now = later(start, Duration::from_secs(5 * step));
                let before = hours[hours.len() - 1];
                let hour = clock.hour_at(now).expect("an hour");
                assert_eq!(clock.after(before), Some(hour));
                assert!(until(clock.end_of(before, now), start) <= Duration::from_secs(5 * step));
                assert!(
                    clock.end_of(hour, now) > now
                        && until(clock.end_of(hour, now), now) <= Duration::from_secs(5)
                );
                hours.push(hour);
            }
        }
    }
}
