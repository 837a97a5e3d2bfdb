//! Validates, compacts, filters and truncates a JSON body in one pass while it arrives.

mod follow;
mod scanner;

use std::sync::Arc;

use aws_lc_rs::digest;
use thiserror::Error;

use super::managed_fields;
use super::paths::{MAX_NAME, Paths, Place};
use super::redact::CompiledPaths;
use super::redacted::Redacted;
use super::{tidy, truncate};
use scanner::State;

/// Go's JSON scanner allows this depth.
const MAX_DEPTH: usize = 10_000;

/// The longest spelling of a name in a path: each byte as `\u00xx`.
const MAX_RAW_NAME: usize = 6 * MAX_NAME;

/// What a [`Compactor`] does in addition to compacting.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The maximum size of the text in bytes; `None` for no limit.
    pub limit: Option<usize>,
    /// Whether to compute the SHA-256 of the body as it arrives. The body is read only once, so
    /// this must be known from the start.
    pub digest: bool,
    /// Leave out `managedFields` where kube-apiserver's `omitManagedFields` does so.
    pub omit_managed_fields: bool,
    /// Values to replace by their size and digest.
    pub redact: Option<Arc<CompiledPaths>>,
}

/// Converts a JSON value, in pieces of any size, to the text that an audit event contains.
///
/// The output is that of Go's `json.Compact` with HTML escaping: insignificant whitespace is
/// removed, `<`, `>`, `&`, U+2028 and U+2029 are escaped, and every other byte is kept, including
/// duplicate keys, the spelling of numbers, and bytes that are not UTF-8.
///
/// It keeps the text so far and twelve bytes for each open object or array, never a tree.
pub struct Compactor {
    text: Vec<u8>,
    limit: usize,
    state: State,
    /// The unread rest of `true`, `false` or `null`.
    literal: &'static [u8],
    /// The number of hexadecimal digits of a `\u` escape that are still to come.
    digits: u8,
    /// Whether the current string is a key.
    in_key: bool,
    frames: Vec<Frame>,
    /// The index in the current piece up to which it is in `text`.
    copied: usize,
    problem: Option<NotJson>,
    /// Whether there was a `\u` escape, or a number with an exponent or very many digits.
    odd: bool,
    original_bytes: u64,
    sha256: Option<digest::Context>,

    managed_fields: Option<&'static Paths<managed_fields::Action>>,
    redact: Option<Arc<CompiledPaths>>,
    /// The position of the next value in the trees of paths.
    places: Places,
    /// The index in the current piece at which the string begins whose content is needed: a key, or
    /// the value of `kind`.
    wanted: Option<usize>,
    /// The part of that string in earlier pieces; at most one byte more than [`MAX_RAW_NAME`].
    wanted_before: Vec<u8>,
    /// The length of the text before the current key, in case the member is omitted.
    before_key: Option<usize>,
    /// While in a value that is not recorded: what happens to it, instead of being added to the
    /// text.
    instead: Option<Replacement>,
    /// The number of containers that are open around that value.
    instead_depth: usize,
}

/// The result of compacting a body.
#[derive(Debug)]
pub struct Compacted {
    /// The text, or why the body is not JSON.
    pub text: Result<Text, NotJson>,
    /// The size of the body in bytes.
    pub original_bytes: u64,
    /// The SHA-256 of the body, if [`Options::digest`] is set.
    pub original_sha256: Option<[u8; 32]>,
    /// Whether some JSON parsers may reject the text. `false` is certain for text that is UTF-8.
    pub odd: bool,
}

/// Valid compact JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The JSON text.
    pub json: Vec<u8>,
    /// Whether it was cut, because of the limit or because the body is incomplete.
    pub truncated: bool,
}

/// Why a body is not one JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not JSON: {problem} at byte {offset}")]
pub struct NotJson {
    /// The number of valid bytes before the error.
    pub offset: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Problem {
    /// A byte that is not allowed at this place.
    #[error("unexpected character")]
    Unexpected,
    /// Something other than whitespace follows the value.
    #[error("unexpected data after the value")]
    Trailing,
    /// The body is empty, or ends within the value.
    #[error("unexpected end")]
    End,
    /// More levels of nesting than Go's scanner allows.
    #[error("more than {MAX_DEPTH} levels")]
    TooDeep,
}

/// An open object or array.
struct Frame {
    is_object: bool,
    /// The first member was left out, so the comma after it is left out too.
    skip_comma: bool,
    places: Places,
}

/// The position of a value in the two trees of paths.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Places {
    managed_fields: Place,
    redact: Place,
}

impl Places {
    const NOWHERE: Places = Places { managed_fields: Place::NOWHERE, redact: Place::NOWHERE };
}

/// What happens to a value that is not recorded as it is.
enum Replacement {
    Omit,
    Redact(Box<Redacted>),
}

