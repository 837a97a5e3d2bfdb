//! One audit event, read from its line without building a tree.
//!
//! [`Event::parse`] steps over the line once. It accepts members in any order, white space between
//! tokens, and escaped keys, and of duplicate members it takes the last, like `serde_json`. Values
//! that no filter looks into, among them the bodies, are stepped over 64 bytes at a time.

mod bits;
mod fast;
pub(crate) mod json;
mod text;
pub(crate) mod time;

use std::borrow::Cow;

use self::json::{Value, members, skip_space};
pub use self::text::Text;

/// An `audit.k8s.io` event. Members that the line does not have, or that are of another type than
/// the API says, are empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event<'a> {
    /// The whole event as it stands in the log, without the newline.
    pub raw: &'a [u8],
    /// `Metadata`, `Request`, or `RequestResponse`.
    pub level: Text<'a>,
    /// The ID that all events of a request share.
    pub audit_id: Text<'a>,
    /// `RequestReceived`, `ResponseStarted`, `ResponseComplete`, or `Panic`.
    pub stage: Text<'a>,
    /// Path and query.
    pub request_uri: Text<'a>,
    /// The Kubernetes verb, or the lower-case method.
    pub verb: Text<'a>,
    /// The authenticated user.
    pub user: User<'a>,
    /// The user that the request was executed as.
    pub impersonated_user: Option<User<'a>>,
    /// The client's user agent.
    pub user_agent: Text<'a>,
    /// The object that the request is about.
    pub object: Object<'a>,
    /// The outcome.
    pub status: Status<'a>,
    /// JSON of the request body.
    pub request_object: Option<&'a [u8]>,
    /// JSON of the response body.
    pub response_object: Option<&'a [u8]>,
    /// When the request arrived, RFC 3339.
    pub received: Text<'a>,
    /// When the stage was reached, RFC 3339.
    pub stage_time: Text<'a>,
    source_ips: Option<&'a [u8]>,
    annotations: Option<&'a [u8]>,
    /// Of an event that was read from an index: its length in the log.
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

