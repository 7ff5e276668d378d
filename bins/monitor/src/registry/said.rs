//! Who speaks, as a message says it, cut to what is kept.

use super::{ErrorEntry, Now, Refusal};
use logferry_node::monitor::message::Fields;

const NAME_CHARS_MAX: usize = 255;
const ROLE_CHARS_MAX: usize = 64;
pub(super) const KIND_CHARS_MAX: usize = 64;
pub(super) const TEXT_CHARS_MAX: usize = 4_096;

/// Who speaks. Texts are as the node gave them: whoever shows them must escape them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// Address, as the node gives it or as its connection has it.
    pub ip: String,
    /// Port that answers probes; 0 is none.
    pub port: u16,
    /// `tailer`, `collector`, …; legacy: `tail`, `fcollector`, ….
    pub role: String,
    /// Host name.
    pub host: String,
    /// Node name; of a legacy node the host name.
    pub name: String,
    /// Program version; empty of a legacy node.
    pub version: String,
    /// Id of the node's `var_dir`; empty of a legacy node.
    pub instance: String,
    /// Where its connection comes from, whatever it says of itself.
    pub peer: String,
}

impl Identity {
    /// Of a message that came from `peer`.
    ///
    /// # Errors
    /// There is neither an instance nor a port, so the node could not be told from others.
    pub fn of(message: &Fields, peer: &str) -> Result<Identity, Refusal> {
        // without blanks at the end, in which two texts do not differ for the columns of a database
        let text = |key: &str, chars_max| {
            message.get(key).map(|text| clip(text.trim_end(), chars_max)).unwrap_or_default()
        };
        let said_ip = message.get("ip").and_then(|text| text.parse::<std::net::IpAddr>().ok());
        let host = text("hostname", NAME_CHARS_MAX);
        let name = text("name", NAME_CHARS_MAX);
        let instance = text("instance", ROLE_CHARS_MAX);
        let port = message.get("port").and_then(|port| port.trim().parse().ok()).unwrap_or(0);
        if instance.is_empty() && port == 0 {
            return Err(Refusal::Unclear("the message has no port, so its node cannot be told from others"));
        }
        Ok(Identity {
            ip: said_ip.map_or_else(|| peer.to_owned(), |ip| ip.to_string()),
            port,
            role: text("role", ROLE_CHARS_MAX),
            name: if name.is_empty() { host.clone() } else { name },
            host,
            version: text("version", ROLE_CHARS_MAX),
            instance,
            peer: peer.to_owned(),
        })
    }

    /// What the node is known by.
    pub fn id(&self) -> String {
        if self.instance.is_empty() { address(&self.ip, self.port) } else { self.instance.clone() }
    }
}

/// `ip:port`, with brackets where it needs them.
pub fn address(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// At most `chars_max` characters; that it was longer is seen.
pub fn clip(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// At most `chars_max` characters, in letters that any column takes.
pub fn plain(text: &str, chars_max: usize) -> String {
    let plain = |c: char| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' };
    text.chars().take(chars_max).map(plain).collect()
}

/// What is told of messages of addresses that are no node and were left out: there may be any number of such addresses.
pub(super) fn of_strangers(count: u64, now: Now) -> ErrorEntry {
    ErrorEntry {
        unix_ms: now.unix_ms,
        ip: "0.0.0.0".to_owned(),
        port: 0,
        role: String::new(),
        name: String::new(),
        kind: "left out".to_owned(),
        text: format!("{count} more messages of addresses that are no node came faster than they are stored"),
        node: String::new(),
    }
}
