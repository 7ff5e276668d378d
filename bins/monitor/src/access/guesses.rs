//! How often somebody was wrong, and how long they have to wait for it. Bounded: of many guessers, the longest quiet is forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Wrong guesses that cost nothing: a browser opens several connections at once, and people mistype.
const FREE: u32 = 10;
/// Longest wait; it doubles from a second on.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// After so long a guesser is as new.
const FORGET_AFTER: Duration = Duration::from_secs(900);
/// Guessers that are remembered.
const GUESSERS_MAX: usize = 1_024;

#[derive(Default)]
pub(super) struct Guesses {
    by_peer: HashMap<Option<IpAddr>, Guesser>,
}

struct Guesser {
    wrong: u32,
    last: Duration,
    wait_until: Duration,
}

impl Guesses {
    /// One more guess, which counts as wrong until [`was_right`](Self::was_right).
    ///
    /// # Errors
    /// How long to wait before the next.
    pub(super) fn begin(&mut self, peer: Option<IpAddr>, now: Duration) -> Result<(), Duration> {
        self.by_peer.retain(|_, guesser| now.saturating_sub(guesser.last) < FORGET_AFTER);
        let peer = peer.map(network);
        if !self.by_peer.contains_key(&peer) && self.by_peer.len() >= GUESSERS_MAX {
            let quietest = self.by_peer.iter().min_by_key(|(_, guesser)| guesser.last).map(|(peer, _)| *peer);
            quietest.and_then(|peer| self.by_peer.remove(&peer));
        }
        let guesser =
            self.by_peer.entry(peer).or_insert(Guesser { wrong: 0, last: now, wait_until: Duration::ZERO });
        if now < guesser.wait_until {
            return Err(guesser.wait_until - now);
        }
        guesser.wrong += 1;
        guesser.last = now;
        if let Some(beyond) = guesser.wrong.checked_sub(FREE) {
            guesser.wait_until = now + Duration::from_secs(1 << beyond.min(16)).min(WAIT_MAX);
        }
        Ok(())
    }

    pub(super) fn was_right(&mut self, peer: Option<IpAddr>) {
        self.by_peer.remove(&peer.map(network));
    }
}

/// Whoever has one IPv6 address has 2^64. An IPv4 address may come in the form of IPv6.
fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        ip @ IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_end_with_the_right_guess() {
        let (mut guesses, peer, mut now, mut waits) = (Guesses::default(), None, Duration::ZERO, Vec::new());
        for _ in 0..FREE + 8 {
            while let Err(wait) = guesses.begin(peer, now) {
                waits.push(wait.as_secs());
                now += wait;
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        guesses.was_right(peer);
        (0..FREE).for_each(|_| assert_eq!(guesses.begin(peer, now), Ok(())));
    }

    #[test]
    fn guessers_are_bounded_and_addresses_of_one_network_are_one() {
        let mut guesses = Guesses::default();
        for number in 0..3 * GUESSERS_MAX as u32 {
            let peer = IpAddr::V4(number.into());
            assert_eq!(guesses.begin(Some(peer), Duration::from_millis(number.into())), Ok(()));
        }
        assert_eq!(guesses.by_peer.len(), GUESSERS_MAX);
        let blocked = (0..=FREE as u128).map(|number| {
            let peer = IpAddr::V6((0x2001_0db8_u128 << 96 | number).into());
            guesses.begin(Some(peer), Duration::from_secs(60))
        });
        assert!(blocked.last().is_some_and(|last| last.is_err()));
    }

    #[test]
    fn ipv4_addresses_in_the_form_of_ipv6_are_not_one_network() {
        let (mut guesses, ip) = (Guesses::default(), |text: &str| Some(text.parse().expect("an address")));
        for _ in 0..FREE + 1 {
            let _ = guesses.begin(ip("::ffff:10.0.0.7"), Duration::ZERO);
        }
        assert!(guesses.begin(ip("10.0.0.7"), Duration::ZERO).is_err(), "it is the same");
        assert_eq!(guesses.begin(ip("::ffff:10.0.0.8"), Duration::ZERO), Ok(()));
    }
}
