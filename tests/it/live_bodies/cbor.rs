//! Generates CBOR that decoders interpret differently.

use serde_json::Value;

use super::generate::{Random, other};

/// Encodes a value; most results have a few unusual places.
pub(super) fn write(random: &mut Random, value: &Value) -> Vec<u8> {
    let rate = *random.one(&[5, 15, 30, 1_000_000]);
    let mut out = Vec::new();
    if random.once_in(2) {
        out.extend_from_slice(b"\xd9\xd9\xf7");
    }
    push(random, value, rate, &mut out);
    match random.below(40) {
        0 => out.push(0xf6),
        1 => drop(out.pop()),
        _ => {}
    }
    out
}

fn head(major: u8, argument: usize, out: &mut Vec<u8>) {
    match argument {
        0..24 => out.push(major << 5 | argument as u8),
        24..256 => out.extend_from_slice(&[major << 5 | 24, argument as u8]),
        _ => {
            out.push(major << 5 | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
    }
}

fn string(random: &mut Random, text: &[u8], out: &mut Vec<u8>) {
    let major = *random.one(&[2, 3]);
    if random.once_in(10) && !text.is_empty() {
        out.push(major << 5 | 31);
        let (left, right) = text.split_at(text.len() / 2);
        for part in [left, right] {
            head(major, part.len(), out);
            out.extend_from_slice(part);
        }
        out.push(0xff);
        return;
    }
    head(major, text.len(), out);
    out.extend_from_slice(text);
}

fn push(random: &mut Random, value: &Value, rate: usize, out: &mut Vec<u8>) {
    let odd = if random.once_in(rate) { random.below(9) } else { usize::MAX };
    if odd == 0 {
        let tag = *random.one(&[21_usize, 22, 23, 55_799, 1000, 0, 1]);
        head(6, tag, out);
    }
    match value {
        Value::Null => out.push(if odd == 1 { 0xf7 } else { 0xf6 }),
        Value::Bool(value) => out.push(0xf4 + u8::from(*value)),
        Value::Number(number) => match number.as_u64() {
            Some(_) if odd == 1 => out.extend_from_slice(b"\xf9\x3c\x00"),
            Some(_) if odd == 2 => out.extend_from_slice(b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff"),
            Some(number) => head(0, number as usize, out),
            None => {
                out.push(0xfb);
                out.extend_from_slice(&number.as_f64().unwrap().to_be_bytes());
            }
        },
        Value::String(text) => match odd {
            1 => string(random, b"\xff\xfe", out),
            // Like kube-apiserver encodes bytes.
            2 => {
                out.push(0xd6);
                head(2, 2, out);
                out.extend_from_slice(b"hi");
            }
            3 => string(random, b"2020-01-02T03:04:05.500Z", out),
            _ => string(random, text.as_bytes(), out),
        },
        Value::Array(elements) => {
            head(4, elements.len(), out);
            elements.iter().for_each(|element| push(random, element, rate, out));
        }
        Value::Object(members) => {
            let extra = usize::from(matches!(odd, 1..=4) && !members.is_empty());
            if odd == 5 {
                out.push(0xbf);
            } else {
                head(5, members.len() + extra, out);
            }
            for (index, (key, member)) in members.iter().enumerate() {
                if index == 0 && extra == 1 {
                    match odd {
                        1 => string(random, key.as_bytes(), out),
                        2 => string(random, key.to_uppercase().as_bytes(), out),
                        3 => out.push(0xf6),
                        _ => string(random, b"zz", out),
                    }
                    let other = other(random, member);
                    push(random, &other, rate, out);
                }
                string(random, key.as_bytes(), out);
                push(random, member, rate, out);
            }
            if odd == 5 {
                out.push(0xff);
            }
        }
    }
}
