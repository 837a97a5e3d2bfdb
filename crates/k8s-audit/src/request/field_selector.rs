//! Parses field selectors (`fieldSelector=metadata.name=a,spec.x!=b`), and determines which object
//! name they require.

/// Returns the `metadata.name` that a field selector requires, if any; `None` if it is invalid.
pub fn name_demanded(selector: &[u8]) -> Option<Option<Box<[u8]>>> {
    let mut terms = split_terms(selector);
    terms.sort_unstable();
    let mut name = None;
    for term in terms.into_iter().filter(|t| !t.is_empty()) {
        let (left, operator, right) = split_term(term)?;
        let value = unescape(right)?;
        if operator != b"!=" && left == b"metadata.name" && name.is_none() {
            name = Some(value);
        }
    }
    Some(name)
}

/// Splits at commas that are not escaped with a backslash.
fn split_terms(selector: &[u8]) -> Vec<&[u8]> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in selector.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

fn split_term(term: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    for at in 0..term.len() {
        for operator in [b"!=".as_slice(), b"==", b"="] {
            if let Some(right) = term[at..].strip_prefix(operator) {
                return Some((&term[..at], operator, right));
            }
        }
    }
    None
}

fn unescape(value: &[u8]) -> Option<Box<[u8]>> {
    let mut text = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        text.push(match byte {
            b'\\' => *bytes.next().filter(|b| b"\\,=".contains(b))?,
            b',' | b'=' => return None,
            other => other,
        });
    }
    Some(text.into())
}
