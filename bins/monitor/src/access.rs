//! Who may read the page, /api and /metrics: whoever knows the login or the token, as far as the configuration has one. Guesses
//! are slowed down.
//!
//! Without either only this machine can reach the page. Then names that lead here are refused, all but `localhost`: else a web page
//! from elsewhere whose own name is made to point to 127.0.0.1 could read this one in an operator's browser.

mod guesses;

use crate::config::AccessSettings;
use anyhow::Context;
use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use blake2::{Blake2b512, Digest};
use constant_time_eq::constant_time_eq;
use guesses::Guesses;
use ipnet::IpNet;
use logferry_node::admin::{credentials, is_own_name, read_token};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Passwords that are hashed at a time: each takes a core for a moment, and 19 MiB.
const HASHED_AT_ONCE: usize = 2;
/// Longest credentials that are looked at, in bytes.
const CREDENTIALS_BYTES_MAX: usize = 2 << 10;

/// Makes the hash of a password for `access.password_hash`: Argon2id with the parameters that OWASP recommends (19 MiB, 2 passes).
///
/// # Errors
/// The password is empty, or too long to be hashed.
pub fn hash_password(password: &str) -> Result<String, String> {
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    let salt = SaltString::encode_b64(&rand::random::<[u8; 16]>()).map_err(|error| error.to_string())?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

/// Whether a text is a hash that passwords can be compared with.
///
/// # Errors
/// It is none. The text does not repeat it.
pub fn check_hash(text: &str) -> Result<(), String> {
    let is_ours = |hash: PasswordHash<'_>| hash.algorithm.as_str() == "argon2id" && hash.hash.is_some();
    match PasswordHash::new(text).is_ok_and(is_ours) {
        true => Ok(()),
        false => {
            Err("a hash that begins with \"$argon2id$\" is expected: `ferryctl hash-password` makes one"
                .into())
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is answered.
    Welcome,
    /// It brings no credentials, or wrong ones.
    Unknown,
    /// Too many wrong ones came from there: it may try again after so many seconds.
    Wait(u64),
    /// There is no login, and the name that it asks for is not this machine's own.
    WrongHost,
}

/// The rule before the page.
pub struct Gate {
    login: Option<(String, String)>,
    token: Option<String>,
    guesses: Mutex<Guesses>,
    /// Digest of the login that was right last: browsers bring it with each request, and hashing takes long by design.
    right: Mutex<Option<Vec<u8>>>,
    salt: [u8; 32],
    hashing: Semaphore,
    started: Instant,
}

impl Gate {
    /// Of the settings; reads the token.
    ///
    /// # Errors
    /// The file with the token cannot be read, or holds none.
    pub fn new(settings: &AccessSettings) -> anyhow::Result<Gate> {
        let login = (!settings.password_hash.is_empty())
            .then(|| (settings.user.clone(), settings.password_hash.clone()));
        let token = token_of(&settings.token_file).context("access.token_file")?;
        Ok(Gate {
            login,
            token,
            guesses: Mutex::default(),
            right: Mutex::default(),
            salt: rand::random(),
            hashing: Semaphore::new(HASHED_AT_ONCE),
            started: Instant::now(),
        })
    }

    /// Whether people can log in by a name and a password.
    pub fn has_login(&self) -> bool {
        self.login.is_some()
    }

    /// Whether who asks is known by a login or a token.
    pub fn has_credentials(&self) -> bool {
        self.login.is_some() || self.token.is_some()
    }

    /// Judges a request by its `Authorization` and `Host` headers; `peer` is who is slowed down.
    pub async fn judge(
        &self,
        authorization: Option<&[u8]>,
        host: Option<&str>,
        peer: Option<IpAddr>,
    ) -> Verdict {
        if !self.has_credentials() {
            return if host.is_none_or(is_own_name) { Verdict::Welcome } else { Verdict::WrongHost };
        }
        let Some(given) = authorization.filter(|given| given.len() <= CREDENTIALS_BYTES_MAX) else {
            return Verdict::Unknown;
        };
        // counted as wrong until it is right, so that many at a time are no way around
        if let Err(wait) = lock(&self.guesses).begin(peer, self.started.elapsed()) {
            return Verdict::Wait(wait.as_secs().max(1));
        }
        if !self.is_right(given).await {
            return Verdict::Unknown;
        }
        lock(&self.guesses).was_right(peer);
        Verdict::Welcome
    }

    async fn is_right(&self, given: &[u8]) -> bool {
        if let Some(token) = credentials(given, "Bearer") {
            return self.token.as_ref().is_some_and(|right| constant_time_eq(token, right.as_bytes()));
        }
        let Some((user, hash)) = &self.login else { return false };
        let Some((given_user, password)) = basic(given) else { return false };
        let digest = Blake2b512::new().chain_update(self.salt).chain_update(given).finalize().to_vec();
        if lock(&self.right).as_ref().is_some_and(|right| constant_time_eq(right, &digest)) {
            return true;
        }
        let Ok(_slot) = self.hashing.acquire().await else { return false };
        let hash = hash.clone();
        let verified = tokio::task::spawn_blocking(move || {
            let hash = PasswordHash::new(&hash).ok();
            hash.is_some_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok())
        });
        // whether the name was right must not be told by how long it took
        let is_right =
            verified.await.unwrap_or(false) & constant_time_eq(given_user.as_bytes(), user.as_bytes());
        if is_right {
            *lock(&self.right) = Some(digest);
        }
        is_right
    }
}

/// The token of a file; none for no file.
pub(crate) fn token_of(file: &str) -> anyhow::Result<Option<String>> {
    if file.is_empty() { Ok(None) } else { Ok(Some(read_token(Path::new(file))?)) }
}

/// Addresses and networks: "10.0.0.7", "10.1.0.0/16".
///
/// # Errors
/// One is neither.
pub(crate) fn networks(texts: &[String]) -> Result<Vec<IpNet>, String> {
    let network = |text: &String| {
        let host = text.parse::<IpAddr>().map(IpNet::from);
        host.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
            format!(
                "{text:?} is neither an address such as \"10.0.0.7\" nor a network such as \"10.1.0.0/16\""
            )
        })
    };
    texts.iter().map(network).collect()
}

