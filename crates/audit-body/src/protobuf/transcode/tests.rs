use super::*;

/// A field of wire type 2.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    if bytes.len() >= 0x80 {
        field.push(bytes.len() as u8 | 0x80);
        field.push((bytes.len() >> 7) as u8);
    } else {
        field.push(bytes.len() as u8);
    }
    [field, bytes.to_vec()].concat()
}

fn envelope(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let type_meta =
        [bytes_field(1, api_version.as_bytes()), bytes_field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), bytes_field(1, &type_meta), bytes_field(2, object)].concat()
}

fn json_of(body: &[u8], limit: usize) -> (String, Transcoded) {
    let mut out = Vec::new();
    let left_out = transcode(body, &mut out, limit).unwrap();
    (String::from_utf8(out).unwrap(), left_out)
}

#[test]
fn zero_values_follow_omitempty_and_pointers() {
    // spec.replicas is a pointer, spec.paused a value with omitempty, template a struct.
    let spec = [vec![1 << 3, 0], vec![7 << 3, 0]].concat();
    let deployment = envelope("apps/v1", "Deployment", &bytes_field(2, &spec));
    let want = r#"{"kind":"Deployment","apiVersion":"apps/v1","metadata":{},"spec":{"replicas":0,"selector":null,"template":{"metadata":{},"spec":{"containers":null}},"strategy":{}},"status":{}}"#;
    assert_eq!(json_of(&deployment, 1 << 20), (want.into(), Transcoded::default()));
}

