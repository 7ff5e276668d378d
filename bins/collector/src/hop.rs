//! What the collector adds to a pack's route.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use logferry_pack::Hop;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Makes hops; remembers the text of the current millisecond.
pub(crate) struct HopStamp {
    ip: String,
    zone: TimeZone,
    millisecond: i64,
    text: String,
}

impl HopStamp {
    pub(crate) fn new(ip: String, zone: TimeZone) -> HopStamp {
        HopStamp { ip, zone, millisecond: i64::MIN, text: String::new() }
    }

    /// A hop of a pack that was taken `elapsed` before `now`.
    pub(crate) fn hop(&mut self, now: Timestamp, elapsed: Duration) -> Hop {
        let start = now.checked_sub(elapsed).unwrap_or(now);
        Hop {
            ip: self.ip.clone(),
            stage: "tcp recv",
            st: self.text_of(start),
            ed: self.text_of(now),
            elapse: elapse(elapsed),
        }
    }

    fn text_of(&mut self, at: Timestamp) -> String {
        let millisecond = at.as_millisecond();
        if millisecond != self.millisecond {
            self.millisecond = millisecond;
            self.text = at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
        }
        self.text.clone()
    }
}

/// A duration as legacy nodes write it: `1.234ms`, `2m3.5s`.
fn elapse(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, per_unit) = match nanos {
        0..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => ("µs", 1e3),
        1_000_000..1_000_000_000 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    let (minutes, rest) = (duration.as_secs() / 60, Duration::from_secs(duration.as_secs() % 60));
    if minutes > 0 {
        let seconds = (rest + Duration::from_nanos(duration.subsec_nanos().into())).as_secs_f64();
        return format!("{minutes}m{seconds}s");
    }
    format!("{}{unit}", nanos as f64 / per_unit)
}

/// The address of this node in hops: the one it listens on, or else the one from which packs to the first target leave.
pub(crate) fn own_ip(listening: SocketAddr, targets: &[String]) -> String {
    if !listening.ip().is_unspecified() {
        return listening.ip().to_string();
    }
    let fallback = IpAddr::from([127, 0, 0, 1]);
    targets.iter().find_map(|target| towards(target)).unwrap_or(fallback).to_string()
}

/// Connecting a UDP socket sends nothing.
fn towards(target: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_legacy_packs() {
        let texts = [
            (Duration::from_nanos(7), "7ns"),
            (Duration::from_nanos(1_500), "1.5µs"),
            (Duration::from_micros(1_234), "1.234ms"),
            (Duration::from_millis(2_250), "2.25s"),
            (Duration::from_millis(123_500), "2m3.5s"),
        ];
        for (duration, text) in texts {
            assert_eq!(elapse(duration), text);
        }
    }

    #[test]
    fn a_hop_has_local_times_with_milliseconds() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let mut stamp = HopStamp::new("10.0.0.1".into(), zone);
        let now: Timestamp = "2026-11-21T01:02:03.004Z".parse().expect("a time");
        let hop = stamp.hop(now, Duration::from_millis(4));
        assert_eq!(
            (hop.st.as_str(), hop.ed.as_str()),
            ("2026-11-21 02:02:03.000", "2026-11-21 02:02:03.004")
        );
        assert_eq!((hop.ip.as_str(), hop.stage, hop.elapse.as_str()), ("10.0.0.1", "tcp recv", "4ms"));
    }
}
