//! Translates regular expressions in the syntax of Go's `regexp` package (RE2) for the regex engine
//! of this crate.
//!
//! Both engines search in linear time, and mostly agree. Where they differ, Go's rules apply: `\d`,
//! `\s`, `\w` and `\b` match ASCII only, and counts are limited to 1,000. Syntax that Go lacks,
//! such as `(?x)`, `[a&&b]` or `\p{Emoji}`, is an error; `\Q..\E` and a lone `{` are accepted. Only
//! here, expressions that compile to more than 1 MiB are errors.

use regex_automata::meta::{self, Regex};
use regex_automata::util::syntax;

use super::re2_escapes::{CLASSES, character, class_escape, contains_word, count, escaped};

/// Maximum size of a compiled expression; patterns can come from claims.
const SIZE_LIMIT: usize = 1 << 20;
/// Maximum of a count, and of the product of nested counts.
const MAX_REPEAT: u32 = 1000;
/// Maximum nesting depth of groups.
const MAX_DEPTH: usize = 200;

/// Compiles a regular expression.
///
/// # Errors
/// Returns a description of the error.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)
        .map_err(|problem| format!("{pattern:?} is not a regular expression: {problem}"))?;
    // Matches bytes, so that `\B` can be limited to ASCII; empty matches still end at character
    // boundaries.
    let config = meta::Config::new()
        .utf8_empty(true)
        .nfa_size_limit(Some(SIZE_LIMIT))
        .hybrid_cache_capacity(SIZE_LIMIT);
    Regex::builder()
        .configure(config)
        .syntax(syntax::Config::new().utf8(false))
        .build(&translated)
        .map_err(|error| match error.size_limit() {
            Some(_) => "the regular expression is too large".to_owned(),
            None => format!("{pattern:?} is not a supported regular expression"),
        })
}

/// Translates an expression to the syntax of this crate's engine.
fn translate(pattern: &str) -> Result<String, String> {
    let mut parser = Parser { rest: pattern, out: String::new(), groups: Vec::new() };
    parser.run()?;
    Ok(parser.out)
}

/// An open group, or the whole expression.
#[derive(Default)]
struct Group {
    /// The product of the nested counts in the last expression; `None` if nothing can be repeated.
    last: Option<u32>,
    /// The largest such product in the group.
    largest: u32,
}

struct Parser<'p> {
    rest: &'p str,
    out: String,
    groups: Vec<Group>,
}

impl<'p> Parser<'p> {
    fn run(&mut self) -> Result<(), String> {
        self.groups.push(Group::default());
        let mut names: Vec<&str> = Vec::new();
        let mut after_repeat = false;
        while let Some(next) = self.rest.chars().next() {
            let repeated = std::mem::take(&mut after_repeat);
            match next {
                '(' => self.open(&mut names)?,
                '|' => {
                    self.advance(1);
                    self.out.push('|');
                    self.group().last = None;
                }
                ')' => self.close()?,
                '^' | '$' | '.' => {
                    self.advance(1);
                    self.atom(&next.to_string());
                }
                '[' => {
                    let class = self.class()?;
                    self.atom(&class);
                }
                '*' | '+' | '?' => {
                    self.advance(1);
                    self.repeat(repeated, &next.to_string(), 1)?;
                    after_repeat = true;
                }
                '{' => match count(self.rest) {
                    Some((length, min, max)) => {
                        let text = &self.rest[..length];
                        let most = max.unwrap_or(min);
                        if min > MAX_REPEAT || most > MAX_REPEAT || most < min {
                            return Err(format!("invalid repeat count {text}"));
                        }
                        self.advance(length);
                        let factor = if max.is_none() { min.max(1) } else { most };
                        self.repeat(repeated, text, factor)?;
                        after_repeat = true;
                    }
                    None => {
                        self.advance(1);
                        self.atom("\\{");
                    }
                },
                '\\' => self.escape()?,
                other => {
                    self.advance(other.len_utf8());
                    self.literal(other);
                }
            }
        }
        if self.groups.len() > 1 { Err("missing closing )".to_owned()) } else { Ok(()) }
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    fn group(&mut self) -> &mut Group {
        self.groups.last_mut().expect("the whole expression is a group")
    }

    /// Appends an expression that can be repeated.
    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.note(1);
    }

    fn note(&mut self, product: u32) {
        let group = self.group();
        group.last = Some(product);
        group.largest = group.largest.max(product);
    }

    /// Prevents a following count from applying to the previous expression. Go applies it across
    /// flags and empty quotes, which this engine does not, so such expressions are rejected.
    fn forget(&mut self) {
        self.group().last = None;
    }

    fn literal(&mut self, character: char) {
        let escaped = escaped(character);
        self.atom(&escaped);
    }

    fn repeat(&mut self, repeated: bool, text: &str, factor: u32) -> Result<(), String> {
        if repeated {
            return Err(format!("invalid nested repetition operator before {text}"));
        }
        let missing = || format!("missing argument to repetition operator {text}");
        let product = self.group().last.ok_or_else(missing)?.saturating_mul(factor);
        if product > MAX_REPEAT {
            return Err(format!("invalid repeat count {text}"));
        }
        self.out.push_str(text);
        if self.rest.starts_with('?') {
            self.advance(1);
            self.out.push('?');
        }
        self.note(product);
        Ok(())
    }

