use serde_json::{Map, Value, json};

use super::*;

fn decoded(input: &[u8]) -> Result<String, &'static str> {
    to_json(input).map(|(json, _)| String::from_utf8(json).unwrap()).map_err(|error| error.0)
}

#[test]
fn items_are_decoded_like_kube_apiserver_decodes_them() {
    for (input, expected) in [
        // Parts of a ConfigMap as kube-apiserver encodes them: byte strings, and tag 22 for bytes.
        (
            &b"\xd9\xd9\xf7\xa2DkindIConfigMapJbinaryData\xa1Ab\xd6Bhi"[..],
            r#"{"binaryData":{"b":"aGk="},"kind":"ConfigMap"}"#,
        ),
        (b"\xa2\x61b\x01\x61a\x02", r#"{"a":2,"b":1}"#),
        (b"\xbf\x41a\x9f\x01\x20\xff\xff", r#"{"a":[1,-1]}"#),
        (b"\x5f\x41a\x42bc\xff", r#""abc""#),
        (b"\x7f\x61a\xff", r#""a""#),
        (b"\xd5\x42\xff\xfe", r#""__4""#),
        (b"\xd7\x82\x42\xff\xfe\xd6\x42hi", r#"["fffe","aGk="]"#),
        (b"\x41\xff", r#""\ufffd""#),
        (b"\xf9\x3e\x00", "1.5"),
        (b"\xfb\x44\x4b\x1a\xe4\xd6\xe2\xef\x50", "1e+21"),
        (b"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff", "9223372036854775807"),
        (b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff", "-9223372036854775808"),
        (b"\xc0\x74\x32\x30\x32\x30-01-02T03:04:05Z", r#""2020-01-02T03:04:05Z""#),
        (b"\xc1\x00", r#""1970-01-01T00:00:00Z""#),
        (b"\xd8\x64\x83\xf4\xf5\xf6", "[false,true,null]"),
        (b"\xa1\xf6\x01", r#"{"":1}"#),
    ] {
        assert_eq!(decoded(input).as_deref(), Ok(expected), "{input:x?}");
    }
}

#[test]
fn what_kube_apiserver_rejects_is_rejected() {
    for (input, expected) in [
        (&b""[..], "unexpected end"),
        (b"\x82\x01", "unexpected end"),
        (b"\x01\x01", "extraneous data"),
        (b"\xa2\x41a\x01\x61a\x02", "found duplicate map key"),
        (b"\xa2\x41a\x01\xf6\x02", "found duplicate map key"),
        (b"\xa1\x01\x02", "a key is not a string"),
        (b"\x1b\x80\x00\x00\x00\x00\x00\x00\x00", "an integer overflows 64 bits"),
        (b"\xc2\x41\x01", "a bignum"),
        (b"\xf9\x7c\x00", "a number that is not finite"),
        (b"\xf7", "a simple value other than false, true and null"),
        (b"\x61\xff", "invalid UTF-8 string"),
        (b"\x7f\x41a\xff", "wrong chunk of a string"),
        (b"\x81\xff", "unexpected break"),
        (b"\xbf\x41a\xff", "unexpected break"),
        (b"\x1c", "invalid additional information"),
        (b"\xc0\x41a", "a tag has content of another type than it requires"),
        (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "unexpected end"),
        (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", "exceeded max number of key-value pairs"),
    ] {
        assert_eq!(decoded(input), Err(expected), "{input:x?}");
    }
}

#[test]
fn depth_costs_no_stack() {
    let nested = |levels: usize, open: u8| [&vec![open; levels][..], b"\x00"].concat();
    assert!(decoded(&nested(10_000, 0x81)).is_ok());
    let too_deep = Err("exceeded max nested level 10000");
    assert_eq!(decoded(&nested(10_001, 0x81)), too_deep);
    assert!(decoded(&nested(10_000, 0xc4)).is_ok());
    assert_eq!(decoded(&nested(1_000_000, 0xc4)), too_deep);
}

#[test]
fn tags_that_depend_on_the_type_are_ambiguous() {
    let names = |input: &[u8]| to_json(input).unwrap().1.names();
    assert_eq!(names(b"\xd9\xd9\xf7\xd6\x42hi"), "");
    assert_eq!(names(b"\xd6\x41\xff"), "");
    assert_eq!(names(b"\xd7\x42hi"), "cbor-tag");
    // Keys are encoded in a map, but not in a struct.
    assert_eq!(names(b"\xd6\xa1Aa\x01"), "cbor-tag");
    assert_eq!(names(b"\xa1\xd6Aa\x01"), "cbor-tag");
    assert_eq!(names(b"\xc1\x00"), "cbor-tag");
    assert_eq!(names(b"\x41\xff"), "invalid-utf8");
}

/// Encodes a value in one of several equivalent ways, which `choices` selects.
fn encode(value: &Value, choices: &mut impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    let mut choice = |below: u8| choices.next().unwrap_or_default() % below;
    let head = |out: &mut Vec<u8>, major: u8, argument: u64, width: u8| {
        let bytes = argument.to_be_bytes();
        match (width, argument) {
            (0, 0..24) => out.push(major << 5 | argument as u8),
            (0 | 1, 0..0x100) => out.extend_from_slice(&[major << 5 | 24, bytes[7]]),
            (0..=2, 0..0x1_0000) => out.extend([major << 5 | 25].iter().chain(&bytes[6..])),
            (0..=3, 0..0x1_0000_0000) => out.extend([major << 5 | 26].iter().chain(&bytes[4..])),
            _ => out.extend([major << 5 | 27].iter().chain(&bytes)),
        }
    };
    let string = |out: &mut Vec<u8>, text: &str, kind: u8, chunked: bool, width: u8| {
        let major = 2 + kind;
        if !chunked {
            head(out, major, text.len() as u64, width);
            return out.extend_from_slice(text.as_bytes());
        }
        out.push(major << 5 | 31);
        for character in text.chars() {
            head(out, major, character.len_utf8() as u64, width);
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.push(0xff);
    };
    if choice(8) == 0 {
        out.extend_from_slice(b"\xd9\xd9\xf7");
    }
    let (width, kind, chunked) = (choice(5), choice(2), choice(4) == 0);
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(value) => out.push(0xf4 + u8::from(*value)),
        Value::Number(number) => match number.as_i64() {
            Some(number @ 0..) => head(out, 0, number as u64, width),
            Some(number) => head(out, 1, !number as u64, width),
            None => {
                out.push(0xfb);
                out.extend_from_slice(&number.as_f64().unwrap().to_be_bytes());
            }
        },
        Value::String(text) => string(out, text, kind, chunked, width),
        Value::Array(elements) => {
            if chunked {
                out.push(0x9f);
            } else {
                head(out, 4, elements.len() as u64, width);
            }
            elements.iter().for_each(|element| encode(element, choices, out));
            if chunked {
                out.push(0xff);
            }
        }
        Value::Object(members) => {
            if chunked {
                out.push(0xbf);
            } else {
                head(out, 5, members.len() as u64, width);
            }
            for (key, member) in members.iter().rev() {
                string(out, key, kind, false, width);
                encode(member, choices, out);
            }
            if chunked {
                out.push(0xff);
            }
        }
    }
}

fn values() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-300_i64..300).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has it", |f| f.is_finite()).prop_map(|f| json!(f + 0.5)),
        "\\PC{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec(("\\PC{0,6}", inner), 0..6)
                .prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn every_encoding_of_a_value_is_decoded(value in values(), choices: Vec<u8>) {
        let mut input = Vec::new();
        encode(&value, &mut choices.into_iter(), &mut input);
        let json = decoded(&input).unwrap();
        let again: Value = serde_json::from_str(&json).unwrap();
        // 1e15 is a number without a fraction in Go's JSON.
        proptest::prop_assert!(same(&again, &value), "{} {}", json, value);
    }

    #[test]
    fn what_is_decoded_is_json(input: Vec<u8>) {
        if let Ok(json) = decoded(&input) {
            proptest::prop_assert!(serde_json::from_str::<Value>(&json).is_ok(), "{}", json);
        }
    }
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, l)| right.get(key).is_some_and(|r| same(l, r)))
        }
        _ => left == right,
    }
}
