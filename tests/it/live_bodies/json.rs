//! Generates JSON that decoders interpret differently.

use serde_json::Value;

use super::generate::{Random, other};

/// Encodes a value; most results have one or a few unusual places.
pub(super) fn write(random: &mut Random, value: &Value) -> Vec<u8> {
    let rate = *random.one(&[4, 10, 25, 1_000_000]);
    let mut out = Vec::new();
    push(random, value, rate, &mut out);
    match random.below(60) {
        0 => out.insert(0, b' '),
        1 => out.push(b'x'),
        2 => drop(out.pop()),
        3 => out.extend_from_slice(b"{}"),
        4 => out.splice(0..0, *b"\xef\xbb\xbf").for_each(drop),
        5 => out.extend_from_slice(b"\n\n"),
        _ => {}
    }
    out
}

fn push(random: &mut Random, value: &Value, rate: usize, out: &mut Vec<u8>) {
    let is_odd = random.once_in(rate);
    match value {
        Value::Object(members) => {
            out.push(b'{');
            let mut first = true;
            let mut member = |random: &mut Random, key: &[u8], value: &Value, out: &mut Vec<u8>| {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                out.push(b'"');
                out.extend_from_slice(key);
                out.extend_from_slice(b"\":");
                push(random, value, rate, out);
            };
            for (key, value) in members {
                let odd = if random.once_in(rate) { random.below(9) } else { usize::MAX };
                let name = key.as_bytes();
                match odd {
                    0 => {
                        let other = other(random, value);
                        member(random, name, &other, out);
                    }
                    1 => {
                        let other = other(random, value);
                        member(random, name, value, out);
                        member(random, name, &other, out);
                        continue;
                    }
                    2 => {
                        let variant = key.to_uppercase();
                        let other = other(random, value);
                        member(random, variant.as_bytes(), &other, out);
                    }
                    3 => {
                        let other = other(random, value);
                        member(random, b"zz", &other, out);
                    }
                    4 => {
                        let escaped = format!("\\u{:04x}{}", name[0], &key[1..]);
                        member(random, escaped.as_bytes(), value, out);
                        continue;
                    }
                    5 => {
                        member(random, name, &Value::Null, out);
                        if random.once_in(2) {
                            continue;
                        }
                    }
                    6 => {
                        let variant = key.replace('k', "\u{212a}").replace('s', "\u{17f}");
                        let other = other(random, value);
                        member(random, variant.as_bytes(), &other, out);
                        if variant == *key {
                            continue;
                        }
                    }
                    7 => {
                        let odd = [name, b"\xff"].concat();
                        member(random, &odd, value, out);
                    }
                    _ => {}
                }
                member(random, name, value, out);
            }
            out.push(b'}');
        }
        Value::Array(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                push(random, element, rate, out);
            }
            if is_odd && random.once_in(2) && !elements.is_empty() {
                out.extend_from_slice(b",null");
            }
            out.push(b']');
        }
        Value::String(text) if is_odd => string(random, text, out),
        Value::Number(number) if is_odd => {
            const NUMBERS: [&str; 9] = [
                "1.0",
                "1e0",
                "10000000000000000000000",
                "-0",
                "1E400",
                "9223372036854775808",
                "0.1",
                "123456789012345678",
                "\"1\"",
            ];
            match random.once_in(3) {
                true => out.extend_from_slice(format!("{number}.0").as_bytes()),
                false => out.extend_from_slice(random.one(&NUMBERS).as_bytes()),
            }
        }
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
    if is_odd {
        out.extend_from_slice(random.one(&[" ", "\n", "\t", "\r\n", ""]).as_bytes());
    }
}

fn string(random: &mut Random, text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    match random.below(9) {
        0 => {
            for unit in text.encode_utf16() {
                out.extend_from_slice(format!("\\u{unit:04X}").as_bytes());
            }
        }
        1 => out.extend_from_slice(&[text.as_bytes(), b"\\ud800"].concat()),
        2 => out.extend_from_slice(&[text.as_bytes(), b"\\ud83d\\ude00"].concat()),
        3 => out.extend_from_slice(&[text.as_bytes(), b"\xff\xfe"].concat()),
        4 => out.extend_from_slice(&[text.as_bytes(), b"\xed\xa0\x80"].concat()),
        5 => out.extend_from_slice(&[text.as_bytes(), b"\\n"].concat()),
        6 => out.extend_from_slice(&[text.as_bytes(), "<&>\u{2028}\u{85}\\/".as_bytes()].concat()),
        7 => out.extend_from_slice(b"\x01"),
        _ => out.extend_from_slice(b""),
    }
    out.push(b'"');
}
