//! Who may see the page.
//!
//! Everybody on the host can connect to a loopback address, and so can every page that a browser of the host has open. So each request
//! has to have the token, which only who has seen the agent's output knows: in the address that is printed, then in a cookie that other
//! sites cannot send. And its `Host` must not be a name that somebody could have pointed at this address (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::Authority;

/// Shorter ones could be guessed.
const MIN_TOKEN: usize = 16;

/// Sent with every answer. Scripts and styles are those of the page, what is drawn never comes from a text
/// (`require-trusted-types-for`), and no other site may show or read any of it.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// The secret, and where it is asked for.
#[derive(Clone)]
pub struct Access {
    token: String,
    cookie: String,
}

/// Why an address is not listened on.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It can be reached from elsewhere.
    #[error(
        "{0} can be reached from other hosts: say with --web-token TOKEN what they must know, or use a loopback address"
    )]
    Exposed(SocketAddr),
    /// It could be guessed.
    #[error("the token has {0} characters: use at least {MIN_TOKEN} letters and digits")]
    Weak(usize),
}

impl Access {
    /// With this token, or with a random one on a loopback address.
    ///
    /// # Errors
    /// When the address needs a token, or the token is too short or has other characters than letters and digits.
    pub fn new(address: SocketAddr, token: Option<String>) -> Result<Self, TokenError> {
        let token = match token {
            Some(token) if token.len() < MIN_TOKEN || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                return Err(TokenError::Weak(token.len()));
            }
            Some(token) => token,
            None if address.ip().is_loopback() => hex::encode(rand::random::<[u8; 16]>()),
            None => return Err(TokenError::Exposed(address)),
        };
        // Cookies are those of a host, whatever the port: two agents must not take each other's away.
        Ok(Self { token, cookie: format!("tracer-{}", address.port()) })
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether this text is the token. It takes as long for a wrong one as for another wrong one.
    pub fn is_token(&self, text: &str) -> bool {
        let differences = text.bytes().zip(self.token.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
        text.len() == self.token.len() && differences == 0
    }

    /// Whether a request has the token in its cookie.
    pub fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| name == self.cookie && self.is_token(value))
    }

    /// The header that makes the browser keep the token.
    pub fn set_cookie(&self) -> Option<HeaderValue> {
        let (name, token) = (&self.cookie, &self.token);
        HeaderValue::try_from(format!("{name}={token}; Path=/; HttpOnly; SameSite=Strict")).ok()
    }
}

/// Whether a request is for an address or `localhost`, and not for a name of somebody else's.
pub fn is_own_host(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Adds what browsers must know of every answer.
pub fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, TokenError, header, is_own_host};
    use axum::http::header::{HeaderMap, HeaderValue};

    fn headers(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token_that_cannot_be_guessed() {
        let new = |address: &str, token: Option<&str>| {
            Access::new(address.parse().expect("an address"), token.map(str::to_owned))
        };
        assert!(matches!(new("0.0.0.0:1", None), Err(TokenError::Exposed(_))));
        assert!(matches!(new("10.0.0.1:1", None), Err(TokenError::Exposed(_))));
        assert!(matches!(new("[::]:1", None), Err(TokenError::Exposed(_))));
        assert!(matches!(new("0.0.0.0:1", Some("short")), Err(TokenError::Weak(5))));
        assert!(matches!(new("127.0.0.1:1", Some("a token; Path=/elsewhere")), Err(TokenError::Weak(_))));
        assert!(new("0.0.0.0:1", Some("0123456789abcdef")).is_ok());
        let (one, other) = (new("127.0.0.1:1", None), new("[::1]:1", None));
        let (one, other) =
            (one.unwrap_or_else(|error| panic!("{error}")), other.unwrap_or_else(|error| panic!("{error}")));
        assert_eq!(one.token().len(), 32);
        assert!(!other.is_token(one.token()) && one.is_token(one.token()) && !one.is_token(&one.token()[1..]));
    }

    #[test]
    fn the_token_is_found_among_other_cookies() {
        let address = "127.0.0.1:7070".parse().expect("an address");
        let access = Access::new(address, Some("0123456789abcdef".into())).unwrap_or_else(|error| panic!("{error}"));
        let has = |value| access.has_cookie(&headers(header::COOKIE, value));
        assert!(has("a=b; tracer-7070=0123456789abcdef; c=d"));
        assert!(!has("tracer-7071=0123456789abcdef"));
        assert!(!has("tracer-7070=0123456789abcdee"));
        assert!(!has("tracer-7070="));
        assert!(!access.has_cookie(&HeaderMap::new()));
    }

    #[test]
    fn a_name_of_somebody_else_is_no_host_of_ours() {
        let own = |value| is_own_host(&headers(header::HOST, value));
        for host in ["localhost:7070", "LOCALHOST", "127.0.0.1:7070", "[::1]:7070", "10.1.2.3:1"] {
            assert!(own(host), "{host}");
        }
        for host in ["evil.example:7070", "localhost.evil.example", "127.0.0.1.evil.example:7070", "", "a b"] {
            assert!(!own(host), "{host}");
        }
        assert!(!is_own_host(&HeaderMap::new()));
    }
}
