//! What happens to bytes on their way.

use super::*;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection suffers on its way.
pub(super) struct Weather {
    /// Cut after so many bytes of either direction.
    cut_after: u64,
    /// Nothing passes any more after so many bytes, and nobody is told.
    hole_after: u64,
    /// Longest delay of a piece, in milliseconds.
    delay_ms: u64,
    /// Largest piece, in bytes.
    piece: usize,
    ack_lost: f64,
    ack_twice: f64,
}

impl Weather {
    pub(super) fn calm() -> Weather {
        Weather {
            cut_after: u64::MAX,
            hole_after: u64::MAX,
            delay_ms: 1,
            piece: 4_000,
            ack_lost: 0.0,
            ack_twice: 0.0,
        }
    }

    pub(super) fn random(random: &mut StdRng) -> Weather {
        let limit = |random: &mut StdRng| match random.random_range(0..4) {
            0 => random.random_range(0..500),
            1 => random.random_range(0..50_000),
            _ => u64::MAX,
        };
        Weather {
            cut_after: limit(random),
            hole_after: limit(random).saturating_mul(2),
            delay_ms: [1, 20, 300][random.random_range(0..3)],
            piece: [3, 100, 4_000][random.random_range(0..3)],
            ack_lost: if random.random_bool(0.2) { 0.2 } else { 0.0 },
            ack_twice: 0.1,
        }
    }

    /// Passes bytes both ways until one side closes or the weather cuts; then both sides are closed.
    pub(super) async fn pass(self, here: DuplexStream, there: DuplexStream, mut random: StdRng) {
        let (here_in, here_out) = tokio::io::split(here);
        let (there_in, there_out) = tokio::io::split(there);
        let back = StdRng::from_rng(&mut random);
        tokio::select! {
            biased;
            () = self.packs(here_in, there_out, random) => {}
            () = self.answers(there_in, here_out, back) => {}
        }
    }

    /// Whether a piece may pass, after its delay. Waits for long at the hole.
    async fn lets_pass(&self, passed: u64, random: &mut StdRng) -> bool {
        sleep(milliseconds(random, 0..self.delay_ms)).await;
        if passed >= self.hole_after {
            sleep(seconds(120)).await;
        }
        passed < self.cut_after.min(self.hole_after)
    }

    async fn packs(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut random: StdRng,
    ) {
        let (mut piece, mut passed) = (vec![0; self.piece], 0);
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            passed += count as u64;
            if !self.lets_pass(passed, &mut random).await || to.write_all(&piece[..count]).await.is_err() {
                return;
            }
        }
    }

    /// Frame by frame, so that single answers can be lost or come twice.
    async fn answers(
        &self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut random: StdRng,
    ) {
        let (mut decoder, mut passed) = (Decoder::new(0), 0);
        let mut piece = vec![0; self.piece];
        while let Ok(count @ 1..) = from.read(&mut piece).await {
            let mut rest = &piece[..count];
            while !rest.is_empty() {
                rest = &rest[decoder.feed(rest)..];
                while let Ok(Decoded::Frame(frame)) = decoder.decode() {
                    let is_ack = matches!(frame, Frame::Ack(..));
                    let times = match is_ack {
                        true if random.random_bool(self.ack_lost) => 0,
                        true if random.random_bool(self.ack_twice) => 2,
                        _ => 1,
                    };
                    let bytes = frame::encode(&frame).repeat(times);
                    passed += bytes.len() as u64;
                    if !self.lets_pass(passed, &mut random).await || to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