impl Compactor {
    /// Creates a compactor for one body.
    pub fn new(options: Options) -> Compactor {
        let Options { limit, digest, omit_managed_fields, redact } = options;
        let places = Places {
            managed_fields: if omit_managed_fields {
                managed_fields::object()
            } else {
                Place::NOWHERE
            },
            redact: if redact.is_some() { Place::ROOT } else { Place::NOWHERE },
        };
        Compactor {
            text: Vec::new(),
            limit: limit.map_or(usize::MAX - 1, |limit| limit.min(usize::MAX - 1)),
            state: State::Value,
            literal: b"",
            digits: 0,
            in_key: false,
            frames: Vec::new(),
            copied: 0,
            problem: None,
            odd: false,
            original_bytes: 0,
            sha256: digest.then(|| digest::Context::new(&digest::SHA256)),
            managed_fields: omit_managed_fields.then(managed_fields::paths),
            redact,
            places,
            wanted: None,
            wanted_before: Vec::new(),
            before_key: None,
            instead: None,
            instead_depth: usize::MAX,
        }
    }

    /// Takes the next piece of the body.
    ///
    /// If the text is full, or the body is not JSON, this only counts and hashes.
    pub fn push(&mut self, piece: &[u8]) {
        let offset = self.original_bytes;
        self.original_bytes += piece.len() as u64;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(piece);
        }
        // A key that is cut at the limit may still have to be removed.
        let is_done = self.is_full() && self.before_key.is_none();
        if is_done || self.problem.is_some() {
            return;
        }
        if self.text.capacity() == 0 {
            self.text.reserve_exact(piece.len().min(self.limit + 1));
        }
        self.copied = 0;
        let end = match self.scan(piece) {
            Ok(()) if self.state == State::Separator => piece.len().saturating_sub(1),
            Ok(()) if self.state == State::SeparatorEnd => piece.len().saturating_sub(2),
            Ok(()) => piece.len(),
            Err((at, problem)) => {
                self.problem = Some(NotJson { offset: offset + at as u64, problem });
                at
            }
        };
        self.copy_to(piece, end);
        if let Some(start) = self.wanted {
            let room = MAX_RAW_NAME + 1 - self.wanted_before.len();
            let content = &piece[start..];
            self.wanted_before.extend_from_slice(&content[..content.len().min(room)]);
            self.wanted = Some(0);
        }
    }

    /// Ends a complete body.
    pub fn finish(mut self) -> Compacted {
        self.copied = 0;
        if self.frames.is_empty() && self.state.ends_a_number() {
            self.end_value(b"", 0);
        }
        if self.state != State::Nothing && self.problem.is_none() {
            self.problem = Some(NotJson { offset: self.original_bytes, problem: Problem::End });
        }
        let truncated = self.is_full();
        self.compacted(truncated)
    }

    /// Ends an incomplete body: the part that has arrived is recorded, as truncated.
    ///
    /// An incomplete value that is to be redacted is left out.
    pub fn finish_broken_off(self) -> Compacted {
        if self.state == State::Nothing || self.problem.is_some() || self.text.is_empty() {
            return self.finish();
        }
        self.compacted(true)
    }

    /// Lowers the limit, for example because the memory for all bodies is used up.
    pub fn lower_limit(&mut self, limit: usize) {
        self.limit = self.limit.min(limit);
        if self.is_full() {
            self.text.truncate(self.limit + 1);
            self.text.shrink_to_fit();
            self.before_key = None;
        }
    }

    /// Returns the number of bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.text.capacity() + self.frames.capacity() * size_of::<Frame>()
    }

    /// Whether the text exceeds the limit; nothing is added to it then.
    fn is_full(&self) -> bool {
        self.text.len() > self.limit
    }

    fn compacted(mut self, truncated: bool) -> Compacted {
        if truncated {
            truncate::close(&mut self.text, self.limit);
        }
        let original_sha256 = self.sha256.map(|sha256| {
            let digest = sha256.finish();
            digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
        });
        let text = match self.problem {
            // An error may be behind the part that is recorded.
            Some(problem) if !truncated => Err(problem),
            _ => Ok(Text { json: self.text, truncated }),
        };
        let odd = self.odd || self.frames.capacity() > tidy::MAX_DEPTH;
        Compacted { text, original_bytes: self.original_bytes, original_sha256, odd }
    }
}

/// Output.
impl Compactor {
    /// Copies what has been read up to before `end`, and not been copied.
    fn copy_to(&mut self, piece: &[u8], end: usize) {
        self.emit(&piece[self.copied..end]);
        self.copied = end;
    }

    /// Writes `written` for the bytes at `at`.
    fn replace(&mut self, piece: &[u8], at: usize, length: usize, written: &[u8]) {
        self.copy_to(piece, at);
        self.emit(written);
        self.copied = at + length;
    }

    fn emit(&mut self, bytes: &[u8]) {
        match &mut self.instead {
            None => self.append(bytes),
            Some(Replacement::Omit) => {}
            Some(Replacement::Redact(redacted)) => redacted.update(bytes),
        }
    }

    /// Adds to the text, up to one byte more than the limit, which shows that it was exceeded.
    fn append(&mut self, bytes: &[u8]) {
        let room = (self.limit + 1).saturating_sub(self.text.len());
        let bytes = &bytes[..bytes.len().min(room)];
        let needed = self.text.len() + bytes.len();
        if needed > self.text.capacity() {
            // Doubles the capacity, but not beyond the limit.
            let capacity = needed.max(2 * self.text.capacity()).min(self.limit + 1);
            self.text.reserve_exact(capacity - self.text.len());
        }
        self.text.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
