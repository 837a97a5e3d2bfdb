//! Parses events whose members are in the order in which kube-apiserver and kube-audit-proxy write
//! them.
//!
//! Both write each member at most once, in a fixed order, and without white space. Such a line is
//! parsed by comparing the expected keys, without searching for the ends of keys. If a line
//! deviates in any way, the parser for arbitrary JSON parses it, so both parsers agree on every
//! line.

use super::json::{container_end, list_end, string_end, texts_end};
use super::{Event, Text, User};

/// The start of all such lines.
const START: &[u8; 56] = br#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":""#;

/// A position in a line.
struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Returns whether `text` is at `at`. The compiler knows the length, so the comparison needs no
    /// function call.
    #[inline(always)]
    fn has<const N: usize>(&self, at: usize, text: &[u8; N]) -> bool {
        self.line.get(at..).and_then(<[u8]>::first_chunk) == Some(text)
    }

    /// Skips `text` if it is next.
    #[inline(always)]
    fn skip<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        let is_next = self.has(self.at, text);
        if is_next {
            self.at += N;
        }
        is_next
    }

    /// Reads a string after its opening quote, which was skipped.
    #[inline(always)]
    fn string(&mut self) -> Option<Text<'a>> {
        let end = string_end(self.line, self.at)?;
        let text = Text::new(&self.line[self.at..end]);
        self.at = end + 1;
        Some(text)
    }

    /// Reads an optional string member; `key` includes the opening quote of its value.
    #[inline(always)]
    fn optional<const N: usize>(&mut self, key: &[u8; N], text: &mut Text<'a>) -> Option<()> {
        if self.skip(key) {
            *text = self.string()?;
        }
        Some(())
    }

    /// Reads a required string member.
    #[inline(always)]
    fn required<const N: usize>(&mut self, key: &[u8; N], text: &mut Text<'a>) -> Option<()> {
        if !self.skip(key) {
            return None;
        }
        *text = self.string()?;
        Some(())
    }

    /// Reads the object or list that begins here.
    #[inline(always)]
    fn container(&mut self) -> Option<&'a [u8]> {
        let end = container_end(self.line, self.at)?;
        let value = &self.line[self.at..end];
        self.at = end;
        matches!((value[0], value[value.len() - 1]), (b'{', b'}') | (b'[', b']')).then_some(value)
    }

    /// Reads the list of strings that begins here.
    #[inline(always)]
    fn strings(&mut self) -> Option<&'a [u8]> {
        let end = list_end(self.line, self.at)?;
        let value = &self.line[self.at..end];
        self.at = end;
        Some(value)
    }

    #[inline(always)]
    fn user(&mut self, user: &mut User<'a>) -> Option<()> {
        let mut members = Members::of(self)?;
        members.string(self, br#""username":""#, &mut user.name)?;
        members.string(self, br#""uid":""#, &mut user.uid)?;
        if members.next(self, br#""groups":"#) {
            user.groups = Some(self.strings()?);
        }
        if members.next(self, br#""extra":"#) {
            user.extra = Some(self.braces()?);
        }
        members.end(self)
    }

    #[inline(always)]
    fn object(&mut self, event: &mut Event<'a>) -> Option<()> {
        let object = &mut event.object;
        let mut members = Members::of(self)?;
        members.string(self, br#""resource":""#, &mut object.resource)?;
        members.string(self, br#""namespace":""#, &mut object.namespace)?;
        members.string(self, br#""name":""#, &mut object.name)?;
        members.string(self, br#""uid":""#, &mut object.uid)?;
        members.string(self, br#""apiGroup":""#, &mut object.api_group)?;
        members.string(self, br#""apiVersion":""#, &mut object.api_version)?;
        members.string(self, br#""resourceVersion":""#, &mut object.resource_version)?;
        members.string(self, br#""subresource":""#, &mut object.subresource)?;
        members.end(self)
    }

    #[inline(always)]
    fn status(&mut self, event: &mut Event<'a>) -> Option<()> {
        let status = &mut event.status;
        let mut members = Members::of(self)?;
        members.next(self, br#""metadata":{}"#);
        members.string(self, br#""status":""#, &mut Text::default())?;
        members.string(self, br#""message":""#, &mut status.message)?;
        members.string(self, br#""reason":""#, &mut status.reason)?;
        if members.next(self, br#""details":"#) {
            self.braces()?;
        }
        if members.next(self, br#""code":"#) {
            // All HTTP status codes have three digits. The general parser handles anything else.
            let digits = self.line.get(self.at..)?.first_chunk::<3>()?;
            let mut code = 0;
            for digit in digits {
                code = code * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
            }
            if digits[0] == b'0' {
                return None;
            }
            self.at += 3;
            status.code = Some(code);
        }
        members.end(self)
    }

    /// Reads an object. Returns `None` if another value begins here.
    #[inline(always)]
    fn braces(&mut self) -> Option<&'a [u8]> {
        match self.line.get(self.at)? {
            b'{' => self.container(),
            _ => None,
        }
    }

    /// Reads an object in which all values are strings. Returns `None` if another value begins
    /// here.
    #[inline(always)]
    fn texts(&mut self) -> Option<&'a [u8]> {
        let Some(end) = texts_end(self.line, self.at) else { return self.braces() };
        let value = &self.line[self.at..end];
        self.at = end;
        Some(value)
    }

    /// Reads an optional body, which must be an object.
    #[inline(always)]
    fn body<const N: usize>(&mut self, key: &[u8; N]) -> Option<Option<&'a [u8]>> {
        match self.skip(key) {
            true => self.braces().map(Some),
            false => Some(None),
        }
    }
}

/// Reads the members of an object. The cursor is at the byte before the next member.
struct Members {
    /// The byte that precedes a next member: the opening brace before the first one, a comma before
    /// others.
    before: u8,
}

impl Members {
    /// Returns the members of the object that begins at the cursor.
    #[inline(always)]
    fn of(cursor: &Cursor<'_>) -> Option<Members> {
        (cursor.line.get(cursor.at) == Some(&b'{')).then_some(Members { before: b'{' })
    }

    /// Skips a key if it is next.
    #[inline(always)]
    fn next<const N: usize>(&mut self, cursor: &mut Cursor<'_>, key: &[u8; N]) -> bool {
        let is_next =
            cursor.has(cursor.at + 1, key) && cursor.line.get(cursor.at) == Some(&self.before);
        if is_next {
            cursor.at += N + 1;
            self.before = b',';
        }
        is_next
    }

    /// Reads an optional string; `key` includes the opening quote of its value.
    #[inline(always)]
    fn string<'a, const N: usize>(
        &mut self,
        cursor: &mut Cursor<'a>,
        key: &[u8; N],
        text: &mut Text<'a>,
    ) -> Option<()> {
        if self.next(cursor, key) {
            *text = cursor.string()?;
        }
        Some(())
    }

    /// Skips the closing brace.
    #[inline(always)]
    fn end(self, cursor: &mut Cursor<'_>) -> Option<()> {
        if self.before == b'{' {
            cursor.at += 1;
        }
        cursor.skip(b"}").then_some(())
    }
}

/// Parses a line without its newline. `None` if the other parser must parse it.
#[inline]
pub(super) fn parse<'a>(line: &'a [u8], event: &mut Event<'a>) -> Option<()> {
    let mut cursor = Cursor { line, at: 0 };
    if !cursor.skip(START) {
        return None;
    }
    event.raw = line;
    event.level = cursor.string()?;
    cursor.required(br#","auditID":""#, &mut event.audit_id)?;
    cursor.required(br#","stage":""#, &mut event.stage)?;
    cursor.required(br#","requestURI":""#, &mut event.request_uri)?;
    cursor.required(br#","verb":""#, &mut event.verb)?;
    if !cursor.skip(br#","user":"#) {
        return None;
    }
    cursor.user(&mut event.user)?;
    if cursor.skip(br#","impersonatedUser":"#) {
        cursor.user(event.impersonated_user.insert(User::default()))?;
    }
    if cursor.skip(br#","authenticationMetadata":"#) {
        cursor.braces()?;
    }
    if cursor.skip(br#","sourceIPs":"#) {
        event.source_ips = Some(cursor.strings()?);
    }
    cursor.optional(br#","userAgent":""#, &mut event.user_agent)?;
    if cursor.skip(br#","objectRef":"#) {
        cursor.object(event)?;
    }
    if cursor.skip(br#","responseStatus":"#) {
        cursor.status(event)?;
    }
    event.request_object = cursor.body(br#","requestObject":"#)?;
    event.response_object = cursor.body(br#","responseObject":"#)?;
    cursor.optional(br#","requestReceivedTimestamp":""#, &mut event.received)?;
    cursor.optional(br#","stageTimestamp":""#, &mut event.stage_time)?;
    if cursor.skip(br#","annotations":"#) {
        event.annotations = Some(cursor.texts()?);
    }
    (cursor.skip(b"}") && cursor.at == line.len()).then_some(())
}
