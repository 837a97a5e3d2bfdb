//! Leaving out managed fields, against a tree.
//!
//! The first byte says where to cut the rest.

#![no_main]

use audit_body::{Compactor, Options};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Some((cut, body)) = input.split_first() else { return };
    let piece = usize::from(*cut) + 1;
    let omitted = |body: &[u8]| {
        let options = Options { omit_managed_fields: true, ..Options::default() };
        let mut compactor = Compactor::new(options);
        body.chunks(piece).for_each(|piece| compactor.push(piece));
        compactor.finish().text.ok().map(|text| text.json)
    };
    // Duplicate keys, any order: nothing is left that would go the second time.
    if let Some(once) = omitted(body) {
        assert_eq!(omitted(&once), Some(once));
    }
    // Without duplicates and with `kind` first, a tree can tell what is left.
    let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else { return };
    let kind = members.remove("kind").unwrap_or(Value::Null);
    let rest = Value::Object(members).to_string();
    let separator = if rest == "{}" { "" } else { "," };
    let text = format!("{{\"kind\":{kind}{separator}{}", &rest[1..]);
    let actual = omitted(text.as_bytes()).expect("JSON");
    let mut expected = serde_json::from_str(&text).expect("JSON");
    omit(&mut expected);
    assert_eq!(serde_json::from_slice::<Value>(&actual).expect("JSON"), expected);
});

fn omit(object: &mut Value) {
    let is_table = object["kind"] == "Table";
    if object["kind"] == "Status" || object["kind"] == "DeleteOptions" {
        return;
    }
    let list = if is_table { "rows" } else { "items" };
    for element in object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
        match if is_table { element.get_mut("object") } else { Some(element) } {
            Some(object) => omit_own(object),
            None => {}
        }
    }
    omit_own(object);
}

fn omit_own(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}
