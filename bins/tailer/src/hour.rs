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
    let number = ((i64::from(at.year()) * 100 + i64::from(at.month())) * 100 + i64::from(at.day())) * 100
        + i64::from(at.hour());
    serde_json::from_value(number.into()).context("the clock is out of range")
}
