use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;
use crate::Redaction;
use crate::reference::{Tree, cuts, kubernetes_object, pieces, scalar, spaces, tree};

fn compact<'p>(pieces: impl IntoIterator<Item = &'p [u8]>, options: &Options) -> Compacted {
    let mut compactor = Compactor::new(options.clone());
    pieces.into_iter().for_each(|piece| compactor.push(piece));
    compactor.finish()
}

/// Expects the same result for every split into pieces.
fn whole(text: &[u8], options: &Options) -> Result<Text, NotJson> {
    let result = compact([text], options).text;
    for length in 1..text.len().min(20) {
        let cut = compact(text.chunks(length), options).text;
        assert_eq!(cut, result, "in pieces of {length}");
    }
    result
}

fn compacted(text: &str) -> String {
    let text = whole(text.as_bytes(), &Options::default()).unwrap();
    assert!(!text.truncated);
    String::from_utf8(text.json).unwrap()
}

fn problem(text: impl AsRef<[u8]>) -> (u64, Problem) {
    let NotJson { offset, problem } = whole(text.as_ref(), &Options::default()).unwrap_err();
    (offset, problem)
}

#[test]
fn only_whitespace_is_removed() {
    for (given, expected) in [
        (" { \"a\" : [ 1 , 2.50e+03 ] ,\r\n\t\"a\" : null } \n", r#"{"a":[1,2.50e+03],"a":null}"#),
        (r#"{"a" : "<" , "a":1.0 }"#, r#"{"a":"\u003c","a":1.0}"#),
        (r#"{"<k>":"a & b"}"#, r#"{"\u003ck\u003e":"a \u0026 b"}"#),
        ("[\"\u{2028} \u{2029} \u{202a} \u{20ac}\"]", "[\"\\u2028 \\u2029 \u{202a} \u{20ac}\"]"),
        (r#"" \/ \u00e9 \\ \" ""#, r#"" \/ \u00e9 \\ \" ""#),
        ("-0", "-0"),
        (" 7 ", "7"),
        ("[-1.5E-7,0,true,false,null,{},[]]", "[-1.5E-7,0,true,false,null,{},[]]"),
        ("[ [ ] , { } ]", "[[],{}]"),
    ] {
        assert_eq!(compacted(given), expected);
    }
    let invalid = b"[\"\xff\xe2\x80\xe2\x80\xa8\xe2\xe2\"]";
    let text = whole(invalid, &Options::default()).unwrap();
    assert_eq!(text.json, b"[\"\xff\xe2\x80\\u2028\xe2\xe2\"]", "no UTF-8 stays as it is");
}

#[test]
fn invalid_json_is_reported_with_its_position() {
    use Problem::{End, TooDeep, Trailing, Unexpected};
    for (given, expected) in [
        ("", (0, End)),
        ("  ", (2, End)),
        ("{", (1, End)),
        ("[1,2", (4, End)),
        ("\"a", (2, End)),
        ("tru", (3, End)),
        ("-", (1, End)),
        ("1.", (2, End)),
        ("a: 1", (0, Unexpected)),
        ("truE", (3, Unexpected)),
        ("01", (1, Trailing)),
        ("1.e", (2, Unexpected)),
        ("1e+", (3, End)),
        ("+1", (0, Unexpected)),
        (".5", (0, Unexpected)),
        ("[1,]", (3, Unexpected)),
        ("{\"a\":1,}", (7, Unexpected)),
        ("{\"a\" 1}", (5, Unexpected)),
        ("{1:1}", (1, Unexpected)),
        ("[1}", (2, Unexpected)),
        ("{\"a\":1]", (6, Unexpected)),
        ("[1 2]", (3, Unexpected)),
        ("{} {}", (3, Trailing)),
        ("\"\\x\"", (2, Unexpected)),
        ("\"\\u12g4\"", (5, Unexpected)),
        ("\"a\nb\"", (2, Unexpected)),
        ("\u{feff}{}", (0, Unexpected)),
        ("{\"<\":1,<", (7, Unexpected)),
    ] {
        assert_eq!(problem(given), expected, "{given}");
    }
    let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert!(compact([deep(10_000).as_slice()], &Options::default()).text.is_ok());
    let result = compact([deep(10_001).as_slice()], &Options::default()).text;
    assert_eq!(result.unwrap_err(), NotJson { offset: 10_000, problem: TooDeep });
    assert_eq!(
        compact([&b"{]"[..]], &Options::default()).text.unwrap_err().to_string(),
        "not JSON: unexpected character at byte 1"
    );
}

#[test]
fn size_and_digest_are_those_of_the_original() {
    let options = Options { digest: true, limit: Some(4), ..Options::default() };
    for body in ["[ 1 ]", "no JSON at all", "[\"a long text, more than fits\", 1]"] {
        let result = compact(body.as_bytes().chunks(3), &options);
        let expected = digest::digest(&digest::SHA256, body.as_bytes());
        assert_eq!(result.original_bytes, body.len() as u64);
        assert_eq!(result.original_sha256.unwrap().as_slice(), expected.as_ref());
    }
    assert_eq!(compact([&b"1"[..]], &Options::default()).original_sha256, None);
}

#[test]
fn long_texts_are_truncated() {
    let limited = |limit| Options { limit: Some(limit), ..Options::default() };
    let text = b"{ \"kind\": \"Pod\", \"list\": [1, 2, 3] }";
    let all = r#"{"kind":"Pod","list":[1,2,3]}"#;
    for (limit, expected) in [
        (all.len(), all),
        (all.len() - 1, r#"{"kind":"Pod","list":[1,2]}"#),
        (17, r#"{"kind":"Pod"}"#),
        (10, r#"{}"#),
        (0, "null"),
    ] {
        let cut = whole(text, &limited(limit)).unwrap();
        assert_eq!(String::from_utf8(cut.json).unwrap(), expected, "{limit}");
        assert_eq!(cut.truncated, limit < all.len());
    }
    // What follows the cut is not validated.
    let cut = whole(b"[1,2,3,4,5,6,7,8,9,10}", &limited(6)).unwrap();
    assert_eq!(cut, Text { json: b"[1,2]".to_vec(), truncated: true });
    assert!(whole(b"[1,2}", &limited(6)).is_err());
}

#[test]
fn what_is_omitted_needs_no_room() {
    let text =
        format!(r#"{{"metadata":{{"name":"a","managedFields":[{}]}}}}"#, vec!["1"; 1000].join(","));
    let expected = r#"{"metadata":{"name":"a"}}"#;
    let limit = Some(expected.len());
    let options = Options { limit, omit_managed_fields: true, ..Options::default() };
    let result = whole(text.as_bytes(), &options).unwrap();
    assert_eq!(String::from_utf8(result.json).unwrap(), expected);
    assert!(!result.truncated);
}

#[test]
fn limits_can_be_lowered_on_the_way() {
    let mut compactor = Compactor::new(Options::default());
    compactor.push(&[b'['; 1]);
    compactor.push("1,".repeat(100_000).as_bytes());
    assert!(compactor.memory() >= 200_000);
    compactor.lower_limit(100);
    assert!(compactor.memory() < 1000, "{}", compactor.memory());
    compactor.push(b"1]");
    let text = compactor.finish().text.unwrap();
    assert!(text.truncated);
    assert_eq!(text.json, format!("[{}1]", "1,".repeat(48)).as_bytes());
}

#[test]
fn memory_is_bounded_by_the_limit() {
    let limit = Some(1000);
    let mut compactor = Compactor::new(Options { limit, ..Options::default() });
    compactor.push(b"[\"");
    for _ in 0..1000 {
        compactor.push(&[b'a'; 100]);
        assert!(compactor.memory() <= 1001 + 4 * size_of::<Frame>(), "{}", compactor.memory());
    }
}

#[test]
fn bodies_that_broke_off_are_recorded_as_far_as_they_went() {
    let broken = |text: &str| {
        let mut compactor = Compactor::new(Options::default());
        compactor.push(text.as_bytes());
        compactor.finish_broken_off().text.map(|text| (text.json, text.truncated))
    };
    assert_eq!(broken(r#"{"a": "bc"#), Ok((br#"{"a":"bc"}"#.to_vec(), true)));
    assert_eq!(broken(r#"[12, 34"#), Ok((b"[12]".to_vec(), true)));
    assert_eq!(broken(r#"[12, 34] "#), Ok((b"[12,34]".to_vec(), false)));
    assert_eq!(broken("").unwrap_err().problem, Problem::End);
    assert_eq!(broken("[}").unwrap_err().problem, Problem::Unexpected);
}

#[test]
fn long_keys_are_not_kept_beside_the_text() {
    let options = Options { omit_managed_fields: true, limit: Some(99), ..Options::default() };
    let mut compactor = Compactor::new(options);
    compactor.push(b"{\"");
    for _ in 0..100 {
        compactor.push(&[b'a'; 1000]);
        assert!(compactor.wanted_before.len() <= MAX_RAW_NAME + 1);
    }
    compactor.push(b"\":1}");
    assert_eq!(compactor.finish().text.unwrap(), Text { json: b"{}".to_vec(), truncated: true });
}

fn omitted(text: &str) -> String {
    let options = Options { omit_managed_fields: true, ..Options::default() };
    String::from_utf8(whole(text.as_bytes(), &options).unwrap().json).unwrap()
}

#[test]
fn managed_fields_go_wherever_they_stand() {
    for (given, expected) in [
        (r#"{"metadata":{"managedFields":[{}],"a":1}}"#, r#"{"metadata":{"a":1}}"#),
        (r#"{"metadata":{"a":1,"managedFields":[{}]}}"#, r#"{"metadata":{"a":1}}"#),
        (r#"{"metadata":{"a":1,"managedFields":7,"b":2}}"#, r#"{"metadata":{"a":1,"b":2}}"#),
        (r#"{"metadata":{ "managedFields" : "x" } }"#, r#"{"metadata":{}}"#),
        (
            "{\"metadata\": {\n \"managedFields\" : 1 ,\n \"managedFields\":2, \"a\":3 , \"managedFields\": {} }}",
            r#"{"metadata":{"a":3}}"#,
        ),
        (r#"{"metadata":{"managed\u0046ields":[1],"a":1}}"#, r#"{"metadata":{"a":1}}"#),
        (
            r#"{"metadata":{"managedFields":1},"metadata":{"managedFields":2,"b":1}}"#,
            r#"{"metadata":{},"metadata":{"b":1}}"#,
        ),
        (
            r#"{"kind":"PodList","items":[{"metadata":{"managedFields":[1],"name":"a"}},{},7]}"#,
            r#"{"kind":"PodList","items":[{"metadata":{"name":"a"}},{},7]}"#,
        ),
        (
            r#"{"apiVersion":"x/v1","items":[{"metadata":{"managedFields":1}}],"kind":"XList"}"#,
            r#"{"apiVersion":"x/v1","items":[{"metadata":{}}],"kind":"XList"}"#,
        ),
        (
            r#"{"kind":"T\u0061ble","rows":[{"object":{"metadata":{"managedFields":[1],"a":1}}},{}]}"#,
            r#"{"kind":"T\u0061ble","rows":[{"object":{"metadata":{"a":1}}},{}]}"#,
        ),
    ] {
        assert_eq!(omitted(given), expected, "{given}");
    }
}

#[test]
fn nothing_else_is_removed() {
    for text in [
        r#"{"managedFields":1}"#,
        r#"{"metadata":{"ManagedFields":1,"annotations":{"managedFields":1}}}"#,
        r#"{"metadata":[{"managedFields":1}]}"#,
        r#"{"spec":{"template":{"metadata":{"managedFields":1}}}}"#,
        r#"{"spec":{"items":[{"metadata":{"managedFields":1}}]}}"#,
        r#"{"items":{"0":{"metadata":{"managedFields":1}}}}"#,
        r#"{"kind":"Pod","rows":[{"object":{"metadata":{"managedFields":1}}}]}"#,
        r#"{"kind":"Table","items":[{"metadata":{"managedFields":1}}]}"#,
        r#"{"kind":"Status","metadata":{"managedFields":1}}"#,
        r#"{"kind":"DeleteOptions","metadata":{"managedFields":1}}"#,
        r#"[{"metadata":{"managedFields":1}}]"#,
        r#"{"object":{"metadata":{"managedFields":1}}}"#,
    ] {
        assert_eq!(omitted(text), text);
    }
}

#[test]
fn redaction_and_omission_go_together() {
    let redact = Redaction::default().for_request(b"", b"secrets", b"").cloned();
    let options = Options { redact, omit_managed_fields: true, ..Options::default() };
    let given = r#"{"kind":"Secret","metadata":{"managedFields":[{"f:data":{}}],"name":"s"},
        "data":{"password":"aHVudGVyMg==","empty":"","key":"LS0tLS1CRUdJTiBLRVkt"},"type":"t"}"#;
    let expected = concat!(
        r#"{"kind":"Secret","metadata":{"name":"s"},"data":{"password":"REDACTED(12 bytes)","#,
        r#""empty":"REDACTED(0 bytes)","key":"REDACTED("#,
        "sha256:e0c8da3c7f1e0a7e7db2da3a31b3d0f6e5d98c7a3f3e1c8e4a2b6d9f1c0e7a55, 20 bytes)\"",
        r#"},"type":"t"}"#,
    );
    let text = String::from_utf8(whole(given.as_bytes(), &options).unwrap().json).unwrap();
    let digest = digest::digest(&digest::SHA256, b"LS0tLS1CRUdJTiBLRVkt");
    let digest = crate::redacted::hex(digest.as_ref());
    let wrong = "e0c8da3c7f1e0a7e7db2da3a31b3d0f6e5d98c7a3f3e1c8e4a2b6d9f1c0e7a55";
    assert_eq!(text, expected.replace(wrong, &digest));
}

proptest! {
    #[test]
    fn compaction_is_that_of_a_tree(tree in tree(), spaces in spaces(), cuts in cuts()) {
        let text = tree.print(&mut spaces.into_iter().cycle());
        let result = compact(pieces(text.as_bytes(), &cuts), &Options::default()).text.unwrap();
        let json = String::from_utf8(result.json).unwrap();
        prop_assert_eq!(&json, &tree.compact());
        prop_assert_eq!(Tree::read(&text).compact(), json.clone());
        // serde_json refuses half surrogate pairs.
        if let Ok(expected) = serde_json::from_str::<serde_json::Value>(&text) {
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), expected);
        }
    }

    #[test]
    fn omission_is_that_of_a_tree(
        tree in prop_oneof![kubernetes_object(), tree()],
        spaces in spaces(),
        cuts in cuts(),
    ) {
        let text = tree.print(&mut spaces.into_iter().cycle());
        let options = Options { omit_managed_fields: true, ..Options::default() };
        let result = compact(pieces(text.as_bytes(), &cuts), &options).text.unwrap();
        let mut expected = tree;
        expected.omit_managed_fields();
        prop_assert_eq!(String::from_utf8(result.json).unwrap(), expected.compact());
    }

    #[test]
    fn json_is_accepted_like_by_serde_json(
        text in prop_oneof![
            "[\\[\\]{}:,\"a\\\\u0-9eE+.\\- \n]{0,24}".prop_map(String::into_bytes),
            any::<Vec<u8>>(),
            (tree(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(tree, at, byte)| {
                let mut text = tree.compact().into_bytes();
                let at = at.index(text.len());
                text[at] = byte;
                text
            }),
        ],
        cuts in cuts(),
    ) {
        let result = compact(pieces(&text, &cuts), &Options::default()).text;
        let expected = serde_json::from_slice::<IgnoredAny>(&text);
        prop_assert_eq!(result.is_ok(), expected.is_ok(), "{:?} {:?}", result, expected);
    }

    #[test]
    fn truncated_texts_are_valid_and_fit(
        tree in tree(),
        spaces in spaces(),
        cuts in cuts(),
        omit_managed_fields: bool,
        limit in 4usize..200,
    ) {
        let text = tree.print(&mut spaces.into_iter().cycle());
        let options = Options { limit: Some(limit), omit_managed_fields, ..Options::default() };
        let result = compact(pieces(text.as_bytes(), &cuts), &options);
        let once = compact([text.as_bytes()], &options);
        let result = result.text.unwrap();
        prop_assert!(result.json.len() <= limit);
        prop_assert!(serde_json::from_slice::<IgnoredAny>(&result.json).is_ok());
        prop_assert_eq!(&result, &once.text.unwrap());
        let mut whole = tree;
        if omit_managed_fields {
            whole.omit_managed_fields();
        }
        prop_assert_eq!(result.truncated, whole.compact().len() > limit);
    }

    #[test]
    fn broken_off_texts_are_valid(tree in tree(), at: prop::sample::Index, cuts in cuts()) {
        let text = tree.compact();
        let at = at.index(text.len()) + 1;
        let mut compactor = Compactor::new(Options::default());
        pieces(&text.as_bytes()[..at], &cuts).iter().for_each(|piece| compactor.push(piece));
        let result = compactor.finish_broken_off().text.unwrap();
        prop_assert!(serde_json::from_slice::<IgnoredAny>(&result.json).is_ok());
    }

    #[test]
    fn no_secret_is_left(
        tree in tree(),
        secret in scalar(),
        place in 0usize..6,
        spaces in spaces(),
        cuts in cuts(),
        limit in prop::option::of(4usize..300),
    ) {
        const SECRET: &str = "s3cret-of-some-length";
        let secret = format!("[{secret},\"{SECRET}\",{{\"{SECRET}\":[\"{SECRET}\"]}}]");
        let scalar = format!("\"x{SECRET}\"");
        let inner = format!(
            r#"{{"data":{{"a":{scalar},"b":{secret}}},"StringD\u0061ta":{{"{c}":{scalar}}},"data":{scalar}}}"#,
            c = "c",
        );
        let text = match place {
            0 => inner,
            1 => format!(r#"{{"x":{},"items":[{inner},{inner}]}}"#, tree.compact()),
            2 => format!(r#"{{"rows":[{{"object":{inner},"x":{}}}]}}"#, tree.compact()),
            3 => format!(r#"[{{"op":"add","path":"/data/x","value":{scalar}}},{{"value":{inner}}}]"#),
            4 => format!(
                r#"{{"metadata":{{"annotations":{{"kubectl.kubernetes.io/last-applied-configuration":{scalar}}}}}}}"#
            ),
            _ => format!(r#"{{"stringData":[{scalar},{secret},{inner}]}}"#),
        };
        let printed = Tree::read(&text).print(&mut spaces.into_iter().cycle());
        let redact = Redaction::default().for_request(b"", b"secrets", b"").cloned();
        let options = Options { redact, limit, ..Options::default() };
        let result = compact(pieces(printed.as_bytes(), &cuts), &options).text.unwrap();
        let json = String::from_utf8(result.json).unwrap();
        prop_assert!(!json.contains(SECRET), "{}", json);
        prop_assert!(serde_json::from_str::<IgnoredAny>(&json).is_ok());
        let mut broken = Compactor::new(options);
        broken.push(&printed.as_bytes()[..printed.len() / 2]);
        if let Ok(text) = broken.finish_broken_off().text {
            prop_assert!(!String::from_utf8_lossy(&text.json).contains(SECRET));
        }
    }
}