/// Whether an address is one of these; an IPv4 address may come in the form of IPv6.
pub(crate) fn is_among(networks: &[IpNet], peer: &str) -> bool {
    let ip = peer.parse::<IpAddr>().map(|ip| ip.to_canonical());
    ip.is_ok_and(|ip| networks.iter().any(|network| network.contains(&ip)))
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name and password of a basic login (RFC 7617).
fn basic(given: &[u8]) -> Option<(String, Vec<u8>)> {
    let decoded = BASE64_STANDARD.decode(credentials(given, "Basic")?).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some((String::from_utf8(decoded[..colon].to_vec()).ok()?, decoded[colon + 1..].to_vec()))
}

/// An address, or `localhost`, with or without a port.
#[cfg(test)]
mod tests {
    use super::*;

    fn gate(has_login: bool, token: Option<&str>) -> Gate {
        let mut settings = AccessSettings::default();
        if has_login {
            settings.user = "ops".into();
            settings.password_hash = hash_password("pass:word").expect("hashed");
        }
        let mut gate = Gate::new(&settings).expect("no file to be read");
        gate.token = token.map(str::to_owned);
        gate
    }

    fn login(text: &str) -> Vec<u8> {
        format!("Basic {}", BASE64_STANDARD.encode(text)).into_bytes()
    }

    async fn judged(gate: &Gate, given: &[u8]) -> Verdict {
        gate.judge(Some(given), None, Some([10, 0, 0, 7].into())).await
    }

    #[tokio::test]
    async fn only_the_whole_login_or_the_whole_token_opens() {
        let gate = gate(true, Some("secret-token"));
        for right in [
            login("ops:pass:word"),
            b"bearer secret-token".to_vec(),
            b"Bearer   secret-token ".to_vec(),
            login("ops:pass:word"),
        ] {
            assert_eq!(judged(&gate, &right).await, Verdict::Welcome);
        }
        assert_eq!(gate.judge(None, None, None).await, Verdict::Unknown);
        for wrong in [
            login("ops:pass"),
            login("root:pass:word"),
            login("ops"),
            b"Bearer secret-toke".to_vec(),
            b"Bearer ".to_vec(),
            b"Basic ops:pass:word".to_vec(),
            vec![b'a'; 10_000],
        ] {
            assert_eq!(judged(&gate, &wrong).await, Verdict::Unknown, "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn whoever_guesses_has_to_wait_and_nobody_else() {
        let gate = gate(false, Some("secret-token"));
        let mut tries = 0;
        while judged(&gate, b"Bearer wrong-token").await == Verdict::Unknown {
            tries += 1;
            assert!(tries < 100, "guesses are not slowed down");
        }
        assert!(
            matches!(judged(&gate, b"Bearer secret-token").await, Verdict::Wait(1..)),
            "not even the right one"
        );
        let other = Some([10, 0, 0, 8].into());
        assert_eq!(gate.judge(Some(b"Bearer secret-token"), None, other).await, Verdict::Welcome);
    }

    #[tokio::test]
    async fn without_a_login_only_this_machines_own_names_are_answered() {
        let gate = gate(false, None);
        for own in ["127.0.0.1:8080", "localhost", "LocalHost:8080", "[::1]:8080", "[::1]", "10.0.0.7"] {
            assert_eq!(gate.judge(None, Some(own), None).await, Verdict::Welcome, "{own}");
        }
        for strange in
            ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"]
        {
            assert_eq!(gate.judge(None, Some(strange), None).await, Verdict::WrongHost, "{strange}");
        }
    }

    #[test]
    fn addresses_are_those_of_their_networks_alone() {
        let listed = ["10.0.0.7", "10.1.0.0/16", "fd00::/8"].map(str::to_owned);
        let networks = networks(&listed).expect("good");
        for peer in ["10.0.0.7", "10.1.255.1", "::ffff:10.0.0.7", "fd12::1"] {
            assert!(is_among(&networks, peer), "{peer}");
        }
        for peer in ["10.0.0.8", "10.2.0.1", "::ffff:10.0.0.8", "fe80::1", "", "web-1"] {
            assert!(!is_among(&networks, peer), "{peer}");
        }
        for bad in ["10.0.0", "10.0.0.0/33", "web-1", ""] {
            assert!(super::networks(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn hashes_are_known_and_never_the_same() {
        let (one, other) = (hash_password("x").expect("hashed"), hash_password("x").expect("hashed"));
        assert_ne!(one, other);
        assert_eq!(check_hash(&one), Ok(()));
        for bad in ["secret", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", &one[..one.len() / 2]] {
            assert!(check_hash(bad).is_err(), "{bad}");
        }
        assert!(!check_hash("my-password").expect_err("no hash").contains("my-password"));
        assert!(hash_password("").is_err());
    }
}
