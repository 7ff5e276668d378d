//! The times of access logs.

use chrono::{DateTime, FixedOffset, NaiveDate};

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Reads `02/Jan/2006:15:04:05 -0700`.
pub(crate) fn common_log(text: &[u8]) -> Option<DateTime<FixedOffset>> {
    let &[
        d1,
        d2,
        b'/',
        a,
        b,
        c,
        b'/',
        y1,
        y2,
        y3,
        y4,
        b':',
        h1,
        h2,
        b':',
        m1,
        m2,
        b':',
        s1,
        s2,
        b' ',
        sign,
        oh1,
        oh2,
        om1,
        om2,
    ] = text
    else {
        return None;
    };
    let month = MONTHS.iter().position(|name| **name == [a, b, c])?;
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(number(&[y1, y2, y3, y4])?).ok()?,
        u32::try_from(month + 1).ok()?,
        number(&[d1, d2])?,
    )?;
    // A leap second is the last one twice.
    let local = date.and_hms_opt(number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?.min(59))?;
    let seconds = i32::try_from(number(&[oh1, oh2])? * 3600 + number(&[om1, om2])? * 60).ok()?;
    let zone = match sign {
        b'+' => FixedOffset::east_opt(seconds)?,
        b'-' => FixedOffset::west_opt(seconds)?,
        _ => return None,
    };
    local.and_local_timezone(zone).single()
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_zone() {
        let time = common_log(b"17/May/2015:10:05:03 +0530").unwrap();
        assert_eq!(time.to_rfc3339(), "2015-05-17T10:05:03+05:30");
        assert_eq!(time.timestamp(), 1_431_837_303);
        assert_eq!(
            common_log(b"29/Feb/2024:23:59:60 -0330").unwrap().to_rfc3339(),
            "2024-02-29T23:59:59-03:30"
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-",
            "30/Feb/2024:00:00:00 +0000",
            "17/Mai/2015:10:05:03 +0000",
            "17/May/2015:24:05:03 +0000",
            "17/May/2015:10:05:03 x0000",
            "17/May/2015:10:05:03 +9999",
            "1x/May/2015:10:05:03 +0000",
        ] {
            assert_eq!(common_log(text.as_bytes()), None, "{text}");
        }
    }
}
