//! Regular expressions as Go's `regexp` package reads them (RE2 syntax), translated for the regex
//! engine of this crate.
//!
//! Both engines search in linear time, and mostly agree. Where they do not, Go's rules apply: `\d`,
//! `\s`, `\w` and `\b` are about ASCII; counts go up to 1,000; what only one of them has, such as
//! `(?x)`, `[a&&b]` or `\p{Emoji}`, is an error, and `\Q..\E` or a lone `{` is none. Expressions
//! that compile to more than 1 MiB are errors here only.

use regex_automata::meta::{self, Regex};
use regex_automata::util::syntax;

/// Size of a compiled expression; patterns can come from claims.
const SIZE_LIMIT: usize = 1 << 20;
/// Most that a count, and the product of nested ones, can be.
const MAX_REPEAT: u32 = 1000;
/// Most groups within each other.
const MAX_DEPTH: usize = 200;

/// General categories of Unicode, by the names that Go has for them.
const CATEGORIES: &str = "C Cc Cf Cn Co Cs L Lc Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf \
    Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs Casedletter Closepunctuation Combiningmark \
    Connectorpunctuation Control Currencysymbol Dashpunctuation Decimalnumber Enclosingmark \
    Finalpunctuation Format Initialpunctuation Letter Letternumber Lineseparator Lowercaseletter \
    Mark Mathsymbol Modifierletter Modifiersymbol Nonspacingmark Number Openpunctuation Other \
    Otherletter Othernumber Otherpunctuation Othersymbol Paragraphseparator Privateuse Punctuation \
    Separator Spaceseparator Spacingmark Surrogate Symbol Titlecaseletter Unassigned \
    Uppercaseletter Cntrl Digit Punct";
/// Scripts, likewise. Go does not find those with more than one word in their names.
const SCRIPTS: &str = "Adlam Ahom Arabic Armenian Avestan Balinese Bamum Batak Bengali Bhaiksuki \
    Bopomofo Brahmi Braille Buginese Buhid Carian Chakma Cham Cherokee Chorasmian Common Coptic \
    Cuneiform Cypriot Cyrillic Deseret Devanagari Dogra Duployan Elbasan Elymaic Ethiopic Georgian \
    Glagolitic Gothic Grantha Greek Gujarati Gurmukhi Han Hangul Hanunoo Hatran Hebrew Hiragana \
    Inherited Javanese Kaithi Kannada Katakana Kawi Kharoshthi Khmer Khojki Khudawadi Lao Latin \
    Lepcha Limbu Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen \
    Medefaidrin Miao Modi Mongolian Mro Multani Myanmar Nabataean Nandinagari Newa Nko Nushu Ogham \
    Oriya Osage Osmanya Palmyrene Phoenician Rejang Runic Samaritan Saurashtra Sharada Shavian \
    Siddham Sinhala Sogdian Soyombo Sundanese Syriac Tagalog Tagbanwa Takri Tamil Tangsa Tangut \
    Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Yezidi Yi";
/// POSIX classes.
const CLASSES: &str =
    "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit";

/// Compiles a regular expression.
///
/// # Errors
/// What is wrong with it.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)
        .map_err(|problem| format!("{pattern:?} is not a regular expression: {problem}"))?;
    // Bytes are matched so that `\B` can be about ASCII; empty matches still end where characters
    // do.
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

/// An expression in the syntax of this crate's engine.
fn translate(pattern: &str) -> Result<String, String> {
    let mut parser = Parser { rest: pattern, out: String::new(), groups: Vec::new() };
    parser.run()?;
    Ok(parser.out)
}

/// A group that is open, or the whole expression.
#[derive(Default)]
struct Group {
    /// The product of nested counts in what was just read; `None` if there is nothing to repeat.
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

    /// Appends something that can be repeated.
    fn atom(&mut self, text: &str) {
        self.out.push_str(text);
        self.note(1);
    }

    fn note(&mut self, product: u32) {
        let group = self.group();
        group.last = Some(product);
        group.largest = group.largest.max(product);
    }

    /// Lets what was read before not be repeated by what follows. Go repeats it across flags and
    /// empty quotes, which this engine does not; such expressions are errors here.
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

    /// `(`, `(?flags)`, `(?flags:`, `(?P<name>` or `(?<name>`.
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
        // Flags can be there several times; the last one counts.
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

    /// What begins with a backslash, outside of classes.
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

    /// `[...]`
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

/// A character as a literal, also within classes.
fn escaped(character: char) -> String {
    match character {
        c if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() => c.to_string(),
        c => format!("\\x{{{:x}}}", u32::from(c)),
    }
}

/// `{n}`, `{n,}` or `{n,m}` at the beginning: its length and its numbers, those that are too large
/// as `u32::MAX`. Anything else is literal text.
fn count(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let number = |text: &str| {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = &text[..digits];
        let is_plain = digits == 1 || (digits > 1 && !number.starts_with('0'));
        is_plain.then(|| (number.parse().unwrap_or(u32::MAX), digits))
    };
    let (min, digits) = number(&text[1..])?;
    let rest = &text[1 + digits..];
    let length = |rest: &str| text.len() - rest.len();
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((length(rest), min, Some(min)));
    }
    let rest = rest.strip_prefix(',')?;
    if let Some(rest) = rest.strip_prefix('}') {
        return Some((length(rest), min, None));
    }
    let (max, digits) = number(rest)?;
    let rest = rest[digits..].strip_prefix('}')?;
    Some((length(rest), min, Some(max)))
}

