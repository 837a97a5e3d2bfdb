//! Query strings, parsed like Go's `url.ParseQuery` parses them.

use std::borrow::Cow;

/// Returns the first value of parameter `name`, decoded, if the query contains it.
///
/// Names are compared after decoding, case-sensitively. Pairs with broken percent-encoding or a
/// raw `;` are skipped like in Go.
pub fn first<'q>(query: &'q str, name: &str) -> Option<Cow<'q, [u8]>> {
    let [value] = firsts(query, [name]);
    value
}

/// Like [`first`], for several names at once.
pub fn firsts<'q, const N: usize>(query: &'q str, names: [&str; N]) -> [Option<Cow<'q, [u8]>>; N] {
    let mut values = [const { None }; N];
    for (key, value) in pairs(query) {
        let Some(key) = decode(key, Plus::IsSpace) else { continue };
        let index = names.iter().position(|name| *key == *name.as_bytes());
        if let Some(place) = index.map(|index| &mut values[index])
            && place.is_none()
        {
            *place = decode(value, Plus::IsSpace);
        }
    }
    values
}

/// Returns the pairs that Go does not skip, not decoded.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';'));
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The meaning of `+`.
#[derive(Clone, Copy, PartialEq)]
pub enum Plus {
    /// A space, in query strings.
    IsSpace,
    /// Itself, in paths and header names.
    IsPlus,
}

/// Percent-decodes `text`. Returns `None` if a `%` is not followed by two hexadecimal digits.
pub fn decode(text: &str, plus: Plus) -> Option<Cow<'_, [u8]>> {
    let bytes = text.as_bytes();
    let plain = |b: &u8| *b != b'%' && (*b != b'+' || plus == Plus::IsPlus);
    if bytes.iter().all(plain) {
        return Some(Cow::Borrowed(bytes));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        decoded.push(match byte {
            b'%' => {
                let [high, low, tail @ ..] = rest else { return None };
                rest = tail;
                hex_digit(*high)? << 4 | hex_digit(*low)?
            }
            b'+' if plus == Plus::IsSpace => b' ',
            other => other,
        });
    }
    Some(Cow::Owned(decoded))
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_decodable_value_counts() {
        let cases = [
            ("watch=true&watch=false", Some("true")),
            ("watch", Some("")),
            ("Watch=1", None),
            ("w%61tch=a+b%20c", Some("a b c")),
            ("watch=%zz&watch=2", Some("2")),
            ("watch=1;x=2&watch=3", Some("3")),
            ("watch=%2", None),
        ];
        for (query, expected) in cases {
            let value = first(query, "watch");
            assert_eq!(value.as_deref(), expected.map(str::as_bytes), "{query}");
        }
    }
}
