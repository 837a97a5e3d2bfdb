use super::*;

fn value(text: &str) -> Value {
    parse(text.as_bytes()).unwrap().root.value
}

fn string(text: &[u8]) -> String {
    match parse(text).unwrap().root.value {
        Value::String(string) => string.to_string(),
        other => panic!("{other:?}"),
    }
}

fn number(text: &str) -> Number {
    match value(text) {
        Value::Number(number) => number,
        other => panic!("{other:?}"),
    }
}

/// Returns position and message of the error.
fn error(text: &[u8]) -> String {
    let error = parse(text).unwrap_err();
    format!("{}: {}", error.at, error.message)
}

#[test]
fn every_type_of_value_is_read() {
    let document =
        parse(b" {\"a\": [null, true, false, -7, 1.5, \"x\"],\r\n\t\"b\": {}, \"c\": []} ");
    let document = document.unwrap();
    let Value::Map(entries) = &document.root.value else { panic!("{document:?}") };
    let keys: Vec<&str> = entries.iter().map(|entry| &*entry.key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
    let Value::List(elements) = &entries[0].node.value else { panic!("{entries:?}") };
    assert!(matches!(
        &elements[..],
        [
            Node { value: Value::Null, .. },
            Node { value: Value::Bool(true), .. },
            Node { value: Value::Bool(false), .. },
            Node { value: Value::Number(Number::Integer(-7)), .. },
            Node { value: Value::Number(Number::Float(1.5)), .. },
            Node { value: Value::String(text), .. },
        ] if &**text == "x"
    ));
    assert!(matches!(&entries[1].node.value, Value::Map(entries) if entries.is_empty()));
    assert!(matches!(&entries[2].node.value, Value::List(elements) if elements.is_empty()));
    // What messages show of a value: the text of a scalar that is not a string.
    let plain: Vec<_> = elements.iter().map(|element| element.plain.as_deref()).collect();
    let expected = ["null", "true", "false", "-7", "1.5"].map(Some);
    assert_eq!(plain, [&expected[..], &[None]].concat());
    assert!(document.root.plain.is_none() && entries[1].node.plain.is_none());
}

#[test]
fn positions_are_lines_and_columns_in_characters() {
    let text = "{\"é😀\": 1,\n  \"b\": [2,\n\n    {\"c\": \"x\\ny\", \"d\": 3}]}";
    let document = parse(text.as_bytes()).unwrap();
    let Value::Map(entries) = &document.root.value else { panic!("{document:?}") };
    let at = |node: &Node| node.at.to_string();
    assert_eq!((at(&document.root), entries[0].key_at.to_string()), ("1:1".into(), "1:2".into()));
    assert_eq!(at(&entries[0].node), "1:8");
    assert_eq!((entries[1].key_at.to_string(), at(&entries[1].node)), ("2:3".into(), "2:8".into()));
    let Value::List(elements) = &entries[1].node.value else { panic!("{entries:?}") };
    assert_eq!((at(&elements[0]), at(&elements[1])), ("2:9".into(), "4:5".into()));
    let Value::Map(inner) = &elements[1].value else { panic!("{elements:?}") };
    assert_eq!((at(&inner[0].node), inner[1].key_at.to_string()), ("4:11".into(), "4:19".into()));
}

#[test]
fn escapes_are_read_like_go_reads_them() {
    for (text, expected) in [
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""\u00e9\u00E9\u0000""#, "éé\0"),
        (r#""\ud83d\ude00!""#, "😀!"),
        // Unpaired surrogates.
        (r#""\ud83d""#, "\u{fffd}"),
        (r#""\ude00x""#, "\u{fffd}x"),
        (r#""\ud83dx""#, "\u{fffd}x"),
        (r#""\ud83d\n""#, "\u{fffd}\n"),
        (r#""\ud83d\u0041""#, "\u{fffd}A"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}😀"),
    ] {
        assert_eq!(string(text.as_bytes()), expected, "{text}");
    }
    assert_eq!(string(b"\"a\xff\xc3(\xe2\x82\""), "a\u{fffd}\u{fffd}(\u{fffd}");
}

#[test]
fn numbers_are_integers_if_they_fit() {
    assert_eq!(number("0"), Number::Integer(0));
    assert_eq!(number("-0"), Number::Integer(0));
    assert_eq!(number("9223372036854775807"), Number::Integer(i64::MAX));
    assert_eq!(number("-9223372036854775808"), Number::Integer(i64::MIN));
    assert_eq!(number("9223372036854775808"), Number::Float(9_223_372_036_854_775_808.0));
    assert_eq!(number("10.25"), Number::Float(10.25));
    assert_eq!(number("1E3"), Number::Float(1000.0));
    assert_eq!(number("1e+3"), Number::Float(1000.0));
    assert_eq!(number("25e-2"), Number::Float(0.25));
    assert_eq!(number("1e999"), Number::Float(f64::INFINITY));
}

#[test]
fn the_last_of_duplicate_keys_wins_and_is_reported() {
    let document = parse(b"{\"a\": 1, \"b\": 2,\n \"a\": 3, \"\\u0061\": 4}").unwrap();
    let Value::Map(entries) = &document.root.value else { panic!("{document:?}") };
    let found: Vec<_> =
        entries.iter().map(|entry| (&*entry.key, entry.node.plain.as_deref())).collect();
    assert_eq!(found, [("a", Some("4")), ("b", Some("2"))]);
    let duplicates: Vec<_> = document
        .duplicates
        .iter()
        .map(|duplicate| format!("{} {} after {}", duplicate.key, duplicate.at, duplicate.first_at))
        .collect();
    assert_eq!(duplicates, ["a 2:2 after 1:2", "a 2:10 after 2:2"]);
}

#[test]
fn errors_have_gos_messages_and_a_position() {
    for (text, expected) in [
        ("", "1:1: unexpected end of JSON input"),
        (" \n ", "2:2: unexpected end of JSON input"),
        ("?", "1:1: invalid character '?' looking for beginning of value"),
        ("[1, }", "1:5: invalid character '}' looking for beginning of value"),
        ("{a: 1}", "1:2: invalid character 'a' looking for beginning of object key string"),
        ("{\"a\": 1,}", "1:9: invalid character '}' looking for beginning of object key string"),
        ("{\"a\" 1}", "1:6: invalid character '1' after object key"),
        ("{\"a\": 1 \"b\"}", "1:9: invalid character '\"' after object key:value pair"),
        ("{\"a\": 1]", "1:8: invalid character ']' after object key:value pair"),
        ("[1 2]", "1:4: invalid character '2' after array element"),
        ("[1}", "1:3: invalid character '}' after array element"),
        ("{} {}", "1:4: invalid character '{' after top-level value"),
        ("1 #", "1:3: invalid character '#' after top-level value"),
        ("\"a", "1:3: unexpected end of JSON input"),
        ("\"é\t\"", "1:3: invalid character '\\t' in string literal"),
        ("\"a\nb\"", "1:3: invalid character '\\n' in string literal"),
        (r#""\x""#, "1:3: invalid character 'x' in string escape code"),
        (r#""\u12G4""#, "1:6: invalid character 'G' in \\u hexadecimal character escape"),
        (r#""\ud83d\uzz""#, "1:10: invalid character 'z' in \\u hexadecimal character escape"),
        ("-", "1:2: unexpected end of JSON input"),
        ("-a", "1:2: invalid character 'a' in numeric literal"),
        ("01", "1:2: invalid character '1' after top-level value"),
        ("+1", "1:1: invalid character '+' looking for beginning of value"),
        ("1.x", "1:3: invalid character 'x' after decimal point in numeric literal"),
        (".5", "1:1: invalid character '.' looking for beginning of value"),
        ("1e", "1:3: unexpected end of JSON input"),
        ("1e+x", "1:4: invalid character 'x' in exponent of numeric literal"),
        ("tru", "1:4: unexpected end of JSON input"),
        ("trUe", "1:3: invalid character 'U' in literal true"),
        ("folse", "1:2: invalid character 'o' in literal false"),
        ("nil", "1:2: invalid character 'i' in literal null"),
    ] {
        assert_eq!(error(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn flow_yaml_is_explained() {
    let help = |text: &str| parse(text.as_bytes()).unwrap_err().help;
    for text in ["{a: 1}", "{\"a\": 1,}"] {
        assert!(help(text).unwrap().contains("is read as JSON"), "{text}");
    }
    assert_eq!(help("[1, }"), None);
}

#[test]
fn nesting_is_limited() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_ok());
    let at = MAX_DEPTH + 2;
    assert_eq!(error(nested(at).as_bytes()), format!("1:{at}: exceeded max depth"));
    let objects = "{\"a\":".repeat(at);
    assert!(error(objects.as_bytes()).ends_with("exceeded max depth"));
}
