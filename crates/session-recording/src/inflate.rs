//! Raw deflate streams, decompressed piece by piece.

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use crate::Unreadable;

/// Maximum number of decompressed bytes that are passed on together.
const OUTPUT: usize = 16 << 10;

/// Decompresses a raw deflate stream (RFC 1951) with a window of 32 KiB.
pub(crate) struct RawInflate {
    state: Decompress,
    output: Vec<u8>,
}

impl fmt::Debug for RawInflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawInflate").field("total_in", &self.state.total_in()).finish()
    }
}

impl RawInflate {
    pub(crate) fn new() -> RawInflate {
        RawInflate { state: Decompress::new(false), output: Vec::new() }
    }

    /// Starts with `dictionary` (at most 65,535 bytes) as the data before the stream: decompresses
    /// it from a stored block.
    pub(crate) fn with_dictionary(dictionary: &[u8]) -> RawInflate {
        let mut inflate = RawInflate::new();
        let mut block = Vec::with_capacity(dictionary.len() + 5);
        encode_stored(dictionary, &mut block);
        let primed = inflate.push(&block, &mut |_| Ok(()));
        debug_assert!(primed.is_ok());
        inflate
    }

    /// Clears the window.
    pub(crate) fn reset(&mut self) {
        self.state.reset(false);
    }

    /// Decompresses `input` and passes the result to `on`.
    pub(crate) fn push(
        &mut self,
        mut input: &[u8],
        on: &mut impl FnMut(&[u8]) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        self.output.resize(OUTPUT, 0);
        loop {
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(input, &mut self.output, FlushDecompress::None)
                .map_err(|_| Unreadable("compressed data is invalid"))?;
            let consumed = (self.state.total_in() - before_in) as usize;
            let made = (self.state.total_out() - before_out) as usize;
            input = &input[consumed..];
            if made > 0 {
                on(&self.output[..made])?;
            }
            match status {
                // The stream has a final block, and continues with another stream.
                Status::StreamEnd if input.is_empty() => {
                    self.state.reset(false);
                    return Ok(());
                }
                Status::StreamEnd => self.state.reset(false),
                _ if made < OUTPUT && (input.is_empty() || consumed == 0) => return Ok(()),
                _ => {}
            }
        }
    }
}

/// Appends a stored block with `bytes`, of which there are at most 65,535.
pub(crate) fn encode_stored(bytes: &[u8], out: &mut Vec<u8>) {
    let length = bytes.len() as u16;
    out.push(0);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
}
