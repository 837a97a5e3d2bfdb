//! Any bytes as a line of an audit log: no panic, and the same members as with serde_json.

#![no_main]

use audit_query::event::{Event, Text};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|line: &[u8]| {
    let event = Event::parse(line);
    let Ok(Value::Object(json)) = serde_json::from_slice::<Value>(line) else { return };
    let json = Value::Object(json);
    let is_event = json.get("kind").is_none_or(|kind| kind == "Event" || !kind.is_string());
    let Some(event) = event else {
        assert!(!is_event || !json["auditID"].is_string() || json["items"].is_array());
        return;
    };
    let check = |pointer: &str, text: Text<'_>| {
        let expected = json.pointer(pointer).and_then(Value::as_str);
        assert_eq!(text.is_present().then(|| text.decode().into_owned()).as_deref(), expected);
    };
    check("/verb", event.verb);
    check("/auditID", event.audit_id);
    check("/user/username", event.user.name);
    check("/objectRef/name", event.object.name);
    check("/responseStatus/reason", event.status.reason);
    check("/stageTimestamp", event.stage_time);
});
