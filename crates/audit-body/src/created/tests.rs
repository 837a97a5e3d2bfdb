use std::io::Write as _;

use http::header;

use super::*;

fn answered(
    media_type: &str,
    encoding: &str,
    body: &[u8],
    piece: usize,
) -> Option<CreatedResponse> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, media_type.parse().unwrap());
    if !encoding.is_empty() {
        headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
    }
    let mut tap = CreatedTap::new(&headers)?;
    body.chunks(piece).for_each(|piece| tap.data(piece));
    tap.finish()
}

fn tapped(media_type: &str, encoding: &str, body: &[u8], piece: usize) -> Option<Created> {
    match answered(media_type, encoding, body, piece)? {
        CreatedResponse::Object(created) => Some(created),
        CreatedResponse::TooLong => panic!("it is short"),
    }
}

/// Expects the same result for every split into pieces.
fn found(media_type: &str, body: &[u8]) -> Option<(String, String)> {
    let whole = tapped(media_type, "", body, body.len());
    for piece in 1..body.len().min(40) {
        assert_eq!(tapped(media_type, "", body, piece), whole, "in pieces of {piece}");
    }
    whole.map(|created| (created.name, created.generate_name))
}

fn names(name: &str, generate_name: &str) -> Option<(String, String)> {
    Some((name.to_owned(), generate_name.to_owned()))
}

const JSON: &str = "application/json";

#[test]
fn names_are_read_from_json_of_all_shapes() {
    for (body, expected) in [
        (
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","uid":"u"}}"#,
            names("a", ""),
        ),
        (
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a-x","generateName":"a-","uid":"u"}}"#,
            names("a-x", "a-"),
        ),
        (r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#, names("a", "")),
        // A custom resource has sorted keys.
        (
            r#"{"apiVersion":"x/v1","data":{"metadata":{"name":"b"},"kind":"Status"},"kind":"Widget","metadata":{"annotations":{"name":"c"},"generateName":"a-","managedFields":[{"name":"d"}],"name":"a-x","uid":"u"},"spec":{}}"#,
            names("a-x", "a-"),
        ),
        (
            "{\n  \"kind\": \"Pod\",\n  \"metadata\": {\n    \"labels\": {}, \"name\": \"a\\\"\\u0062\" } }",
            names("a\"b", ""),
        ),
        // Reviews have no name.
        (
            r#"{"kind":"TokenReview","apiVersion":"v1","metadata":{},"status":{"name":"x"}}"#,
            names("", ""),
        ),
        (r#"{"kind":"Status","apiVersion":"v1","metadata":{},"details":{"name":"x"}}"#, None),
        (r#"{"kind":"Table","metadata":{"name":"x"}}"#, None),
        (r#"[{"kind":"Pod","metadata":{"name":"x"}}]"#, None),
        (r#"x{"kind":"Pod","metadata":{"name":"x"}}"#, None),
        (r#""{"kind":"Pod","metadata":{"name":"x"}}"#, None),
        ("\n {\"kind\":\"Pod\",\"metadata\":{\"name\":\"x\"}}", names("x", "")),
        (r#"{"kind":"PodList","metadata":{"name":"x"}}"#, None),
        (r#"{"metadata":{"name":"x"}}"#, None),
        (r#"["metadata",{"name":"x"}]"#, None),
        ("no JSON", None),
        (r#"{"kind":"Pod","metadata":["name","x"],"spec":{"name":"y"}}"#, names("", "")),
    ] {
        assert_eq!(found(JSON, body.as_bytes()), expected, "{body}");
    }
}

#[test]
fn names_are_read_from_protobuf_and_yaml() {
    let protobuf =
        b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x0d\n\x0b\n\x01a\x12\x02b-\x1a\x02ns\x1a\0\"\0";
    let protobuf_type = "application/vnd.kubernetes.protobuf";
    assert_eq!(found(protobuf_type, protobuf), names("a", "b-"));
    let status = b"k8s\0\n\x0c\n\x02v1\x12\x06Status\x12\x04\n\x02\n\0";
    assert_eq!(found(protobuf_type, status), None);
    let yaml = b"apiVersion: v1\ndata:\n  name: x\nkind: ConfigMap\nmetadata:\n  labels:\n    name: y\n  name: \"1\"\n  uid: u\n";
    assert_eq!(found("application/yaml", yaml), names("1", ""));
    assert_eq!(found("text/plain", b"x"), None);
}

#[test]
fn a_compressed_response_is_read() {
    let body = format!(
        r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"a","x":"{}"}}}}"#,
        "x".repeat(10_000)
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    for piece in [1, 10, 10_000] {
        assert_eq!(tapped(JSON, "gzip", &gzip, piece).unwrap().name, "a");
    }
}

#[test]
fn generated_names_are_known_by_their_shape() {
    let created = |name: &str, generate_name: &str| {
        Created { name: name.into(), generate_name: generate_name.into() }.is_generated()
    };
    assert!(created("web-x7k2p", "web-"));
    let (long, cut) = ("a".repeat(70), "a".repeat(58));
    assert!(created(&format!("{cut}x7k2p"), &long));
    assert!(!created("web-x7k2", "web-") && !created("cluster-admin", "web-"));
    assert!(!created("web", "") && !created("web-x7/2p", "web-"));
}
