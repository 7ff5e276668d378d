//! Hours of the calendar, as packs are filed by.

use crate::BadPack;
use std::{fmt, str::FromStr};

/// `YYYYMMDDHH`, checked to be a real date and hour.
///
/// Years go from 1 to 4293, the last whose hours fit the 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Hour(u32);

const YEAR_MAX: u16 = 4293;

impl Hour {
    /// Year 1 to 4293, month and day from 1, hour from 0 to 23.
    ///
    /// # Errors
    /// [`BadPack::BadHour`] when there is no such day or hour.
    pub fn new(year: u16, month: u8, day: u8, hour: u8) -> Result<Hour, BadPack> {
        let real = (1..=YEAR_MAX).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day)
            && hour < 24;
        if !real {
            return Err(BadPack::BadHour);
        }
        Ok(Hour(((u32::from(year) * 100 + u32::from(month)) * 100 + u32::from(day)) * 100 + u32::from(hour)))
    }

    /// Year.
    pub fn year(self) -> u16 {
        (self.0 / 1_000_000) as u16
    }

    /// Month, from 1.
    pub fn month(self) -> u8 {
        (self.0 / 10_000 % 100) as u8
    }

    /// Day of the month, from 1.
    pub fn day(self) -> u8 {
        (self.0 / 100 % 100) as u8
    }

    /// Hour of the day, 0 to 23.
    pub fn hour(self) -> u8 {
        (self.0 % 100) as u8
    }
}

/// Days of `month` in the Gregorian calendar.
fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

impl TryFrom<u32> for Hour {
    type Error = BadPack;
    /// From the ten digits as a number, `2026112101`.
    fn try_from(digits: u32) -> Result<Hour, BadPack> {
        let claimed = Hour(digits);
        Hour::new(claimed.year(), claimed.month(), claimed.day(), claimed.hour())
    }
}

impl From<Hour> for u32 {
    fn from(hour: Hour) -> u32 {
        hour.0
    }
}

impl FromStr for Hour {
    type Err = BadPack;
    fn from_str(text: &str) -> Result<Hour, BadPack> {
        if text.len() != 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadPack::BadHour);
        }
        Hour::try_from(text.parse::<u32>().map_err(|_| BadPack::BadHour)?)
    }
}

impl fmt::Display for Hour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_written_with_ten_digits_and_read_back() {
        for (text, parts) in [
            ("2026112023", (2026, 11, 20, 23)),
            ("2024022900", (2024, 2, 29, 0)),
            ("0001010100", (1, 1, 1, 0)),
            ("4293123123", (4293, 12, 31, 23)),
        ] {
            let hour: Hour = text.parse().unwrap();
            assert_eq!((hour.year(), hour.month(), hour.day(), hour.hour()), parts);
            assert_eq!(Hour::new(parts.0, parts.1, parts.2, parts.3), Ok(hour));
            assert_eq!(hour.to_string(), text);
        }
    }

    #[test]
    fn hours_that_no_calendar_has_are_refused() {
        for text in [
            "",
            "2026",
            "2026112024",
            "2026113100",
            "2026130100",
            "2026000100",
            "2026010000",
            "2025022900",
            "1900022900",
            "0000010100",
            "4294010100",
            "9999123123",
            "-202611200",
            "+202611200",
            "2026112 10",
            "20261120230",
        ] {
            assert_eq!(text.parse::<Hour>(), Err(BadPack::BadHour), "{text}");
        }
        assert!(Hour::new(2000, 2, 29, 0).is_ok());
        assert_eq!(Hour::new(u16::MAX, 255, 255, 255), Err(BadPack::BadHour));
    }

    #[test]
    fn a_stored_hour_is_checked_again_when_it_is_read() {
        assert_eq!(serde_json::from_str::<Hour>("2026112023").unwrap().to_string(), "2026112023");
        assert!(serde_json::from_str::<Hour>("2026112099").is_err());
    }
}
