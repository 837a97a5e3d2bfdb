//! Adds entries to a kubeconfig without touching the rest of its text, comments included.
//!
//! The lists are found by their lines, which works for block style, what kubectl and people write.
//! The result is parsed again and must be the old document with the new entries and nothing else;
//! otherwise the document is rewritten from its values.

use serde_json::Value;

use super::emit;
use super::entries::{Entries, find, parse};

/// A kubeconfig with the new entries.
pub(super) struct Edited {
    pub(super) text: String,
    /// The text could not be edited in place, and its comments are lost.
    pub(super) is_rewritten: bool,
}

/// Adds `entries` to the kubeconfig, or replaces entries of the same names.
///
/// # Errors
/// If the text is not a kubeconfig.
pub(super) fn merge(text: &str, entries: &Entries, use_context: bool) -> anyhow::Result<Edited> {
    let old = parse(text)?;
    let wanted = merged(&old, entries, use_context);
    if old.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(Edited { text: emit::document(&wanted), is_rewritten: !text.trim().is_empty() });
    }
    let mut edited = text.to_owned();
    if !edited.ends_with('\n') {
        edited.push('\n');
    }
    for (list, name, entry) in entries.lists() {
        if find(&old, list, name) != Some(&entry) {
            edited = with_entry(&edited, list, name, &entry);
        }
    }
    if let Some(context) = wanted["current-context"].as_str()
        && old.get("current-context") != Some(&wanted["current-context"])
    {
        edited = with_current_context(&edited, context);
    }
    match parse(&edited) {
        Ok(result) if result == wanted => Ok(Edited { text: edited, is_rewritten: false }),
        _ => Ok(Edited { text: emit::document(&wanted), is_rewritten: true }),
    }
}

/// The document with the new entries.
fn merged(old: &Value, entries: &Entries, use_context: bool) -> Value {
    let mut merged = old.clone();
    for (list, name, entry) in entries.lists() {
        if !merged[list].is_array() {
            merged[list] = Value::Array(Vec::new());
        }
        let all = merged[list].as_array_mut().expect("it was made one");
        match all.iter_mut().find(|known| known["name"] == name) {
            Some(known) => *known = entry,
            None => all.push(entry),
        }
    }
    for (member, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        if old.as_object().is_some_and(serde_json::Map::is_empty) {
            merged[member] = value.into();
        }
    }
    let is_unset = merged["current-context"].as_str().is_none_or(str::is_empty);
    if use_context || is_unset {
        merged["current-context"] = entries.context_name().into();
    }
    merged
}

fn with_entry(text: &str, list: &str, name: &str, entry: &Value) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let Some(at) = lines.iter().position(|line| is_key(line, list)) else {
        return format!("{text}{list}:\n{}", emit::item(entry, 0));
    };
    let head = lines[at];
    let value = head[list.len() + 1..].split(" #").next().unwrap_or_default().trim();
    if matches!(value, "[]" | "null" | "~") {
        let head = head.replacen(value, "", 1);
        let head = head.trim_end();
        let rest = lines[at + 1..].concat();
        return format!("{}{head}\n{}{rest}", lines[..at].concat(), emit::item(entry, 0));
    }
    // Up to the next key of the document.
    let is_outside = |line: &&str| {
        !line.starts_with([' ', '-', '#', '\n', '\r', '\t']) || line.starts_with("---")
    };
    let end = lines[at + 1..].iter().position(is_outside).map_or(lines.len(), |n| at + 1 + n);
    let indent_of = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let is_dash = |line: &str| line.trim_start_matches(' ').starts_with("- ");
    let first = (at + 1..end).find(|line| is_dash(lines[*line]));
    let indent = first.map_or(0, |line| indent_of(lines[line]));
    let starts: Vec<usize> = (at + 1..end)
        .filter(|line| is_dash(lines[*line]) && indent_of(lines[*line]) == indent)
        .collect();
    let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    // Comments and empty lines behind an item belong to what follows.
    let trimmed = |from: usize, to: usize| {
        (from..to).rev().find(|line| !is_blank(lines[*line])).map_or(from, |line| line + 1)
    };
    let new = emit::item(entry, indent);
    for (index, start) in starts.iter().enumerate() {
        let next = starts.get(index + 1).copied().unwrap_or(end);
        let item = lines[*start..next].concat();
        if parse_item(&item).is_some_and(|item| item["name"] == name) {
            let stop = trimmed(*start, next);
            return format!("{}{new}{}", lines[..*start].concat(), lines[stop..].concat());
        }
    }
    let stop = trimmed(at, end);
    format!("{}{new}{}", lines[..stop].concat(), lines[stop..].concat())
}

fn with_current_context(text: &str, context: &str) -> String {
    let new = emit::document(&serde_json::json!({ "current-context": context }));
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    match lines.iter().position(|line| is_key(line, "current-context")) {
        Some(at) => format!("{}{new}{}", lines[..at].concat(), lines[at + 1..].concat()),
        None => format!("{text}{new}"),
    }
}

/// Whether the line has this key of the document itself.
fn is_key(line: &str, key: &str) -> bool {
    line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'))
}

fn parse_item(text: &str) -> Option<Value> {
    let list: Vec<Value> = serde_yaml::from_str(text).ok()?;
    list.into_iter().next()
}