#[test]
fn only_32_bit_integers_are_truncated() {
    let long = [0x83, 0x80, 0x80, 0x80, 0x10]; // 2^32 + 3
    let generation = bytes_field(1, &[&[7 << 3][..], &long].concat());
    let replicas = bytes_field(2, &[&[1 << 3][..], &long].concat());
    let (json, seen) = json_of(&envelope("apps/v1", "Deployment", &generation), 1 << 20);
    assert!(json.contains(r#""generation":4294967299"#) && seen == Transcoded::default(), "{json}");
    let (json, seen) = json_of(&envelope("apps/v1", "Deployment", &replicas), 1 << 20);
    assert!(json.contains(r#""replicas":3,"#), "{json}");
    assert!(seen.ambiguities.contains(Ambiguity::TruncatedInteger), "{json}");
}

#[test]
fn fields_are_in_struct_order_and_map_keys_sorted() {
    let entry = |key: &str, value: &str| {
        bytes_field(2, &[bytes_field(1, key.as_bytes()), bytes_field(2, value.as_bytes())].concat())
    };
    let metadata = bytes_field(1, &bytes_field(1, b"<n>"));
    let object = [entry("b", "1"), entry("a", "2"), entry("b", "3"), metadata].concat();
    let (json, _) = json_of(&envelope("v1", "ConfigMap", &object), 1 << 20);
    assert_eq!(
        json,
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"\u003cn\u003e"},"data":{"a":"2","b":"3"}}"#
    );
}

#[test]
fn an_api_version_that_is_empty_is_no_member() {
    let (json, _) = json_of(&envelope("", "APIVersions", &bytes_field(1, b"v1")), 1 << 20);
    assert!(json.starts_with(r#"{"kind":"APIVersions","versions":["v1"]"#), "{json}");
}

#[test]
fn lists_have_items_even_if_none() {
    let (json, _) = json_of(&envelope("v1", "PodList", b""), 1 << 20);
    assert_eq!(json, r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}"#);
    let (json, _) = json_of(&envelope("meta.k8s.io/v1", "PartialObjectMetadataList", b""), 1 << 20);
    assert!(json.ends_with(r#","items":null}"#), "{json}");
    let (json, _) = json_of(&envelope("", "APIResourceList", b""), 1 << 20);
    assert!(json.starts_with(r#"{"kind":"APIResourceList","groupVersion":"""#), "{json}");
    let (json, _) = json_of(&envelope("rbac.authorization.k8s.io/v1", "Role", b""), 1 << 20);
    assert!(json.ends_with(r#","rules":null}"#), "{json}");
}

#[test]
fn embedded_objects_are_json_or_protobuf() {
    let revision = |raw: &[u8]| {
        let data = bytes_field(2, &bytes_field(1, raw));
        json_of(&envelope("apps/v1", "ControllerRevision", &data), 1 << 20)
    };
    let data = |json: &str| json.split_once("\"data\":").map(|(_, rest)| rest.to_owned()).unwrap();
    assert_eq!(data(&revision(br#"{ "a": 1 }"#).0), r#"{"a":1},"revision":0}"#);
    let (json, left_out) = revision(&envelope("v1", "ConfigMap", b""));
    assert_eq!(
        data(&json),
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{}},"revision":0}"#
    );
    assert!(!left_out.unknown);
    let (json, left_out) = revision(&envelope("x/v1", "Y", b""));
    assert!(data(&json).starts_with(r#""azhzAA"#), "{json}");
    assert!(left_out.unknown);
}

#[test]
fn unknown_fields_are_annotated() {
    let mut out = b"before".to_vec();
    let unknown = transcode(&envelope("x/v1", "Y", b""), &mut out, 100);
    assert_eq!(unknown, Err(Error::UnknownKind { api_version: "x/v1".into(), kind: "Y".into() }));
    assert_eq!(transcode(b"{}", &mut out, 100), Err(Error::NoEnvelope));
    assert_eq!(
        transcode(&envelope("v1", "Pod", b"\x0a\x05"), &mut out, 100),
        Err(Error::Malformed)
    );
    assert_eq!(out, b"before");
    let newer = envelope("v1", "ConfigMap", &bytes_field(15, b"?"));
    assert!(json_of(&newer, 1 << 20).1.unknown);
}

#[test]
fn a_truncated_body_is_malformed() {
    let whole = envelope("v1", "ConfigMap", &bytes_field(1, &bytes_field(1, b"name")));
    // An envelope without an object has an empty one.
    let object = bytes_field(2, &bytes_field(1, &bytes_field(1, b"name")));
    let without_object = whole.len() - object.len();
    assert_eq!(
        json_of(&whole[..without_object], 1 << 20).0,
        r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{}}"#
    );
    for length in (4..whole.len()).filter(|length| *length != without_object) {
        let result = transcode(&whole[..length], &mut Vec::new(), 1 << 20);
        assert!(result.is_err(), "{length}: {result:?}");
    }
}

#[test]
fn nesting_is_bounded() {
    // A schema that is `not` a schema that is `not` a schema, and so on.
    let schema = (0..super::super::generated::MESSAGES.len() as u16)
        .map(table::message)
        .find(|fields| fields.iter().any(|field| field.name == "x-kubernetes-int-or-string"))
        .unwrap();
    let not = schema.iter().find(|field| field.name == "not").unwrap().number;
    let nested = |levels: usize| {
        (0..levels).fold(Vec::new(), |schema, _| {
            let key = not << 3 | 2;
            let mut outer = vec![key as u8 | 0x80, (key >> 7) as u8];
            let mut length = schema.len();
            while length >= 0x80 {
                outer.push(length as u8 | 0x80);
                length >>= 7;
            }
            outer.push(length as u8);
            [outer, schema].concat()
        })
    };
    let written = |levels| {
        let (schema_bytes, mut out) = (nested(levels), Vec::new());
        let mut writer = Writer {
            end: 1 << 20,
            out: &mut out,
            most_entries: 1 << 20,
            entries: Vec::new(),
            depth: 0,
            api_version: b"",
            left_out: Transcoded::default(),
        };
        let written = writer.object(schema, &[&schema_bytes]);
        written.map(|()| String::from_utf8(out).unwrap())
    };
    assert_eq!(written(2).as_deref(), Ok(r#"{"not":{"not":{}}}"#));
    assert!(written(MAX_DEPTH - 1).is_ok());
    assert_eq!(written(MAX_DEPTH), Err(Error::Malformed));
    assert_eq!(written(5000), Err(Error::Malformed));
}

#[test]
fn what_does_not_fit_is_left_out_and_the_rest_stays_json() {
    let entry = |key: &str| {
        bytes_field(2, &[bytes_field(1, key.as_bytes()), bytes_field(2, &[b'v'; 40])].concat())
    };
    let metadata = bytes_field(1, &bytes_field(1, b"n"));
    let object = [metadata, entry("a"), entry("b"), entry("c")].concat();
    let body = envelope("v1", "ConfigMap", &object);
    let whole = json_of(&body, 1 << 20).0;
    for limit in 0..whole.len() {
        let (json, left_out) = json_of(&body, limit);
        assert!(left_out.truncated || json == whole, "{limit}: {json}");
        assert!(json.len() <= limit.max(35) + 25, "{limit}: {json}");
        serde_json::from_str::<serde_json::Value>(&json).unwrap();
    }
    assert_eq!(json_of(&body, whole.len()), (whole, Transcoded::default()));
}

proptest::proptest! {
    #[test]
    fn arbitrary_messages_never_panic_and_give_json(
        kind in 0..super::super::generated::KINDS.len(),
        object: Vec<u8>,
        limit in 0..4096_usize,
    ) {
        let (api_version, kind, _) = super::super::generated::KINDS[kind];
        let object = &object[..object.len().min(0x3fff)];
        let mut out = Vec::new();
        if transcode(&envelope(api_version, kind, object), &mut out, limit).is_ok() {
            serde_json::from_slice::<serde::de::IgnoredAny>(&out).unwrap();
        }
    }
}
