//! Divides a batch into its events.

use bytes::Bytes;

/// Returns the lines of a batch without their newlines. They share its memory.
pub(crate) fn lines(batch: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    let mut start = 0;
    let ends =
        memchr::memchr_iter(b'\n', batch).chain((!batch.ends_with(b"\n")).then_some(batch.len()));
    ends.filter_map(move |end| {
        let line = batch.slice(start.min(end)..end);
        start = end + 1;
        (!line.is_empty()).then_some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_divided_at_newlines() {
        let of = |text: &'static str| {
            let text = Bytes::from_static(text.as_bytes());
            let lines: Vec<_> =
                lines(&text).map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
            lines
        };
        assert_eq!(of("{\"a\":1}\n{\"b\":2}\n"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(of("{\"a\":1}\n{\"b\":2}"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(of("\n\n{}\n"), ["{}"]);
        assert!(of("").is_empty());
    }
}
