//! A literal that every matching line contains, so that other lines need not be parsed.
//!
//! JSON may encode each character of a string as an escape, so a line may contain a value without
//! containing its bytes. Needles consist of ASCII characters whose only other spelling is `\u00XX`;
//! lines with such an escape of one of them are therefore parsed as well. Go's encoder, and thus
//! kube-apiserver, writes none of these escapes: it only escapes control characters, `<`, `>`, and
//! `&` in this way.

use memchr::memmem::Finder;

use super::pattern::Pattern;

/// Finds lines that may match.
#[derive(Debug, Clone)]
pub(crate) struct Needle {
    literal: Finder<'static>,
    escape: Finder<'static>,
}

/// The shortest literal for which a search is worthwhile.
const SHORTEST: usize = 3;

impl Needle {
    /// Returns a needle for strings that match `pattern`, if it has a literal part that is long
    /// enough.
    pub(crate) fn of(pattern: &Pattern) -> Option<Needle> {
        let literal = match pattern {
            // Strings are enclosed in quotes whatever the white space around them is.
            Pattern::Exact(text) if text.iter().all(|byte| is_plain(*byte)) => {
                [b"\"", &text[..], b"\""].concat()
            }
            Pattern::Exact(text) => longest(std::iter::once(&text[..])),
            Pattern::Glob(parts) => longest(parts.iter().map(|part| &part[..])),
        };
        (literal.len() >= SHORTEST).then(|| Needle {
            literal: Finder::new(&literal).into_owned(),
            escape: Finder::new(b"\\u00").into_owned(),
        })
    }

    /// Starts a search in `region`.
    pub(crate) fn search<'a>(&'a self, region: &'a [u8]) -> Search<'a> {
        Search { needle: self, region, literal: Next::Unknown, escape: Next::Unknown }
    }
}

/// The positions in one region at which a line may match.
pub(crate) struct Search<'a> {
    needle: &'a Needle,
    region: &'a [u8],
    literal: Next,
    escape: Next,
}

#[derive(Clone, Copy)]
enum Next {
    Unknown,
    At(usize),
    Never,
}

impl Next {
    fn advance(self, from: usize, find: impl FnOnce() -> Option<usize>) -> Next {
        match self {
            Next::At(at) if at >= from => self,
            Next::Never => self,
            _ => find().map_or(Next::Never, Next::At),
        }
    }
}

impl Search<'_> {
    /// Returns the first position from `from` on.
    #[inline]
    pub(crate) fn next(&mut self, from: usize) -> Option<usize> {
        let rest = &self.region[from..];
        self.literal = self
            .literal
            .advance(from, || self.needle.literal.find(rest).map(|offset| from + offset));
        self.escape = self.escape.advance(from, || {
            let mut at = from;
            loop {
                at += self.needle.escape.find(&self.region[at..])?;
                if is_escape_of_plain(&self.region[at + 4..]) {
                    return Some(at);
                }
                at += 4;
            }
        });
        match (self.literal, self.escape) {
            (Next::At(literal), Next::At(escape)) => Some(literal.min(escape)),
            (Next::At(at), _) | (_, Next::At(at)) => Some(at),
            _ => None,
        }
    }
}

/// Whether JSON encodes the character only as itself or as `\u00XX`.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'/' | b'<' | b'>' | b'&')
}

/// Whether the two hexadecimal digits encode such a character.
fn is_escape_of_plain(digits: &[u8]) -> bool {
    let digits = digits.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).is_some_and(is_plain)
}

fn longest<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let runs = parts.flat_map(|part| part.split(|byte| !is_plain(*byte)));
    runs.max_by_key(|run| run.len()).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, text: &str) -> bool {
        let needle = Needle::of(&Pattern::new(pattern)).unwrap();
        needle.search(text.as_bytes()).next(0).is_some()
    }

    #[test]
    fn needles_find_every_spelling() {
        assert!(found("alice", r#"{"username":"alice"}"#));
        assert!(found("alice", r#"{"username":"\u0061lice"}"#));
        assert!(found("a:b", r#"{"username":"a\u003Ab"}"#));
        assert!(!found("alice", r#"{"username":"malice","uri":"a\u0026b\u003cc"}"#));
        assert!(found("*kubectl*", r#"{"userAgent":"kubectl/v1"}"#));
        assert!(found("/api/v1/secrets", r#"{"requestURI":"\/api\/v1\/secrets"}"#));
        assert!(Needle::of(&Pattern::new("a*b")).is_none());
        assert!(Needle::of(&Pattern::new("")).is_none());
    }

    #[test]
    fn a_search_tries_all_positions() {
        let text = r#""ab" \u0026 "ab" \u0061 "ab""#;
        let needle = Needle::of(&Pattern::new("ab")).unwrap();
        let mut search = needle.search(text.as_bytes());
        let mut positions = Vec::new();
        let mut from = 0;
        while let Some(at) = search.next(from) {
            positions.push(at);
            from = at + 1;
        }
        assert_eq!(positions, [0, 12, 17, 24]);
    }
}
