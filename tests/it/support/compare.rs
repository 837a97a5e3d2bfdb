//! Compares the proxy's events with those that kube-apiserver recorded, as text and member by
//! member, and counts the tolerated differences by kind.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The result of a comparison.
#[derive(Default)]
pub struct Report {
    /// Number of compared pairs of lines.
    pub compared: usize,
    /// Number of pairs that were equal after masking times and data that only the API server has.
    pub equal: usize,
    /// Tolerated differences, by kind.
    pub forgiven: BTreeMap<String, usize>,
    /// Differences that are bugs, by kind, each with an explanation.
    pub failures: Vec<(String, String)>,
}

impl Report {
    /// Counts one tolerated difference.
    pub fn forgive(&mut self, kind: &str) {
        *self.forgiven.entry(kind.to_owned()).or_default() += 1;
    }

    /// Adds a bug.
    pub fn fail(&mut self, kind: &str, explanation: String) {
        self.failures.push((kind.to_owned(), explanation));
    }

    /// Prints the table, stores it in the target directory, and panics if there are failures.
    pub fn finish(&self, title: &str) {
        let table = self.table(title);
        println!("{table}");
        let name = format!("{}.txt", title.replace([' ', '/'], "-"));
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(path, &table).unwrap();
        assert!(self.failures.is_empty(), "{} differences, see the table", self.failures.len());
        assert!(self.compared > 0, "nothing was compared");
    }

    fn table(&self, title: &str) -> String {
        let mut text = format!("== {title} ==\n");
        let mut line = |label: &str, count: usize| {
            writeln!(text, "{count:>7}  {label}").expect("a string takes everything");
        };
        line("compared", self.compared);
        line("equal as text", self.equal);
        self.forgiven.iter().for_each(|(kind, &count)| line(&format!("forgiven: {kind}"), count));
        let mut kinds = BTreeMap::<&str, usize>::new();
        self.failures.iter().for_each(|(kind, _)| *kinds.entry(kind).or_default() += 1);
        kinds.iter().for_each(|(kind, &count)| line(&format!("DIFFERENT: {kind}"), count));
        for (kind, explanation) in self.failures.iter().take(40) {
            text.push_str(&format!("-- {kind}: {explanation}\n"));
        }
        text
    }
}

/// The top-level members of an event in order, with the text of their values.
#[derive(Clone)]
pub struct Members(Vec<(String, String)>);

impl Members {
    /// Splits a line; `None` if it is not a JSON object without white space.
    pub fn parse(line: &str) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_str(line);
        let members = serde::Deserializer::deserialize_map(&mut reader, Split).ok()?;
        reader.end().ok()?;
        Some(Self(members)).filter(|members| members.text() == line)
    }

    /// Returns the text of a member.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Replaces the text of a member, or removes the member.
    pub fn set(&mut self, name: &str, value: Option<String>) {
        match value {
            None => self.0.retain(|(key, _)| key != name),
            Some(value) => {
                if let Some(member) = self.0.iter_mut().find(|(key, _)| key == name) {
                    member.1 = value;
                }
            }
        }
    }

    /// Returns the line.
    pub fn text(&self) -> String {
        let member = |(key, value): &(String, String)| {
            format!("{}:{value}", serde_json::to_string(key).expect("a string is JSON"))
        };
        format!("{{{}}}", self.0.iter().map(member).collect::<Vec<_>>().join(","))
    }
}

struct Split;

impl<'de> Visitor<'de> for Split {
    type Value = Vec<(String, String)>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
            members.push((key, value.get().to_owned()));
        }
        Ok(members)
    }
}

/// Returns the annotation if only the API server can know it (see the corpus' README).
fn is_known_only_upstream(annotation: &str) -> Option<&'static str> {
    const PREFIXES: [&str; 4] = [
        "authorization.k8s.io/",
        "apiserver.latency.k8s.io/",
        "pod-security.kubernetes.io/",
        "k8s.io/deprecated",
    ];
    const ISSUED: &str = "authentication.kubernetes.io/issued-credential-id";
    PREFIXES.into_iter().chain([ISSUED]).find(|prefix| annotation.starts_with(prefix))
}

/// Information about the request of a compared event.
#[derive(Default)]
pub struct Sent<'a> {
    /// All bytes that the client sent, to determine whether a value in the event comes from it.
    pub request: &'a [u8],
    /// Its body.
    pub body: &'a [u8],
    /// Whether the request had no audit ID, so that the two events have different ones.
    pub own_id: bool,
    /// Whether the response body was not recorded, so that the proxy received another one.
    pub response_unknown: bool,
    /// The response is YAML.
    pub response_in_yaml: bool,
    /// Whether the policy omits `managedFields`.
    pub managed_fields_omitted: bool,
    /// Whether the proxy authorized the impersonation, so that the event contains the mode.
    pub authorized_by_proxy: bool,
}