/// A class such as `\d` or `\p{Greek}` at the beginning, and its length.
fn class_escape(text: &str) -> Result<Option<(String, usize)>, String> {
    let Some(after) = text.strip_prefix('\\') else { return Ok(None) };
    let ascii = match after.chars().next() {
        Some('d') => "[0-9]",
        Some('D') => "[^0-9]",
        Some('s') => "[\\t\\n\\x0c\\r ]",
        Some('S') => "[^\\t\\n\\x0c\\r ]",
        Some('w') => "[0-9A-Za-z_]",
        Some('W') => "[^0-9A-Za-z_]",
        Some('p' | 'P') => return property(text).map(Some),
        _ => return Ok(None),
    };
    Ok(Some((ascii.to_owned(), 2)))
}

/// `\pL`, `\p{Greek}`, `\p{^Greek}`, and the same with `\P`.
fn property(text: &str) -> Result<(String, usize), String> {
    let invalid = || "invalid character class range \\p".to_owned();
    let mut negated = text.starts_with("\\P");
    let after = &text[2..];
    let (name, length) = match after.strip_prefix('{') {
        Some(braced) => {
            let end = braced.find('}').ok_or_else(invalid)?;
            (&braced[..end], end + 4)
        }
        None => {
            let letter = after.chars().next().ok_or_else(invalid)?;
            (&after[..letter.len_utf8()], 2 + letter.len_utf8())
        }
    };
    let name = match name.strip_prefix('^') {
        Some(name) => {
            negated = !negated;
            name
        }
        None => name,
    };
    let canonical = canonical(name);
    let set = match canonical.as_str() {
        "Any" => "\\x{0}-\\x{10ffff}".to_owned(),
        "Ascii" => "\\x{0}-\\x{7f}".to_owned(),
        "Assigned" => {
            negated = !negated;
            "\\p{gc=Cn}".to_owned()
        }
        // Strings here cannot contain surrogates.
        "Cs" | "Surrogate" => "&&\\x{0}".to_owned(),
        "Cntrl" => "\\p{gc=Cc}".to_owned(),
        "Digit" => "\\p{gc=Nd}".to_owned(),
        "Punct" => "\\p{gc=P}".to_owned(),
        name if contains_word(CATEGORIES, name) => format!("\\p{{gc={name}}}"),
        name if contains_word(SCRIPTS, name) => format!("\\p{{sc={name}}}"),
        _ => return Err(invalid()),
    };
    let caret = if negated { "^" } else { "" };
    Ok((format!("[{caret}{set}]"), length))
}

/// A name without spaces, hyphens and underscores, only its first letter in upper case.
fn canonical(name: &str) -> String {
    let mut canonical = String::new();
    for character in name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')) {
        let is_first = canonical.is_empty();
        canonical.push(match is_first {
            true => character.to_ascii_uppercase(),
            false => character.to_ascii_lowercase(),
        });
    }
    canonical
}

fn contains_word(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|known| known == word)
}

/// A single character at the beginning, which may be escaped, and its length.
fn character(text: &str) -> Result<(char, usize), String> {
    let mut characters = text.chars();
    let first = characters.next().ok_or("missing closing ]")?;
    if first != '\\' {
        return Ok((first, first.len_utf8()));
    }
    let invalid = |escape: char| format!("invalid escape sequence \\{escape}");
    let escape = characters.next().ok_or("trailing backslash at end of expression")?;
    let after = characters.as_str();
    let octal = |text: &str, most: usize| {
        text.bytes().take(most).take_while(|byte| (b'0'..=b'7').contains(byte)).count()
    };
    let from_digits = |digits: &str, radix: u32, length: usize| {
        let code = u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        code.map(|character| (character, length)).ok_or_else(|| invalid(escape))
    };
    match escape {
        // A single digit other than 0 would refer to a group, which cannot be done in linear time.
        '1'..='7' if octal(after, 1) == 0 => Err(invalid(escape)),
        '0'..='7' => {
            let length = 1 + octal(after, 2);
            from_digits(&text[1..=length], 8, 1 + length)
        }
        'x' => match after.strip_prefix('{') {
            Some(braced) => {
                let end = braced.find('}').ok_or_else(|| invalid(escape))?;
                if !braced[..end].bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(invalid(escape));
                }
                from_digits(&braced[..end], 16, end + 4)
            }
            None => {
                let digits = after.get(..2).ok_or_else(|| invalid(escape))?;
                if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(invalid(escape));
                }
                from_digits(digits, 16, 4)
            }
        },
        'a' => Ok(('\u{7}', 2)),
        'f' => Ok(('\u{c}', 2)),
        'n' => Ok(('\n', 2)),
        'r' => Ok(('\r', 2)),
        't' => Ok(('\t', 2)),
        'v' => Ok(('\u{b}', 2)),
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => Ok((other, 2)),
        other => Err(invalid(other)),
    }
}

#[cfg(test)]
#[path = "re2_tests.rs"]
mod tests;
