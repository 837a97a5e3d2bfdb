//! Generates YAML that decoders interpret differently.

use serde_json::Value;

use super::generate::{Random, other};

/// Encodes a value in block or flow style; most results have a few unusual places.
pub(super) fn write(random: &mut Random, value: &Value) -> Vec<u8> {
    let mut writer = Writer { rate: *random.one(&[4, 10, 25, 1_000_000]), anchored: 0 };
    let mut text = String::new();
    const STARTS: [&str; 9] = [
        "---\n",
        "%YAML 1.1\n---\n",
        "# comment\n",
        "\u{feff}",
        "--- # x\n",
        "%TAG !e! tag:e:\n---\n",
        "\n\n",
        "...\n",
        "---\n---\n",
    ];
    if random.once_in(6) {
        text.push_str(random.one::<&str>(&STARTS));
    }
    match random.once_in(4) {
        true => {
            writer.flow(random, value, &mut text);
            text.push('\n');
        }
        false => writer.block(random, value, "", &mut text),
    }
    const ENDS: [&str; 6] =
        ["---\nmetadata: {name: decoy}\n", "...\n", "...\nx: [\n", "--- {}\n", "# end", "\t"];
    if random.once_in(8) {
        text.push_str(random.one::<&str>(&ENDS));
    }
    let mut bytes = match random.below(40) {
        0 => {
            [&b"\xff\xfe"[..], &text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()]
                .concat()
        }
        1 => {
            [&b"\xfe\xff"[..], &text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>()]
                .concat()
        }
        2 => text.replace('\n', "\r\n").into_bytes(),
        _ => text.into_bytes(),
    };
    if random.once_in(12) && !bytes.is_empty() {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] = *random.one(b"\n:-{}[],&*!|>'\"%@`\t \xff#?"),
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, *random.one(b"\n:-{}[],&*!|>'\"%@`\t \xc2#?")),
        }
    }
    bytes
}

struct Writer {
    rate: usize,
    /// Number of anchors so far.
    anchored: usize,
}

impl Writer {
    fn block(&mut self, random: &mut Random, value: &Value, indent: &str, out: &mut String) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (key, member) in members {
                    if random.once_in(self.rate) {
                        self.odd_member(random, key, member, indent, out);
                        if random.once_in(3) {
                            continue;
                        }
                    }
                    out.push_str(indent);
                    self.key(random, key, out);
                    out.push(':');
                    self.nested(random, member, indent, out);
                }
            }
            Value::Array(elements) if !elements.is_empty() => {
                for element in elements {
                    out.push_str(indent);
                    out.push('-');
                    self.nested(random, element, indent, out);
                }
            }
            scalar => {
                out.push_str(indent);
                self.flow(random, scalar, out);
                out.push('\n');
            }
        }
    }

    fn nested(&mut self, random: &mut Random, value: &Value, indent: &str, out: &mut String) {
        let is_container = match value {
            Value::Object(members) => !members.is_empty(),
            Value::Array(elements) => !elements.is_empty(),
            _ => false,
        };
        if !is_container || random.once_in(5) {
            out.push(' ');
            self.flow(random, value, out);
            out.push_str(random.one::<&str>(&["\n", "\n", "\n", " # c\n", "  \n"]));
            return;
        }
        out.push('\n');
        let deeper = format!("{indent}  ");
        self.block(random, value, &deeper, out);
    }

    /// Adds a member that affects the following or previous ones.
    fn odd_member(
        &mut self,
        random: &mut Random,
        key: &str,
        value: &Value,
        indent: &str,
        out: &mut String,
    ) {
        let mut other_text = String::new();
        let other = other(random, value);
        self.flow(random, &other, &mut other_text);
        let line = match random.below(8) {
            0 | 1 => format!("<<: {{{key}: {other_text}}}"),
            2 => format!("<<: [{{{key}: {other_text}}}, {{zz: 1}}]"),
            3 => format!("{key}: {other_text}"),
            4 => format!("\"{key}\": {other_text}"),
            5 => format!("? {key}\n{indent}: {other_text}"),
            6 => format!(
                "zz: &m{} {{{key}: {other_text}}}\n{indent}<<: *m{}",
                self.anchored, self.anchored
            ),
            _ => format!("{}: {other_text}", key.to_uppercase()),
        };
        self.anchored += 1;
        out.push_str(indent);
        out.push_str(&line);
        out.push('\n');
    }

    fn key(&mut self, random: &mut Random, key: &str, out: &mut String) {
        match random.below(self.rate * 3) {
            0 => out.push_str(&format!("'{key}'")),
            1 => out.push_str(&format!("\"{key}\"")),
            2 => out.push_str(&format!("!!str {key}")),
            3 => {
                self.anchored += 1;
                out.push_str(&format!("&k{} {key}", self.anchored));
            }
            4 => out.push_str(&format!("{key} ")),
            5 => out.push_str(random.one::<&str>(&[
                "1",
                "yes",
                "~",
                "1.5",
                "on",
                "<<",
                "!!binary YQ==",
            ])),
            _ => out.push_str(key),
        }
    }

    fn flow(&mut self, random: &mut Random, value: &Value, out: &mut String) {
        match value {
            Value::Object(members) => {
                out.push('{');
                for (index, (key, member)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push_str(random.one::<&str>(&[", ", ",", " ,\n "]));
                    }
                    self.key(random, key, out);
                    out.push_str(": ");
                    self.flow(random, member, out);
                }
                out.push('}');
            }
            Value::Array(elements) => {
                out.push('[');
                for element in elements {
                    self.flow(random, element, out);
                    out.push_str(", ");
                }
                out.push(']');
            }
            scalar if random.once_in(self.rate) => {
                const SCALARS: [&str; 24] = [
                    "017",
                    "0x10",
                    "1_000",
                    "yes",
                    "Off",
                    "~",
                    "",
                    ".inf",
                    "1e3",
                    "12:30",
                    "2001-01-01",
                    "! 12",
                    "!!str 12",
                    "!!binary aGk=",
                    "!mine x",
                    "'it''s'",
                    "\"a\\x41\\u00e9\\\n  b\"",
                    "|\n",
                    "0b1",
                    "09",
                    "+1",
                    "!!int 3",
                    "*zz",
                    "null",
                ];
                let text = *random.one(&SCALARS);
                match (text, scalar) {
                    ("|\n", Value::String(_)) => out.push_str("\"\\0\""),
                    ("|\n" | "*zz", _) => out.push_str("&s true"),
                    _ => out.push_str(text),
                }
            }
            Value::String(text) if random.once_in(3) => out.push_str(&format!("'{text}'")),
            scalar => out.push_str(&scalar.to_string()),
        }
    }
}
