//! YAML that YAML 1.1 and 1.2 read in the same way: block style, with quotes wherever they may
//! matter.

use serde_json::Value;

/// The order of a kubeconfig's members, as people write it; others follow in alphabetical order.
const ORDER: [&str; 8] =
    ["apiVersion", "kind", "current-context", "clusters", "contexts", "users", "name", "server"];

/// Writes a whole document.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    push(&mut text, value, 0);
    text
}

/// Writes an item of a list whose dashes are indented by `indent` spaces.
pub(super) fn item(value: &Value, indent: usize) -> String {
    let mut text = String::new();
    push_item(&mut text, value, indent);
    text
}

fn push(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            let rank = |name: &str| ORDER.iter().position(|known| *known == name);
            names.sort_by_key(|name| (rank(name).unwrap_or(ORDER.len()), name.as_str()));
            for name in names {
                spaces(text, indent);
                push_member(text, name, &members[name], indent);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| push_item(text, item, indent)),
        scalar => {
            spaces(text, indent);
            text.push_str(&self::scalar(scalar));
            text.push('\n');
        }
    }
}

fn push_member(text: &mut String, name: &str, value: &Value, indent: usize) {
    text.push_str(&string(name));
    text.push(':');
    if is_nested(value) {
        text.push('\n');
        // Lists are not indented, as kubectl writes them.
        let deeper = if value.is_array() { indent } else { indent + 2 };
        push(text, value, deeper);
    } else {
        text.push(' ');
        text.push_str(&scalar(value));
        text.push('\n');
    }
}

fn push_item(text: &mut String, value: &Value, indent: usize) {
    spaces(text, indent);
    text.push_str("- ");
    if is_nested(value) {
        let mut nested = String::new();
        push(&mut nested, value, indent + 2);
        text.push_str(nested.trim_start_matches(' '));
    } else {
        text.push_str(&scalar(value));
        text.push('\n');
    }
}

/// Whether a value is written over several lines.
fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        // `{}`, `[]`, numbers, booleans and null are the same in JSON.
        other => other.to_string(),
    }
}

/// A string as it is if no YAML reader takes it for anything else, otherwise in double quotes.
fn string(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_./@-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_plain = begins && text.chars().all(is_word);
    if is_plain && !words.contains(&text.to_ascii_lowercase().as_str()) {
        return text.to_owned();
    }
    let url = |scheme: &str| {
        text.strip_prefix(scheme).is_some_and(|rest| {
            !rest.is_empty() && !rest.ends_with(':') && rest.chars().all(|c| is_word(c) || c == ':')
        })
    };
    if url("https://") || url("http://") {
        return text.to_owned();
    }
    Value::from(text).to_string()
}

fn spaces(text: &mut String, count: usize) {
    text.extend(std::iter::repeat_n(' ', count));
}
