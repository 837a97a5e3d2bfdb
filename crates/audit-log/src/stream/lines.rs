//! The format of batches with one event per line.

use crate::delivery::Format;

/// The storage format of segments in the spool.
pub(super) const FORMAT: Format =
    Format { extension: "ndjson", items, join, is_valid: |content| content.ends_with(b"\n") };

/// Returns the lines without their newlines.
fn items(lines: &[u8]) -> Option<Vec<&[u8]>> {
    let lines = lines.strip_suffix(b"\n")?;
    Some(lines.split(|byte| *byte == b'\n').collect())
}

fn join(items: &[&[u8]]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(items.iter().map(|item| item.len() + 1).sum());
    for item in items {
        lines.extend_from_slice(item);
        lines.push(b'\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_join_are_inverse() {
        let lines = b"{\"a\":1}\n{\"b\":2}\n";
        let parts = items(lines).unwrap();
        assert_eq!(parts, [&b"{\"a\":1}"[..], b"{\"b\":2}"]);
        assert_eq!(join(&parts), lines);
        assert_eq!(items(b"{\"a\":1}"), None, "partial");
    }
}
