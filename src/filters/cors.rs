//! Cross-Origin Resource Sharing, by the rules of kube-apiserver's `WithCORS`.
//!
//! A request whose `Origin` is allowed gets five headers in its response. An `OPTIONS` request of
//! an allowed origin is answered with 204 before authentication, so it has no audit event; it
//! reaches neither the API server nor an object.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use regex_automata::meta::Regex;

use kube_authn::compile_regexp;

/// The constant headers, as kube-apiserver sets them.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE, PATCH"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, \
             X-Requested-With, If-Modified-Since",
        ),
    ),
    (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date")),
    (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
];

/// Origins whose scripts may read responses.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Vec<Regex>,
}

/// A pattern of `--cors-allowed-origins` is not valid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CorsError {
    /// It is empty.
    #[error("an origin is empty")]
    Empty,
    /// It is not a regular expression.
    #[error("{0}")]
    Regexp(String),
    /// It can match in the middle of a host name (CVE-2022-1996).
    #[error(
        "{0:?} does not pin to the start and the end of the host in the origin header; begin it with \
         ^ or //, and end it with $ or :, like '//example\\.com(:|$)'"
    )]
    NotPinned(String),
}

/// The allowed origin of a request.
#[derive(Debug, Clone)]
pub struct AllowedOrigin(HeaderValue);

impl Cors {
    /// Compiles regular expressions (RE2 syntax) for the header `Origin`; `None` if there are none.
    ///
    /// # Errors
    /// Returns the first expression that kube-apiserver does not accept either.
    pub fn new(patterns: &[String]) -> Result<Option<Cors>, CorsError> {
        let mut origins = Vec::with_capacity(patterns.len());
        for pattern in patterns {
            if pattern.is_empty() {
                return Err(CorsError::Empty);
            }
            origins.push(compile_regexp(pattern).map_err(CorsError::Regexp)?);
            let starts = pattern.contains('^') || pattern.contains("//");
            let ends = pattern.contains('$') || pattern.contains(':');
            if !starts || !ends {
                return Err(CorsError::NotPinned(pattern.clone()));
            }
        }
        Ok((!origins.is_empty()).then_some(Cors { origins }))
    }

    /// Returns the origin of a request if it is allowed. An origin that is not UTF-8 is not.
    pub fn allowed(&self, headers: &HeaderMap) -> Option<Box<AllowedOrigin>> {
        let origin = headers.get(header::ORIGIN).filter(|origin| !origin.is_empty())?;
        let text = str::from_utf8(origin.as_bytes()).ok()?;
        let is_allowed = self.origins.iter().any(|pattern| pattern.is_match(text));
        is_allowed.then(|| Box::new(AllowedOrigin(origin.clone())))
    }
}

impl AllowedOrigin {
    /// Sets the headers of a response to this origin.
    pub fn set_headers(self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.0);
        for (name, value) in HEADERS {
            headers.insert(name, value);
        }
    }
}

/// Marks responses of filters that come before CORS, which have no CORS headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SkipCors;

/// Returns whether a request of an allowed origin ends here, whatever else it has: kube-apiserver
/// treats every `OPTIONS` request as a preflight.
pub(crate) fn is_preflight(method: &Method) -> bool {
    *method == Method::OPTIONS
}

/// Returns the response to a preflight, without the headers of [`AllowedOrigin::set_headers`].
pub(crate) fn preflight() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let cache = HeaderValue::from_static("no-cache, private");
    response.headers_mut().insert(header::CACHE_CONTROL, cache);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(patterns: &[&str]) -> Result<Option<Cors>, CorsError> {
        Cors::new(&patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    fn allows(cors: &Cors, origin: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, HeaderValue::from_bytes(origin).unwrap());
        cors.allowed(&headers).is_some()
    }

    #[test]
    fn patterns_are_checked_like_by_kube_apiserver() {
        assert!(cors(&[]).unwrap().is_none());
        assert_eq!(cors(&["^a$", ""]).unwrap_err(), CorsError::Empty);
        assert!(matches!(cors(&["^https://(a$"]).unwrap_err(), CorsError::Regexp(_)));
        // Syntax that Go's regexp does not support is rejected.
        assert!(matches!(cors(&["^https://(?=a)$"]).unwrap_err(), CorsError::Regexp(_)));
        for loose in ["example.com", "^example.com", "example.com$", "//example.com"] {
            assert_eq!(cors(&[loose]).unwrap_err(), CorsError::NotPinned(loose.to_owned()));
        }
        for pinned in [r"//example\.com(:|$)", r"^https://example\.com$", "^http://localhost:"] {
            assert!(cors(&[pinned]).is_ok(), "{pinned}");
        }
    }

    #[test]
    fn origins_are_searched_for_a_pattern() {
        let cors = cors(&[r"//([a-z0-9-]+\.)?example\.com(:|$)", "^http://localhost:"]);
        let cors = cors.unwrap().unwrap();
        for origin in [
            "https://example.com",
            "http://example.com:8080",
            "https://a.example.com",
            "http://localhost:3000",
        ] {
            assert!(allows(&cors, origin.as_bytes()), "{origin}");
        }
        for origin in [
            "",
            "null",
            "https://example.com.evil.org",
            "https://evil-example.com",
            "https://EXAMPLE.com",
            "https://x http://localhost:3000",
        ] {
            assert!(!allows(&cors, origin.as_bytes()), "{origin}");
        }
        assert!(!allows(&cors, b"https://example.com:\xff"));
        assert!(cors.allowed(&HeaderMap::new()).is_none());
    }
}
