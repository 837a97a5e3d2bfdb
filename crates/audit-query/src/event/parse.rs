//! Parses lines of a log into events.

use std::borrow::Cow;

use super::json::{self, Value, members, skip_space};
use super::{Event, Object, Status, Text, User, fast};

/// The content of a line of a log.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all lines are events")]
pub(crate) enum Line<'a> {
    /// An event.
    Event(Event<'a>),
    /// An `EventList` or a JSON list: its items, including the brackets.
    List(&'a [u8]),
    /// Anything else.
    Other,
}

/// Decodes a key.
#[inline(always)]
fn name(key: &[u8]) -> Cow<'_, [u8]> {
    // Keys are so short that a loop is faster than a function call.
    match key.contains(&b'\\') {
        false => Cow::Borrowed(key),
        true => Text::new(key).bytes(),
    }
}

fn has_control_characters(line: &[u8]) -> bool {
    line.iter().fold(false, |found, byte| found | (*byte < b' '))
}

/// Returns whether a line with control characters is valid: they may be between tokens, but not
/// within strings.
#[cold]
fn is_json(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok()
}

/// An object that may be an event or a list of events.
pub(super) struct Parsed<'a> {
    pub(super) event: Event<'a>,
    pub(super) kind: Text<'a>,
    pub(super) items: Option<&'a [u8]>,
}

pub(super) fn is_event(kind: Text<'_>) -> bool {
    !kind.is_present() || kind.is(b"Event")
}

/// Parses an object. Returns `None` if the line is not an object.
#[inline(always)]
pub(super) fn read(line: &[u8]) -> Option<Parsed<'_>> {
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

/// Parses one line that contains no control character except for its newline.
#[inline]
pub(crate) fn parse_clean(line: &[u8]) -> Line<'_> {
    parse_checked(line.strip_suffix(b"\n").unwrap_or(line), || true)
}

#[inline(always)]
fn parse_checked(line: &[u8], is_clean: impl FnOnce() -> bool) -> Line<'_> {
    // An event is large, so it is written directly to its destination.
    let mut parsed = Line::Event(Event::default());
    if let Line::Event(event) = &mut parsed
        && fast::parse(line, event).is_some()
        && is_clean()
    {
        return parsed;
    }
    parse_any(line.trim_ascii_end())
}

/// Parses one line, without its newline, with members in any order.
#[inline(never)]
pub(super) fn parse_any(line: &[u8]) -> Line<'_> {
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

/// Calls `event` with the event of a line, or with each event of a list.
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
pub(super) fn text_of(value: Value<'_>) -> Text<'_> {
    match value {
        Value::String(text) => Text::new(text),
        _ => Text::default(),
    }
}

fn whole_number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
