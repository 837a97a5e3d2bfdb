//! Reads inputs in chunks of complete lines.

use std::io::{self, ErrorKind, Read};
use std::ops::{ControlFlow, Range};

use memchr::{memchr, memrchr};

use crate::event::json;

/// Bytes per read. Fits into the L2 cache.
const BLOCK: usize = 256 << 10;
/// Bytes read beyond the end of a segment to complete its last line.
const BEYOND: usize = 16 << 10;
/// Maximum length of a line. Far longer than any event: kube-apiserver accepts request bodies of up
/// to 3 MiB.
const MAX_LINE: usize = 256 << 20;

/// A read buffer that one thread reuses for all of its pieces.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Number of valid bytes in `bytes`.
    length: usize,
}

impl Buffer {
    fn reset(&mut self) {
        self.length = 0;
        self.fit();
    }

    /// Makes room for another read. Frees the memory that a long line needed.
    fn fit(&mut self) {
        if self.bytes.len() > 16 * BLOCK && self.length < BLOCK {
            self.bytes = self.bytes[..self.length].to_vec();
        }
        if self.bytes.len() < self.length + BLOCK / 4 {
            self.bytes.resize((self.length * 2).max(BLOCK), 0);
        }
    }

    fn discard(&mut self, length: usize) {
        self.bytes.copy_within(length..self.length, 0);
        self.length -= length;
    }

    fn valid(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Reads once, at most `limit` bytes. Returns `false` at the end of the input.
    fn read(
        &mut self,
        limit: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        self.fit();
        let free = &mut self.bytes[self.length..];
        let limit = limit.min(free.len());
        let count = read(&mut free[..limit])?;
        self.length += count;
        Ok(count > 0)
    }

    fn check(&self, offset: u64) -> io::Result<()> {
        if self.length < MAX_LINE {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "the line at byte {offset} is longer than {} MiB",
            MAX_LINE >> 20
        )))
    }
}

/// Calls `each` with blocks of complete lines that begin within `range`, and the offset of each
/// block. The last line of the text may lack its newline. `is_start` states that a line is known to
/// begin at `range.start`.
pub(super) fn of_range(
    mut read_at: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
    range: Range<u64>,
    is_start: bool,
    buffer: &mut Buffer,
    mut each: impl FnMut(&[u8], u64) -> ControlFlow<()>,
) -> io::Result<()> {
    buffer.reset();
    // If the byte before the range is a newline, a line begins at the start of the range.
    let mut in_line = range.start > 0 && !is_start;
    let mut base = range.start - u64::from(in_line);
    let mut ended = false;
    while !ended {
        let wanted = (range.end - base) as usize + BEYOND;
        // Doubles with each read within a long line.
        let limit = wanted.saturating_sub(buffer.length).max(buffer.length).max(BEYOND);
        let offset = base + buffer.length as u64;
        // The data already in the buffer contains no newline.
        let mut fresh = buffer.length;
        ended = !retry(|| buffer.read(limit, |free| read_at(free, offset)))?;
        if in_line {
            match memchr(b'\n', buffer.valid()) {
                Some(newline) => {
                    buffer.discard(newline + 1);
                    base += newline as u64 + 1;
                    in_line = false;
                    fresh = 0;
                }
                None => {
                    base += buffer.length as u64;
                    buffer.length = 0;
                }
            }
            if base >= range.end {
                return Ok(());
            }
            if in_line {
                continue;
            }
        }
        // The last line of the range ends at the first newline from here on.
        let last = fresh.max((range.end - 1 - base) as usize);
        let valid = buffer.valid();
        let end = match valid.get(last..).and_then(|rest| memchr(b'\n', rest)) {
            Some(newline) => {
                ended = true;
                last + newline + 1
            }
            None if ended => valid.len(),
            None => memrchr(b'\n', &valid[fresh..]).map_or(0, |newline| fresh + newline + 1),
        };
        if end > 0 && each(&valid[..end], base).is_break() {
            return Ok(());
        }
        buffer.discard(end);
        base += end as u64;
        buffer.check(base)?;
    }
    Ok(())
}

