//! The hour of a pack, from the clock, in the node's time zone.

use anyhow::Context;
use jiff::Zoned;
use jiff::tz::TimeZone;
use logferry_pack::Hour;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hour_is_that_of_the_time_zone() {
        let at = jiff::Timestamp::from_second(1_795_233_600).expect("a time");
        let text = |name: &str| of(&at.to_zoned(zone(name).expect("known"))).expect("an hour").to_string();
        assert_eq!(text("UTC"), "2026112104");
        assert_eq!(text("Asia/Tokyo"), "2026112113");
        assert!(zone("Nowhere/Land").is_err());
    }
}
