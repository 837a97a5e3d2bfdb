//! Validates label selectors (`labels.Parse`).
//!
//! kube-apiserver ignores all list options of a request if its selector is invalid, which changes
//! verb or name. Therefore the whole grammar is implemented.

/// Returns whether `text` is a valid label selector.
pub fn is_valid(text: &str) -> bool {
    Parser { tokens: tokenize(text), next: 0 }.selector().is_some()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token<'t> {
    Word(&'t str),
    Not,
    Comma,
    Open,
    Close,
    Equals,
    NotEquals,
    Compare,
    Unknown,
}

fn is_special(byte: u8) -> bool {
    b"=!(),><".contains(&byte)
}

fn is_space(byte: u8) -> bool {
    b" \t\r\n".contains(&byte)
}

fn tokenize(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(&first) = rest.as_bytes().first() else { return tokens };
        let (token, length) = if is_special(first) {
            match (first, rest.as_bytes().get(1)) {
                (b'=', Some(b'=')) => (Token::Equals, 2),
                (b'=', _) => (Token::Equals, 1),
                (b'!', Some(b'=')) => (Token::NotEquals, 2),
                (b'!', _) => (Token::Not, 1),
                (b',', _) => (Token::Comma, 1),
                (b'(', _) => (Token::Open, 1),
                (b')', _) => (Token::Close, 1),
                (b'<' | b'>', _) => (Token::Compare, 1),
                _ => (Token::Unknown, 1),
            }
        } else {
            let end = rest.bytes().position(|b| is_special(b) || is_space(b));
            let end = end.unwrap_or(rest.len());
            (Token::Word(&rest[..end]), end)
        };
        tokens.push(token);
        rest = &rest[length..];
    }
}

struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    next: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self) -> Option<Token<'t>> {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn selector(&mut self) -> Option<()> {
        while self.peek().is_some() {
            self.requirement()?;
            match self.take() {
                None => return Some(()),
                Some(Token::Comma) => {
                    matches!(self.peek(), Some(Token::Word(_) | Token::Not)).then_some(())?;
                }
                Some(_) => return None,
            }
        }
        Some(())
    }

    fn requirement(&mut self) -> Option<()> {
        let mut token = self.take()?;
        let negated = token == Token::Not;
        if negated {
            token = self.take()?;
        }
        let Token::Word(key) = token else { return None };
        is_qualified_name(key).then_some(())?;
        if negated || matches!(self.peek(), None | Some(Token::Comma)) {
            return Some(());
        }
        match self.take()? {
            Token::Word("in" | "notin") => self.values(),
            Token::Equals | Token::NotEquals => self.exact_value().map(drop),
            Token::Compare => self.exact_value()?.parse::<i64>().ok().map(drop),
            _ => None,
        }
    }

    fn exact_value(&mut self) -> Option<&'t str> {
        let value = match self.peek() {
            None | Some(Token::Comma) => "",
            Some(Token::Word(word)) => {
                self.next += 1;
                word
            }
            Some(_) => return None,
        };
        is_label_value(value).then_some(value)
    }

    /// Parses `(a, b)`: at least one value, each of which may be empty.
    fn values(&mut self) -> Option<()> {
        (self.take()? == Token::Open).then_some(())?;
        (self.peek()? != Token::Close).then_some(())?;
        loop {
            match self.take()? {
                Token::Word(value) => {
                    is_label_value(value).then_some(())?;
                    match self.peek()? {
                        Token::Comma => {}
                        Token::Close => break,
                        _ => return None,
                    }
                }
                Token::Comma => match self.peek()? {
                    Token::Close => break,
                    Token::Comma => self.next += 1,
                    _ => {}
                },
                _ => return None,
            }
        }
        (self.take()? == Token::Close).then_some(())
    }
}

/// A label key: an optional DNS subdomain and `/`, then a name of at most 63 characters.
fn is_qualified_name(key: &str) -> bool {
    match key.split_once('/') {
        None => !key.is_empty() && is_label_value(key),
        Some((prefix, name)) => {
            is_dns_subdomain(prefix) && !name.is_empty() && is_label_value(name)
        }
    }
}

/// A label value: empty, or at most 63 of letters, digits, `-_.`, alphanumeric at both ends.
fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return true };
    bytes.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// Returns whether `text` is an RFC 1123 subdomain: labels of lower-case letters, digits and inner
/// dashes, joined by dots, at most 253 characters.
pub fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label_of_any_length)
}

fn is_dns_label_of_any_length(label: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = label.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// Returns whether `text` is an RFC 1123 label: one part of a subdomain, at most 63 characters.
pub fn is_dns_label(text: &str) -> bool {
    text.len() <= 63 && is_dns_label_of_any_length(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses_what_kubernetes_does() {
        let good = [
            "",
            "a",
            "!a",
            "a=b",
            "a==b",
            "a!=b",
            "a in (b)",
            "a in (b, c)",
            "a notin (,b)",
            "a=",
            "a=,b",
            "a>1",
            "a < 2",
            "x.io/a=b",
            " a = b , c ",
            "in in (in)",
            "a in (,)",
        ];
        for text in good {
            assert!(is_valid(text), "{text:?} should parse");
        }
        let long = "a".repeat(64);
        let bad = [
            "=",
            "a b",
            "a,",
            ",a",
            "a=b c",
            "a in ()",
            "a in (b",
            "a in b",
            "a>x",
            "-a",
            "a=-",
            "a/b/c",
            "/a",
            "X.io/a",
            "!",
            "a==!b",
            long.as_str(),
            "a>",
            "é",
        ];
        for text in bad {
            assert!(!is_valid(text), "{text:?} should not parse");
        }
    }
}
