//! The state of each stream: its size, its hash, and whether it is text.

use aws_lc_rs::digest::{Context, SHA256};

use crate::cast::StreamSummary;

/// Number of bytes that decide whether a stream is text.
const SAMPLE: u64 = 8 << 10;
/// A stream with fewer bytes counts as text.
const MIN_SAMPLE: u64 = 32;

/// The state of a stream.
pub(crate) struct StreamState {
    bytes: u64,
    recorded: u64,
    /// The hash of the content that is not recorded.
    hash: Option<Context>,
    /// The number of bytes before the hashed ones.
    unhashed: u64,
    is_sampling: bool,
    sampled: u64,
    not_text: u64,
    is_binary: bool,
    is_omitted: bool,
}

impl StreamState {
    /// `may_be_binary`: whether content that is not text is treated differently. `hashes`: whether
    /// its hash is recorded instead.
    pub(crate) fn new(may_be_binary: bool, hashes: bool) -> StreamState {
        StreamState {
            bytes: 0,
            recorded: 0,
            hash: (may_be_binary && hashes).then(|| Context::new(&SHA256)),
            unhashed: 0,
            is_sampling: may_be_binary,
            sampled: 0,
            not_text: 0,
            is_binary: false,
            is_omitted: false,
        }
    }

    /// Adds bytes. Returns `true` if the stream turns out not to be text.
    pub(crate) fn count(&mut self, bytes: &[u8]) -> bool {
        self.bytes += bytes.len() as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        if !self.is_sampling {
            return false;
        }
        let sample = &bytes[..bytes.len().min((SAMPLE - self.sampled) as usize)];
        self.sampled += sample.len() as u64;
        self.not_text += not_text(sample);
        self.is_binary = self.sampled >= MIN_SAMPLE && self.not_text * 10 >= self.sampled;
        self.is_sampling = !self.is_binary && self.sampled < SAMPLE;
        if !self.is_sampling && !self.is_binary {
            // The content is covered by the hash of the recording.
            self.hash = None;
        }
        self.is_binary
    }

    /// Returns whether the stream is treated as binary.
    pub(crate) fn is_binary(&self) -> bool {
        self.is_binary
    }

    /// Adds a number of bytes whose content is in the recording.
    pub(crate) fn recorded(&mut self, bytes: usize) {
        self.recorded += bytes as u64;
    }

    /// From now on, only the hash of the content is recorded.
    pub(crate) fn omit_rest(&mut self) {
        if !self.is_binary || self.hash.is_none() {
            self.hash = Some(Context::new(&SHA256));
            self.unhashed = self.bytes;
            self.is_omitted = true;
            self.is_sampling = false;
        }
    }

    /// Returns the summary of the stream; `None` if it had no data.
    pub(crate) fn summary(&mut self) -> Option<StreamSummary> {
        if self.bytes == 0 {
            return None;
        }
        let recorded = match self.recorded {
            0 => "none",
            recorded if recorded == self.bytes => "all",
            _ => "part",
        };
        let is_hashed = self.is_binary || (self.is_omitted && self.bytes > self.unhashed);
        let hash = self.hash.take().filter(|_| is_hashed).map(|hash| hex(hash.finish().as_ref()));
        let (sha256, rest_sha256) = if self.unhashed == 0 { (hash, None) } else { (None, hash) };
        Some(StreamSummary {
            bytes: self.bytes,
            sha256,
            rest_sha256,
            recorded: recorded.to_owned(),
        })
    }
}

/// Counts bytes that do not occur in text: control characters, and bytes that are not UTF-8.
fn not_text(bytes: &[u8]) -> u64 {
    let is_control = |byte: &&u8| matches!(byte, 0..=6 | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f);
    let controls = bytes.iter().filter(is_control).count();
    let chunks = bytes.utf8_chunks();
    let invalid: usize = chunks.map(|chunk| chunk.invalid().len()).sum();
    (controls + invalid) as u64
}

/// Returns bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_binary(chunks: &[&[u8]]) -> bool {
        let mut state = StreamState::new(true, true);
        for chunk in chunks {
            state.count(chunk);
        }
        state.is_binary()
    }

    #[test]
    fn archives_are_binary_and_text_is_not() {
        let mut tar = vec![0; 512];
        tar[..8].copy_from_slice(b"file.txt");
        assert!(is_binary(&[&tar]));
        let random: Vec<u8> = (0..256_u32).map(|i| (i * 167 + 13) as u8).collect();
        assert!(is_binary(&[&random]));
        assert!(!is_binary(&["Grüße aus Köln, mit \u{1b}[1mFarbe\u{1b}[0m\r\n"
            .repeat(9)
            .as_bytes()]));
        assert!(!is_binary(&[b"caf\xe9 au lait, in Latin-1, and more than 32 bytes of it"]));
    }

    #[test]
    fn a_few_bytes_do_not_turn_the_recording_off() {
        let text = "a text of some length, at least longer than the bytes before it. ".repeat(3);
        assert!(!is_binary(&[&[0; 8], text.as_bytes()]));
    }
}
