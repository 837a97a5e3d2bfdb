//! Decodes a YAML file: UTF-8, or UTF-16 with a byte order mark, without control characters.

use std::borrow::Cow;

use super::tree::{Position, SyntaxError};

/// Returns the text of the file, without a byte order mark.
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, SyntaxError> {
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(utf16(rest, u16::from_le_bytes)?),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(utf16(rest, u16::from_be_bytes)?),
        _ => Cow::Borrowed(utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))?),
    };
    match text.char_indices().find(|(_, character)| !is_allowed(*character)) {
        None => Ok(text),
        Some((offset, character)) => {
            let code = character as u32;
            let message = format!("yaml: control characters are not allowed (U+{code:04X})");
            Err(error(&text[..offset], message))
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, SyntaxError> {
    std::str::from_utf8(bytes).map_err(|problem| {
        let before = String::from_utf8_lossy(&bytes[..problem.valid_up_to()]);
        error(&before, "yaml: invalid UTF-8".to_owned())
    })
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, SyntaxError> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
    match String::from_utf16(&units) {
        Ok(text) if odd.is_empty() => Ok(text),
        _ => Err(error("", "yaml: invalid UTF-16".to_owned())),
    }
}

fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}'
        | '\u{10000}'..)
}

fn error(before: &str, message: String) -> SyntaxError {
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let at = Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    };
    SyntaxError { at, message, help: Some("save the file as UTF-8 text".to_owned()) }
}
