//! Finds the `Status` in a response while the body is forwarded. Even level `Metadata` records it,
//! as `responseStatus`.

use bytes::Bytes;
use http::{HeaderMap, header};
use serde::Deserialize;

use super::decode;
use super::object::MediaType;
use k8s_audit::request::query;
use k8s_audit::status::Status;

/// The `Status` of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedStatus {
    /// The `Status`.
    pub status: Status,
    /// Whether kube-apiserver records it as well. If it could not satisfy the client's `Accept`
    /// header, its event has only the code.
    pub recorded: bool,
}

/// A longer `Status` is not parsed.
const LIMIT: usize = 256 << 10;

/// Collects the body of a response as long as it can be a `Status`.
#[derive(Debug)]
pub struct StatusTap {
    media_type: MediaType,
    /// Whether the client has requested indented JSON.
    pretty: bool,
    seen: Vec<u8>,
    state: State,
}

#[derive(Debug, PartialEq)]
enum State {
    /// Too few bytes have arrived.
    Undecided,
    /// The beginning is that of a `Status`.
    Status,
    /// It is not a `Status`.
    Other,
}

impl StatusTap {
    /// Returns a tap for the response with these headers; `None` if it cannot contain a `Status`.
    ///
    /// `pretty`: the client has requested indented JSON. If it has not, indented JSON comes from
    /// the serializer that kube-apiserver uses when it cannot satisfy the client's `Accept` header;
    /// such a `Status` is not in its audit events.
    pub fn new(answer: &HeaderMap, pretty: bool) -> Option<StatusTap> {
        let media_type = match answer.get(header::CONTENT_TYPE) {
            Some(_) => MediaType::of(answer),
            None => MediaType::Other,
        };
        if media_type == MediaType::Other || answer.contains_key(header::CONTENT_ENCODING) {
            return None;
        }
        Some(StatusTap { media_type, pretty, seen: Vec::new(), state: State::Undecided })
    }

    /// Takes the next bytes of the response.
    pub fn data(&mut self, data: &Bytes) {
        if self.state == State::Other {
            return;
        }
        if self.seen.len() + data.len() > LIMIT {
            self.state = State::Other;
            self.seen = Vec::new();
            return;
        }
        // The first bytes of most responses show that they are not a Status; nothing is copied.
        if self.seen.is_empty() && self.state == State::Undecided {
            self.state = self.classify(data);
            if self.state == State::Other {
                return;
            }
        }
        self.seen.extend_from_slice(data);
        if self.state == State::Undecided {
            self.state = self.classify(&self.seen);
        }
    }

    /// Whether more of the body is needed.
    pub fn is_collecting(&self) -> bool {
        self.state != State::Other
    }

    /// Returns the `Status`, if the whole body is one.
    pub fn finish(&self) -> Option<ParsedStatus> {
        if self.state != State::Status {
            return None;
        }
        let indented = self.media_type == MediaType::Json && self.seen.get(1) == Some(&b'\n');
        let recorded = self.pretty || !indented;
        let status = match self.media_type {
            MediaType::Json => serde_json::from_slice(&self.seen).ok(),
            media_type => converted(media_type, &self.seen),
        };
        Some(ParsedStatus { status: status?, recorded })
    }

    fn classify(&self, seen: &[u8]) -> State {
        let decided = match self.media_type {
            MediaType::Json => begins_like(seen, &["{", "\"kind\"", ":", "\"Status\""]),
            // `kind` can be the last member, so all short documents are kept.
            MediaType::Yaml | MediaType::Cbor => Some(true),
            MediaType::Protobuf => {
                let start = b"k8s\0\n\x0c\n\x02v1\x12\x06Status";
                let known = seen.len().min(start.len());
                (seen[..known] != start[..known])
                    .then_some(false)
                    .or_else(|| (known == start.len()).then_some(true))
            }
            MediaType::Other => Some(false),
        };
        match decided {
            Some(true) => State::Status,
            Some(false) => State::Other,
            None => State::Undecided,
        }
    }
}

