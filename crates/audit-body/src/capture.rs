//! Captures one body while it is forwarded, and converts it for the audit event.

use std::io::{self, Write};
use std::sync::Arc;

use aws_lc_rs::digest;

use super::budget::{Account, Budget, Reservation};
use super::compact::{Compacted, Compactor, NotJson, Options, Text};
use super::content_encoding::{Decoder, Encoding};
use super::redact::CompiledPaths;
use super::redacted::{hex, redacted_whole};
use super::text::as_string;
use super::tidy::{MAX_DEPTH, Tidied, tidy};
use super::truncate;
use crate::decode;
use crate::object::MediaType;

/// How much of the raw body is kept in addition to the converted JSON, in case the body turns out
/// not to be JSON.
const HEAD: usize = 4 << 10;

/// The body is copied once when the event is encoded; the copy stays in memory until it is written.
const COPIES: usize = 2;

/// How a body is to be recorded.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The format.
    pub media_type: MediaType,
    /// The compression.
    pub encoding: Encoding,
    /// The maximum size that is recorded, in bytes.
    pub limit: usize,
    /// The size on the wire in bytes, if known.
    pub length: Option<u64>,
    /// Whether `managedFields` are left out.
    pub omit_managed_fields: bool,
    /// The values to redact.
    pub redact: Option<Arc<CompiledPaths>>,
    /// Whether the raw body is kept until its end. This is so for requests: they are short, and
    /// what is recorded depends on the response of the API server.
    pub keep_whole: bool,
}

/// Captures one body. It never delays or limits the body itself.
pub struct Capture {
    plan: Plan,
    decoder: Option<Decoder<Collected>>,
    /// Bytes on the wire so far.
    wire: u64,
    /// Why decompression ended early.
    stopped: Option<&'static str>,
}

/// A body as recorded in an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Compact JSON.
    pub json: Vec<u8>,
    /// The size and digest of the whole body, if `json` is only a part of it.
    pub cut: Option<Cut>,
    /// Why `json` differs from the body.
    pub note: Option<String>,
}

/// The size and digest of a body that is not recorded completely.
#[derive(Debug, PartialEq, Eq)]
pub struct Cut {
    /// The size of the body in bytes; the decompressed size, if it was decompressed to its end.
    pub bytes: u64,
    /// The SHA-256 in hexadecimal, if known.
    pub sha256: Option<String>,
}

impl Capture {
    /// Begins to capture a body. Its memory is reserved from the budget for `account`.
    pub fn new(plan: Plan, budget: &Arc<Budget>, account: Account) -> Capture {
        let collected = Collected::new(&plan, budget.reservation(account));
        let decoder = Decoder::new(plan.encoding, collected);
        let stopped = decoder.is_none().then_some("its Content-Encoding is unknown");
        Capture { plan, decoder, wire: 0, stopped }
    }

    /// Takes the next bytes from the wire.
    pub fn push(&mut self, bytes: &[u8]) {
        self.wire += bytes.len() as u64;
        if self.stopped.is_some() {
            return;
        }
        let Some(decoder) = &mut self.decoder else { return };
        if decoder.push(bytes).is_err() {
            let full = decoder.target().is_full();
            self.stopped = Some(if full { "it is too long" } else { "it does not decompress" });
        }
    }

    /// Returns the decompressed body so far, if it is kept as it is: requests, and formats other
    /// than JSON.
    pub fn whole(&mut self) -> Option<&[u8]> {
        match &self.decoder.as_mut()?.target().form {
            Form::Whole { bytes, .. } => Some(bytes),
            Form::Json { .. } => None,
        }
    }

    /// Takes the body, if it is complete and kept as it is.
    pub fn take_whole(&mut self) -> Option<Vec<u8>> {
        if self.stopped.is_some() {
            return None;
        }
        let collected = self.decoder.as_mut()?.target();
        match &mut collected.form {
            Form::Whole { bytes, .. } if collected.length == bytes.len() as u64 => {
                Some(std::mem::take(bytes))
            }
            _ => None,
        }
    }

    /// Completes the record of a body that was taken by [`Capture::take_whole`] and has been
    /// decoded.
    pub fn finish_decoded(
        self,
        body: &[u8],
        decoded: &Result<decode::Decoded<'_>, decode::DecodeError>,
    ) -> Recorded {
        let mut recorded = match decoded {
            Ok(decoded) => {
                let mut recorded = self.compact(&decoded.json, body, true);
                recorded.note = recorded.note.or_else(|| decoded.note.clone());
                recorded
            }
            Err(error) => self.not_json(body, false, error.message.clone()),
        };
        if let Some(cut) = &mut recorded.cut {
            *cut = Cut { bytes: body.len() as u64, sha256: Some(sha256(body)) };
        }
        recorded
    }

    /// Whether no bytes have arrived.
    pub fn is_empty(&self) -> bool {
        self.wire == 0
    }

