//! One pass over a JSON body as it arrives: validated, compacted, escaped, filtered, bounded.

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

/// As deep as Go's scanner lets containers be in each other.
const MAX_DEPTH: usize = 10_000;

/// No name in a path is longer, even if each of its bytes is written as `\u00xx`.
const MAX_RAW_NAME: usize = 6 * MAX_NAME;

/// What a [`Compactor`] does besides compacting.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The most bytes that the recorded text may have; `None` for no limit.
    pub limit: Option<usize>,
    /// Whether to compute the SHA-256 of the body as it arrives. The body is read only once, so
    /// this must be known from the start.
    pub digest: bool,
    /// Leave out `managedFields` where kube-apiserver's `omitManagedFields` does.
    pub omit_managed_fields: bool,
    /// Values to replace by their size and digest.
    pub redact: Option<Arc<CompiledPaths>>,
}

/// Turns the bytes of one JSON value, in pieces cut anywhere, into what an audit event holds of it.
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
    /// What is left to read of `true`, `false` or `null`.
    literal: &'static [u8],
    /// Hexadecimal digits left to read.
    digits: u8,
    /// Whether the string being read is the key of a member.
    in_key: bool,
    frames: Vec<Frame>,
    /// Up to where the current piece is in `text`.
    copied: usize,
    problem: Option<NotJson>,
    /// Whether there was a `\u` escape, or a number with an exponent or very many digits.
    odd: bool,
    original_bytes: u64,
    sha256: Option<digest::Context>,

    managed_fields: Option<&'static Paths<managed_fields::Action>>,
    redact: Option<Arc<CompiledPaths>>,
    /// Where the next value is.
    places: Places,
    /// Where in the current piece the string begins whose content is needed, a key or `kind`.
    wanted: Option<usize>,
    /// What earlier pieces had of it; at most one byte more than [`MAX_RAW_NAME`].
    wanted_before: Vec<u8>,
    /// The length of the text before the key being read, if it may turn out to be omitted.
    before_key: Option<usize>,
    /// Where output goes instead of into the text, while in a value that is not to be recorded.
    instead: Option<Replacement>,
    /// How many containers are open around that value.
    instead_depth: usize,
}

/// What a body has come to.
#[derive(Debug)]
pub struct Compacted {
    /// The text, or why there is none.
    pub text: Result<Text, NotJson>,
    /// How many bytes were pushed.
    pub original_bytes: u64,
    /// Their SHA-256, if it was asked for.
    pub original_sha256: Option<[u8; 32]>,
    /// Whether the text may have something that not every reader takes: `false` if it certainly has
    /// not, as long as it is UTF-8.
    pub odd: bool,
}

/// Valid compact JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The JSON text.
    pub json: Vec<u8>,
    /// Whether it was cut to fit into the limit, or since the body broke off.
    pub truncated: bool,
}

/// Why a body is not one JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not JSON: {problem} at byte {offset}")]
pub struct NotJson {
    /// How many bytes came before.
    pub offset: u64,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Problem {
    /// A byte that cannot be there.
    #[error("unexpected character")]
    Unexpected,
    /// Only whitespace may follow the value.
    #[error("unexpected data after the value")]
    Trailing,
    /// The body ends before the value does, or is empty.
    #[error("unexpected end")]
    End,
    /// More containers in each other than Go's scanner takes.
    #[error("more than {MAX_DEPTH} levels")]
    TooDeep,
}

/// An open object or array.
struct Frame {
    is_object: bool,
    /// The first member was left out, so the comma after it goes too.
    skip_comma: bool,
    places: Places,
}

/// Where a value is in the two trees of paths.
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
    /// A compactor for one body.
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
    /// Once the text is full, or the body has turned out not to be JSON, this only counts and
    /// hashes.
    pub fn push(&mut self, piece: &[u8]) {
        let offset = self.original_bytes;
        self.original_bytes += piece.len() as u64;
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(piece);
        }
        // A key that began before the text was full may yet be taken out of it.
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

    /// Ends a body that has arrived as a whole.
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

    /// Ends a body that broke off: what has arrived of it is recorded, as truncated.
    ///
    /// A value to be redacted of which the end is missing is left out.
    pub fn finish_broken_off(self) -> Compacted {
        if self.state == State::Nothing || self.problem.is_some() || self.text.is_empty() {
            return self.finish();
        }
        self.compacted(true)
    }

    /// Lowers the limit, such as when memory for all bodies runs out.
    pub fn lower_limit(&mut self, limit: usize) {
        self.limit = self.limit.min(limit);
        if self.is_full() {
            self.text.truncate(self.limit + 1);
            self.text.shrink_to_fit();
            self.before_key = None;
        }
    }

    /// How many bytes of memory are held now.
    pub fn memory(&self) -> usize {
        self.text.capacity() + self.frames.capacity() * size_of::<Frame>()
    }

    /// The text so far does not fit, and is no longer added to.
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
            // What is wrong may be beyond what is recorded.
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

    /// Adds to the text, at most one byte more than the limit, which shows that more was to come.
    fn append(&mut self, bytes: &[u8]) {
        let room = (self.limit + 1).saturating_sub(self.text.len());
        let bytes = &bytes[..bytes.len().min(room)];
        let needed = self.text.len() + bytes.len();
        if needed > self.text.capacity() {
            // Grows by doubling, but not beyond what it may hold.
            let capacity = needed.max(2 * self.text.capacity()).min(self.limit + 1);
            self.text.reserve_exact(capacity - self.text.len());
        }
        self.text.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
