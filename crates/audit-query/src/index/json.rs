//! Reconstructs an event from its index row, for a request that may end later.

use crate::event::{Event, Text};
use crate::output::format::push_json;

/// Returns JSON that parses as the same event, as far as the index contains it.
pub(crate) fn event(event: &Event<'_>) -> Vec<u8> {
    let mut out = b"{\"kind\":\"Event\"".to_vec();
    text(&mut out, "level", event.level);
    text(&mut out, "auditID", event.audit_id);
    text(&mut out, "stage", event.stage);
    text(&mut out, "requestURI", event.request_uri);
    text(&mut out, "verb", event.verb);
    out.extend_from_slice(b",\"user\":{\"kind\":null");
    text(&mut out, "username", event.user.name);
    raw(&mut out, "groups", event.user.groups_json());
    out.push(b'}');
    if let Some(user) = event.impersonated_user {
        out.extend_from_slice(b",\"impersonatedUser\":{\"kind\":null");
        text(&mut out, "username", user.name);
        out.push(b'}');
    }
    raw(&mut out, "sourceIPs", event.source_ips_json());
    text(&mut out, "userAgent", event.user_agent);
    out.extend_from_slice(b",\"objectRef\":{\"kind\":null");
    let object = &event.object;
    for (name, value) in [
        ("resource", object.resource),
        ("namespace", object.namespace),
        ("name", object.name),
        ("apiGroup", object.api_group),
        ("apiVersion", object.api_version),
        ("subresource", object.subresource),
    ] {
        text(&mut out, name, value);
    }
    out.extend_from_slice(b"},\"responseStatus\":{\"kind\":null");
    text(&mut out, "reason", event.status.reason);
    if let Some(code) = event.status.code {
        out.extend_from_slice(format!(",\"code\":{code}").as_bytes());
    }
    out.push(b'}');
    text(&mut out, "requestReceivedTimestamp", event.received);
    text(&mut out, "stageTimestamp", event.stage_time);
    raw(&mut out, "annotations", event.annotations_json());
    out.push(b'}');
    out
}

fn text(out: &mut Vec<u8>, name: &str, value: Text<'_>) {
    if value.is_present() {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        push_json(out, &value.decode());
    }
}

fn raw(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    if let Some(value) = value {
        out.extend_from_slice(format!(",\"{name}\":").as_bytes());
        out.extend_from_slice(value);
    }
}
