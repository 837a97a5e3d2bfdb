//! Audit events as lines for people.
//!
//! ```text
//! 12:04:31.220  demo-admin            create   configmaps default/hello              201  Metadata
//! 12:04:35.007  demo-admin as viewer  watch    configmaps default                    200  Metadata  started
//! ```

use std::fmt::Write;

use serde::Deserialize;

/// How events are shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    /// With ANSI colours.
    pub colour: bool,
    /// `RequestReceived` too.
    pub all_stages: bool,
}

/// What a line shows of an `audit.k8s.io/v1` Event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Event {
    level: String,
    stage: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: User,
    impersonated_user: Option<User>,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    stage_timestamp: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    namespace: String,
    name: String,
    api_group: String,
    subresource: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

impl Style {
    /// For standard output: colours on a terminal, unless `NO_COLOR` is set to anything.
    pub(super) fn for_stdout(all_stages: bool) -> Style {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        Style { colour: terminal && !plain, all_stages }
    }

    /// The line for one event, given as its line of the audit log; none for stages that are not
    /// shown and for what is no event.
    pub(super) fn line(self, event: &[u8]) -> Option<String> {
        let event: Event = serde_json::from_slice(event).ok()?;
        let stage = match event.stage.as_str() {
            "ResponseComplete" => "",
            "ResponseStarted" => "started",
            "Panic" => "panic",
            "RequestReceived" if self.all_stages => "received",
            _ => return None,
        };
        let received = stage == "received";
        let code = event.response_status.as_ref().map_or(0, |status| status.code);
        let code_text = if code == 0 { "-".to_owned() } else { code.to_string() };
        let code_colour = match code {
            _ if stage == "panic" => RED,
            200..300 => GREEN,
            100..400 => CYAN,
            400..500 => YELLOW,
            500.. => RED,
            _ => DIM,
        };
        let mut line = String::new();
        let mut column = |text: &str, width: usize, colour: &str| {
            let text = printable(text);
            let colour = if received { DIM } else { colour };
            let padding = width.saturating_sub(text.chars().count());
            let coloured = self.colour && !colour.is_empty() && !text.is_empty();
            let (on, off) = if coloured { (colour, RESET) } else { ("", "") };
            let _ = write!(line, "{on}{text}{off}{:padding$}  ", "");
        };
        column(time_of_day(&event.stage_timestamp), 12, DIM);
        column(&who(&event), 20, BOLD);
        column(&event.verb, 7, CYAN);
        column(&what(&event), 38, "");
        column(&code_text, 3, code_colour);
        column(&event.level, 8, DIM);
        column(stage, 0, if stage == "panic" { RED } else { DIM });
        Some(line.trim_end().to_owned())
    }
}

/// `12:04:31.220` of `2026-11-23T12:04:31.220123Z`.
fn time_of_day(timestamp: &str) -> &str {
    timestamp.get(11..23).unwrap_or(timestamp)
}

fn who(event: &Event) -> String {
    let name = |user: &User| match user.username.as_str() {
        "" => "-".to_owned(),
        name => name.to_owned(),
    };
    match &event.impersonated_user {
        Some(other) => format!("{} as {}", name(&event.user), name(other)),
        None => name(&event.user),
    }
}

/// `configmaps default/hello`, `deployments.apps/scale default/web`, or the path.
fn what(event: &Event) -> String {
    let Some(object) = &event.object_ref else { return event.request_uri.clone() };
    let mut text = qualified(&object.resource, &object.api_group);
    if !object.subresource.is_empty() {
        text = format!("{text}/{}", object.subresource);
    }
    let namespace = match object.resource.as_str() {
        // In audit events a namespace is in itself.
        "namespaces" if object.api_group.is_empty() => "",
        _ => object.namespace.as_str(),
    };
    match (namespace, object.name.as_str()) {
        ("", "") => text,
        ("", one) | (one, "") => format!("{text} {one}"),
        (namespace, name) => format!("{text} {namespace}/{name}"),
    }
}

/// Names come from clients: nothing in them may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Returns a resource like kubectl prints it: `deployments.apps`, and without a group `pods`.
fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event() -> Value {
        json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "stage": "ResponseComplete",
            "requestURI": "/api/v1/namespaces/default/configmaps",
            "verb": "create",
            "user": {"username": "demo-admin", "groups": ["system:authenticated"]},
            "objectRef": {"resource": "configmaps", "namespace": "default", "name": "hello"},
            "responseStatus": {"metadata": {}, "code": 201},
            "stageTimestamp": "2026-11-23T12:04:31.220123Z",
        })
    }

    fn plain(event: &Value) -> Option<String> {
        Style { colour: false, all_stages: true }.line(event.to_string().as_bytes())
    }

    #[test]
    fn an_event_is_a_line() {
        assert_eq!(
            plain(&event()).unwrap(),
            "12:04:31.220  demo-admin            create   configmaps default/hello              \
             \x20 201  Metadata"
        );
    }

    #[test]
    fn shows_impersonation_subresources_groups_and_stages() {
        let mut event = event();
        event["impersonatedUser"] = json!({"username": "viewer"});
        event["objectRef"]["apiGroup"] = "apps".into();
        event["objectRef"]["subresource"] = "scale".into();
        event["stage"] = "ResponseStarted".into();
        let line = plain(&event).unwrap();
        assert!(line.contains("demo-admin as viewer"), "{line}");
        assert!(line.contains("configmaps.apps/scale default/hello"), "{line}");
        assert!(line.ends_with("started"), "{line}");
    }

    #[test]
    fn a_path_stands_for_what_is_no_resource() {
        let mut event = event();
        event.as_object_mut().unwrap().remove("objectRef");
        event["requestURI"] = "/healthz?verbose".into();
        assert!(plain(&event).unwrap().contains(" /healthz?verbose "));
    }

    #[test]
    fn request_received_events_are_shown_on_request() {
        let mut event = event();
        event["stage"] = "RequestReceived".into();
        assert!(Style::default().line(event.to_string().as_bytes()).is_none());
        assert!(plain(&event).unwrap().ends_with("received"));
        assert_eq!(Style::default().line(b"no event"), None);
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        let mut event = event();
        event["user"]["username"] = "\u{1b}[2Jmallory\n".into();
        let line = plain(&event).unwrap();
        assert!(!line.contains(char::is_control), "{line:?}");
    }

    #[test]
    fn colours_only_where_wanted() {
        let style = Style { colour: true, all_stages: false };
        let line = style.line(event().to_string().as_bytes()).unwrap();
        assert!(line.contains("\x1b[32m201\x1b[0m"), "{line:?}");
        assert!(line.ends_with("Metadata\x1b[0m"), "{line:?}");
        assert!(!plain(&event()).unwrap().contains('\x1b'));
    }
}
