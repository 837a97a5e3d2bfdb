//! Requests that the HTTP library refuses.

/// Why the HTTP library refused a request. There is no audit event of it: it was not parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedRequest {
    /// 400: it is not HTTP/1.1.
    Malformed,
    /// 414: the request target is longer than 64 KiB.
    UriTooLong,
    /// 431: the headers exceed 1 MiB or 20,000 lines.
    HeadersTooLarge,
    /// A client violated HTTP/2, and its connection was closed.
    Http2Connection,
    /// A stream was reset or answered with 431 (headers that exceed 1 MiB) by the HTTP/2 library,
    /// or the client left out its number.
    Http2Stream,
}

impl RefusedRequest {
    /// All reasons, with their names in metrics.
    pub const ALL: [(RefusedRequest, &'static str); 5] = [
        (RefusedRequest::Malformed, "malformed"),
        (RefusedRequest::UriTooLong, "uri_too_long"),
        (RefusedRequest::HeadersTooLarge, "headers_too_large"),
        (RefusedRequest::Http2Connection, "http2_connection"),
        (RefusedRequest::Http2Stream, "http2_stream"),
    ];

    /// Returns the reason for hyper's response with this status code.
    pub fn of_code(code: u16) -> Option<RefusedRequest> {
        match code {
            400 => Some(RefusedRequest::Malformed),
            414 => Some(RefusedRequest::UriTooLong),
            431 => Some(RefusedRequest::HeadersTooLarge),
            _ => None,
        }
    }

    /// Returns the name in metrics.
    pub fn as_str(self) -> &'static str {
        let named = RefusedRequest::ALL.into_iter().find(|(reason, _)| *reason == self);
        named.map_or("", |(_, name)| name)
    }
}