/// Calls `each` with blocks of complete lines of a stream, and the offset of each block.
pub(crate) fn of_stream(
    mut stream: impl Read,
    buffer: &mut Buffer,
    mut each: impl FnMut(&[u8], u64) -> ControlFlow<()>,
) -> io::Result<()> {
    buffer.reset();
    let mut base = 0;
    loop {
        let fresh = buffer.length;
        let more = retry(|| buffer.read(BLOCK, |free| stream.read(free)));
        // Complete lines before an error, such as the end of a truncated compressed file, still
        // count.
        let ended = !matches!(more, Ok(true));
        let valid = buffer.valid();
        let end = match ended {
            true => valid.len(),
            false => memrchr(b'\n', &valid[fresh..]).map_or(0, |newline| fresh + newline + 1),
        };
        if end > 0 && each(&valid[..end], base).is_break() {
            return Ok(());
        }
        buffer.discard(end);
        base += end as u64;
        if !more? {
            return Ok(());
        }
        buffer.check(base)?;
    }
}

/// Calls `each` with each JSON value of a stream, and its offset. Values may span lines. Invalid
/// text between values is passed to `each` up to the end of its line.
pub(super) fn of_document(
    mut stream: impl Read,
    buffer: &mut Buffer,
    mut each: impl FnMut(&[u8], u64) -> ControlFlow<()>,
) -> io::Result<()> {
    buffer.reset();
    let (mut base, mut ended) = (0, false);
    loop {
        let valid = buffer.valid();
        let start = json::skip_space(valid, 0);
        let end = match valid.get(start) {
            Some(b'{' | b'[') => json::container_end(valid, start),
            Some(_) => memchr(b'\n', &valid[start..]).map(|newline| start + newline + 1),
            None => None,
        };
        let end = end.or((ended && start < valid.len()).then_some(valid.len()));
        match end {
            Some(end) => {
                if each(&valid[start..end], base + start as u64).is_break() {
                    return Ok(());
                }
                buffer.discard(end);
                base += end as u64;
            }
            None if ended => return Ok(()),
            None => {
                buffer.check(base)?;
                // Doubles each time, because the value is parsed from its start again.
                let wanted = (buffer.length * 2).max(BLOCK);
                while !ended && buffer.length < wanted {
                    ended = !retry(|| buffer.read(BLOCK, |free| stream.read(free)))?;
                }
            }
        }
    }
}

fn retry(mut read: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
    loop {
        match read() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;
    use crate::test_folder::TestFolder;

    fn lines_of(file: &File, range: Range<u64>) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        let mut buffer = Buffer::default();
        of_range(
            |free, at| file.read_at(free, at),
            range,
            false,
            &mut buffer,
            |bytes, mut offset| {
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    found.push((offset, line.to_vec()));
                    offset += line.len() as u64;
                }
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn each_line_is_in_one_range(
            lengths in prop::collection::vec(0..40_usize, 0..30),
            long in 0..3_usize,
            newline: bool,
            size in 1..200_u64,
        ) {
            let mut text = Vec::new();
            for length in &lengths {
                text.extend(std::iter::repeat_n(b'a', *length));
                text.push(b'\n');
            }
            text.extend(std::iter::repeat_n(b'b', long * BLOCK));
            text.extend(newline.then_some(b'\n'));
            let folder = TestFolder::new();
            let file = File::open(folder.write("a", &text)).unwrap();
            let size = if long > 0 { size * 1000 } else { size };
            let mut found = Vec::new();
            let mut start = 0;
            while start < text.len() as u64 {
                let end = (start + size).min(text.len() as u64);
                found.extend(lines_of(&file, start..end));
                start = end;
            }
            let mut expected = Vec::new();
            let mut offset = 0;
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                expected.push((offset, line.to_vec()));
                offset += line.len() as u64;
            }
            prop_assert!(found == expected);
            let mut streamed = Vec::new();
            of_stream(&text[..], &mut Buffer::default(), |bytes, _| {
                streamed.extend_from_slice(bytes);
                ControlFlow::Continue(())
            })
            .unwrap();
            prop_assert!(streamed == text);
        }
    }

    #[test]
    fn documents_are_split_into_values() {
        let text = b"{\n \"a\": [1,\n 2]\n}\n{\"b\":\"}\"} oops\n[\n3]\n{\"torn\":";
        let mut found = Vec::new();
        of_document(&text[..], &mut Buffer::default(), |value, offset| {
            assert!(text[offset as usize..].starts_with(value));
            found.push(String::from_utf8_lossy(value).into_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
        let expected = ["{\n \"a\": [1,\n 2]\n}", "{\"b\":\"}\"}", "oops\n", "[\n3]", "{\"torn\":"];
        assert_eq!(found, expected);
    }
}