    /// Ends the body. `complete`: all of it has arrived.
    pub fn finish(mut self, complete: bool) -> Recorded {
        let Some(mut decoder) = self.decoder.take() else {
            let note = self.stopped.map(str::to_owned);
            return Recorded { json: b"null".to_vec(), cut: self.cut_on_wire(), note };
        };
        if self.stopped.is_none() && complete && decoder.end().is_err() {
            let full = decoder.target().is_full();
            self.stopped = Some(if full { "it is too long" } else { "it does not decompress" });
        }
        let complete = complete && self.stopped.is_none();
        let Collected { form, length, short, .. } = decoder.target().take();
        let mut recorded = match form {
            Form::Json { compactor, head } => {
                let compacted =
                    if complete { compactor.finish() } else { compactor.finish_broken_off() };
                self.compacted(compacted, &head, length > head.len() as u64)
            }
            Form::Whole { bytes, digest } => {
                let cut = length > bytes.len() as u64;
                let mut recorded = self.converted(&bytes, complete && !cut);
                if cut {
                    let sha256 = digest.map(|digest| hex(digest.finish().as_ref()));
                    recorded.cut = Some(Cut { bytes: length, sha256 });
                } else if let Some(cut) = &mut recorded.cut {
                    *cut = Cut { bytes: length, sha256: Some(sha256(&bytes)) };
                }
                recorded
            }
        };
        if let Some(why) = self.stopped {
            recorded.cut = self.cut_on_wire();
            recorded.note = Some(why.to_owned());
        }
        if let (true, Some(cut)) = (short, &recorded.cut) {
            let bytes = cut.bytes;
            recorded.note = Some(format!(
                "the memory for bodies was in use (--audit-total-body-bytes), so only the first part \
                 of {bytes} bytes is recorded"
            ));
        }
        recorded
    }

    fn cut_on_wire(&self) -> Option<Cut> {
        Some(Cut { bytes: self.wire, sha256: None })
    }

    /// Converts a body that was kept as it is to JSON.
    fn converted(&self, bytes: &[u8], complete: bool) -> Recorded {
        let json = match self.plan.media_type {
            MediaType::Json => return self.compact(bytes, bytes, complete),
            MediaType::Yaml => {
                let recorded = self.compact(bytes, bytes, complete);
                if recorded.note.is_none() {
                    return recorded;
                }
                decode::to_json(MediaType::Yaml, bytes, self.plan.limit)
            }
            media_type => decode::to_json(media_type, bytes, self.plan.limit),
        };
        match json {
            Ok(converted) => {
                let mut recorded = self.compact(&converted.json, bytes, true);
                if converted.truncated {
                    recorded.cut.get_or_insert(Cut { bytes: 0, sha256: None });
                }
                recorded.note = recorded.note.or(converted.note);
                recorded
            }
            Err(why) => self.not_json(bytes, !complete, why),
        }
    }

    /// Compacts JSON that was converted from `original`.
    fn compact(&self, json: &[u8], original: &[u8], complete: bool) -> Recorded {
        let mut compactor = Compactor::new(options(&self.plan, false));
        compactor.push(json);
        let compacted = if complete { compactor.finish() } else { compactor.finish_broken_off() };
        self.compacted(compacted, original, false)
    }

    fn compacted(&self, compacted: Compacted, original: &[u8], part: bool) -> Recorded {
        let Compacted { text, original_bytes, original_sha256, odd } = compacted;
        let cut = || {
            Some(Cut {
                bytes: original_bytes,
                sha256: original_sha256.as_ref().map(|sha256| hex(sha256)),
            })
        };
        match text {
            Ok(text) => {
                let (text, note) = self.readable(text, odd);
                Recorded { cut: if text.truncated { cut() } else { None }, json: text.json, note }
            }
            Err(error @ NotJson { .. }) => {
                let mut recorded = self.not_json(original, part, error.to_string());
                if part {
                    recorded.cut = cut();
                }
                recorded
            }
        }
    }

    /// Makes a text readable for every program that reads the log. Returns a note for the event, if
    /// that changed something.
    fn readable(&self, text: Text, odd: bool) -> (Text, Option<String>) {
        if !odd && std::str::from_utf8(&text.json).is_ok() {
            return (text, None);
        }
        let Tidied { mut json, omitted } = tidy(&text.json);
        let truncated = json.len() > self.plan.limit;
        if truncated {
            truncate::close(&mut json, self.plan.limit);
        }
        let note = omitted.then(|| {
            format!(
                "values nested deeper than {MAX_DEPTH} levels are replaced by their size and digest"
            )
        });
        (Text { json, truncated: text.truncated || truncated }, note)
    }

