use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::parse::parse_any;
use super::*;

fn check(line: &str) {
    let json: Json = serde_json::from_str(line).unwrap();
    let event = Event::parse(line.as_bytes()).unwrap_or_else(|| panic!("no event: {line}"));
    let at = |pointer: &str| json.pointer(pointer).and_then(Json::as_str).map(str::to_owned);
    let text = |text: Text<'_>| text.is_present().then(|| text.decode().into_owned());
    for (pointer, found) in [
        ("/level", event.level),
        ("/auditID", event.audit_id),
        ("/stage", event.stage),
        ("/requestURI", event.request_uri),
        ("/verb", event.verb),
        ("/user/username", event.user.name),
        ("/user/uid", event.user.uid),
        ("/impersonatedUser/username", event.impersonated_user.unwrap_or_default().name),
        ("/sourceIPs/0", event.source_ip()),
        ("/userAgent", event.user_agent),
        ("/objectRef/resource", event.object.resource),
        ("/objectRef/namespace", event.object.namespace),
        ("/objectRef/name", event.object.name),
        ("/objectRef/uid", event.object.uid),
        ("/objectRef/apiGroup", event.object.api_group),
        ("/objectRef/apiVersion", event.object.api_version),
        ("/objectRef/resourceVersion", event.object.resource_version),
        ("/objectRef/subresource", event.object.subresource),
        ("/responseStatus/reason", event.status.reason),
        ("/responseStatus/message", event.status.message),
        ("/requestReceivedTimestamp", event.received),
        ("/stageTimestamp", event.stage_time),
        ("/annotations/a~1b", event.annotation(b"a/b")),
    ] {
        assert_eq!(text(found), at(pointer), "{pointer} of {line}");
    }
    assert_eq!(event.status.code, json.pointer("/responseStatus/code").and_then(Json::as_i64));
    let mut groups = Vec::new();
    event.user.groups(|group| groups.push(group.decode().into_owned()));
    let expected = json.pointer("/user/groups").and_then(Json::as_array);
    let expected = expected.map_or(Vec::new(), |groups| {
        groups.iter().filter_map(Json::as_str).map(str::to_owned).collect()
    });
    assert_eq!(groups, expected, "{line}");
    for (pointer, found) in
        [("/requestObject", event.request_object), ("/responseObject", event.response_object)]
    {
        let found: Option<Json> = found.map(|body| serde_json::from_slice(body).unwrap());
        assert_eq!(found.as_ref(), json.pointer(pointer), "{pointer} of {line}");
    }
}

#[test]
fn events_of_the_corpus_are_parsed_like_by_serde_json() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/corpus/exchanges");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("legacy.jsonl") {
            continue;
        }
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let exchange: Json = serde_json::from_str(line).unwrap();
            for event in exchange["events"].as_array().unwrap() {
                check(event.as_str().unwrap());
                count += 1;
            }
        }
    }
    assert!(count > 2000, "{count}");
}

#[test]
fn unusual_lines_are_parsed_like_by_serde_json() {
    for line in [
        r#"{"auditID":"1"}"#,
        r#"{"stage":"Panic","auditID":"1","verb":"get","verb":"list"}"#,
        r#"{"auditID":"1","user":{"username":"a","groups":["x"]},"user":{"uid":"7"}}"#,
        r#"{"auditID":"1","user":{"username":"a"},"user":null}"#,
        r#"{ "auditID" : "1" , "user" : { "groups" : [ "a" , "b" ] } , "verb" : "get" }"#,
        "{\t\"auditID\":\"1\",\r\"verb\":\"get\"}",
        r#"{"audit\u0049D":"1","v\u0065rb":"g\u0065t","objectRef":{"n\u0061me":"\"}{\\"}}"#,
        r#"{"auditID":"1","requestObject":{"verb":"delete","requestReceivedTimestamp":"x"},"verb":"get"}"#,
        r#"{"auditID":"1","requestObject":"a \",\"requestReceivedTimestamp\":\"2026\"}","verb":"get"}"#,
        r#"{"auditID":"1","user":{"extra":{"sourceIPs":["6.6.6.6"],"username":["evil"]},"username":"a"}}"#,
        r#"{"annotations":{"a/b":"c"},"auditID":"1","stage":"Panic","responseStatus":{"code":500.0}}"#,
        r#"{"annotations":{"a/b":1},"auditID":"1","verb":7,"objectRef":[],"sourceIPs":{},"user":"a"}"#,
        r#"{"auditID":"1","responseStatus":{"details":{"code":1},"code":403,"metadata":{"code":2}}}"#,
        r#"{"auditID":"1","responseObject":[[[{}]]],"requestObject":-1.5e3}"#,
    ] {
        check(line);
    }
}