    /// Parses `(`, `(?flags)`, `(?flags:`, `(?P<name>` or `(?<name>`.
    fn open(&mut self, names: &mut Vec<&'p str>) -> Result<(), String> {
        let Some(after) = self.rest.strip_prefix("(?") else {
            self.advance(1);
            return self.enter("(?:");
        };
        let named = after.strip_prefix("P<").or_else(|| after.strip_prefix('<'));
        if let Some(named) = named {
            let (name, rest) = named.split_once('>').ok_or("invalid named capture")?;
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(is_word) || names.contains(&name) {
                return Err("invalid named capture".to_owned());
            }
            names.push(name);
            self.rest = rest;
            return self.enter("(?:");
        }
        let end = after.find([':', ')']).ok_or("missing closing )")?;
        let flags = &after[..end];
        let (set, cleared) = match flags.split_once('-') {
            Some((set, cleared)) => (set, Some(cleared)),
            None => (flags, None),
        };
        let known = |flags: &str| flags.chars().all(|flag| "imsU".contains(flag));
        if !known(set) || cleared.is_some_and(|flags| flags.is_empty() || !known(flags)) {
            return Err(format!("invalid or unsupported Perl syntax (?{flags}"));
        }
        // If a flag occurs several times, the last one counts.
        let flag = |flag: char| match cleared {
            Some(cleared) if cleared.contains(flag) => Some(false),
            _ => set.contains(flag).then_some(true),
        };
        let on = "imsU".chars().filter(|f| flag(*f) == Some(true)).collect::<String>();
        let off = "imsU".chars().filter(|f| flag(*f) == Some(false)).collect::<String>();
        let minus = if off.is_empty() { "" } else { "-" };
        let opens = after[end..].starts_with(':');
        self.rest = &after[end + 1..];
        if opens {
            return self.enter(&format!("(?{on}{minus}{off}:"));
        }
        if !on.is_empty() || !off.is_empty() {
            self.out.push_str(&format!("(?{on}{minus}{off})"));
        }
        self.forget();
        Ok(())
    }

    fn enter(&mut self, text: &str) -> Result<(), String> {
        if self.groups.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} groups"));
        }
        self.out.push_str(text);
        self.groups.push(Group::default());
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.advance(1);
        match self.groups.pop() {
            Some(group) if !self.groups.is_empty() => {
                self.out.push(')');
                self.note(group.largest.max(1));
                Ok(())
            }
            _ => Err("unexpected )".to_owned()),
        }
    }

    /// Parses an escape outside of classes.
    fn escape(&mut self) -> Result<(), String> {
        let after = &self.rest[1..];
        let simple = match after.chars().next() {
            Some('A') => Some("\\A"),
            Some('z') => Some("\\z"),
            Some('b') => Some("(?-u:\\b)"),
            Some('B') => Some("(?-u:\\B)"),
            _ => None,
        };
        if let Some(text) = simple {
            self.advance(2);
            self.atom(text);
            return Ok(());
        }
        if let Some(quoted) = after.strip_prefix('Q') {
            let (text, rest) = quoted.split_once("\\E").unwrap_or((quoted, ""));
            if text.is_empty() {
                self.forget();
            }
            for character in text.chars() {
                self.literal(character);
            }
            self.rest = rest;
            return Ok(());
        }
        if let Some((text, length)) = class_escape(self.rest)? {
            self.advance(length);
            self.atom(&text);
            return Ok(());
        }
        let (character, length) = character(self.rest)?;
        self.advance(length);
        self.literal(character);
        Ok(())
    }

    /// Parses `[...]`.
    fn class(&mut self) -> Result<String, String> {
        const MISSING: &str = "missing closing ]";
        let mut class = "[".to_owned();
        self.advance(1);
        if self.rest.starts_with('^') {
            self.advance(1);
            class.push('^');
        }
        let mut first = true;
        loop {
            if self.rest.is_empty() {
                return Err(MISSING.to_owned());
            }
            if self.rest.starts_with(']') && !first {
                self.advance(1);
                class.push(']');
                return Ok(class);
            }
            first = false;
            if let Some((name, rest)) =
                self.rest.strip_prefix("[:").and_then(|after| after.split_once(":]"))
            {
                if !contains_word(CLASSES, name.strip_prefix('^').unwrap_or(name)) {
                    return Err(format!("invalid character class range [:{name}:]"));
                }
                class.push_str(&format!("[:{name}:]"));
                self.rest = rest;
                continue;
            }
            if let Some((text, length)) = class_escape(self.rest)? {
                self.advance(length);
                class.push_str(&text);
                continue;
            }
            let (low, length) = character(self.rest)?;
            self.advance(length);
            class.push_str(&escaped(low));
            let after = self.rest.strip_prefix('-').filter(|after| !after.starts_with(']'));
            if let Some(after) = after.filter(|after| !after.is_empty()) {
                let (high, length) = character(after)?;
                if high < low {
                    return Err(format!("invalid character class range {low}-{high}"));
                }
                self.rest = &after[length..];
                class.push('-');
                class.push_str(&escaped(high));
            }
        }
    }
}

#[cfg(test)]
mod tests;
