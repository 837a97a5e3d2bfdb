//! String functions. All positions are in characters.

use std::cell::RefCell;
use std::collections::HashMap;

use regex_automata::meta::Regex;

use super::operators::{Outcome, no_overload};
use super::value::{List, Value};
use super::{cost, lists, re2};

fn out_of_range(index: i64) -> String {
    format!("index out of range: {index}")
}

/// Returns the byte offset of the character at this index, or of the end.
fn offset(text: &str, index: i64) -> Result<usize, String> {
    let out_of_range = || out_of_range(index);
    let index = usize::try_from(index).map_err(|_| out_of_range())?;
    let mut offsets = text.char_indices().map(|(offset, _)| offset).chain([text.len()]);
    offsets.nth(index).ok_or_else(out_of_range)
}

fn position(text: &str, offset: Option<usize>) -> Value {
    Value::Int(offset.map_or(-1, |offset| text[..offset].chars().count() as i64))
}

pub(super) fn contains(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(text.contains(&**part))),
        _ => Err(no_overload("contains", args)),
    }
}

pub(super) fn starts_with(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(text.starts_with(&**part))),
        _ => Err(no_overload("startsWith", args)),
    }
}

pub(super) fn ends_with(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(text.ends_with(&**part))),
        _ => Err(no_overload("endsWith", args)),
    }
}

pub(super) fn char_at(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text), Value::Int(index)] => {
            let rest = &text[offset(text, *index)?..];
            Ok(Value::text(rest.chars().next().map_or_else(String::new, String::from)))
        }
        _ => Err(no_overload("charAt", args)),
    }
}

pub(super) fn index_of(args: &[Value]) -> Outcome {
    let (text, part, from) = match args {
        [Value::List(list), wanted] => return Ok(lists::index_of(list, wanted)),
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(from)] => (text, part, *from),
        _ => return Err(no_overload("indexOf", args)),
    };
    if part.is_empty() {
        return Ok(Value::Int(from));
    }
    if from < 0 {
        return Err(out_of_range(from));
    }
    let Ok(from) = offset(text, from) else { return Ok(Value::Int(-1)) };
    Ok(position(text, text[from..].find(&**part).map(|found| from + found)))
}

pub(super) fn last_index_of(args: &[Value]) -> Outcome {
    let (text, part, last) = match args {
        [Value::List(list), wanted] => return Ok(lists::last_index_of(list, wanted)),
        [Value::String(text), Value::String(part)] if part.is_empty() => {
            return Ok(position(text, Some(text.len())));
        }
        [Value::String(text), Value::String(part)] => {
            return Ok(position(text, text.rfind(&**part)));
        }
        [Value::String(text), Value::String(part), Value::Int(last)] => (text, part, *last),
        _ => return Err(no_overload("lastIndexOf", args)),
    };
    if part.is_empty() {
        return Ok(Value::Int(last));
    }
    if last < 0 {
        return Err(out_of_range(last));
    }
    match offset(text, last) {
        Ok(last) if last < text.len() => {
            // The match may begin at the limit, and so end after it.
            let mut end = (last + part.len()).min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            Ok(position(text, text[..end].rfind(&**part)))
        }
        _ => Ok(Value::Int(-1)),
    }
}

pub(super) fn join(args: &[Value]) -> Outcome {
    let (list, separator): (&List, &str) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, separator),
        _ => return Err(no_overload("join", args)),
    };
    cost::charge_bytes(separator.len().saturating_mul(list.items.len()))?;
    let mut joined = String::new();
    for (index, item) in list.items.iter().enumerate() {
        let Value::String(text) = item else {
            return Err(format!("join: invalid input of type '{}'", item.type_name()));
        };
        cost::charge_bytes(text.len())?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text);
    }
    Ok(Value::text(joined))
}

pub(super) fn lower_ascii(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text)] => Ok(Value::text(text.to_ascii_lowercase())),
        _ => Err(no_overload("lowerAscii", args)),
    }
}

pub(super) fn upper_ascii(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text)] => Ok(Value::text(text.to_ascii_uppercase())),
        _ => Err(no_overload("upperAscii", args)),
    }
}

pub(super) fn trim(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text)] => Ok(Value::text(text.trim())),
        _ => Err(no_overload("trim", args)),
    }
}

