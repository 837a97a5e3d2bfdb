//! Converts recordings to plain text.

use std::io::{self, Write};

use avt::Vt;
use avt::util::TextCollector;

use crate::read::{Item, Recording};

/// Writes what a session showed as plain text, by emulating the terminal: lines that scrolled out
/// of the screen, and then the last screen.
///
/// # Errors
/// If reading or writing fails.
pub fn write_text(mut recording: Recording, out: &mut impl Write) -> io::Result<()> {
    if !recording.header.description.tty {
        return write_plain(recording, out);
    }
    let size = |columns: u16, rows: u16| {
        // Limits the memory for the emulated screen.
        (usize::from(columns.clamp(1, 1000)), usize::from(rows.clamp(1, 1000)))
    };
    let (columns, rows) = size(recording.header.width, recording.header.height);
    let vt = Vt::builder().size(columns, rows).scrollback_limit(100).build();
    let mut collector = TextCollector::new(vt);
    let mut decoder = Utf8Decoder::default();
    while let Some(item) = recording.next_item()? {
        match item {
            Item::Output { bytes, .. } => {
                for line in collector.feed_str(&decoder.push(&bytes)) {
                    writeln!(out, "{}", line.trim_end())?;
                }
            }
            Item::Resize { columns, rows, .. } => {
                let (columns, rows) = size(columns, rows);
                for line in collector.resize(columns as u16, rows as u16) {
                    writeln!(out, "{}", line.trim_end())?;
                }
            }
            _ => {}
        }
    }
    let rest = collector.flush();
    let used = rest.iter().rposition(|line| !line.trim_end().is_empty()).map_or(0, |at| at + 1);
    for line in &rest[..used] {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Writes exactly the bytes of the session's output.
///
/// # Errors
/// If reading or writing fails.
pub fn write_raw(mut recording: Recording, out: &mut impl Write) -> io::Result<()> {
    while let Some(item) = recording.next_item()? {
        match item {
            Item::Output { bytes, .. } => out.write_all(&bytes)?,
            Item::Binary { bytes, stream, .. } if stream != crate::Stream::Stdin => {
                out.write_all(&bytes)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Without a terminal, only control sequences and control characters are removed.
fn write_plain(mut recording: Recording, out: &mut impl Write) -> io::Result<()> {
    let (mut decoder, mut filter) = (Utf8Decoder::default(), ControlFilter::default());
    while let Some(item) = recording.next_item()? {
        match item {
            Item::Output { bytes, .. } => {
                out.write_all(filter.push(&decoder.push(&bytes)).as_bytes())?;
            }
            Item::Marker(_, marker) => writeln!(out, "[{}]", filter.push(&marker))?,
            _ => {}
        }
    }
    Ok(())
}

/// Joins characters that were split, and replaces what is not UTF-8.
#[derive(Default)]
struct Utf8Decoder(Vec<u8>);

impl Utf8Decoder {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let incomplete = match std::str::from_utf8(&self.0) {
            Err(error) if error.error_len().is_none() => self.0.len() - error.valid_up_to(),
            _ => 0,
        };
        let rest = self.0.split_off(self.0.len() - incomplete);
        let text = String::from_utf8_lossy(&self.0).into_owned();
        self.0 = rest;
        text
    }
}

/// Removes control sequences.
#[derive(Default)]
enum ControlFilter {
    #[default]
    Text,
    Escape,
    /// `ESC [ …`
    Sequence,
    /// `ESC ] …` and the like, to BEL or ESC
    Text2,
}

impl ControlFilter {
    fn push(&mut self, text: &str) -> String {
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            *self = match (&self, c) {
                (_, '\u{1b}') => ControlFilter::Escape,
                (ControlFilter::Escape, '[') => ControlFilter::Sequence,
                (ControlFilter::Escape, ']' | 'P' | 'X' | '^' | '_') => ControlFilter::Text2,
                (ControlFilter::Escape, ' '..='/') => ControlFilter::Escape,
                (ControlFilter::Escape, _) => ControlFilter::Text,
                (ControlFilter::Sequence, '@'..='~') => ControlFilter::Text,
                (ControlFilter::Sequence, ' '..='?') => ControlFilter::Sequence,
                (ControlFilter::Text2, '\u{7}' | '\u{9c}') => ControlFilter::Text,
                (ControlFilter::Text2, _) => ControlFilter::Text2,
                (ControlFilter::Text | ControlFilter::Sequence, c) => {
                    if matches!(c, '\n' | '\t') || !c.is_control() {
                        shown.push(c);
                    }
                    ControlFilter::Text
                }
            };
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_is_left() {
        let mut filter = ControlFilter::default();
        let text = "a\u{1b}[31mred\u{1b}[0m\u{1b}]0;title\u{7}b\rc\u{1b}(Bd\u{9b}e\n\u{1b}[";
        assert_eq!(filter.push(text), "aredbcde\n");
        assert_eq!(filter.push("1mx"), "x");
    }
}
