//! Starts and describes the recordings of sessions in upgraded connections.

use http::HeaderMap;
use http::header::{HeaderValue, UPGRADE};
use session_recording::{Activity, Description, Mode, RecordedUser, Recorder, Session, protocol};

use crate::audit::record::AuditContext;
use k8s_audit::request::RequestInfo;
use k8s_audit::request::query::{self, Plus};
use k8s_audit::status::Status;
use k8s_audit::timestamp::Timestamp;
use kube_authn::{User, UserInfo};

/// Starts the recording of a session if the request opens one and the rules select it.
///
/// # Errors
/// Returns the response to send if the session must be recorded and cannot be.
pub(super) async fn begin(
    recorder: &Recorder,
    record: &mut AuditContext,
    user: &User,
    headers: &HeaderMap,
) -> Result<Option<Session>, Box<Status>> {
    let facts = record.facts();
    let Some(target) = Target::of(&facts.info) else { return Ok(None) };
    let activity = target.activity;
    let description = describe(recorder, record, user, target);
    if !recorder.records(&description) {
        return Ok(None);
    }
    let offered = protocol::check_offer(activity, headers);
    if recorder.mode() == Mode::Strict
        && let Err(error) = &offered
    {
        return Err(refused(recorder, record, &error.to_string()));
    }
    match recorder.begin(activity, description).await {
        Ok(session) => Ok(Some(session)),
        Err(error) => {
            let why = format!("the recording cannot be written: {error}");
            tracing::error!(%error, "a session cannot be recorded");
            if recorder.mode() == Mode::Strict {
                return Err(refused(recorder, record, &why));
            }
            record.session_unrecorded(&why);
            Ok(None)
        }
    }
}

/// Records that a session is refused, and returns the response.
pub(super) fn refused(recorder: &Recorder, record: &mut AuditContext, why: &str) -> Box<Status> {
    recorder.metrics().refused.inc();
    record.session_unrecorded(why);
    let message = format!(
        "this session was refused because sessions must be recorded, and this one cannot be: {why}"
    );
    Box::new(Status::internal_error(message))
}

/// Passes the negotiated protocol to the recording.
///
/// # Errors
/// Returns why the session cannot be recorded, if it must be.
pub(super) fn negotiated(
    session: &Session,
    asked: &HeaderValue,
    response: &HeaderMap,
) -> Result<(), String> {
    let request = HeaderMap::from_iter([(UPGRADE, asked.clone())]);
    match protocol::negotiated(session.activity(), &request, response) {
        Ok(protocol) => {
            session.set_protocol(protocol);
            Ok(())
        }
        Err(error) => session.set_unreadable(&error.to_string()).map_err(|_| error.to_string()),
    }
}

/// The container that a session is opened in.
struct Target {
    activity: Activity,
    namespace: String,
    pod: String,
    /// Set if the path contains the name.
    container: Option<String>,
}

impl Target {
    /// Returns the target of a request that opens a session: a subresource of a pod, or the
    /// kubelet's path for it, through `nodes/NAME/proxy`.
    fn of(info: &RequestInfo) -> Option<Target> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !info.is_resource() || !info.group().is_empty() {
            return None;
        }
        if info.resource() == b"pods" {
            let activity = Activity::of_subresource(info.subresource())?;
            let (namespace, pod) = (text(info.namespace()), text(info.name()));
            return Some(Target { activity, namespace, pod, container: None });
        }
        if info.resource() != b"nodes" || info.subresource() != b"proxy" {
            return None;
        }
        let path = text(info.path());
        // /api/v1/nodes/NAME/proxy/exec/NAMESPACE/POD/[UID/]CONTAINER
        let mut parts = path.split('/').filter(|part| !part.is_empty()).skip(5);
        let activity = match parts.next()? {
            "exec" => Activity::Exec,
            "attach" => Activity::Attach,
            "portForward" => Activity::PortForward,
            _ => return None,
        };
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (namespace, pod) = (part(), part());
        let container = parts.last().map(str::to_owned);
        Some(Target { activity, namespace, pod, container })
    }
}

fn describe(
    recorder: &Recorder,
    record: &AuditContext,
    user: &UserInfo,
    target: Target,
) -> Description {
    let facts = record.facts();
    let query = facts.target.query().unwrap_or_default();
    // Like in kube-apiserver, everything but `false` and `0` is true.
    let flag = |name| {
        let is_false = |value: &[u8]| value.eq_ignore_ascii_case(b"false") || value == b"0";
        query::first(query, name).is_some_and(|value| !is_false(&value))
    };
    let container = values(query, "container").into_iter().next();
    let who = |user: &UserInfo| RecordedUser {
        username: user.username.to_string(),
        groups: user.groups.clone(),
    };
    Description {
        audit_id: String::from_utf8_lossy(facts.audit_id.as_bytes()).into_owned(),
        start: micro(facts.received),
        activity: target.activity.as_str().to_owned(),
        user: who(user),
        impersonated_user: record.impersonated_user().map(who),
        namespace: target.namespace,
        pod: target.pod,
        container: target.container.or(container).unwrap_or_default(),
        command: values(query, "command"),
        ports: values(query, "ports").iter().filter_map(|port| port.parse().ok()).collect(),
        tty: flag("tty"),
        // The kubelet's own name for it is `input`.
        stdin: flag("stdin") || flag("input"),
        records_input: recorder.records_input(),
        source_ips: facts.source_ips.iter().map(ToString::to_string).collect(),
        user_agent: String::from_utf8_lossy(facts.user_agent.text().0).into_owned(),
    }
}

fn micro(at: Timestamp) -> String {
    let mut text = Vec::new();
    at.push_micro(&mut text);
    String::from_utf8_lossy(&text).trim_matches('"').to_owned()
}

/// Returns all values of a parameter.
fn values(query: &str, name: &str) -> Vec<String> {
    let decode = |text: &str| {
        query::decode(text, Plus::IsSpace).map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let pairs = query.split('&').filter(|pair| !pair.contains(';'));
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .filter(|(key, _)| decode(key).is_some_and(|key| key == name))
        .filter_map(|(_, value)| decode(value))
        .collect()
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http::uri::PathAndQuery;

    use super::*;

    fn target(path: &'static str) -> Option<String> {
        let info = RequestInfo::new(&Method::GET, &PathAndQuery::from_static(path)).unwrap();
        let Target { activity, namespace, pod, container } = Target::of(&info)?;
        Some(format!("{} {namespace}/{pod} {}", activity.as_str(), container.unwrap_or_default()))
    }

    #[test]
    fn sessions_are_found_on_both_ways_to_a_pod() {
        for (path, expected) in [
            ("/api/v1/namespaces/a/pods/p/exec?command=sh", Some("exec a/p ")),
            ("/api/v1/namespaces/a/pods/p/attach", Some("attach a/p ")),
            ("/api/v1/namespaces/a/pods/p/portforward", Some("portforward a/p ")),
            ("/api/v1/namespaces/a/pods/p/log", None),
            ("/api/v1/nodes/n/proxy/exec/a/p/c?command=sh", Some("exec a/p c")),
            ("/api/v1/nodes/n:10250/proxy/attach/a/p/uid/c", Some("attach a/p c")),
            ("/api/v1/nodes/n/proxy/stats/summary", None),
            ("/apis/example.com/v1/namespaces/a/pods/p/exec", None),
        ] {
            assert_eq!(target(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn every_argument_of_a_command_counts() {
        assert_eq!(
            values("command=sh&tty=true&command=-c&command=ls+%2F", "command"),
            ["sh", "-c", "ls /"]
        );
    }
}
