use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::strategy::Strategy;

use super::*;
use crate::Redaction;

fn plan(media_type: MediaType) -> Plan {
    Plan {
        media_type,
        encoding: Encoding::Identity,
        limit: 1000,
        length: None,
        omit_managed_fields: false,
        redact: None,
        keep_whole: false,
    }
}

fn captured(plan: Plan, body: &[u8]) -> Recorded {
    let mut capture = Capture::new(plan, &Budget::new(1 << 20), Account::default());
    for piece in body.chunks(7) {
        capture.push(piece);
    }
    capture.finish(true)
}

fn json(recorded: &Recorded) -> &str {
    std::str::from_utf8(&recorded.json).unwrap()
}

#[test]
fn json_is_compacted_whether_kept_or_not() {
    for keep_whole in [false, true] {
        let plan = Plan { keep_whole, ..plan(MediaType::Json) };
        let recorded = captured(plan, b"{ \"a\" : \"<\" ,\n \"a\": 1.0 }\n");
        assert_eq!(json(&recorded), r#"{"a":"\u003c","a":1.0}"#);
        assert_eq!((recorded.cut, recorded.note), (None, None));
    }
}

#[test]
fn what_is_no_json_becomes_a_string() {
    for keep_whole in [false, true] {
        let broken = captured(Plan { keep_whole, ..plan(MediaType::Json) }, b"{\"a\": <b>");
        assert_eq!(json(&broken), r#""{\"a\": \u003cb\u003e""#);
        assert!(broken.note.unwrap().starts_with("not JSON: unexpected character at byte 6"));
    }
    let binary = captured(plan(MediaType::Other), b"\xff\xfe");
    assert_eq!(json(&binary), "\"//4=\"");
}

#[test]
fn yaml_and_protobuf_become_json() {
    let yaml = captured(plan(MediaType::Yaml), b"b: 1\na: x\n");
    assert_eq!(json(&yaml), r#"{"a":"x","b":1}"#);
    let yaml_in_json = captured(plan(MediaType::Yaml), b"{\"b\": 1, \"a\": 2}");
    assert_eq!(json(&yaml_in_json), r#"{"b":1,"a":2}"#, "bytes unchanged");
    let status = b"k8s\0\n\x0c\n\x02v1\x12\x06Status\x12\x03\x30\x94\x03\x1a\0\"\0";
    let protobuf = captured(plan(MediaType::Protobuf), status);
    assert_eq!(json(&protobuf), r#"{"kind":"Status","apiVersion":"v1","metadata":{},"code":404}"#);
    let unknown = b"k8s\0\n\x0a\n\x02v9\x12\x04Nope\x12\0\x1a\0\"\0";
    let unknown = captured(plan(MediaType::Protobuf), unknown);
    assert!(unknown.note.unwrap().contains("Nope"), "{}", "named in the note");
}

#[test]
fn long_bodies_are_truncated_and_annotated() {
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(5000));
    for keep_whole in [false, true] {
        let recorded = captured(Plan { keep_whole, ..plan(MediaType::Json) }, body.as_bytes());
        assert!(recorded.json.len() <= 1010, "{}", recorded.json.len());
        serde_json::from_slice::<serde_json::Value>(&recorded.json).unwrap();
        let cut = recorded.cut.unwrap();
        assert_eq!(cut.bytes, body.len() as u64);
        assert_eq!(cut.sha256.unwrap(), sha256(body.as_bytes()));
    }
}

#[test]
fn bombs_stop_at_the_limit() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..1000 {
        gzip.write_all(&[b' '; 10_000]).unwrap();
    }
    let bomb = gzip.finish().unwrap();
    let budget = Budget::new(1 << 20);
    let plan = Plan { encoding: Encoding::Gzip, ..plan(MediaType::Json) };
    let mut capture = Capture::new(plan, &budget, Account::default());
    capture.push(&bomb);
    assert!(budget.taken() <= 16 << 10, "{}", budget.taken());
    let recorded = capture.finish(true);
    assert_eq!(recorded.note.as_deref(), Some("it is too long"));
    assert_eq!(recorded.cut.unwrap().bytes, bomb.len() as u64);
    serde_json::from_slice::<serde_json::Value>(&recorded.json).unwrap();
}

#[test]
fn a_spent_budget_cuts_bodies_and_is_given_back() {
    for media_type in [MediaType::Json, MediaType::Yaml] {
        for keep_whole in [false, true] {
            let budget = Budget::new(64 << 10);
            let plan = Plan { limit: 1 << 20, keep_whole, ..plan(media_type) };
            let body = format!("{{\"a\":\"{}\"}}", "x".repeat(300 << 10));
            let mut capture = Capture::new(plan, &budget, Account::default());
            for piece in body.as_bytes().chunks(8 << 10) {
                capture.push(piece);
                assert!(budget.taken() <= 64 << 10);
            }
            let recorded = capture.finish(true);
            let length = recorded.json.len();
            assert!((60 << 10..110 << 10).contains(&length), "the reserved minimum: {length}");
            serde_json::from_slice::<serde_json::Value>(&recorded.json).unwrap();
            assert_eq!(recorded.cut.unwrap().bytes, body.len() as u64);
            let note = recorded.note.unwrap();
            assert!(note.contains("--audit-total-body-bytes"), "{note}");
            assert_eq!(budget.taken(), 0);
        }
    }
}

#[test]
fn small_bodies_are_recorded_though_the_budget_is_spent() {
    let budget = Budget::new(0);
    let plan = Plan { limit: 1 << 20, keep_whole: true, ..plan(MediaType::Json) };
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(60 << 10));
    let mut capture = Capture::new(plan, &budget, Account::default());
    body.as_bytes().chunks(8 << 10).for_each(|piece| capture.push(piece));
    let recorded = capture.finish(true);
    assert_eq!((json(&recorded), recorded.cut.is_none()), (body.as_str(), true));
}

#[test]
fn recorded_json_is_accepted_by_every_parser() {
    for keep_whole in [false, true] {
        let plan = Plan { keep_whole, ..plan(MediaType::Json) };
        let recorded = captured(plan.clone(), b"{\"\xff\":\"a\xc3\\ud800\",\"n\":1e999}");
        assert_eq!(json(&recorded), "{\"\u{fffd}\":\"a\u{fffd}\\ufffd\",\"n\":\"1e999\"}");
        assert_eq!(recorded.note, None);
        let deep = [vec![b'['; 150], vec![b']'; 150]].concat();
        let recorded = captured(plan.clone(), &deep);
        assert!(json(&recorded).contains("OMITTED(nested deeper"), "{}", json(&recorded));
        assert!(recorded.note.is_some());
        serde_json::from_slice::<serde_json::Value>(&recorded.json).unwrap();
        // It grows, and has to fit all the same.
        let grown = captured(plan, &[b"\"", &[0xff_u8; 900][..], b"\""].concat());
        assert!(grown.json.len() <= 1000 && grown.cut.is_some());
        serde_json::from_slice::<String>(&grown.json).unwrap();
    }
}

proptest::proptest! {
    #[test]
    fn any_body_is_recorded_as_valid_json(
        body in proptest::prop_oneof![
            proptest::collection::vec(proptest::num::u8::ANY, 0..60),
            // Mostly JSON: strings of any bytes in some brackets.
            (proptest::collection::vec(proptest::num::u8::ANY, 0..40), 0usize..200).prop_map(
                |(bytes, depth)| {
                    let plain = |byte: &u8| *byte >= 0x20 && !b"\"\\".contains(byte);
                    let string: Vec<u8> = bytes.into_iter().filter(plain).collect();
                    let (open, close) = (vec![b'['; depth], vec![b']'; depth]);
                    [&open[..], b"\"", &string, b"\"", &close].concat()
                }
            ),
        ],
        kind in 0usize..4,
        keep_whole: bool,
        complete: bool,
        limit in 4usize..2000,
    ) {
        let types = [MediaType::Json, MediaType::Yaml, MediaType::Protobuf, MediaType::Other];
        let plan = Plan { limit, keep_whole, ..plan(types[kind]) };
        let mut capture = Capture::new(plan, &Budget::new(1 << 20), Account::default());
        body.chunks(5).for_each(|piece| capture.push(piece));
        let recorded = capture.finish(complete);
        let text = std::str::from_utf8(&recorded.json).expect("UTF-8");
        proptest::prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{}", text);
        proptest::prop_assert!(!text.contains('\n') && text.len() <= limit);
    }
}

#[test]
fn secrets_do_not_show_even_in_bodies_that_are_no_json() {
    let redaction = Redaction::default();
    let redact = redaction.for_request(b"", b"secrets", b"").cloned();
    for keep_whole in [false, true] {
        let plan = Plan { redact: redact.clone(), keep_whole, ..plan(MediaType::Json) };
        let good = captured(plan.clone(), br#"{"data":{"p":"aHVudGVyMg=="}}"#);
        assert!(json(&good).contains("REDACTED") && !json(&good).contains("aHVudGVyMg"));
        let bad = captured(plan, br#"{"data":{"p":"aHVudGVyMg==" oops"#);
        assert!(!json(&bad).contains("aHVudGVyMg"), "{}", json(&bad));
    }
}
