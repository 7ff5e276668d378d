//! What a receiver appends to a pack's route (wire.md).

use jiff::Timestamp;
use jiff::tz::TimeZone;
use logferry_pack::Hop;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Makes the hops of a node; remembers the text of the current second.
#[derive(Debug)]
pub struct HopStamp {
    listening: IpAddr,
    /// Known from the start, or from the first peer.
    ip: Option<String>,
    zone: TimeZone,
    second: i64,
    text: String,
}

impl HopStamp {
    /// For a node that listens on `listening`. Times are in `zone`, that of the node's hours.
    pub fn new(listening: IpAddr, zone: TimeZone) -> HopStamp {
        let ip = (!listening.is_unspecified()).then(|| listening.to_string());
        HopStamp { listening, ip, zone, second: i64::MIN, text: String::new() }
    }

    /// A hop of a pack that came from `peer`, was read in `elapsed` and was there at `now`.
    pub fn hop(&mut self, peer: SocketAddr, now: Timestamp, elapsed: Duration) -> Hop {
        let start = now.checked_sub(elapsed).unwrap_or(now);
        let listening = self.listening;
        Hop {
            ip: self.ip.get_or_insert_with(|| towards(peer).unwrap_or(listening).to_string()).clone(),
            stage: "tcp recv",
            st: self.text_of(start),
            ed: self.text_of(now),
            elapse: elapse(elapsed),
        }
    }

    fn text_of(&mut self, at: Timestamp) -> String {
        let milliseconds = at.as_millisecond();
        let (second, rest) = (milliseconds.div_euclid(1_000), milliseconds.rem_euclid(1_000));
        if second != self.second {
            self.second = second;
            self.text = at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
        }
        format!("{}.{rest:03}", self.text)
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
        let hours = if minutes >= 60 { format!("{}h", minutes / 60) } else { String::new() };
        return format!("{hours}{}m{seconds}s", minutes % 60);
    }
    format!("{}{unit}", nanos as f64 / per_unit)
}

/// The address of this host that `peer` reaches: a node that listens on all of them does not know it otherwise. Connecting a UDP socket
/// sends nothing.
fn towards(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip().to_canonical())
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
            (Duration::from_secs(3_723), "1h2m3s"),
        ];
        for (duration, text) in texts {
            assert_eq!(elapse(duration), text);
        }
    }

    #[test]
    fn a_hop_has_local_times_with_milliseconds_and_how_long_reading_took() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let mut stamp = HopStamp::new([10, 0, 0, 1].into(), zone);
        let now: Timestamp = "2026-11-21T01:02:03.004Z".parse().expect("a time");
        for (elapsed, start, text) in [(4, "02:02:03.000", "4ms"), (5, "02:02:02.999", "5ms")] {
            let hop = stamp.hop(([10, 0, 0, 9], 7).into(), now, Duration::from_millis(elapsed));
            let expected = format!("2026-11-21 {start}");
            assert_eq!((hop.st, hop.ed.as_str()), (expected, "2026-11-21 02:02:03.004"));
            assert_eq!((hop.ip.as_str(), hop.stage, hop.elapse.as_str()), ("10.0.0.1", "tcp recv", text));
        }
    }

    #[test]
    fn a_node_that_listens_on_all_addresses_names_the_one_its_peer_reaches() {
        for (listening, peer) in
            [("0.0.0.0", "127.0.0.1:9"), ("::", "127.0.0.1:9"), ("::", "[::ffff:127.0.0.1]:9")]
        {
            let mut stamp = HopStamp::new(listening.parse().expect("an address"), TimeZone::UTC);
            let hop = stamp.hop(peer.parse().expect("an address"), Timestamp::UNIX_EPOCH, Duration::ZERO);
            assert_eq!(hop.ip, "127.0.0.1", "{listening} {peer}");
        }
    }
}
