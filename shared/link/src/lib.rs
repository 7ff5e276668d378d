//! Links between tiers: protocol v2, both sides; and v1, for legacy peers. A [`Sender`] gets packs to one of its targets and reports how each was
//! settled; a [`Receiver`] takes packs in and lets its owner answer each. What a pack means, and whether it was seen, is not
//! decided here.
//!
//! The parts that decide are sans-io: [`frame`] and [`decoder`] (bytes), [`session`] (one connection), [`pool`] (which pack goes to
//! which target). Thin tokio shells do the sockets and the clock. Memory is bounded by the sender's window and the receiver's
//! [`Budget`], from which bytes are taken before they are read.
//!
//! ```
//! use logferry_link::{Answer, Budget, Outcome, Outgoing, Receiver, ReceiverOptions, Sender, SenderOptions};
//! use logferry_node::config::{ListenSettings, NodeSettings, SendSettings};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let stop = CancellationToken::new();
//! let listen = ListenSettings { addr: "127.0.0.1:0".to_owned(), ..ListenSettings::default() };
//! let node = NodeSettings { name: "collector-a".to_owned(), ..NodeSettings::default() };
//! let options = ReceiverOptions::new(&listen, &node, "collector", Budget::new(listen.memory.0));
//! let receiver = Receiver::bind(options).await?;
//! let to = vec![receiver.local_addr().to_string()];
//! let (packs_in, mut packs) = tokio::sync::mpsc::channel(16);
//! tokio::spawn(receiver.run(packs_in, stop.clone()));
//!
//! let settings = SendSettings { to, ..SendSettings::default() };
//! let options = SenderOptions { settings, node: "web-1".to_owned(), role: "tailer" };
//! let (sender, mut settled) = Sender::start(options, stop.clone());
//! let json = br#"{"Route":[{"ip":"10.0.0.1","hour":"2026112101","id":"1","lines":"1"}],"PackLen":3}"#;
//! let header = [&[json.len() as u8, 0, 0, 0], &json[..]].concat().into();
//! let stream = logferry_pack::StreamId(1);
//! sender.submit(Outgoing { ticket: 1, stream, apart: false, header, body: "abc".into() }).await;
//!
//! let incoming = packs.recv().await.expect("the receiver runs");
//! assert_eq!((incoming.peer.node.as_str(), &incoming.pack.body[..]), ("web-1", &b"abc"[..]));
//! incoming.answer.send(Answer::Ok); // once it is durable
//! assert_eq!(settled.recv().await.expect("the sender runs").outcome, Outcome::Ok);
//! stop.cancel();
//! # Ok(())
//! # }
//! ```

mod answer;
mod backoff;
mod budget;
mod clock;
mod connection;
pub mod decoder;
mod figures;
pub mod frame;
mod hop;
mod legacy;
mod outbox;
pub mod pool;
mod receiver;
mod sender;
pub mod session;
mod target;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Answerer, Incoming, Outcome, Outgoing, Peer, Settled};
pub use budget::{Budget, Permit};
pub use hop::HopStamp;
pub use legacy::LegacyFootprint;
pub use receiver::{Receiver, ReceiverOptions};
pub use sender::{Health, Sender, SenderOptions};

/// The codecs that packs may have, best known first.
fn codec_names() -> Vec<String> {
    use logferry_pack::Codec;
    [Codec::Zlib, Codec::Zstd, Codec::None].map(|codec| codec.to_string()).to_vec()
}