/// Compares one pair.
pub fn event(report: &mut Report, what: &str, sent: &Sent<'_>, pair: (&str, &str)) {
    report.compared += 1;
    let (Some(mut recorded), Some(mut written)) = (Members::parse(pair.0), Members::parse(pair.1))
    else {
        return report.fail("not one compact JSON object", format!("{what}\n   {}", pair.1));
    };
    check_times(report, what, &written);
    for name in ["requestReceivedTimestamp", "stageTimestamp"] {
        recorded.set(name, Some("\"T\"".to_owned()));
        written.set(name, Some("\"T\"".to_owned()));
    }
    if sent.own_id {
        report.forgive("auditID where the request carried none");
        recorded.set("auditID", Some("\"ID\"".to_owned()));
        written.set("auditID", Some("\"ID\"".to_owned()));
    }
    forgive_annotations(report, &mut recorded, &mut written);
    if recorded.text() == written.text() {
        report.equal += 1;
        return;
    }
    forgive_bodies(report, sent, &mut recorded, &mut written);
    forgive_object_ref(report, sent.request, &mut recorded, &written);
    if recorded.text() != written.text() {
        explain(report, what, &recorded, &written);
    }
}

/// Checks that times are RFC 3339 in UTC with six digits, and that both times of a first stage are
/// equal.
fn check_times(report: &mut Report, what: &str, written: &Members) {
    let received = written.get("requestReceivedTimestamp").unwrap_or("");
    let stage = written.get("stageTimestamp").unwrap_or("");
    let is_time = |text: &str| {
        let shape: String =
            text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        shape == "\"0000-00-00T00:00:00.000000Z\""
    };
    if !is_time(received) || !is_time(stage) || stage < received {
        report.fail("times", format!("{what}\n   received {received}, stage {stage}"));
    }
    if written.get("stage") == Some("\"RequestReceived\"") && received != stage {
        report.fail("times", format!("{what}\n   RequestReceived at {stage}, not {received}"));
    }
}

/// Annotation of a request whose body decoders interpret differently.
const AMBIGUOUS: &str = "kube-audit-proxy/request-ambiguous";

fn forgive_annotations(report: &mut Report, recorded: &mut Members, written: &mut Members) {
    if let Some(text) = written.get("annotations") {
        let mut pairs = object_members(text);
        let before = pairs.len();
        pairs.retain(|(key, _)| key != AMBIGUOUS);
        if pairs.len() < before {
            report.forgive("annotation that the body is ambiguous");
            let rest = Members(pairs);
            written.set("annotations", Some(rest.text()).filter(|_| !rest.0.is_empty()));
        }
    }
    let parse = |text: Option<&str>| -> BTreeMap<String, String> {
        text.map(|text| serde_json::from_str(text).expect("annotations")).unwrap_or_default()
    };
    let ours = parse(written.get("annotations"));
    let Some(text) = recorded.get("annotations") else { return };
    let mut pairs = object_members(text);
    // If several bindings allow a request, an authorizer names any of them.
    let theirs = parse(Some(text));
    let by_binding = |annotations: &BTreeMap<String, String>| {
        let reason = annotations.get("authorization.k8s.io/reason");
        reason.is_some_and(|reason| reason.starts_with("RBAC: allowed by ClusterRoleBinding "))
    };
    let reason = |annotations: &BTreeMap<String, String>| {
        annotations.get("authorization.k8s.io/reason").cloned()
    };
    if by_binding(&theirs) && by_binding(&ours) && reason(&theirs) != reason(&ours) {
        report.forgive("another binding that allows the same");
        pairs.retain(|(key, _)| key != "authorization.k8s.io/reason");
        let mut written_pairs = object_members(written.get("annotations").unwrap_or_default());
        written_pairs.retain(|(key, _)| key != "authorization.k8s.io/reason");
        let rest = Members(written_pairs);
        written.set("annotations", Some(rest.text()).filter(|_| !rest.0.is_empty()));
    }
    pairs.retain(|(key, _)| match is_known_only_upstream(key) {
        Some(kind) if !ours.contains_key(key) => {
            report.forgive(&format!("annotation {kind}, known only to the API server"));
            false
        }
        _ => true,
    });
    let rest = Members(pairs);
    recorded.set("annotations", Some(rest.text()).filter(|_| !rest.0.is_empty()));
}

