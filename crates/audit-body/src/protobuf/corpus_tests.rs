//! Compares objects that kube-apiserver sent in protobuf with what it logged for them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::table::{self, Empty, Field, Shape, Type};
use super::transcode;

#[derive(Deserialize)]
struct Exchange {
    name: String,
    body: Option<String>,
    response: Response,
    events: Vec<String>,
}

#[derive(Deserialize)]
struct Response {
    body: Option<String>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "requestObject")]
    request_object: Option<&'a RawValue>,
    #[serde(borrow, rename = "responseObject")]
    response_object: Option<&'a RawValue>,
}

fn exchanges() -> Vec<Exchange> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/corpus/exchanges/all-requestresponse.jsonl"
    );
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Exchanges whose request or response is an object in protobuf: name, the bytes, the JSON logged.
fn recorded(request: bool) -> Vec<(String, Vec<u8>, String)> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/corpus/exchanges/all-requestresponse.jsonl"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let mut found = Vec::new();
    for line in text.lines() {
        let exchange: Exchange = serde_json::from_str(line).unwrap();
        let body = if request { exchange.body } else { exchange.response.body };
        let body = BASE64_STANDARD.decode(body.unwrap_or_default()).unwrap();
        if !body.starts_with(b"k8s\0") {
            continue;
        }
        let event: Event<'_> = serde_json::from_str(exchange.events.last().unwrap()).unwrap();
        let object = if request { event.request_object } else { event.response_object };
        found.push((exchange.name, body, object.unwrap().get().to_owned()));
    }
    found
}

fn json_of(body: &[u8]) -> String {
    let mut out = Vec::new();
    let left_out = transcode(body, &mut out, 1 << 20).unwrap();
    assert_eq!(left_out, Default::default());
    String::from_utf8(out).unwrap()
}

#[test]
fn responses_are_as_kube_apiserver_logged_them() {
    let recorded = recorded(false);
    assert!(recorded.len() >= 80);
    let mut equal = 0;
    for (name, body, want) in &recorded {
        let got = json_of(body);
        println!("{} {name}", if got == *want { "equal  " } else { "DIFFERS" });
        if got == *want {
            equal += 1;
        } else {
            println!("  got  {got}\n  want {want}");
        }
    }
    assert_eq!(equal, recorded.len(), "of {}", recorded.len());
}

#[test]
fn all_that_a_client_sent_is_in_what_kube_apiserver_logged() {
    let recorded = recorded(true);
    assert!(recorded.len() > 20);
    let mut missing = Vec::new();
    for (name, body, logged) in &recorded {
        let got = serde_json::from_str(&json_of(body)).unwrap();
        compare(name, &got, &serde_json::from_str(logged).unwrap(), &mut missing);
    }
    // kube-apiserver logs options under its internal version.
    let internal = r#"delete protobuf options.apiVersion: "v1" logged as "meta.k8s.io/__internal""#;
    assert_eq!(missing, [internal]);
}

/// Records each value of `got` that is missing or different in `logged`.
fn compare(at: &str, got: &Value, logged: &Value, missing: &mut Vec<String>) {
    match (got, logged) {
        (Value::Object(got), Value::Object(logged)) => {
            for (key, value) in got {
                compare(
                    &format!("{at}.{key}"),
                    value,
                    logged.get(key).unwrap_or(&Value::Null),
                    missing,
                );
            }
        }
        (Value::Array(got), Value::Array(logged)) if got.len() == logged.len() => {
            for (index, (got, logged)) in got.iter().zip(logged).enumerate() {
                compare(&format!("{at}[{index}]"), got, logged, missing);
            }
        }
        _ if got == logged => {}
        _ => missing.push(format!("{at}: {got} logged as {logged}")),
    }
}

/// Objects recorded in JSON only show whether names, order and empty values in the table are right.
#[test]
fn the_table_agrees_with_every_object_logged() {
    let mut kinds = std::collections::BTreeSet::new();
    for exchange in exchanges() {
        let Some(event) = exchange.events.last() else { continue };
        let event: Event<'_> = serde_json::from_str(event).unwrap();
        let Some(object) = event.response_object else { continue };
        let members = members(object);
        let member = |name: &str| {
            let (_, value) = members.iter().find(|(member, _)| member == name)?;
            serde_json::from_str::<String>(value.get()).ok()
        };
        let (Some(version), Some(kind)) = (member("apiVersion"), member("kind")) else { continue };
        if let Some(message) = table::kind(version.as_bytes(), kind.as_bytes()) {
            agree(&exchange.name, message, object);
            kinds.insert((version, kind));
        }
    }
    println!("{} kinds: {kinds:?}", kinds.len());
    assert!(kinds.len() > 60, "{}", kinds.len());
}

/// The members of a JSON object in their order.
fn members(object: &RawValue) -> Vec<(String, &RawValue)> {
    struct Members;
    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            std::iter::from_fn(|| map.next_entry().transpose()).collect()
        }
    }
    use serde::Deserializer;
    serde_json::Deserializer::from_str(object.get()).deserialize_map(Members).unwrap()
}

fn flat(message: &'static [Field]) -> Vec<&'static Field> {
    let fields = message.iter().flat_map(|field| match field.of {
        Type::Inline(inline) => flat(table::message(inline)),
        _ => vec![field],
    });
    fields.collect()
}

fn agree(at: &str, message: &'static [Field], object: &RawValue) {
    let mut fields = flat(message).into_iter();
    for (name, value) in members(object) {
        let type_meta = name == "kind" || name == "apiVersion";
        if type_meta && !message.iter().any(|field| field.name == name) {
            continue;
        }
        let at = format!("{at}.{name}");
        let field = loop {
            let field = fields.next().unwrap_or_else(|| panic!("{at}: not there, or not in order"));
            if field.name == name {
                break field;
            }
            let may_miss = matches!(field.empty, Empty::Pointer | Empty::Omit);
            assert!(may_miss, "{at}: {} is left out before it", field.name);
        };
        let text = value.get();
        let empty = matches!(text, "null" | "\"\"" | "0" | "false" | "[]" | "{}");
        assert!(!(empty && field.empty == Empty::Omit), "{at}: {text}");
        assert!(text != "null" || field.empty != Empty::Pointer, "{at}: null");
        let (Type::Message(of) | Type::Item(of) | Type::Claim(of)) = field.of else { continue };
        match field.shape {
            _ if text == "null" => {}
            Shape::One => agree(&at, table::message(of), value),
            Shape::List => {
                let items: Vec<&RawValue> = serde_json::from_str(text).unwrap();
                items.iter().for_each(|item| agree(&at, table::message(of), item));
            }
            Shape::Map => {
                members(value).iter().for_each(|(_, item)| agree(&at, table::message(of), item));
            }
        }
    }
    let left = fields.find(|field| !matches!(field.empty, Empty::Pointer | Empty::Omit));
    assert!(left.is_none(), "{at}: {left:?} is left out");
}
