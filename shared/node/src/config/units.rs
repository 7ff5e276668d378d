//! Values with a unit: sizes in bytes and intervals of time, as text in files and exact in memory.

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bytes, written `"16MiB"`, `"1GiB"`, `"512KiB"`, `"100B"` or a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ByteSize(pub u64);

/// A duration, written `"200ms"`, `"10s"`, `"5m"`, `"1h"`, `"30d"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Interval(pub Duration);

const SIZE_WANTED: &str =
    "a size such as \"512KiB\", \"16MiB\" or \"1GiB\" (units B, KiB, MiB, GiB, TiB), or a number of bytes";
const INTERVAL_WANTED: &str = "a time such as \"200ms\", \"10s\" or \"1h\" (units ms, s, m, h, d)";

/// Largest first, so that printing takes the largest unit that divides.
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// In nanoseconds; largest first. `us` and `ns` are read and printed so that every interval round-trips.
const INTERVAL_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

impl ByteSize {
    /// KiB.
    pub const fn kib(n: u64) -> ByteSize {
        ByteSize(n << 10)
    }
    /// MiB.
    pub const fn mib(n: u64) -> ByteSize {
        ByteSize(n << 20)
    }
    /// GiB.
    pub const fn gib(n: u64) -> ByteSize {
        ByteSize(n << 30)
    }
}

impl Interval {
    /// Milliseconds.
    pub const fn ms(n: u64) -> Interval {
        Interval(Duration::from_millis(n))
    }
    /// Seconds.
    pub const fn secs(n: u64) -> Interval {
        Interval(Duration::from_secs(n))
    }
}

/// `NUMBER UNIT` with one of `units`, in the smallest unit; `None` when it is anything else or does not fit.
fn parse_amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn print_amount(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    match units.iter().find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{}{unit}", amount / factor),
        None => f.write_str(zero),
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print_amount(f, self.0, &SIZE_UNITS, "0B")
    }
}
impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        print_amount(f, nanos, &INTERVAL_UNITS, "0s")
    }
}

impl FromStr for ByteSize {
    type Err = String;
    fn from_str(text: &str) -> Result<ByteSize, String> {
        text.trim()
            .parse()
            .ok()
            .or_else(|| parse_amount(text, &SIZE_UNITS))
            .map(ByteSize)
            .ok_or_else(|| format!("\"{text}\" is not {SIZE_WANTED}"))
    }
}
impl FromStr for Interval {
    type Err = String;
    fn from_str(text: &str) -> Result<Interval, String> {
        parse_amount(text, &INTERVAL_UNITS)
            .map(|nanos| Interval(Duration::from_nanos(nanos)))
            .ok_or_else(|| format!("\"{text}\" is not {INTERVAL_WANTED}"))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct SizeVisitor;
impl Visitor<'_> for SizeVisitor {
    type Value = ByteSize;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SIZE_WANTED)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<ByteSize, E> {
        Ok(ByteSize(number))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<ByteSize, E> {
        u64::try_from(number).map(ByteSize).map_err(|_| E::custom(format!("{number} is not {SIZE_WANTED}")))
    }
}
impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct IntervalVisitor;
impl Visitor<'_> for IntervalVisitor {
    type Value = Interval;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(INTERVAL_WANTED)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Interval, E> {
        text.parse().map_err(E::custom)
    }
}
impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Interval, D::Error> {
        // a bare number has no unit, and a guess would be wrong by a factor of a thousand
        deserializer.deserialize_str(IntervalVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100B", 100),
            ("512KiB", 512 << 10),
            ("16MiB", 16 << 20),
            ("16 MiB", 16 << 20),
            ("1GiB", 1 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_is_allowed() {
        for text in ["", "MiB", "16MB", "16mib", "-1", "1.5GiB", "99999999TiB", "16MiBx"] {
            let error = text.parse::<ByteSize>().expect_err(text);
            assert!(error.starts_with(&format!("\"{text}\" is not a size such as")), "{error}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_is_allowed() {
        for text in ["", "s", "10", "10sec", "-1s", "1.5s", "999999999999d"] {
            let error = text.parse::<Interval>().expect_err(text);
            assert!(error.starts_with(&format!("\"{text}\" is not a time such as")), "{error}");
        }
    }

    #[test]
    fn values_round_trip_through_text() {
        for bytes in [0, 1, 1023, 1024, 1025, 3 << 20, (1 << 30) + 1, 20 << 30, u64::MAX] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        for nanos in [0, 1, 1_500, 200_000_000, 1_500_000_000, 90_000_000_000, 86_400_000_000_000] {
            let interval = Interval(Duration::from_nanos(nanos));
            assert_eq!(interval.to_string().parse(), Ok(interval));
        }
        assert_eq!(ByteSize::mib(16).to_string(), "16MiB");
        assert_eq!(Interval::ms(200).to_string(), "200ms");
        assert_eq!(Interval::secs(300).to_string(), "5m");
    }
}
