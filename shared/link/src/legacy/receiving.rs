//! The receiving end of a v1 connection. `ok` is written when the owner says that the pack is durable; a legacy receiver
//! does so when it has the bytes in memory.
//!
//! A pack of a legacy node is adopted here (`Pack::adopt`), so its owner never sees one without keys of ours.
//!
//! There is no word for "not now": the connection is closed without an answer, and the peer keeps the pack. Nor is there
//! one for "not this one, but go on": a pack that is refused, or has other bytes than the store, is quarantined here, and
//! then answered `ok`, because a legacy peer would send it again for ever, or drop it.

use super::{OK, WRONG_HEADER};
use crate::answer::{Answer, Answerer, Incoming, Peer, Reply};
use crate::budget::Permit;
use crate::clock;
use crate::connection::say_last_words;
use crate::decoder::PACK_BEGUN_BYTES;
use crate::receiver::Shared;
use crate::session::{Arrival, MEMORY_WAIT_MAX, Refusal};
use bytes::{Bytes, BytesMut};
use logferry_pack::{BadPack, Decoded, Pack, decode_header};
use metrics::counter;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout, timeout_at};

/// Role of peers that do not say what they are.
const ROLE: &str = "legacy";
/// Most bytes read at once before a pack's length is known: not yet of the budget.
const FRONT_BYTES: usize = 4 << 10;

/// Why a connection ends.
enum End {
    /// The peer has gone, or we stop, or the pack is for another time: it keeps what was not answered.
    Quiet,
    /// The peer took too long: it is not to blame its pack for it.
    Late(Refusal),
    /// The peer is told.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> End {
        End::Refused(refusal)
    }
}

struct Connection<R, W> {
    reader: R,
    writer: W,
    peer: Arc<Peer>,
    shared: Arc<Shared>,
    /// Bytes read and not used.
    held: BytesMut,
}

/// Serves a connection whose first bytes are in `held` and are not those of protocol v2.
pub(crate) async fn serve<R, W>(reader: R, writer: W, held: BytesMut, addr: SocketAddr, shared: Arc<Shared>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let peer = Arc::new(Peer { addr, node: addr.ip().to_string(), role: ROLE.to_owned() });
    let mut connection = Connection { reader, writer, peer, shared, held };
    let stop = connection.shared.stop.clone();
    // A pack that is with its owner when we stop is answered; one that is still being read is left to the peer.
    let end = loop {
        let Some(read) = stop.run_until_cancelled(connection.next_pack()).await else { break End::Quiet };
        let outcome = match read {
            Ok((bytes, permit, began)) => connection.take(bytes, permit, began).await,
            Err(end) => Err(end),
        };
        if let Err(end) = outcome {
            break end;
        }
    };
    let mut last_words: &[u8] = b"";
    match &end {
        End::Quiet => {}
        End::Late(refusal) => connection.shared.refused(addr, refusal),
        End::Refused(refusal) => {
            connection.shared.refused(addr, refusal);
            last_words = WRONG_HEADER;
        }
    }
    say_last_words(&mut connection.reader, &mut connection.writer, &mut last_words).await;
}

