//! The unstructured log line of kube-apiserver's `--audit-log-format=legacy`.

use std::io::Write;

use super::{Event, TRUNCATED};
use crate::go::{push_quoted, quote};
use crate::user::UserInfo;

impl Event<'_> {
    /// Appends the event as one legacy line.
    ///
    /// `received` is the event's `request_received` like Go's `time.RFC3339Nano` prints it in the
    /// local time zone.
    pub fn push_legacy(&self, received: &str, out: &mut Vec<u8>) {
        let mut line = String::with_capacity(512);
        line.push_str(received);
        line.push_str(" AUDIT:");
        let mut member = |name: &str, value: &[u8]| {
            line.push(' ');
            line.push_str(name);
            line.push('=');
            push_quoted(&mut line, value);
        };
        member("id", self.audit_id);
        member("stage", self.stage.as_str().as_bytes());
        let ip = self.source_ips.first().map(|ip| ip.to_canonical().to_string());
        member("ip", ip.as_deref().unwrap_or("<unknown>").as_bytes());
        member("method", self.verb.as_bytes());
        let named = self.user.filter(|user| !user.username.is_empty());
        member("user", named.map_or("<none>", |user| &user.username).as_bytes());
        let groups = named.and_then(|user| joined_groups(user));
        member("groups", groups.as_deref().unwrap_or("<none>").as_bytes());
        let as_user = self.impersonated_user;
        member("as", as_user.map_or("<self>", |user| &user.username).as_bytes());
        let as_groups = as_user.and_then(joined_groups);
        member("asgroups", as_groups.as_deref().unwrap_or("<lookup>").as_bytes());
        let (agent, cut) = self.user_agent.text();
        if cut {
            member("user-agent", &[agent, TRUNCATED].concat());
        } else {
            member("user-agent", agent);
        }
        let namespace = self.object_ref.as_ref().map(|object| object.namespace());
        member("namespace", namespace.filter(|n| !n.is_empty()).unwrap_or(b"<none>"));
        member("uri", self.request_uri.as_bytes());
        out.extend_from_slice(line.as_bytes());
        let _ = match self.response_status {
            Some(status) => writeln!(out, " response=\"{}\"", status.code),
            None => writeln!(out, " response=\"<deferred>\""),
        };
    }
}

fn joined_groups(user: &UserInfo) -> Option<String> {
    let groups: Vec<String> = user.groups.iter().map(|g| quote(g.as_bytes())).collect();
    (!groups.is_empty()).then(|| groups.join(","))
}
