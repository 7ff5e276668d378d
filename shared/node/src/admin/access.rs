//! Who may ask a node to do something: whoever has the token or, where there is none, whoever is on the same machine.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use constant_time_eq::constant_time_eq;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 1 << 10;
/// Shortest token, in bytes: less can be guessed.
const TOKEN_BYTES_MIN: usize = 8;

/// Why a token cannot be used. Never holds any of it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("token file {path}: {error}")]
    Unreadable {
        /// File.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is no token.
    #[error(
        "token file {path}: its first line must be a token of {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} visible ASCII characters"
    )]
    NoToken {
        /// File.
        path: String,
    },
}

/// The first line of a file.
///
/// # Errors
/// The file cannot be read, or its first line is no token.
pub fn read_token(path: &Path) -> Result<String, TokenError> {
    let name = || path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| TokenError::Unreadable { path: name(), error })?;
    let token = text.lines().next().unwrap_or_default().trim();
    let is_token = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token { Ok(token.to_owned()) } else { Err(TokenError::NoToken { path: name() }) }
}

/// The rule of one endpoint.
pub struct Access {
    token: Option<String>,
    is_local: bool,
}

impl Access {
    /// Of an endpoint that is bound to `address`.
    pub fn new(token: Option<String>, address: IpAddr) -> Access {
        Access { token, is_local: address.is_loopback() }
    }

    /// Puts the rule before all routes of `router`.
    pub(super) fn guard(self, router: Router) -> Router {
        if !router.has_routes() {
            return router;
        }
        let access = Arc::new(self);
        router.route_layer(middleware::from_fn(move |request: Request, next: Next| {
            let judged = access.judge(request.headers());
            async move {
                match judged {
                    Ok(()) => next.run(request).await,
                    Err(refusal) => refusal.answer(),
                }
            }
        }))
    }

    fn judge(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            return match self.is_local {
                true if is_asked_by_a_page(headers) => Err(Refusal::Elsewhere),
                true => Ok(()),
                false => Err(Refusal::NoToken),
            };
        };
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| credentials(value.as_bytes(), "Bearer"));
        // In constant time: how long the comparison takes must not tell how much of a guess is right.
        let is_right = given.is_some_and(|given| constant_time_eq(given, token.as_bytes()));
        if is_right { Ok(()) } else { Err(Refusal::WrongToken) }
    }
}

/// A page of another site can have a browser on this machine send requests: by a name of its own that leads here, or to the address itself.
pub fn is_asked_by_a_page(headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST);
    host.is_some_and(|host| !is_own_name(host))
        || text(header::ORIGIN).is_some_and(|origin| !is_own_origin(origin, host))
}

/// Whether a page is one of this machine, or of the very address that is asked. Any other may have an address for a name, too.
fn is_own_origin(origin: &str, host: Option<&str>) -> bool {
    let Some((_, site)) = origin.split_once("://") else { return false };
    let name = name_of(site);
    Some(site) == host || is_localhost(name) || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a `Host` names this machine as nobody else can name it: by an address, or as `localhost`.
pub fn is_own_name(host: &str) -> bool {
    let name = name_of(host);
    is_localhost(name) || name.parse::<IpAddr>().is_ok()
}

fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

/// Without port and brackets.
fn name_of(host: &str) -> &str {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    without_port.trim_start_matches('[').trim_end_matches(']')
}

/// What an `Authorization` header brings for a scheme, whose name may be in any case (RFC 9110, 11.1).
pub fn credentials<'a>(header: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let (given, rest) = header.split_at_checked(scheme.len())?;
    given
        .eq_ignore_ascii_case(scheme.as_bytes())
        .then(|| rest.strip_prefix(b" "))
        .flatten()
        .map(<[u8]>::trim_ascii)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    NoToken,
    Elsewhere,
    WrongToken,
}

