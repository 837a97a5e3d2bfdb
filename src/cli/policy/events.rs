//! Events from a file or standard input, one after the other.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use audit_query::event::Event;
use serde_json::value::RawValue;

/// Something that should have been an event.
pub(super) struct NoEvent {
    /// Counted from 1.
    pub(super) line: usize,
    /// What is wrong with it.
    pub(super) problem: String,
}

/// Calls `each` with each event of the file (`-` is standard input), in order: one a line, an
/// `EventList`, or pretty-printed JSON; plain, gzip, or zstd. The number is that of the line.
///
/// # Errors
/// The file cannot be read, or `each` failed.
pub(super) fn for_each(
    path: &Path,
    mut each: impl FnMut(Result<&Event<'_>, NoEvent>, usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut input = open(path).with_context(|| path.display().to_string())?;
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read =
            input.read_until(b'\n', &mut line).with_context(|| path.display().to_string())?;
        if read == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Some(event) = Event::parse_partial(&line) {
            each(Ok(&event), number)?;
        } else if !list(&line, number, &mut each)? {
            // Perhaps the first line of an object that is printed on several.
            let is_complete = serde_json::from_slice::<serde::de::IgnoredAny>(&line).is_ok();
            if is_complete || !matches!(line.trim_ascii().first(), Some(b'{' | b'[')) {
                each(Err(no_event(number, "not an audit event")), number)?;
                continue;
            }
            input.read_to_end(&mut line).with_context(|| path.display().to_string())?;
            stream(&line, number, &mut each)?;
        }
    }
    Ok(())
}

fn no_event(line: usize, problem: impl Into<String>) -> NoEvent {
    NoEvent { line, problem: problem.into() }
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let file: Box<dyn Read> =
        if path.as_os_str() == "-" { Box::new(io::stdin()) } else { Box::new(File::open(path)?) };
    let mut input = BufReader::with_capacity(1 << 16, file);
    let start = input.fill_buf()?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(input)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Box::new(BufReader::new(zstd::Decoder::with_buffer(input)?))
    } else {
        Box::new(input)
    })
}

#[derive(serde::Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// The events of a list; `false` if it is none.
fn list(
    text: &[u8],
    line: usize,
    each: &mut impl FnMut(Result<&Event<'_>, NoEvent>, usize) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let items = serde_json::from_slice::<List<'_>>(text).map(|list| list.items);
    let Ok(items) = items.or_else(|_| serde_json::from_slice(text)) else { return Ok(false) };
    for item in items {
        match Event::parse_partial(item.get().as_bytes()) {
            Some(event) => each(Ok(&event), line)?,
            None => each(Err(no_event(line, "an item of the list is not an audit event")), line)?,
        }
    }
    Ok(true)
}

/// Values that are not one a line.
fn stream(
    text: &[u8],
    first_line: usize,
    each: &mut impl FnMut(Result<&Event<'_>, NoEvent>, usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
    loop {
        let before = &text[..values.byte_offset()];
        let line = first_line + before.iter().filter(|byte| **byte == b'\n').count();
        match values.next() {
            None => return Ok(()),
            Some(Ok(value)) => {
                let text = value.get().as_bytes();
                match Event::parse_partial(text) {
                    Some(event) => each(Ok(&event), line)?,
                    None if list(text, line, each)? => {}
                    None => each(Err(no_event(line, "not an audit event")), line)?,
                }
            }
            Some(Err(error)) => {
                let problem = format!("not JSON: {error}");
                return each(Err(no_event(line, problem)), line);
            }
        }
    }
}