/// Whether kube-apiserver indents JSON for this client: because of the `pretty` parameter, or of
/// the user agent of a browser, curl or wget.
pub fn wants_pretty(query: Option<&str>, headers: &HeaderMap) -> bool {
    let asked = query.and_then(|query| query::first(query, "pretty"));
    if let Some(value) = asked.filter(|value| !value.is_empty()) {
        return matches!(&*value, b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True");
    }
    let agent = headers.get(header::USER_AGENT).map_or(&[][..], |value| value.as_bytes());
    [&b"curl"[..], b"Wget", b"Mozilla/5.0"].iter().any(|start| agent.starts_with(start))
}

/// Whether `seen` begins with these tokens, ignoring whitespace between them; `None` if it is too
/// short to decide.
fn begins_like(seen: &[u8], tokens: &[&str]) -> Option<bool> {
    let mut rest = seen;
    for token in tokens {
        rest = rest.trim_ascii_start();
        let known = rest.len().min(token.len());
        if rest[..known] != token.as_bytes()[..known] {
            return Some(false);
        }
        if known < token.len() {
            return None;
        }
        rest = &rest[known..];
    }
    Some(true)
}

/// Parses a `Status` in a format other than JSON.
fn converted(media_type: MediaType, body: &[u8]) -> Option<Status> {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    // A quick check: most responses are of another kind and need not be decoded.
    memchr::memmem::find(body, b"Status")?;
    let json = decode::to_json(media_type, body, LIMIT * 2).ok()?.json;
    let Kind { kind } = serde_json::from_slice(&json).ok()?;
    if kind == "Status" { serde_json::from_slice(&json).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_audit::status::Details;

    fn tapped(
        media_type: &'static str,
        pretty: bool,
        body: &[u8],
        chunk: usize,
    ) -> Option<ParsedStatus> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, media_type.parse().unwrap())]);
        let mut tap = StatusTap::new(&headers, pretty)?;
        for part in body.chunks(chunk) {
            tap.data(&Bytes::copy_from_slice(part));
        }
        tap.finish()
    }

    #[test]
    fn a_status_is_read_however_it_arrives() {
        let status = Status {
            details: Some(Box::new(Details {
                name: "absent".into(),
                kind: "configmaps".into(),
                ..Details::default()
            })),
            code: 404,
            status: "Failure".into(),
            reason: "NotFound".into(),
            message: "configmaps \"absent\" not found".into(),
        };
        let json = status.to_json();
        let protobuf = b"k8s\x00\n\x0c\n\x02v1\x12\x06Status\x12Y\n\x06\n\x00\x12\x00\x1a\x00\x12\x07Failure\x1a\x1dconfigmaps \"absent\" not found\"\x08NotFound*\x1a\n\x06absent\x12\x00\x1a\nconfigmaps(\x002\x000\x94\x03\x1a\x00\"\x00";
        let yaml = b"apiVersion: v1\ncode: 404\ndetails:\n  kind: configmaps\n  name: absent\nkind: Status\nmessage: configmaps \"absent\" not found\nmetadata: {}\nreason: NotFound\nstatus: Failure\n";
        // As kube-apiserver 1.36 writes it.
        let cbor = b"\xd9\xd9\xf7\xa8DkindFStatusJapiVersionBv1Hmetadata\xa0FstatusGFailureGmessageX\x1dconfigmaps \"absent\" not foundFreasonHNotFoundGdetails\xa2DnameFabsentDkindJconfigmapsDcode\x19\x01\x94";
        for chunk in [1, 7, 10_000] {
            let tap = |media_type, body| tapped(media_type, false, body, chunk);
            let said = Some(ParsedStatus { status: status.clone(), recorded: true });
            assert_eq!(tap("application/json", &json), said);
            assert_eq!(tap("application/vnd.kubernetes.protobuf", protobuf), said);
            assert_eq!(tap("application/yaml", yaml), said);
            assert_eq!(tap("application/cbor", cbor), said);
        }
    }

    #[test]
    fn what_is_no_recorded_status_is_left_alone() {
        let pod = br#"{"kind":"Pod","apiVersion":"v1","status":{}}"#;
        let indented = b"{\n  \"kind\": \"Status\",\n  \"code\": 406\n}";
        assert_eq!(tapped("application/json", false, pod, 3), None);
        assert_eq!(tapped("text/plain", false, b"{\"kind\":\"Status\"}", 3), None);
        assert!(!tapped("application/json", false, indented, 99).unwrap().recorded);
        assert!(tapped("application/json", true, indented, 99).unwrap().recorded);
        assert_eq!(tapped("application/yaml", false, b"kind: Pod\nspec: {}\n", 99), None);
        let huge = [&b"{\"kind\":\"Status\",\"message\":\""[..], &[b'x'; LIMIT]].concat();
        assert_eq!(tapped("application/json", false, &huge, 1000), None);
    }

    #[test]
    fn who_wants_indented_json() {
        let agent = |text: &'static str| {
            HeaderMap::from_iter([(header::USER_AGENT, text.parse().unwrap())])
        };
        assert!(wants_pretty(None, &agent("curl/8")));
        assert!(!wants_pretty(Some("pretty=false"), &agent("curl/8")));
        assert!(wants_pretty(Some("a=b&pretty=1"), &agent("kubectl")));
        assert!(!wants_pretty(Some("pretty="), &agent("kubectl")));
        assert!(wants_pretty(Some("pretty="), &agent("curl/8")));
        assert!(!wants_pretty(Some("a=b"), &agent("kubectl")));
    }
}
