//! Audit events and their JSON encoding, byte for byte like kube-apiserver's.

mod legacy;

use std::io::Write;
use std::net::IpAddr;

use crate::json::{push_number, push_string};
use crate::policy::{Level, Stage};
use crate::request::RequestInfo;
use crate::status::Status;
use crate::timestamp::Timestamp;
use crate::user::{User, UserInfo};

/// An audit.k8s.io/v1 `Event`. Fields that the client controls are bytes, because they may be
/// invalid UTF-8.
#[derive(Debug)]
pub struct Event<'a> {
    /// The audit level.
    pub level: Level,
    /// The ID shared by all events of a request.
    pub audit_id: &'a [u8],
    /// The stage that the event reports.
    pub stage: Stage,
    /// Path and query like Go's `URL.RequestURI` prints them.
    pub request_uri: &'a str,
    /// The Kubernetes verb; for non-resource requests the method in lower case.
    pub verb: &'a str,
    /// The authenticated user; `None` if authentication failed.
    pub user: Option<&'a User>,
    /// The impersonated user, if impersonation was allowed.
    pub impersonated_user: Option<&'a UserInfo>,
    /// The verb that allowed a constrained impersonation.
    pub impersonation_constraint: Option<&'a str>,
    /// Source addresses, that of the original client first.
    pub source_ips: &'a [IpAddr],
    /// The `User-Agent` header, truncated like kube-apiserver truncates it.
    pub user_agent: &'a UserAgent,
    /// The object the request targets; `None` for non-resource requests.
    pub object_ref: Option<ObjectRef<'a>>,
    /// The response's status; `None` in `RequestReceived`.
    pub response_status: Option<&'a Status>,
    /// The request's object as valid JSON; level Request and above.
    pub request_object: Option<&'a [u8]>,
    /// The response's object as valid JSON; level RequestResponse.
    pub response_object: Option<&'a [u8]>,
    /// When the request was received.
    pub request_received: Timestamp,
    /// When this stage was reached.
    pub stage_timestamp: Timestamp,
    /// Keys and values, sorted by key.
    pub annotations: &'a [(&'static str, String)],
}

/// The object that a request targets.
#[derive(Debug)]
pub struct ObjectRef<'a> {
    /// The parsed URL.
    pub info: &'a RequestInfo,
    /// Metadata of the object in the request body; fills fields that the URL leaves empty.
    pub metadata: Option<&'a ObjectMetadata>,
}

/// The fields of an object's metadata that `objectRef` contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectMetadata {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.resourceVersion`
    pub resource_version: String,
}

/// Length in bytes to which `userAgent` is truncated.
const USER_AGENT_LIMIT: usize = 1024;

/// A `User-Agent` header.
#[derive(Debug, Clone, Default)]
pub struct UserAgent(Option<http::HeaderValue>);

impl UserAgent {
    /// Creates it from the first header line, if any.
    pub fn new(header: Option<&http::HeaderValue>) -> UserAgent {
        UserAgent(header.filter(|value| !value.is_empty()).cloned())
    }

    /// Returns the text, truncated to 1024 bytes, and whether it was truncated.
    pub fn text(&self) -> (&[u8], bool) {
        let bytes = self.0.as_ref().map_or(&[][..], http::HeaderValue::as_bytes);
        (&bytes[..bytes.len().min(USER_AGENT_LIMIT)], bytes.len() > USER_AGENT_LIMIT)
    }
}

/// Follows the first 1024 bytes of a longer user agent.
pub const TRUNCATED: &[u8] = b"...TRUNCATED";

