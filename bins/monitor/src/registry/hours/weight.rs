//! What hours take of the memory: names and numbers of outputters are as long as they are told, so a number of hours alone bounds little.

use super::HourRow;

/// Bytes that an hour may take on average: two outputters with the longest names of plain letters, or far more with ordinary ones.
pub(super) const HOUR_BYTES: usize = 2_048;

/// Bytes of the rows of one hour, and of the key that repeats their names.
pub(super) fn of_all(rows: &[HourRow]) -> usize {
    let names = rows.first().map_or(0, |row| row.news.host.len() + row.news.source.len());
    names + rows.iter().map(of).sum::<usize>()
}

fn of(row: &HourRow) -> usize {
    let texts = row.node.len() + row.news.host.len() + row.news.source.len();
    size_of::<HourRow>() + texts + size_of_val(row.news.missing.as_slice())
}

#[cfg(test)]
mod tests {
    use super::super::{Hours, Now};
    use super::*;
    use logferry_node::monitor::hours::HourNews;
    use std::time::Duration;

    #[test]
    fn hours_of_many_outputters_with_long_names_are_bounded_in_bytes_and_the_newest_stay() {
        let (count, now) = (100, Now { unix_ms: 1_000, tick: Duration::ZERO });
        let mut hours = Hours::new(count);
        let long = "🚢".repeat(300);
        for hour in (0..20).map(|number| 2026112100 + number) {
            for outputter in 0..60 {
                let (host, source) = (long.clone(), long.clone());
                let told = HourNews { host, source, hour, missing: vec![(1, 2); 16], ..HourNews::default() };
                let rows = hours.changed(&format!("outputter-{outputter}"), vec![told], now);
                rows.into_iter().for_each(|row| hours.keep(row));
            }
        }
        let bytes: usize = hours.all().map(of).sum();
        assert!(bytes <= count * HOUR_BYTES, "{bytes} bytes");
        assert_eq!((hours.newest(), hours.is_empty()), (Some(2026112119), false));
        assert!(hours.bytes >= bytes);
        hours.forget_before(u32::MAX);
        assert_eq!(hours.bytes, 0);
    }
}