impl Refusal {
    fn answer(self) -> Response {
        let (status, reason, error) = match self {
            Refusal::NoToken => (
                StatusCode::FORBIDDEN,
                "no_token",
                "this node has no token, and its admin address is open to other machines: set token_file in [node]",
            ),
            Refusal::Elsewhere => (
                StatusCode::FORBIDDEN,
                "elsewhere",
                "a node without a token is asked by its address or as localhost, and by no page of another site",
            ),
            Refusal::WrongToken => {
                (StatusCode::UNAUTHORIZED, "wrong_token", "this request needs the token of the node")
            }
        };
        metrics::counter!("logferry_admin_refused_total", "reason" => reason).increment(1);
        (status, axum::Json(serde_json::json!({ "error": error }))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn judged(token: Option<&str>, address: [u8; 4], given: Option<&str>) -> Result<(), Refusal> {
        let access = Access::new(token.map(str::to_owned), address.into());
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(given).expect("plain"));
        }
        access.judge(&headers)
    }

    const HERE: [u8; 4] = [127, 0, 0, 1];
    const OPEN: [u8; 4] = [0, 0, 0, 0];

    #[test]
    fn without_a_token_only_the_machine_itself_may_ask() {
        assert_eq!(judged(None, HERE, None), Ok(()));
        assert_eq!(judged(None, OPEN, None), Err(Refusal::NoToken));
        assert_eq!(judged(None, OPEN, Some("Bearer whatever")), Err(Refusal::NoToken));
    }

    #[test]
    fn a_page_of_another_site_may_not_ask_a_node_without_a_token() {
        let asked = |name: header::HeaderName, value: &'static str| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            Access::new(None, HERE.into()).judge(&headers)
        };
        for own in ["127.0.0.1:4041", "localhost:4041", "[::1]:4041"] {
            assert_eq!(asked(header::HOST, own), Ok(()), "{own}");
        }
        assert_eq!(asked(header::HOST, "evil.example"), Err(Refusal::Elsewhere));
        assert_eq!(asked(header::ORIGIN, "http://evil.example"), Err(Refusal::Elsewhere));
        assert_eq!(asked(header::ORIGIN, "null"), Err(Refusal::Elsewhere));
        assert_eq!(asked(header::ORIGIN, "http://127.0.0.1:8080"), Ok(()));
        for site in ["http://203.0.113.5", "https://[2001:db8::5]:8080", "http://10.0.0.7:4042"] {
            assert_eq!(asked(header::ORIGIN, site), Err(Refusal::Elsewhere), "{site}");
        }
        let of_itself = [(header::HOST, "10.0.0.7:4041"), (header::ORIGIN, "http://10.0.0.7:4041")];
        let headers = of_itself.map(|(name, value)| (name, HeaderValue::from_static(value)));
        assert_eq!(Access::new(None, HERE.into()).judge(&HeaderMap::from_iter(headers)), Ok(()));
    }

    #[test]
    fn with_a_token_everybody_needs_it_and_all_of_it() {
        for address in [HERE, OPEN] {
            for scheme in ["Bearer", "bearer", "BEARER"] {
                let given = format!("{scheme} secret-token");
                assert_eq!(judged(Some("secret-token"), address, Some(&given)), Ok(()));
            }
            for wrong in [
                None,
                Some("Bearer secret-toke"),
                Some("Bearer secret-token1"),
                Some("secret-token"),
                Some("Bearer "),
            ] {
                assert_eq!(
                    judged(Some("secret-token"), address, wrong),
                    Err(Refusal::WrongToken),
                    "{wrong:?}"
                );
            }
        }
    }

    #[test]
    fn a_token_is_the_first_line_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "0123-abcd \nnot this\n").expect("written");
        assert_eq!(read_token(&path).expect("a token"), "0123-abcd");
        for bad in ["", "\nlater\n", "short", "white space"] {
            std::fs::write(&path, bad).expect("written");
            assert!(matches!(read_token(&path), Err(TokenError::NoToken { .. })), "{bad:?}");
        }
        assert!(matches!(read_token(&folder.path().join("none")), Err(TokenError::Unreadable { .. })));
    }
}