/// What a line of a log is.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all lines are events")]
pub(crate) enum Line<'a> {
    /// An event.
    Event(Event<'a>),
    /// An `EventList`, or a list: its items, with the brackets.
    List(&'a [u8]),
    /// Nothing that this crate reads.
    Other,
}

impl<'a> Event<'a> {
    /// Parses one line, with or without its newline. Returns `None` if it is not an event.
    pub fn parse(line: &'a [u8]) -> Option<Event<'a>> {
        match parse(line) {
            Line::Event(event) => Some(event),
            _ => None,
        }
    }

    /// Bytes of the event in the log, without its newline.
    pub fn length(&self) -> u64 {
        self.length.unwrap_or(self.raw.len() as u64)
    }

    /// Whether the event was read from an index, and [`Event::raw`] is not there.
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

    /// Like [`Event::parse`], but an event need not have an audit ID or a stage: for events written
    /// by hand. Returns `None` if it is another object, or no object.
    pub fn parse_partial(line: &'a [u8]) -> Option<Event<'a>> {
        match read(line) {
            Some(Parsed { event, kind, items: None }) if is_event(kind) => Some(event),
            _ => None,
        }
    }

    /// When the stage was reached, in microseconds since 1970; when the request arrived, if the
    /// event does not say.
    #[inline]
    pub fn time(&self) -> Option<i64> {
        time::micros(self.stage_time).or_else(|| time::micros(self.received))
    }

    /// When the request arrived, in microseconds since 1970.
    pub fn received_time(&self) -> Option<i64> {
        time::micros(self.received)
    }

    /// Microseconds from the request's arrival to this stage. `None` for `RequestReceived`, and
    /// where a timestamp is missing.
    pub fn latency(&self) -> Option<i64> {
        if self.stage.is(b"RequestReceived") {
            return None;
        }
        time::between(self.received, self.stage_time)
    }

    /// Whether a later event of the same request may follow.
    #[inline]
    pub fn is_unfinished(&self) -> bool {
        // The usual stage first.
        !self.stage.is(b"ResponseComplete")
            && (self.stage.is(b"RequestReceived") || self.stage.is(b"ResponseStarted"))
    }

    /// Calls `each` with the addresses of the client and of the proxies on its way, farthest first.
    pub fn source_ips(&self, each: impl FnMut(Text<'a>)) {
        texts(self.source_ips, each);
    }

    /// The first source address: the client's, as far as the proxies between are trusted.
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

    /// The value of an annotation.
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

    /// A user of whom only the name is known.
    pub(crate) fn named(name: Text<'a>) -> User<'a> {
        User { name, ..User::default() }
    }

    pub(crate) fn groups_json(&self) -> Option<&'a [u8]> {
        self.groups
    }

    /// Whether the event lists groups of the user.
    pub fn has_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// The JSON object of the user's extra values.
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

/// A key as it is decoded.
#[inline(always)]
fn name(key: &[u8]) -> Cow<'_, [u8]> {
    // Short, so that a loop is quicker than a call.
    match key.contains(&b'\\') {
        false => Cow::Borrowed(key),
        true => Text::new(key).bytes(),
    }
}

fn has_control_characters(line: &[u8]) -> bool {
    line.iter().fold(false, |found, byte| found | (*byte < b' '))
}

/// Control characters may stand between tokens, but not in strings.
#[cold]
fn is_json(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok()
}

/// An object, as far as it may be an event or a list of events.
struct Parsed<'a> {
    event: Event<'a>,
    kind: Text<'a>,
    items: Option<&'a [u8]>,
}

fn is_event(kind: Text<'_>) -> bool {
    !kind.is_present() || kind.is(b"Event")
}

/// Reads an object; `None` if the line is not one.
#[inline(always)]
fn read(line: &[u8]) -> Option<Parsed<'_>> {
    let line = line.trim_ascii_end();
    let start = skip_space(line, 0);
    let mut event = Event { raw: line, ..Event::default() };
    let (mut kind, mut items) = (Text::default(), None);
    let end =
        members(line, start, |key, at| top_level(line, &mut event, &mut kind, &mut items, key, at));
    if end != Some(line.len()) || has_control_characters(line) && !is_json(line) {
        return None;
    }
    Some(Parsed { event, kind, items })
}

/// Parses one line, with or without its newline.
#[inline]
pub(crate) fn parse(line: &[u8]) -> Line<'_> {
    let line = line.trim_ascii_end();
    parse_checked(line, || !has_control_characters(line))
}

/// Parses one line that is known to have no control character but its newline, if it has one.
#[inline]
pub(crate) fn parse_clean(line: &[u8]) -> Line<'_> {
    parse_checked(line.strip_suffix(b"\n").unwrap_or(line), || true)
}

#[inline(always)]
fn parse_checked(line: &[u8], is_clean: impl FnOnce() -> bool) -> Line<'_> {
    let mut event = Event::default();
    match fast::parse(line, &mut event) {
        Some(()) if is_clean() => Line::Event(event),
        _ => parse_any(line.trim_ascii_end()),
    }
}

/// Parses one line, without its newline, in whatever order its members are.
#[inline(never)]
fn parse_any(line: &[u8]) -> Line<'_> {
    let start = skip_space(line, 0);
    if line.get(start) == Some(&b'[') {
        return match json::container_end(line, start) {
            Some(end) if end == line.len() => Line::List(&line[start..]),
            _ => Line::Other,
        };
    }
    let Some(Parsed { event, kind, items }) = read(line) else { return Line::Other };
    match items {
        Some(items) if kind.is(b"EventList") || !kind.is_present() => Line::List(items),
        _ if !is_event(kind) => Line::Other,
        _ if event.audit_id.is_present() || event.stage.is_present() => Line::Event(event),
        _ => Line::Other,
    }
}