impl<R, W> Connection<R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    /// The bytes of a whole pack with their share of the memory, and when it began.
    async fn next_pack(&mut self) -> Result<(Bytes, Permit, Instant), End> {
        let settings = &self.shared.options.settings;
        let (idle, whole) = (settings.v1_idle_timeout.0, settings.v1_pack_timeout.0);
        if self.held.is_empty() {
            match timeout(idle, self.fill(FRONT_BYTES)).await {
                Ok(filled) => filled?,
                Err(_) => return Err(End::Late(Refusal::new("idle", "no pack in time"))),
            }
        }
        let began = tokio::time::Instant::now();
        let slow = |_| End::Late(Refusal::new("slow", "a pack was not whole in time"));
        let pack_len = timeout(whole, self.read_beginning()).await.map_err(slow)??;
        let (permit, waited) = self.memory(pack_len).await?;
        // The peer is not to blame for what others hold.
        let by = began + whole + waited;
        let bytes = timeout_at(by, self.read_rest(pack_len, whole)).await.map_err(slow)??;
        Ok((bytes, permit, began.into_std()))
    }

    /// Reads until the length of the whole pack is known, and so much of it is there that it is more than a promise.
    async fn read_beginning(&mut self) -> Result<usize, End> {
        let limits = self.shared.options.limits;
        loop {
            let wanted = match decode_header(&self.held, &limits) {
                Ok(Decoded::Header { pack_len, .. }) => {
                    let begun = pack_len.min(PACK_BEGUN_BYTES);
                    if self.held.len() >= begun {
                        return Ok(pack_len);
                    }
                    begun
                }
                Ok(Decoded::More { at_least }) => at_least,
                Err(bad) => return Err(Refusal::new(bad.reason(), format!("not a pack: {bad}")).into()),
            };
            self.fill(wanted.saturating_sub(self.held.len()).max(1)).await?;
        }
    }

    /// The memory for a pack, and how long it was waited for.
    async fn memory(&self, pack_len: usize) -> Result<(Permit, Duration), End> {
        let asked = clock::now();
        let memory = self.shared.options.budget.acquire(pack_len as u64);
        match timeout(MEMORY_WAIT_MAX, memory).await {
            Ok(permit) => Ok((permit, clock::now() - asked)),
            Err(_) => {
                self.shared.figures.sent_back("no_memory");
                Err(End::Quiet)
            }
        }
    }

    /// Reads what is missing of a pack, as long as it comes at a pace at which it is `all_in` in time.
    async fn read_rest(&mut self, pack_len: usize, all_in: Duration) -> Result<Bytes, End> {
        let mut arrival = Arrival::new(pack_len, clock::now());
        let mut pack = BytesMut::with_capacity(pack_len);
        let there = self.held.len().min(pack_len);
        pack.extend_from_slice(&self.held.split_to(there));
        while pack.len() < pack_len {
            arrival.received(pack.len(), clock::now());
            let missing = pack_len - pack.len();
            let mut rest = (&mut self.reader).take(missing as u64);
            tokio::select! {
                read = rest.read_buf(&mut pack) => match read {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Err(End::Quiet),
                },
                () = sleep_until(arrival.deadline().into()) => {
                    if let Some(reason) = arrival.time(clock::now(), all_in) {
                        let what = format!("{} of {pack_len} bytes of a pack came, and no more in time", pack.len());
                        return Err(End::Late(Refusal::new(reason, what)));
                    }
                }
            }
        }
        Ok(pack.freeze())
    }

    /// Reads once, at most `bytes`, to what is held.
    async fn fill(&mut self, bytes: usize) -> Result<(), End> {
        self.held.reserve(bytes);
        match (&mut self.reader).take(bytes as u64).read_buf(&mut self.held).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(End::Quiet),
        }
    }

    /// Hands a pack to the owner, and answers it when the owner does.
    async fn take(&mut self, bytes: Bytes, permit: Permit, began: Instant) -> Result<(), End> {
        let (replies, mut answers) = mpsc::unbounded_channel();
        let answer = Answerer::new(0, replies, permit);
        self.shared.figures.received(bytes.len() as u64);
        let answer = match self.adopted(bytes.clone()).await {
            Ok(pack) if self.shared.options.legacy_footprint.knows(&pack) => {
                counter!("logferry_link_v1_taken_over_total").increment(1);
                Answer::Duplicate
            }
            Ok(pack) => {
                let elapsed = clock::now().saturating_duration_since(began);
                let incoming = Incoming { pack, peer: self.peer.clone(), elapsed, answer };
                tokio::select! {
                    answer = answer_of(&self.shared.packs, incoming, &mut answers) => answer.ok_or(End::Quiet)?,
                    () = self.drained() => return Err(End::Quiet),
                }
            }
            Err(bad) => Answer::Rejected { reason: bad.reason().to_owned() },
        };
        self.shared.figures.answered(&answer);
        match answer {
            Answer::Ok | Answer::Duplicate => self.say_ok().await,
            Answer::Busy { retry_ms } => {
                // The peer would be back at once.
                let pause = tokio::time::sleep(Duration::from_millis(retry_ms));
                self.shared.stop.run_until_cancelled(pause).await;
                Err(End::Quiet)
            }
            Answer::Rejected { reason } => self.set_aside(reason, bytes).await,
            Answer::Conflict(_) => self.set_aside("conflict".to_owned(), bytes).await,
        }
    }

    /// The pack with keys of ours: those that it came with, or those of its adoption.
    async fn adopted(&self, bytes: Bytes) -> Result<Pack, BadPack> {
        let limits = self.shared.options.limits;
        let mut pack = Pack::parse(bytes, &limits)?;
        if pack.header.ours.is_some() {
            return Ok(pack);
        }
        let adopting = tokio::task::spawn_blocking(move || pack.adopt(&limits).map(|()| pack));
        // It fails by a panic only, and that ends the process.
        adopting.await.unwrap_or(Err(BadPack::BodyCorrupt))
    }

    /// The end of the time that owners have for their last answers when we stop.
    async fn drained(&self) {
        self.shared.stop.cancelled().await;
        tokio::time::sleep(self.shared.times().drain_timeout).await;
    }

    async fn say_ok(&mut self) -> Result<(), End> {
        let limit = self.shared.options.settings.frame_timeout.0;
        match timeout(limit, self.writer.write_all(OK)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Quiet),
            Err(_) => Err(End::Late(Refusal::new("write_stalled", "answers are not read"))),
        }
    }

    /// Keeps a pack that will never be taken, so that the peer may forget it.
    async fn set_aside(&mut self, reason: String, bytes: Bytes) -> Result<(), End> {
        let Some(quarantine) = self.shared.options.quarantine.clone() else {
            return Err(Refusal::new("v1_rejected", format!("a pack was refused: {reason}")).into());
        };
        let note = format!("from {}, by protocol v1", self.peer.addr);
        let put = move || quarantine.put(&reason, &note, &[&bytes]);
        match tokio::task::spawn_blocking(put).await {
            Ok(Ok(_)) => self.say_ok().await,
            // It said why; the peer keeps the pack.
            Ok(Err(_)) | Err(_) => Err(End::Quiet),
        }
    }
}

/// The owner's answer to a pack; `None` when it has gone.
async fn answer_of(
    owner: &mpsc::Sender<Incoming>,
    incoming: Incoming,
    answers: &mut mpsc::UnboundedReceiver<Reply>,
) -> Option<Answer> {
    owner.send(incoming).await.ok()?;
    answers.recv().await.map(|(_, answer)| answer)
}
