//! Values of flags: exact, with `*` for anything, or negated with `!`.

use memchr::memmem;

use crate::event::Text;

/// One value of a flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// The whole value.
    Exact(Vec<u8>),
    /// Literal parts between stars; the first and the last one must be at the ends.
    Glob(Vec<Vec<u8>>),
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Pattern {
        match text.contains('*') {
            false => Pattern::Exact(text.as_bytes().to_vec()),
            true => Pattern::Glob(text.split('*').map(|part| part.as_bytes().to_vec()).collect()),
        }
    }

    #[inline]
    pub(crate) fn matches(&self, text: Text<'_>) -> bool {
        match self {
            Pattern::Exact(expected) => text.is(expected),
            Pattern::Glob(parts) => glob(parts, &text.bytes()),
        }
    }

    pub(crate) fn matches_bytes(&self, bytes: &[u8]) -> bool {
        match self {
            Pattern::Exact(expected) => bytes == expected,
            Pattern::Glob(parts) => glob(parts, bytes),
        }
    }
}

fn glob(parts: &[Vec<u8>], mut bytes: &[u8]) -> bool {
    let [first, middle @ .., last] = parts else { return false };
    let Some(rest) = bytes.strip_prefix(&first[..]) else { return false };
    bytes = rest;
    for part in middle {
        match memmem::find(bytes, part) {
            Some(at) => bytes = &bytes[at + part.len()..],
            None => return false,
        }
    }
    bytes.ends_with(last)
}

/// All values of one flag. A value matches if it equals one of the positive ones, if there are any,
/// and none of the negated ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set<P> {
    pub(crate) wanted: Vec<P>,
    pub(crate) unwanted: Vec<P>,
}

impl<P> Default for Set<P> {
    fn default() -> Set<P> {
        Set { wanted: Vec::new(), unwanted: Vec::new() }
    }
}

impl<P> Set<P> {
    /// Parses the values of a flag.
    pub(crate) fn parse<E>(
        values: &[String],
        mut parse: impl FnMut(&str) -> Result<P, E>,
    ) -> Result<Set<P>, E> {
        let mut set = Set::default();
        for value in values {
            match value.strip_prefix('!') {
                Some(value) => set.unwanted.push(parse(value)?),
                None => set.wanted.push(parse(value)?),
            }
        }
        Ok(set)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    #[inline]
    pub(crate) fn matches(&self, mut one: impl FnMut(&P) -> bool) -> bool {
        (self.wanted.is_empty() || self.wanted.iter().any(&mut one))
            && !self.unwanted.iter().any(one)
    }
}

/// Returns the value if the flag has only a single positive one.
impl Set<Pattern> {
    pub(crate) fn patterns(values: &[String]) -> Set<Pattern> {
        let parsed =
            Set::parse(values, |value| Ok::<_, std::convert::Infallible>(Pattern::new(value)));
        parsed.unwrap_or_default()
    }

    pub(crate) fn single(&self) -> Option<&Pattern> {
        match &self.wanted[..] {
            [pattern] => Some(pattern),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("*", "", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*kube*let*", "akubeblet/1", true),
            ("*kube*let*", "letkube", false),
            ("a**b", "ab", true),
            ("sys*:node:*", "system:node:n1", true),
        ] {
            let pattern = Pattern::new(pattern);
            assert_eq!(pattern.matches(Text::new(text.as_bytes())), expected, "{pattern:?} {text}");
        }
    }

    #[test]
    fn repeated_values_are_or_and_negated_ones_exclude() {
        let set = |values: &[&str]| {
            Set::patterns(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
        };
        let matches =
            |set: &Set<Pattern>, text: &str| set.matches(|one| one.matches_bytes(text.as_bytes()));
        let either = set(&["get", "list"]);
        assert!(matches(&either, "get") && matches(&either, "list") && !matches(&either, "watch"));
        let not = set(&["!get", "!li*"]);
        assert!(!matches(&not, "get") && !matches(&not, "list") && matches(&not, "watch"));
        let both = set(&["system:*", "!system:node:*"]);
        assert!(matches(&both, "system:admin") && !matches(&both, "system:node:a"));
        assert!(!matches(&both, "alice"));
    }
}
