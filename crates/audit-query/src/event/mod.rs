//! One audit event, parsed from its line without building a tree.
//!
//! [`Event::parse`] reads the line once. It accepts members in any order, white space between
//! tokens, and escaped keys. It uses the last one of duplicate members, like `serde_json`. Values
//! that no filter needs, such as bodies, are skipped 64 bytes at a time.

mod bits;
mod fast;
pub(crate) mod json;
mod parse;
mod text;
pub(crate) mod time;

use self::json::{Value, members};
pub(crate) use self::parse::{Line, each, parse, parse_clean};
use self::parse::{Parsed, is_event, read, text_of};
pub use self::text::Text;
use self::time::Stopwatch;

/// An `audit.k8s.io` event. Members that are missing in the line, or have the wrong type, are
/// empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event<'a> {
    /// The complete event as it is in the log, without the newline.
    pub raw: &'a [u8],
    /// `Metadata`, `Request`, or `RequestResponse`.
    pub level: Text<'a>,
    /// The ID that all events of a request share.
    pub audit_id: Text<'a>,
    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete`, or `Panic`.
    pub stage: Text<'a>,
    /// Path and query of the request.
    pub request_uri: Text<'a>,
    /// The Kubernetes verb, or the lower-case HTTP method.
    pub verb: Text<'a>,
    /// The authenticated user.
    pub user: User<'a>,
    /// The impersonated user. The request was executed with the permissions of this user.
    pub impersonated_user: Option<User<'a>>,
    /// The client's user agent.
    pub user_agent: Text<'a>,
    /// The object of the request.
    pub object: Object<'a>,
    /// The status of the response.
    pub status: Status<'a>,
    /// The request body as JSON.
    pub request_object: Option<&'a [u8]>,
    /// The response body as JSON.
    pub response_object: Option<&'a [u8]>,
    /// When the request was received, in RFC 3339.
    pub received: Text<'a>,
    /// When the stage was reached, in RFC 3339.
    pub stage_time: Text<'a>,
    source_ips: Option<&'a [u8]>,
    annotations: Option<&'a [u8]>,
    /// The length in the log in bytes, for an event that was read from an index.
    length: Option<u64>,
}

/// Members of an event as JSON lists and objects.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lists<'a> {
    pub(crate) groups: Option<&'a [u8]>,
    pub(crate) source_ips: Option<&'a [u8]>,
    pub(crate) annotations: Option<&'a [u8]>,
}

/// `UserInfo` of an event.
#[derive(Debug, Clone, Copy, Default)]
pub struct User<'a> {
    /// User name.
    pub name: Text<'a>,
    /// UID.
    pub uid: Text<'a>,
    groups: Option<&'a [u8]>,
    extra: Option<&'a [u8]>,
}

/// `objectRef` of an event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Object<'a> {
    /// The plural name, such as `pods`.
    pub resource: Text<'a>,
    /// Namespace.
    pub namespace: Text<'a>,
    /// Name.
    pub name: Text<'a>,
    /// UID.
    pub uid: Text<'a>,
    /// API group; absent for the core group.
    pub api_group: Text<'a>,
    /// API version.
    pub api_version: Text<'a>,
    /// Resource version.
    pub resource_version: Text<'a>,
    /// Subresource, such as `exec`.
    pub subresource: Text<'a>,
}

/// `responseStatus` of an event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Status<'a> {
    /// HTTP status code.
    pub code: Option<i64>,
    /// Machine-readable reason of a failure.
    pub reason: Text<'a>,
    /// Message of a failure.
    pub message: Text<'a>,
}

impl<'a> Event<'a> {
    /// Parses one line, with or without its newline. Returns `None` if it is not an event.
    pub fn parse(line: &'a [u8]) -> Option<Event<'a>> {
        match parse(line) {
            Line::Event(event) => Some(event),
            _ => None,
        }
    }

    /// Returns the size of the event in the log in bytes, without its newline.
    pub fn length(&self) -> u64 {
        self.length.unwrap_or(self.raw.len() as u64)
    }

    /// Returns whether the event was read from an index, so that [`Event::raw`] is empty.
    pub(crate) fn is_from_index(&self) -> bool {
        self.length.is_some()
    }

    pub(crate) fn set_length(&mut self, length: u64) {
        self.length = Some(length);
    }

    pub(crate) fn with_lists(mut self, lists: Lists<'a>) -> Event<'a> {
        self.user.groups = lists.groups;
        self.source_ips = lists.source_ips;
        self.annotations = lists.annotations;
        self
    }

    pub(crate) fn source_ips_json(&self) -> Option<&'a [u8]> {
        self.source_ips
    }

    pub(crate) fn annotations_json(&self) -> Option<&'a [u8]> {
        self.annotations
    }

    /// Like [`Event::parse`], but the audit ID and the stage are optional, for hand-written events.
    /// Returns `None` for anything else.
    pub fn parse_partial(line: &'a [u8]) -> Option<Event<'a>> {
        match read(line) {
            Some(Parsed { event, kind, items: None }) if is_event(kind) => Some(event),
            _ => None,
        }
    }

    /// Returns when the stage was reached, in microseconds since 1970, or else when the request was
    /// received.
    #[inline]
    pub fn time(&self) -> Option<i64> {
        time::micros(self.stage_time).or_else(|| time::micros(self.received))
    }

    /// Returns when the request was received, in microseconds since 1970.
    pub fn received_time(&self) -> Option<i64> {
        time::micros(self.received)
    }

    /// Returns the microseconds between the arrival of the request and this stage. Returns `None`
    /// for `RequestReceived`, and if a timestamp is missing.
    pub fn latency(&self) -> Option<i64> {
        self.timed(&mut Stopwatch::default())
    }

    /// Like [`Event::latency`], but faster for a series of events.
    #[inline]
    pub(crate) fn timed(&self, stopwatch: &mut Stopwatch) -> Option<i64> {
        // The most frequent stage is compared first.
        if !self.stage.is(b"ResponseComplete") && self.stage.is(b"RequestReceived") {
            return None;
        }
        stopwatch.between(self.received, self.stage_time)
    }

    /// Returns whether a later event of the same request may follow.
    #[inline]
    pub fn is_unfinished(&self) -> bool {
        // The most frequent stage is compared first.
        !self.stage.is(b"ResponseComplete")
            && (self.stage.is(b"RequestReceived") || self.stage.is(b"ResponseStarted"))
    }

    /// Calls `each` with the source addresses: the client's first, then those of the proxies in
    /// between.
    pub fn source_ips(&self, each: impl FnMut(Text<'a>)) {
        texts(self.source_ips, each);
    }

    /// Returns the first source address. It is the client's if the proxies in between are trusted.
    pub fn source_ip(&self) -> Text<'a> {
        let mut first = None;
        if let Some(list) = self.source_ips {
            json::items(list, |item| {
                first.get_or_insert(text_of(item));
            });
        }
        first.unwrap_or_default()
    }

    /// Calls `each` with the key and value of each annotation.
    pub fn annotations(&self, mut each: impl FnMut(Text<'a>, Text<'a>)) {
        let Some(annotations) = self.annotations else { return };
        members(annotations, 0, |key, at| {
            let (value, end) = json::value(annotations, at)?;
            if let Value::String(value) = value {
                each(Text::new(key), Text::new(value));
            }
            Some(end)
        });
    }

    /// Returns the value of an annotation.
    pub fn annotation(&self, name: &[u8]) -> Text<'a> {
        let mut found = Text::default();
        self.annotations(|key, value| {
            if key.is(name) {
                found = value;
            }
        });
        found
    }
}

impl<'a> User<'a> {
    /// Calls `each` with each group.
    pub fn groups(&self, each: impl FnMut(Text<'a>)) {
        texts(self.groups, each);
    }

    /// Returns a user of whom only the name is known.
    pub(crate) fn named(name: Text<'a>) -> User<'a> {
        User { name, ..User::default() }
    }

    pub(crate) fn groups_json(&self) -> Option<&'a [u8]> {
        self.groups
    }

    /// Returns whether the event lists groups of the user.
    pub fn has_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// Returns the JSON object of the user's extra values.
    pub fn extra(&self) -> Option<&'a [u8]> {
        self.extra
    }
}

fn texts<'a>(list: Option<&'a [u8]>, mut each: impl FnMut(Text<'a>)) {
    if let Some(list) = list {
        json::items(list, |item| {
            if let Value::String(text) = item {
                each(Text::new(text));
            }
        });
    }
}

#[cfg(test)]
mod tests;