impl Event<'_> {
    /// Appends the event as one line of JSON.
    pub fn push_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"",
        );
        out.extend_from_slice(self.level.as_str().as_bytes());
        out.extend_from_slice(b"\",\"auditID\":");
        push_string(out, self.audit_id);
        out.extend_from_slice(b",\"stage\":\"");
        out.extend_from_slice(self.stage.as_str().as_bytes());
        out.extend_from_slice(b"\",\"requestURI\":");
        push_string(out, self.request_uri.as_bytes());
        out.extend_from_slice(b",\"verb\":");
        push_string(out, self.verb.as_bytes());
        out.extend_from_slice(b",\"user\":");
        match self.user {
            Some(user) => out.extend_from_slice(user.json(user_json)),
            None => out.extend_from_slice(b"{}"),
        }
        if let Some(user) = self.impersonated_user {
            out.extend_from_slice(b",\"impersonatedUser\":");
            push_user(out, user);
        }
        if let Some(constraint) = self.impersonation_constraint {
            out.extend_from_slice(b",\"authenticationMetadata\":{\"impersonationConstraint\":");
            push_string(out, constraint.as_bytes());
            out.push(b'}');
        }
        self.push_source(out);
        if let Some(object) = &self.object_ref {
            out.extend_from_slice(b",\"objectRef\":");
            object.push(out);
        }
        if let Some(status) = self.response_status {
            out.extend_from_slice(b",\"responseStatus\":{\"metadata\":{}");
            status.push_members(out);
            out.push(b'}');
        }
        for (name, object) in [
            (&b",\"requestObject\":"[..], self.request_object),
            (b",\"responseObject\":", self.response_object),
        ] {
            if let Some(object) = object {
                out.extend_from_slice(name);
                out.extend_from_slice(object);
            }
        }
        out.extend_from_slice(b",\"requestReceivedTimestamp\":\"");
        self.request_received.push_micro(out);
        out.extend_from_slice(b"\",\"stageTimestamp\":\"");
        self.stage_timestamp.push_micro(out);
        out.push(b'"');
        if !self.annotations.is_empty() {
            out.extend_from_slice(b",\"annotations\":");
            push_list(out, b"{}", self.annotations, |out, (key, value)| {
                push_string(out, key.as_bytes());
                out.push(b':');
                push_string(out, value.as_bytes());
            });
        }
        out.extend_from_slice(b"}\n");
    }

    fn push_source(&self, out: &mut Vec<u8>) {
        if !self.source_ips.is_empty() {
            out.extend_from_slice(b",\"sourceIPs\":");
            push_list(out, b"[]", self.source_ips, |out, ip| {
                out.push(b'"');
                push_address(out, *ip);
                out.push(b'"');
            });
        }
        let (agent, cut) = self.user_agent.text();
        if !agent.is_empty() {
            out.extend_from_slice(b",\"userAgent\":");
            push_string(out, agent);
            if cut {
                out.pop();
                out.extend_from_slice(TRUNCATED);
                out.push(b'"');
            }
        }
    }
}

impl ObjectRef<'_> {
    /// Returns the namespace from the URL, otherwise that of the object.
    pub fn namespace(&self) -> &[u8] {
        self.or_object(self.info.namespace(), |object| &object.namespace)
    }

    fn or_object<'s>(
        &'s self,
        from_url: &'s [u8],
        member: fn(&ObjectMetadata) -> &String,
    ) -> &'s [u8] {
        match self.metadata {
            Some(object) if from_url.is_empty() => member(object).as_bytes(),
            _ => from_url,
        }
    }

    fn push(&self, out: &mut Vec<u8>) {
        let info = self.info;
        let members: [(&str, &[u8]); 8] = [
            ("resource", info.resource()),
            ("namespace", self.namespace()),
            ("name", self.or_object(info.name(), |object| &object.name)),
            ("uid", self.or_object(b"", |object| &object.uid)),
            ("apiGroup", info.group()),
            ("apiVersion", info.version()),
            ("resourceVersion", self.or_object(b"", |object| &object.resource_version)),
            ("subresource", info.subresource()),
        ];
        out.push(b'{');
        let mut separator: &[u8] = b"\"";
        for (name, value) in members.into_iter().filter(|(_, value)| !value.is_empty()) {
            out.extend_from_slice(separator);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            push_string(out, value);
            separator = b",\"";
        }
        out.push(b'}');
    }
}

/// Appends an address like Go: IPv4-mapped IPv6 addresses as IPv4. IPv4 addresses, the usual case,
/// are formatted by hand, because `write!` takes ten times as long.
fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            for (index, octet) in address.octets().into_iter().enumerate() {
                if index > 0 {
                    out.push(b'.');
                }
                push_number(out, octet.into());
            }
        }
        IpAddr::V6(address) => {
            let _ = write!(out, "{address}");
        }
    }
}

fn user_json(user: &UserInfo) -> Vec<u8> {
    let mut json = Vec::new();
    push_user(&mut json, user);
    json
}

/// Appends a `UserInfo` without its empty fields.
fn push_user(out: &mut Vec<u8>, user: &UserInfo) {
    let mut separator: &[u8] = b"{\"";
    let mut next = |out: &mut Vec<u8>, name: &str| {
        out.extend_from_slice(separator);
        separator = b",\"";
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    };
    if !user.username.is_empty() {
        next(out, "username");
        push_string(out, user.username.as_bytes());
    }
    if !user.uid.is_empty() {
        next(out, "uid");
        push_string(out, user.uid.as_bytes());
    }
    if !user.groups.is_empty() {
        next(out, "groups");
        push_strings(out, &user.groups);
    }
    if !user.extra.is_empty() {
        next(out, "extra");
        push_list(out, b"{}", &user.extra, |out, (key, values)| {
            push_string(out, key.as_bytes());
            out.push(b':');
            push_strings(out, values);
        });
    }
    if separator[0] == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn push_strings(out: &mut Vec<u8>, values: &[String]) {
    push_list(out, b"[]", values, |out, value| push_string(out, value.as_bytes()));
}

fn push_list<T>(
    out: &mut Vec<u8>,
    brackets: &[u8; 2],
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(brackets[0]);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(brackets[1]);
}

#[cfg(test)]
mod tests;
