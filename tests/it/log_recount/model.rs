//! Events parsed by serde_json, and the fields of reports computed from them.

use std::collections::HashMap;

use serde_json::{Value as Json, json};

pub(super) const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// An event.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) json: Json,
    /// Length in bytes in the log, without trailing white space.
    pub(super) length: usize,
}

impl Event {
    pub(super) fn text(&self, pointer: &str) -> String {
        self.json.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned()
    }

    /// Returns the code of the response; 0 if there is none.
    pub(super) fn code(&self) -> i64 {
        self.json.pointer("/responseStatus/code").and_then(Json::as_i64).unwrap_or_default()
    }

    pub(super) fn time(&self) -> &str {
        let time = |name: &str| self.json[name].as_str().filter(|text| !text.is_empty());
        time("stageTimestamp").or(time("requestReceivedTimestamp")).unwrap_or_default()
    }

    /// Returns the latency in microseconds.
    pub(super) fn latency(&self) -> Option<i64> {
        let micros = |name: &str| {
            let time: jiff::Timestamp = self.json[name].as_str()?.parse().ok()?;
            Some(time.as_microsecond())
        };
        let is_received = self.json["stage"] == "RequestReceived";
        let latency = micros("stageTimestamp")? - micros("requestReceivedTimestamp")?;
        (!is_received).then_some(latency)
    }
}

/// Appends the events of a line.
pub(super) fn parse(line: &[u8], events: &mut Vec<Event>) {
    let line = line.trim_ascii_end();
    let Ok(json) = serde_json::from_str::<Json>(&String::from_utf8_lossy(line)) else { return };
    if json["kind"] == "EventList" {
        for item in json["items"].as_array().into_iter().flatten() {
            let length = item.to_string().len();
            events.push(Event { json: item.clone(), length });
        }
        return;
    }
    let is_event = json.get("kind").is_none_or(|kind| kind == "Event");
    if is_event && json.get("auditID").is_some() {
        events.push(Event { json, length: line.len() });
    }
}

/// Returns the last event of each request: each final event, or the last one if there is no final
/// event.
pub(super) fn last(events: &[Event]) -> Vec<&Event> {
    let mut requests: HashMap<(String, String), Vec<usize>> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        let key = (event.text("/auditID"), event.text("/requestReceivedTimestamp"));
        requests.entry(key).or_default().push(index);
    }
    let is_end = |index: &usize| {
        !["RequestReceived", "ResponseStarted"].contains(&events[*index].text("/stage").as_str())
    };
    let mut kept = Vec::new();
    for indices in requests.values() {
        kept.extend(indices.iter().copied().filter(|index| is_end(index)));
        kept.extend(indices.last().copied().filter(|index| !is_end(index)));
    }
    kept.sort_unstable();
    kept.into_iter().map(|index| &events[index]).collect()
}