/// Tolerates that a request object is what the client sent, while kube-apiserver has defaulted and
/// converted it, and that the mode of an impersonation is not visible.
fn forgive_bodies(
    report: &mut Report,
    exchange: &Sent<'_>,
    recorded: &mut Members,
    written: &mut Members,
) {
    if let (Some(theirs), Some(ours)) =
        (recorded.get("requestObject"), written.get("requestObject"))
        && theirs != ours
        && is_all_that_was_sent(exchange, theirs, ours)
    {
        report.forgive("requestObject, as the client sent it");
        recorded.set("requestObject", None);
        written.set("requestObject", None);
    }
    if exchange.response_in_yaml
        && let (Some(theirs), Some(ours)) =
            (recorded.get("responseObject"), written.get("responseObject"))
        && serde_json::from_str::<Value>(theirs).ok() == serde_json::from_str(ours).ok()
    {
        report.forgive("responseObject of an answer in YAML, which has lost the order of members");
        recorded.set("responseObject", None);
        written.set("responseObject", None);
    }
    let lost_answer = exchange.response_unknown && recorded.get("responseObject").is_some();
    if lost_answer && written.get("responseObject").is_some() {
        report.forgive("responseObject of an answer that was not recorded");
        recorded.set("responseObject", None);
        written.set("responseObject", None);
    }
    if !exchange.authorized_by_proxy
        && recorded.get("authenticationMetadata").is_some()
        && written.get("authenticationMetadata").is_none()
    {
        report.forgive("authenticationMetadata, known only to the API server");
        recorded.set("authenticationMetadata", None);
    }
}

/// Returns whether the proxy's object has each field that the client sent, with its value: it is
/// the client's JSON or YAML, or a part of kube-apiserver's object for a protobuf body.
fn is_all_that_was_sent(exchange: &Sent<'_>, theirs: &str, ours: &str) -> bool {
    let parse = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
    let (Some(theirs), Some(ours)) = (parse(theirs.as_bytes()), parse(ours.as_bytes())) else {
        return false;
    };
    let sent = parse(exchange.body)
        .or_else(|| serde_yaml::from_str(std::str::from_utf8(exchange.body).ok()?).ok());
    match sent {
        Some(mut sent) => {
            if exchange.managed_fields_omitted
                && let Some(metadata) = sent.get_mut("metadata").and_then(Value::as_object_mut)
            {
                metadata.remove("managedFields");
            }
            sent == ours || contains(&ours, &without_zeros(sent))
        }
        None => contains(&theirs, &ours),
    }
}

/// Returns the value without members that Go's `omitempty` may omit.
fn without_zeros(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let is_zero = |value: &Value| {
                matches!(value, Value::Null | Value::Bool(false)) || *value == 0 || *value == ""
            };
            let members = members.into_iter().filter(|(_, value)| !is_zero(value));
            members.map(|(key, value)| (key, without_zeros(value))).collect()
        }
        Value::Array(elements) => elements.into_iter().map(without_zeros).collect(),
        other => other,
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| contains(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| contains(w, p))
        }
        (whole, part) => whole == part,
    }
}

fn forgive_object_ref(
    report: &mut Report,
    request: &[u8],
    recorded: &mut Members,
    written: &Members,
) {
    let Some(text) = recorded.get("objectRef") else { return };
    let ours = written.get("objectRef").map(object_members).unwrap_or_default();
    let mut members = object_members(text);
    members.retain(|(key, value)| {
        let is_missing = !ours.iter().any(|(name, _)| name == key);
        let plain = value.trim_matches('"').as_bytes();
        let is_elsewhere = super::http1::find(request, plain).is_none();
        let is_forgiven = is_missing
            && is_elsewhere
            && matches!(key.as_str(), "name" | "uid" | "resourceVersion");
        if is_forgiven {
            report.forgive(&format!("objectRef.{key} that the request did not say"));
        }
        !is_forgiven
    });
    recorded.set("objectRef", Some(Members(members).text()));
}

fn explain(report: &mut Report, what: &str, recorded: &Members, written: &Members) {
    let mut names: Vec<&str> = recorded.0.iter().map(|(name, _)| name.as_str()).collect();
    names.extend(written.0.iter().map(|(name, _)| name.as_str()));
    names.sort_unstable();
    names.dedup();
    let before = report.failures.len();
    for name in names {
        let (theirs, ours) = (recorded.get(name), written.get(name));
        if theirs != ours {
            let none = "(none)";
            let (theirs, ours) = (theirs.unwrap_or(none), ours.unwrap_or(none));
            report.fail(name, format!("{what}\n   recorded {theirs}\n   written  {ours}"));
        }
    }
    if report.failures.len() == before {
        let (theirs, ours) = (recorded.text(), written.text());
        report.fail("order", format!("{what}\n   recorded {theirs}\n   written  {ours}"));
    }
}

fn object_members(text: &str) -> Vec<(String, String)> {
    Members::parse(text).map(|members| members.0).expect("a compact object")
}