/// Calls `event` with the event of a line, or with those of a list.
pub(crate) fn each(line: &[u8], mut event: impl FnMut(&Event<'_>)) {
    match parse(line) {
        Line::Event(found) => event(&found),
        Line::List(items) => {
            json::items(items, |item| {
                if let Value::Object(text) = item
                    && let Some(found) = Event::parse(text)
                {
                    event(&found);
                }
            });
        }
        Line::Other => {}
    }
}

#[inline(always)]
fn top_level<'a>(
    line: &'a [u8],
    event: &mut Event<'a>,
    kind: &mut Text<'a>,
    items: &mut Option<&'a [u8]>,
    key: &'a [u8],
    at: usize,
) -> Option<usize> {
    let key = name(key);
    match &*key {
        b"user" => {
            event.user = User::default();
            return match line.get(at) {
                Some(b'{') => user(line, at, &mut event.user),
                _ => json::value(line, at).map(|(_, end)| end),
            };
        }
        b"impersonatedUser" => {
            event.impersonated_user = None;
            return match line.get(at) {
                Some(b'{') => user(line, at, event.impersonated_user.insert(User::default())),
                _ => json::value(line, at).map(|(_, end)| end),
            };
        }
        b"objectRef" => {
            event.object = Object::default();
            return match line.get(at) {
                Some(b'{') => object(line, at, &mut event.object),
                _ => json::value(line, at).map(|(_, end)| end),
            };
        }
        b"responseStatus" => {
            event.status = Status::default();
            return match line.get(at) {
                Some(b'{') => status(line, at, &mut event.status),
                _ => json::value(line, at).map(|(_, end)| end),
            };
        }
        _ => {}
    }
    let (value, end) = json::value(line, at)?;
    let text = match value {
        Value::String(text) => Text::new(text),
        _ => Text::default(),
    };
    let list = match value {
        Value::List(list) => Some(list),
        _ => None,
    };
    match &*key {
        b"kind" => *kind = text,
        b"level" => event.level = text,
        b"auditID" => event.audit_id = text,
        b"stage" => event.stage = text,
        b"requestURI" => event.request_uri = text,
        b"verb" => event.verb = text,
        b"sourceIPs" => event.source_ips = list,
        b"userAgent" => event.user_agent = text,
        b"requestObject" => event.request_object = Some(&line[at..end]),
        b"responseObject" => event.response_object = Some(&line[at..end]),
        b"requestReceivedTimestamp" => event.received = text,
        b"stageTimestamp" => event.stage_time = text,
        b"annotations" => {
            event.annotations = match value {
                Value::Object(annotations) => Some(annotations),
                _ => None,
            }
        }
        b"items" => *items = list,
        _ => {}
    }
    Some(end)
}

fn user<'a>(line: &'a [u8], at: usize, user: &mut User<'a>) -> Option<usize> {
    members(line, at, |key, at| {
        let (value, end) = json::value(line, at)?;
        match (&*name(key), value) {
            (b"username", value) => user.name = text_of(value),
            (b"uid", value) => user.uid = text_of(value),
            (b"groups", Value::List(groups)) => user.groups = Some(groups),
            (b"groups", _) => user.groups = None,
            (b"extra", Value::Object(extra)) => user.extra = Some(extra),
            (b"extra", _) => user.extra = None,
            _ => {}
        }
        Some(end)
    })
}

fn object<'a>(line: &'a [u8], at: usize, object: &mut Object<'a>) -> Option<usize> {
    members(line, at, |key, at| {
        let (value, end) = json::value(line, at)?;
        let text = text_of(value);
        match &*name(key) {
            b"resource" => object.resource = text,
            b"namespace" => object.namespace = text,
            b"name" => object.name = text,
            b"uid" => object.uid = text,
            b"apiGroup" => object.api_group = text,
            b"apiVersion" => object.api_version = text,
            b"resourceVersion" => object.resource_version = text,
            b"subresource" => object.subresource = text,
            _ => {}
        }
        Some(end)
    })
}

fn status<'a>(line: &'a [u8], at: usize, status: &mut Status<'a>) -> Option<usize> {
    members(line, at, |key, at| {
        let (value, end) = json::value(line, at)?;
        match (&*name(key), value) {
            (b"code", Value::Scalar(number)) => status.code = whole_number(number),
            (b"code", _) => status.code = None,
            (b"reason", value) => status.reason = text_of(value),
            (b"message", value) => status.message = text_of(value),
            _ => {}
        }
        Some(end)
    })
}

#[inline(always)]
fn text_of(value: Value<'_>) -> Text<'_> {
    match value {
        Value::String(text) => Text::new(text),
        _ => Text::default(),
    }
}

fn whole_number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