    /// Records the body as a string, for a request that is rejected because its body is ambiguous.
    pub fn finish_raw(mut self) -> Recorded {
        let bytes = match self.decoder.take() {
            Some(mut decoder) => match decoder.target().take().form {
                Form::Whole { bytes, .. } => bytes,
                Form::Json { head, .. } => head,
            },
            None => Vec::new(),
        };
        let part = self.wire > bytes.len() as u64;
        let mut recorded = self.not_json(&bytes, part, String::new());
        recorded.note = None;
        if recorded.cut.is_some() {
            recorded.cut = self.cut_on_wire();
        }
        recorded
    }

    /// Whether finishing may take so long that it should not run on a thread that serves requests.
    pub fn is_heavy(&mut self) -> bool {
        let media_type = self.plan.media_type;
        self.whole().is_some_and(|bytes| bytes.len() > heavy_from(media_type))
    }

    /// Records a body that is not JSON as a string.
    fn not_json(&self, bytes: &[u8], part: bool, why: String) -> Recorded {
        if self.plan.redact.is_some() {
            let json = redacted_whole(bytes).into_bytes();
            return Recorded { json, cut: None, note: Some(why) };
        }
        let (text, _) = as_string(bytes, self.plan.limit);
        let cut = (text.truncated || part).then_some(Cut { bytes: 0, sha256: None });
        Recorded { json: text.json, cut, note: Some(why) }
    }
}

/// The decompressed bytes.
pub(crate) struct Collected {
    form: Form,
    limit: usize,
    reservation: Reservation,
    length: u64,
    /// Whether there was not enough memory for all of it.
    short: bool,
    /// Whether decompression ends when nothing more is recorded. A body that is not compressed is
    /// counted and hashed to its end.
    ends_when_full: bool,
}

enum Form {
    /// Compacted while it arrives.
    Json { compactor: Box<Compactor>, head: Vec<u8> },
    /// Kept up to the limit. When it exceeds the limit, a digest is computed, of the kept bytes
    /// too.
    Whole { bytes: Vec<u8>, digest: Option<digest::Context> },
}

impl Collected {
    fn new(plan: &Plan, reservation: Reservation) -> Collected {
        // A body that fits even if each byte is escaped cannot be cut, and needs no digest.
        let fits = plan.encoding == Encoding::Identity
            && plan.length.is_some_and(|length| length <= plan.limit as u64 / 6);
        let form = match plan.media_type {
            MediaType::Json if !plan.keep_whole => Form::Json {
                compactor: Box::new(Compactor::new(options(plan, !fits))),
                head: Vec::new(),
            },
            _ => Form::Whole { bytes: Vec::new(), digest: None },
        };
        let ends_when_full = plan.encoding != Encoding::Identity;
        let limit = plan.limit;
        Collected { form, limit, reservation, length: 0, short: false, ends_when_full }
    }

    fn take(&mut self) -> Collected {
        let empty = Form::Whole { bytes: Vec::new(), digest: None };
        Collected {
            form: std::mem::replace(&mut self.form, empty),
            limit: self.limit,
            reservation: self.reservation.take(),
            length: self.length,
            short: self.short,
            ends_when_full: self.ends_when_full,
        }
    }

    fn is_full(&self) -> bool {
        self.length > self.limit as u64
    }
}

impl Write for Collected {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.length += piece.len() as u64;
        match &mut self.form {
            Form::Json { compactor, head } => {
                let room = HEAD.saturating_sub(head.len()).min(piece.len());
                head.extend_from_slice(&piece[..room]);
                compactor.push(piece);
                if !self.reservation.hold(COPIES * compactor.memory()) {
                    self.short = true;
                    compactor.lower_limit((self.reservation.held() / COPIES).min(self.limit));
                }
            }
            Form::Whole { bytes, digest } => {
                let room = self.limit.saturating_sub(bytes.len()).min(piece.len());
                let kept = digest.is_none() && self.reservation.hold(COPIES * (bytes.len() + room));
                self.short |= digest.is_none() && !kept;
                if kept {
                    bytes.extend_from_slice(&piece[..room]);
                }
                let rest = if kept { &piece[room..] } else { piece };
                if !rest.is_empty() {
                    let so_far = || {
                        let mut digest = digest::Context::new(&digest::SHA256);
                        digest.update(bytes);
                        digest
                    };
                    digest.get_or_insert_with(so_far).update(rest);
                }
            }
        }
        if self.ends_when_full && self.is_full() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the size in bytes above which a body is converted on a separate thread. Smaller ones
/// take up to about a millisecond.
pub fn heavy_from(media_type: MediaType) -> usize {
    match media_type {
        MediaType::Json => 64 << 10,
        MediaType::Yaml => 4 << 10,
        MediaType::Protobuf | MediaType::Cbor => 32 << 10,
        MediaType::Other => 256 << 10,
    }
}

fn options(plan: &Plan, digest: bool) -> Options {
    Options {
        limit: Some(plan.limit),
        digest,
        omit_managed_fields: plan.omit_managed_fields,
        redact: plan.redact.clone(),
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests;