/// Returns the value of a field in a report; null if the event has none.
pub(super) fn field(event: &Event, name: &str) -> Json {
    let json = &event.json;
    let text = |pointer: &str| json.pointer(pointer).filter(|value| value.is_string()).cloned();
    let strings = |pointer: &str| -> Vec<String> {
        let list = json.pointer(pointer).and_then(Json::as_array);
        list.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
    };
    let list = |pointer: &str| {
        let all = strings(pointer).join(",");
        (!all.is_empty()).then_some(json!(all))
    };
    let uri = || text("/requestURI").map(|uri| uri.as_str().unwrap_or_default().to_owned());
    let path = || uri().map(|uri| json!(uri.split('?').next().unwrap_or_default()));
    let impersonated = json["impersonatedUser"].is_object();
    let found = match name {
        "time" => text("/stageTimestamp"),
        "level" => text("/level"),
        "stage" => text("/stage"),
        "audit-id" => text("/auditID"),
        "verb" => text("/verb"),
        "user" => text("/user/username"),
        "uid" => text("/user/uid"),
        "impersonated" => text("/impersonatedUser/username"),
        "user-agent" => text("/userAgent"),
        "resource" => text("/objectRef/resource"),
        "api-group" => text("/objectRef/apiGroup"),
        "api-version" => text("/objectRef/apiVersion"),
        "subresource" => text("/objectRef/subresource"),
        "namespace" => text("/objectRef/namespace"),
        "name" => text("/objectRef/name"),
        "uri" => text("/requestURI"),
        "reason" => text("/responseStatus/reason"),
        "message" => text("/responseStatus/message"),
        "code" => json.pointer("/responseStatus/code").and_then(Json::as_i64).map(Json::from),
        "groups" => list("/user/groups"),
        "source-ips" => list("/sourceIPs"),
        "source-ip" => json.pointer("/sourceIPs/0").filter(|value| value.is_string()).cloned(),
        "path" => path(),
        "who" => {
            let user = text("/user/username");
            let name = user.as_ref().and_then(Json::as_str).unwrap_or_default();
            match impersonated {
                true => {
                    Some(json!(format!("{name} as {}", event.text("/impersonatedUser/username"))))
                }
                false => user,
            }
        }
        "object" if event.text("/objectRef/resource").is_empty() => path(),
        "object" => {
            let mut object = event.text("/objectRef/resource");
            for (separator, pointer) in
                [('.', "/objectRef/apiGroup"), ('/', "/objectRef/subresource")]
            {
                let part = event.text(pointer);
                if !part.is_empty() {
                    object = format!("{object}{separator}{part}");
                }
            }
            Some(json!(object))
        }
        "command" => {
            let uri = uri().unwrap_or_default();
            let query = uri.split_once('?').map_or("", |(_, query)| query);
            let words: Vec<String> = query
                .split('&')
                .filter_map(|pair| pair.strip_prefix("command="))
                .map(|word| word.replace('+', " ").replace("%2F", "/").replace("%20", " "))
                .collect();
            (!words.is_empty()).then(|| json!(words.join(" ")))
        }
        "date" => Some(json!(event.time()[..10])),
        "hour" => Some(json!(event.time()[..13])),
        "grants" => grants(&json["requestObject"]).map(Json::from),
        other => {
            let key = other.strip_prefix("annotations.").expect("a known field");
            json["annotations"].get(key).filter(|value| value.is_string()).cloned()
        }
    };
    found.map(shortened).unwrap_or_default()
}

/// Shortens a long value like reports do, which identify it by its digest.
fn shortened(value: Json) -> Json {
    let text = match value {
        Json::String(text) if text.len() > 1024 => text,
        other => return other,
    };
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let start = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= 256).last().unwrap();
    json!(format!("{}\u{2026} ({} bytes, SHA-256 {digest})", &text[..start], text.len()))
}

/// Returns the permissions that a role or a binding in the request body grants.
fn grants(body: &Json) -> Option<String> {
    let mut parts = Vec::new();
    let words = |value: &Json| -> String {
        let all = value.as_array().into_iter().flatten().filter_map(Json::as_str);
        all.collect::<Vec<_>>().join(",")
    };
    let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    if body["roleRef"].is_object() {
        parts.push(format!(
            "{}/{}",
            text(&body["roleRef"]["kind"]),
            text(&body["roleRef"]["name"])
        ));
    }
    let subjects: Vec<String> = body["subjects"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|subject| match subject["namespace"].as_str() {
            Some(namespace) if !namespace.is_empty() => {
                format!("{}/{namespace}:{}", text(&subject["kind"]), text(&subject["name"]))
            }
            _ => format!("{}/{}", text(&subject["kind"]), text(&subject["name"])),
        })
        .collect();
    if !subjects.is_empty() {
        parts.push(format!("to {}", subjects.join(", ")));
    }
    let rules: Vec<String> = body["rules"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|rule| {
            let objects = words(&rule["resources"]) + &words(&rule["nonResourceURLs"]);
            format!("{} {objects}", words(&rule["verbs"]))
        })
        .collect();
    if !rules.is_empty() {
        parts.push(rules.join("; "));
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}
