//! The log record of an event: fields and attributes by OpenTelemetry's semantic conventions.

use std::borrow::Cow;

use audit_query::event::{Event, Text, User};

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(i64),
    Texts(Vec<Cow<'a, str>>),
}

/// A log record.
#[derive(Debug, Default)]
pub(super) struct LogRecord<'a> {
    /// Nanoseconds since 1970; 0 if it is not known.
    pub(super) time: u64,
    pub(super) severity: Severity,
    /// The event as it stands in the log.
    pub(super) body: Cow<'a, str>,
    pub(super) attributes: Vec<(Cow<'static, str>, Value<'a>)>,
}

/// The severity of a record, with its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Severity {
    #[default]
    Info = 9,
    Warn = 13,
    Error = 17,
}

impl Severity {
    pub(super) fn text(self) -> &'static str {
        match self {
            Severity::Info => "INFO",
            Severity::Warn => "WARN",
            Severity::Error => "ERROR",
        }
    }

    fn of(event: &Event<'_>) -> Severity {
        match event.status.code {
            _ if event.stage.is(b"Panic") => Severity::Error,
            Some(500..) => Severity::Error,
            Some(400..) => Severity::Warn,
            _ => Severity::Info,
        }
    }
}

/// Resources with attributes of their own in the semantic conventions.
const NAMED: [(&[u8], &str, &str); 11] = [
    (b"pods", "k8s.pod.name", "k8s.pod.uid"),
    (b"deployments", "k8s.deployment.name", "k8s.deployment.uid"),
    (b"replicasets", "k8s.replicaset.name", "k8s.replicaset.uid"),
    (b"statefulsets", "k8s.statefulset.name", "k8s.statefulset.uid"),
    (b"daemonsets", "k8s.daemonset.name", "k8s.daemonset.uid"),
    (b"jobs", "k8s.job.name", "k8s.job.uid"),
    (b"cronjobs", "k8s.cronjob.name", "k8s.cronjob.uid"),
    (b"nodes", "k8s.node.name", "k8s.node.uid"),
    (b"replicationcontrollers", "k8s.replicationcontroller.name", "k8s.replicationcontroller.uid"),
    (b"resourcequotas", "k8s.resourcequota.name", "k8s.resourcequota.uid"),
    (b"horizontalpodautoscalers", "k8s.hpa.name", "k8s.hpa.uid"),
];
/// The API groups of [`NAMED`].
const GROUPS: [&[u8]; 4] = [b"", b"apps", b"batch", b"autoscaling"];

impl<'a> LogRecord<'a> {
    /// Returns the record of a line. A line that is not an event is a record without attributes.
    pub(super) fn new(line: &'a [u8]) -> LogRecord<'a> {
        let body = String::from_utf8_lossy(line);
        let Some(event) = Event::parse(line) else {
            return LogRecord { body, ..LogRecord::default() };
        };
        let time = event.time().and_then(|micros| u64::try_from(micros).ok()).unwrap_or_default();
        let mut attributes = Attributes(Vec::with_capacity(24));
        attributes.of_event(&event);
        attributes.of_object(&event);
        event.annotations(|key, value| {
            let name = format!("k8s.audit.annotation.{}", key.decode());
            attributes.0.push((name.into(), Value::Text(value.decode())));
        });
        LogRecord {
            time: time.saturating_mul(1000),
            severity: Severity::of(&event),
            body,
            attributes: attributes.0,
        }
    }
}

struct Attributes<'a>(Vec<(Cow<'static, str>, Value<'a>)>);

impl<'a> Attributes<'a> {
    fn text(&mut self, name: &'static str, text: Text<'a>) {
        if text.is_some() {
            self.0.push((name.into(), Value::Text(text.decode())));
        }
    }

    fn of_event(&mut self, event: &Event<'a>) {
        if event.audit_id.is_some() {
            // The convention for removing duplicates: the same ID is the same record.
            let id = format!("{}/{}", event.audit_id.decode(), event.stage.decode());
            self.0.push(("log.record.uid".into(), Value::Text(id.into())));
        }
        self.text("k8s.audit.id", event.audit_id);
        self.text("k8s.audit.stage", event.stage);
        self.text("k8s.audit.level", event.level);
        self.text("k8s.audit.verb", event.verb);
        if let Some(method) = method(event.verb) {
            self.0.push(("http.request.method".into(), Value::Text(method.into())));
        }
        let (path, query) = path_and_query(event.request_uri);
        if !path.is_empty() {
            self.0.push(("url.path".into(), Value::Text(path)));
        }
        if let Some(query) = query {
            self.0.push(("url.query".into(), Value::Text(query)));
        }
        if let Some(code) = event.status.code {
            self.0.push(("http.response.status_code".into(), Value::Number(code)));
        }
        self.text("k8s.audit.status.reason", event.status.reason);
        self.text("user_agent.original", event.user_agent);
        self.text("client.address", event.source_ip());
        self.text("enduser.id", event.user.name);
        self.text("user.name", event.user.name);
        self.text("user.id", event.user.uid);
        self.groups("user.roles", &event.user);
        if let Some(user) = &event.impersonated_user {
            self.text("k8s.audit.impersonated_user.name", user.name);
            self.text("k8s.audit.impersonated_user.id", user.uid);
            self.groups("k8s.audit.impersonated_user.roles", user);
        }
    }

    fn groups(&mut self, name: &'static str, user: &User<'a>) {
        let mut groups = Vec::new();
        user.groups(|group| groups.push(group.decode()));
        if !groups.is_empty() {
            self.0.push((name.into(), Value::Texts(groups)));
        }
    }

    fn of_object(&mut self, event: &Event<'a>) {
        let object = &event.object;
        self.text("k8s.audit.object.resource", object.resource);
        self.text("k8s.audit.object.subresource", object.subresource);
        self.text("k8s.audit.object.api_group", object.api_group);
        self.text("k8s.audit.object.api_version", object.api_version);
        self.text("k8s.audit.object.name", object.name);
        if object.resource.is(b"namespaces") {
            self.text("k8s.namespace.name", object.name);
            return;
        }
        self.text("k8s.namespace.name", object.namespace);
        let is_known =
            GROUPS.iter().any(|group| object.api_group.is(group)) || !object.api_group.is_present();
        if let Some((_, name, uid)) =
            NAMED.iter().find(|(resource, ..)| is_known && object.resource.is(resource))
        {
            self.text(name, object.name);
            self.text(uid, object.uid);
        }
    }
}

/// The HTTP method that has this verb in Kubernetes. A `HEAD` request has the verb `get`, too.
fn method(verb: Text<'_>) -> Option<&'static str> {
    Some(match &*verb.bytes() {
        b"get" | b"list" | b"watch" => "GET",
        b"create" | b"post" => "POST",
        b"update" | b"put" => "PUT",
        b"patch" => "PATCH",
        b"delete" | b"deletecollection" => "DELETE",
        b"head" => "HEAD",
        b"options" => "OPTIONS",
        b"connect" => "CONNECT",
        b"trace" => "TRACE",
        _ => return None,
    })
}

fn path_and_query(uri: Text<'_>) -> (Cow<'_, str>, Option<Cow<'_, str>>) {
    match uri.decode() {
        Cow::Borrowed(uri) => match uri.split_once('?') {
            Some((path, query)) => (path.into(), Some(query.into())),
            None => (uri.into(), None),
        },
        Cow::Owned(uri) => match uri.split_once('?') {
            Some((path, query)) => (path.to_owned().into(), Some(query.to_owned().into())),
            None => (uri.into(), None),
        },
    }
}