#[test]
fn what_is_no_event_is_none() {
    let valid = br#"{"kind":"Event","auditID":"1","verb":"get","user":{"groups":["a"]}}"#;
    assert!(Event::parse(valid).is_some());
    for length in 0..valid.len() {
        assert!(Event::parse(&valid[..length]).is_none(), "{length}");
    }
    for line in [
        &b"{}"[..],
        b"null",
        b"{\"kind\":\"Pod\",\"auditID\":\"1\"}",
        b"{\"kind\":\"EventList\",\"items\":[{\"auditID\":\"1\"}]}",
        b"{\"auditID\":\"1\"}{\"auditID\":\"2\"}",
        b"{\"auditID\":\"1\"},",
        b"\0\0\0{\"auditID\":\"1\"}",
        b"{\"auditID\":\"a\0b\"}",
        b"{\"auditID\":\"1\",}",
        b"{\"auditID\":\"1\",\"verb\":get}",
        b"{\"auditID\":\"1\",\"verb\"}",
        b"{\"auditID\":\"1\" \"verb\":\"get\"}",
        b"2026-11-23T05:10:34.278518757Z AUDIT: id=\"6688f53c\"",
    ] {
        assert!(Event::parse(line).is_none(), "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn bytes_that_are_not_utf_8_hide_nothing() {
    let event =
        Event::parse(b"{\"auditID\":\"1\",\"verb\":\"get\",\"userAgent\":\"a\xff\"}").unwrap();
    assert_eq!(event.user_agent.decode(), "a\u{fffd}");
    assert!(event.verb.is(b"get"));
}

/// Objects with members of an event and other members, in any order and nesting.
fn objects() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        "[a-z\"\\\\{}\\[\\],:\u{e9}\n]{0,20}".prop_map(Json::from),
        Just(json!("ResponseComplete")),
    ];
    let keys = prop::sample::select(vec![
        "level",
        "auditID",
        "stage",
        "requestURI",
        "verb",
        "user",
        "username",
        "uid",
        "groups",
        "impersonatedUser",
        "sourceIPs",
        "userAgent",
        "objectRef",
        "resource",
        "namespace",
        "name",
        "apiGroup",
        "responseStatus",
        "code",
        "reason",
        "requestObject",
        "responseObject",
        "requestReceivedTimestamp",
        "stageTimestamp",
        "annotations",
        "a/b",
        "other",
    ]);
    leaf.prop_recursive(4, 60, 12, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((keys.clone(), inner), 0..12).prop_map(|members| {
                members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_object_is_decoded_like_by_serde_json(mut object in objects(), pretty: bool) {
        if let Some(members) = object.as_object_mut() {
            members.insert("auditID".to_owned(), json!("1"));
            let line = match pretty {
                true => serde_json::to_string_pretty(&object).unwrap(),
                false => object.to_string(),
            };
            check(&line);
        }
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
        let _ = Event::parse(&bytes);
        let line = br#"{"kind":"Event","auditID":"1","user":{"groups":["a"]},"objectRef":{"name":"\\"}}"#;
        bytes.splice(0..0, line[..at.index(line.len())].iter().copied());
        let _ = Event::parse(&bytes);
    }
}

/// Lines in the form that kube-apiserver writes, with most members.
const CANONICAL: [&str; 3] = [
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Request","auditID":"1-2","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/secrets/b?x=\u0026","verb":"get","user":{"username":"al\"ice","uid":"7","groups":["dev","]","\"]"],"extra":{"k":["v"]}},"impersonatedUser":{"username":"bob"},"sourceIPs":["10.0.0.1","::1"],"userAgent":"kubectl/v1 (linux)","objectRef":{"resource":"secrets","namespace":"a","name":"b","uid":"u","apiGroup":"g","apiVersion":"v1","resourceVersion":"9","subresource":"s"},"responseStatus":{"metadata":{},"status":"Failure","message":"no {","reason":"Forbidden","details":{"name":"b"},"code":403},"requestObject":{"a":[{"verb":"x"}]},"responseObject":{"s":"}"},"requestReceivedTimestamp":"2026-11-23T05:08:42.711967Z","stageTimestamp":"2026-11-23T05:08:43.711967Z","annotations":{"a/b":"c","d":"e"}}"#,
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"3","stage":"RequestReceived","requestURI":"/healthz","verb":"get","user":{"groups":[]},"requestReceivedTimestamp":"2026-11-23T05:08:42.711967Z","stageTimestamp":"2026-11-23T05:08:42.711967Z"}"#,
    r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"4","stage":"Panic","requestURI":"/","verb":"list","user":{},"authenticationMetadata":{"impersonationConstraint":"c"},"userAgent":"","responseStatus":{},"requestReceivedTimestamp":"","stageTimestamp":"","annotations":{}}"#,
];

#[test]
fn the_usual_order_is_read_at_once() {
    for line in CANONICAL {
        assert_eq!(fast::parse(line.as_bytes(), &mut Event::default()), Some(()), "{line}");
        check(line);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn both_parsers_agree_on_lines_that_deviate(
        which in 0..CANONICAL.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..7_u8, any::<prop::sample::Index>()), 0..4),
    ) {
        let mut line = CANONICAL[which].as_bytes().to_vec();
        for (at, change, other) in changes {
            if line.is_empty() {
                break;
            }
            let at = at.index(line.len());
            match change {
                0 => drop(line.remove(at)),
                1 => line.insert(at, b'"'),
                2 => line[at] = b"{}[],:\"\\x1 \x01\xff"[other.index(13)],
                3 => line.truncate(at.max(1)),
                4 => {
                    // Repeats a part of the line at another place, which yields duplicate or nested
                    // members.
                    let from = other.index(line.len());
                    let part = line[from..line.len().min(from + at % 60)].to_vec();
                    line.splice(at..at, part);
                }
                5 => drop(line.splice(at..at, *b",\"verb\":\"delete\"")),
                _ => drop(line.splice(at..at, *b"{\"name\":\"x\"}")),
            }
        }
        let found = format!("{:?}", parse(&line));
        prop_assert_eq!(found, format!("{:?}", parse_any(line.trim_ascii_end())));
    }
}
