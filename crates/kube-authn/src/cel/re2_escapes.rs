//! Parses escapes, classes and counts of regular expressions in RE2's syntax.

/// Unicode general categories, by their names in Go.
const CATEGORIES: &str = "C Cc Cf Cn Co Cs L Lc Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf \
    Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs Casedletter Closepunctuation Combiningmark \
    Connectorpunctuation Control Currencysymbol Dashpunctuation Decimalnumber Enclosingmark \
    Finalpunctuation Format Initialpunctuation Letter Letternumber Lineseparator Lowercaseletter \
    Mark Mathsymbol Modifierletter Modifiersymbol Nonspacingmark Number Openpunctuation Other \
    Otherletter Othernumber Otherpunctuation Othersymbol Paragraphseparator Privateuse Punctuation \
    Separator Spaceseparator Spacingmark Surrogate Symbol Titlecaseletter Unassigned \
    Uppercaseletter Cntrl Digit Punct";
/// Unicode scripts, by their names in Go. Go does not find names of several words.
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
pub(super) const CLASSES: &str =
    "alnum alpha ascii blank cntrl digit graph lower print punct space upper word xdigit";

/// Returns a character as a literal that is also valid in a class.
pub(super) fn escaped(character: char) -> String {
    match character {
        c if c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii() => c.to_string(),
        c => format!("\\x{{{:x}}}", u32::from(c)),
    }
}

/// Parses `{n}`, `{n,}` or `{n,m}` at the beginning. Returns its length and the numbers; numbers
/// that are too large become `u32::MAX`. Anything else is literal text.
pub(super) fn count(text: &str) -> Option<(usize, u32, Option<u32>)> {
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

/// Parses a class such as `\d` or `\p{Greek}` at the beginning. Returns its translation and its
/// length.
pub(super) fn class_escape(text: &str) -> Result<Option<(String, usize)>, String> {
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

/// Parses `\pL`, `\p{Greek}`, `\p{^Greek}`, and the same with `\P`.
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
        // Rust strings cannot contain surrogates, so the class is empty.
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

/// Removes spaces, hyphens and underscores from a name, and capitalizes only its first letter.
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

pub(super) fn contains_word(words: &str, word: &str) -> bool {
    words.split_whitespace().any(|known| known == word)
}

/// Parses a single character at the beginning, which may be escaped. Returns its length, too.
pub(super) fn character(text: &str) -> Result<(char, usize), String> {
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
        // A single digit other than 0 would be a backreference, which cannot be matched in linear
        // time.
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