/// Returns a limit; a negative number means no limit.
fn limit(limit: i64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

pub(super) fn replace(args: &[Value]) -> Outcome {
    let (text, from, to, times) = match args {
        [Value::String(text), Value::String(from), Value::String(to)] => {
            (text, from, to, usize::MAX)
        }
        [Value::String(text), Value::String(from), Value::String(to), Value::Int(times)] => {
            (text, from, to, limit(*times))
        }
        _ => return Err(no_overload("replace", args)),
    };
    // Checked before the result is created, because each character could become a long text.
    let found = text.matches(&**from).count().min(times);
    cost::charge_bytes(found.saturating_mul(to.len()))?;
    Ok(Value::text(text.replacen(&**from, to, times)))
}

pub(super) fn split(args: &[Value]) -> Outcome {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, usize::MAX),
        [Value::String(text), Value::String(separator), Value::Int(times)] => {
            (text, separator, limit(*times))
        }
        _ => return Err(no_overload("split", args)),
    };
    cost::charge_elements(text.matches(&**separator).count().min(limit))?;
    if !separator.is_empty() {
        return Ok(Value::strings(text.splitn(limit, &**separator)));
    }
    // Splits between all characters, like Go.
    let mut parts = Vec::new();
    let mut rest: &str = text;
    while let Some(character) = rest.chars().next() {
        if parts.len() + 1 >= limit {
            break;
        }
        let (part, after) = rest.split_at(character.len_utf8());
        parts.push(part);
        rest = after;
    }
    if !rest.is_empty() && limit > 0 {
        parts.push(rest);
    }
    Ok(Value::strings(parts.into_iter()))
}

pub(super) fn substring(args: &[Value]) -> Outcome {
    let (text, start, end) = match args {
        [Value::String(text), Value::Int(start)] => (text, *start, None),
        [Value::String(text), Value::Int(start), Value::Int(end)] => (text, *start, Some(*end)),
        _ => return Err(no_overload("substring", args)),
    };
    if let Some(end) = end.filter(|end| start > *end) {
        return Err(format!("invalid substring range. start: {start}, end: {end}"));
    }
    let start = offset(text, start)?;
    let end = end.map_or(Ok(text.len()), |end| offset(text, end))?;
    Ok(Value::text(&text[start..end]))
}

/// Quotes a string like CEL's `strings.quote`.
pub(super) fn quote(args: &[Value]) -> Outcome {
    let [Value::String(text)] = args else { return Err(no_overload("strings.quote", args)) };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    Ok(Value::text(quoted))
}

/// Calls `run` with the compiled `pattern`. Compiled patterns are cached, because most are
/// literals, and the same for each element of a list.
fn with_regex<T>(pattern: &str, run: impl FnOnce(&Regex) -> T) -> Result<T, String> {
    const KEPT: usize = 64;
    thread_local! {
        static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        if !compiled.contains_key(pattern) {
            let regex = re2::compile(pattern)?;
            if compiled.len() >= KEPT {
                compiled.clear();
            }
            compiled.insert(pattern.to_owned(), regex);
        }
        Ok(run(&compiled[pattern]))
    })
}

pub(super) fn matches(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            with_regex(pattern, |regex| regex.is_match(&**text)).map(Value::Bool)
        }
        _ => Err(no_overload("matches", args)),
    }
}

pub(super) fn find(args: &[Value]) -> Outcome {
    match args {
        [Value::String(text), Value::String(pattern)] => with_regex(pattern, |regex| {
            Value::text(regex.find(&**text).map_or("", |found| &text[found.range()]))
        }),
        _ => Err(no_overload("find", args)),
    }
}

pub(super) fn find_all(args: &[Value]) -> Outcome {
    let (text, pattern, limit) = match args {
        [Value::String(text), Value::String(pattern)] => (text, pattern, usize::MAX),
        [Value::String(text), Value::String(pattern), Value::Int(times)] => {
            (text, pattern, limit(*times))
        }
        _ => return Err(no_overload("findAll", args)),
    };
    with_regex(pattern, |regex| {
        Value::strings(regex.find_iter(&**text).take(limit).map(|found| &text[found.range()]))
    })
}
