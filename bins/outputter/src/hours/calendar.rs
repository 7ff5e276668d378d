//! Which hours a day has, and when an hour is over, in a host's time zone.
//!
//! Hours are named after what clocks on the wall show. A day on which they are set back has 25 hours and 24 names (the
//! tailer closes the name that occurs twice once, after its second time); a day on which they are set forward has 23 of both.

use crate::config::HoursSettings;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use logferry_pack::Hour;
use std::collections::BTreeMap;

/// Time zones of hosts.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    by_host: BTreeMap<String, TimeZone>,
}

impl Calendar {
    /// All hosts have the same zone.
    pub fn new(zone: TimeZone) -> Calendar {
        Calendar { zone, by_host: BTreeMap::new() }
    }

    /// Of the settings; `zone` is the node's own.
    ///
    /// # Errors
    /// A zone that is not known.
    pub fn of(settings: &HoursSettings, zone: TimeZone) -> Result<Calendar, jiff::Error> {
        let zones = settings.zones.iter();
        let by_host = zones.map(|(host, name)| Ok((host.clone(), TimeZone::get(name)?)));
        Ok(Calendar { zone, by_host: by_host.collect::<Result<_, jiff::Error>>()? })
    }

    /// This node's zone.
    pub fn own_zone(&self) -> &TimeZone {
        &self.zone
    }

    fn zone_of(&self, host: &str) -> &TimeZone {
        self.by_host.get(host).unwrap_or(&self.zone)
    }

    /// The names of the hours of the day that `hour` is in, as clocks at `host` show them.
    pub fn hours_of_day(&self, host: &str, hour: Hour) -> Vec<Hour> {
        let zone = self.zone_of(host);
        let names =
            (0..24).filter_map(|number| Hour::new(hour.year(), hour.month(), hour.day(), number).ok());
        names.filter(|name| exists(*name, zone)).collect()
    }

    /// When the hour is over, in milliseconds since 1970.
    pub fn end_ms(&self, host: &str, hour: Hour) -> i64 {
        let after = start(hour).and_then(|start| start.checked_add(1.hour()).ok());
        let end = after.and_then(|after| after.to_zoned(self.zone_of(host).clone()).ok());
        end.map_or(Timestamp::MAX, |end| end.timestamp()).as_millisecond()
    }
}

/// Whether clocks ever show it: in a gap the time after it is meant, which then has another hour.
fn exists(hour: Hour, zone: &TimeZone) -> bool {
    let shown = start(hour).and_then(|start| start.to_zoned(zone.clone()).ok());
    shown.is_none_or(|shown| shown.hour() as u8 == hour.hour())
}

fn start(hour: Hour) -> Option<DateTime> {
    let (month, day) = (hour.month() as i8, hour.day() as i8);
    DateTime::new(i16::try_from(hour.year()).ok()?, month, day, hour.hour() as i8, 0, 0, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_the_hours_that_its_clocks_show() {
        let zones = BTreeMap::from([("berlin".to_owned(), "Europe/Berlin".to_owned())]);
        let settings = HoursSettings { zones, ..HoursSettings::default() };
        let calendar = Calendar::of(&settings, TimeZone::UTC).unwrap();
        let count = |host: &str, hour: u32| calendar.hours_of_day(host, hour.try_into().unwrap()).len();
        assert_eq!([count("berlin", 2026032900), count("utc", 2026032900)], [23, 24]);
        assert_eq!([count("berlin", 2026102523), count("berlin", 2026112100)], [24, 24]);
        let missing = Hour::try_from(2026032902).unwrap();
        assert!(!calendar.hours_of_day("berlin", missing).contains(&missing));
    }

    #[test]
    fn an_hour_that_occurs_twice_ends_with_its_second_time() {
        let calendar = Calendar::new(TimeZone::get("Europe/Berlin").unwrap());
        let end = calendar.end_ms("", Hour::try_from(2026102502).unwrap());
        assert_eq!(end, "2026-10-25T02:00:00Z".parse::<Timestamp>().unwrap().as_millisecond());
    }
}
