//! Events in the order in which kube-apiserver and kube-audit-proxy write their members.
//!
//! Go and this proxy write each member at most once, in one order, and without white space. Such a
//! line is read by comparing the keys that are expected, without looking for the ends of keys. A
//! line that deviates in anything is left to the parser that accepts all JSON, so both agree on
//! every line.

use super::json::{container_end, list_end, string_end};
use super::{Event, Text, User};

/// What lines begin with.
const START: &[u8] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":""#;

/// A position in a line.
struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Steps over `text` if it is next.
    #[inline(always)]
    fn skip(&mut self, text: &[u8]) -> bool {
        let is_next = self.line.get(self.at..).is_some_and(|rest| rest.starts_with(text));
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    /// The string whose opening quote was stepped over.
    #[inline(always)]
    fn string(&mut self) -> Option<Text<'a>> {
        let end = string_end(self.line, self.at)?;
        let text = Text::new(&self.line[self.at..end]);
        self.at = end + 1;
        Some(text)
    }

    /// A member that may be missing; `key` includes the opening quote of its value.
    #[inline(always)]
    fn optional(&mut self, key: &[u8], text: &mut Text<'a>) -> Option<()> {
        if self.skip(key) {
            *text = self.string()?;
        }
        Some(())
    }

    /// The object or list that begins here.
    #[inline(always)]
    fn container(&mut self) -> Option<&'a [u8]> {
        let end = container_end(self.line, self.at)?;
        let value = &self.line[self.at..end];
        self.at = end;
        matches!((value[0], value[value.len() - 1]), (b'{', b'}') | (b'[', b']')).then_some(value)
    }

    /// The list of strings that begins here.
    #[inline(always)]
    fn strings(&mut self) -> Option<&'a [u8]> {
        let end = list_end(self.line, self.at)?;
        let value = &self.line[self.at..end];
        self.at = end;
        Some(value)
    }

    /// The first member of an object has no comma before it. `key` includes the comma.
    #[inline(always)]
    fn member(&mut self, key: &[u8], first: &mut bool) -> bool {
        let key = if *first { &key[1..] } else { key };
        let found = self.skip(key);
        *first &= !found;
        found
    }

    #[inline(always)]
    fn user(&mut self, user: &mut User<'a>) -> Option<()> {
        let mut first = true;
        if self.member(br#","username":""#, &mut first) {
            user.name = self.string()?;
        }
        if self.member(br#","uid":""#, &mut first) {
            user.uid = self.string()?;
        }
        if self.member(br#","groups":"#, &mut first) {
            user.groups = Some(self.strings()?);
        }
        if self.member(br#","extra":"#, &mut first) {
            if self.line.get(self.at) != Some(&b'{') {
                return None;
            }
            user.extra = Some(self.container()?);
        }
        self.skip(b"}").then_some(())
    }

    #[inline(always)]
    fn object(&mut self, event: &mut Event<'a>) -> Option<()> {
        let object = &mut event.object;
        let mut first = true;
        for (key, text) in [
            (&br#","resource":""#[..], &mut object.resource),
            (br#","namespace":""#, &mut object.namespace),
            (br#","name":""#, &mut object.name),
            (br#","uid":""#, &mut object.uid),
            (br#","apiGroup":""#, &mut object.api_group),
            (br#","apiVersion":""#, &mut object.api_version),
            (br#","resourceVersion":""#, &mut object.resource_version),
            (br#","subresource":""#, &mut object.subresource),
        ] {
            if self.member(key, &mut first) {
                *text = self.string()?;
            }
        }
        self.skip(b"}").then_some(())
    }

    #[inline(always)]
    fn status(&mut self, event: &mut Event<'a>) -> Option<()> {
        let mut first = true;
        self.member(br#","metadata":{}"#, &mut first);
        if self.member(br#","status":""#, &mut first) {
            self.string()?;
        }
        if self.member(br#","message":""#, &mut first) {
            event.status.message = self.string()?;
        }
        if self.member(br#","reason":""#, &mut first) {
            event.status.reason = self.string()?;
        }
        if self.member(br#","details":"#, &mut first) {
            if self.line.get(self.at) != Some(&b'{') {
                return None;
            }
            self.container()?;
        }
        if self.member(br#","code":"#, &mut first) {
            // Three digits, as all status codes; others are for the other parser.
            let digits = self.line.get(self.at..)?.first_chunk::<3>()?;
            let mut code = 0;
            for digit in digits {
                code = code * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
            }
            if digits[0] == b'0' {
                return None;
            }
            self.at += 3;
            event.status.code = Some(code);
        }
        self.skip(b"}").then_some(())
    }

    /// A body: an object, or nothing.
    #[inline(always)]
    fn body(&mut self, key: &[u8]) -> Option<Option<&'a [u8]>> {
        if !self.skip(key) {
            return Some(None);
        }
        match self.line.get(self.at)? {
            b'{' => Some(Some(self.container()?)),
            _ => None,
        }
    }
}

/// Reads a line, which has no newline any more. `None`: it must be read by the other parser.
#[inline]
pub(super) fn parse<'a>(line: &'a [u8], event: &mut Event<'a>) -> Option<()> {
    let mut cursor = Cursor { line, at: 0 };
    if !cursor.skip(START) {
        return None;
    }
    event.raw = line;
    event.level = cursor.string()?;
    for (key, text) in [
        (&br#","auditID":""#[..], &mut event.audit_id),
        (br#","stage":""#, &mut event.stage),
        (br#","requestURI":""#, &mut event.request_uri),
        (br#","verb":""#, &mut event.verb),
    ] {
        if !cursor.skip(key) {
            return None;
        }
        *text = cursor.string()?;
    }
    if !cursor.skip(br#","user":{"#) {
        return None;
    }
    cursor.user(&mut event.user)?;
    if cursor.skip(br#","impersonatedUser":{"#) {
        cursor.user(event.impersonated_user.insert(User::default()))?;
    }
    if cursor.skip(br#","authenticationMetadata":"#) {
        if line.get(cursor.at) != Some(&b'{') {
            return None;
        }
        cursor.container()?;
    }
    if cursor.skip(br#","sourceIPs":"#) {
        event.source_ips = Some(cursor.strings()?);
    }
    cursor.optional(br#","userAgent":""#, &mut event.user_agent)?;
    if cursor.skip(br#","objectRef":{"#) {
        cursor.object(event)?;
    }
    if cursor.skip(br#","responseStatus":{"#) {
        cursor.status(event)?;
    }
    event.request_object = cursor.body(br#","requestObject":"#)?;
    event.response_object = cursor.body(br#","responseObject":"#)?;
    cursor.optional(br#","requestReceivedTimestamp":""#, &mut event.received)?;
    cursor.optional(br#","stageTimestamp":""#, &mut event.stage_time)?;
    if cursor.skip(br#","annotations":"#) {
        if line.get(cursor.at) != Some(&b'{') {
            return None;
        }
        event.annotations = Some(cursor.container()?);
    }
    (cursor.skip(b"}") && cursor.at == line.len()).then_some(())
}
