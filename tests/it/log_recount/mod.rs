//! Every report against a recount with serde_json: on recorded events, on lines that try to mislead
//! a parser, and on a generated log; plain, gzip, and zstd, with index files and without.

mod generate;
mod log;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Map, Value as Json, json};

use self::log::{LOG, compare, groups, report};
use self::model::{Event, field};
use crate::support::proxy::BINARY;

const SEEN: [&str; 4] = ["count", "failed", "first", "last"];
const COUNT_SEEN: [&str; 3] = ["count", "first", "last"];

#[test]
fn reports_that_count_are_recounted() {
    let last = model::last(&LOG.events);
    let kept = |keep: &dyn Fn(&Event) -> bool| -> Vec<&Event> {
        last.iter().copied().filter(|event| keep(event)).collect()
    };
    let is = |event: &Event, pointer: &str, values: &[&str]| {
        values.contains(&event.text(pointer).as_str())
    };
    let has_annotation = |event: &Event, prefix: &str| {
        let annotations = event.json["annotations"].as_object();
        annotations.is_some_and(|all| {
            all.iter().any(|(key, value)| key.starts_with(prefix) && value.is_string())
        })
    };
    type Keep<'a> = &'a dyn Fn(&Event) -> bool;
    let reports: [(&str, Keep<'_>, &[&str], &[&str]); 12] = [
        ("users", &|_| true, &["user"], &SEEN),
        (
            "failed",
            &|event| event.code() >= 400,
            &["user", "verb", "object", "namespace", "code", "reason"],
            &COUNT_SEEN,
        ),
        (
            "secrets",
            &|event| {
                is(event, "/objectRef/resource", &["secrets"])
                    && event.text("/objectRef/apiGroup").is_empty()
            },
            &["who", "verb", "namespace", "name"],
            &SEEN,
        ),
        (
            "exec",
            &|event| {
                let subresources =
                    ["exec", "attach", "portforward", "ephemeralcontainers", "proxy"];
                is(event, "/objectRef/subresource", &subresources)
                    && is(event, "/objectRef/resource", &["pods", "nodes", "services"])
            },
            &["who", "subresource", "namespace", "name", "command", "code", "source-ip"],
            &COUNT_SEEN,
        ),
        (
            "anonymous",
            &|event| is(event, "/user/username", &["system:anonymous"]),
            &["verb", "path", "code", "source-ip", "user-agent"],
            &COUNT_SEEN,
        ),
        (
            "rbac",
            &|event| {
                is(event, "/objectRef/apiGroup", &["rbac.authorization.k8s.io"])
                    && is(event, "/verb", &model::WRITES)
            },
            &["time", "who", "verb", "resource", "namespace", "name", "grants", "code"],
            &[],
        ),
        (
            "impersonation",
            &|event| event.json["impersonatedUser"].is_object(),
            &["user", "impersonated", "verb", "object"],
            &SEEN,
        ),
        (
            "tokens",
            &|event| {
                is(event, "/objectRef/resource", &["serviceaccounts"])
                    && is(event, "/objectRef/subresource", &["token"])
                    || is(event, "/objectRef/resource", &["tokenreviews", "tokenrequests"])
            },
            &["who", "verb", "object", "namespace", "name", "source-ip"],
            &SEEN,
        ),
        (
            "deprecated",
            &|event| event.json["annotations"]["k8s.io/deprecated"] == "true",
            &[
                "annotations.k8s.io/removed-release",
                "api-group",
                "api-version",
                "resource",
                "verb",
                "user",
                "user-agent",
            ],
            &SEEN,
        ),
        (
            "psa",
            &|event| has_annotation(event, "pod-security.kubernetes.io/"),
            &[
                "namespace",
                "object",
                "user",
                "annotations.pod-security.kubernetes.io/enforce-policy",
                "annotations.pod-security.kubernetes.io/audit-violations",
                "annotations.pod-security.kubernetes.io/exempt",
                "annotations.pod-security.kubernetes.io/error",
                "code",
            ],
            &SEEN,
        ),
        ("volume", &|_| true, &["user", "verb", "resource"], &["count", "bytes"]),
        ("agents", &|_| true, &["user-agent", "user"], &SEEN),
    ];
    for (name, keep, fields, measures) in reports {
        let expected = groups(kept(keep), fields, measures);
        assert!(!expected.is_empty(), "the log has nothing for {name}");
        compare(&[name], &expected);
    }
}

#[test]
fn events_are_counted_by_any_fields() {
    let last = model::last(&LOG.events);
    for by in [
        "user,verb,resource,code",
        "source-ip,user-agent",
        "date,level,stage",
        "hour,groups",
        "annotations.authorization.k8s.io/decision,source-ips,impersonated,reason",
        "audit-id",
        "uri",
        "uid,message",
    ] {
        let fields: Vec<_> = by.split(',').collect();
        compare(&["top", "--by", by], &groups(last.iter().copied(), &fields, &["count"]));
        compare(&["top", "--by", by, "--stage", "all"], &groups(&LOG.events, &fields, &["count"]));
    }
    let since = "2026-11-23T05:10:00.000000Z";
    let filtered = last.iter().copied().filter(|event| {
        event.code() >= 400 && event.time() >= since && event.text("/user/username") != "alice"
    });
    let arguments = ["top", "--by", "user,code", "--failed", "--since", since, "--user", "!alice"];
    compare(&arguments, &groups(filtered, &["user", "code"], &["count"]));
}

#[test]
fn filtered_queries_are_recounted() {
    let last = model::last(&LOG.events);
    let id = last.iter().rev().map(|event| event.text("/auditID")).find(|id| id.len() == 36);
    let id = id.unwrap();
    let text = |event: &Event, pointer: &str, value: &str| event.text(pointer) == value;
    type Matches<'a> = &'a dyn Fn(&Event) -> bool;
    let cases: [(&[&str], Matches<'_>); 9] = [
        (&["--audit-id", &id], &|event| event.text("/auditID") == id),
        (&["--audit-id", "client-*"], &|event| event.text("/auditID").starts_with("client-")),
        (&["--audit-id", "!client-*", "--code", "500"], &|event| {
            event.code() == 500 && !event.text("/auditID").starts_with("client-")
        }),
        (&["--name", "n-7"], &|event| text(event, "/objectRef/name", "n-7")),
        (&["--name", "n-7", "--failed"], &|event| {
            text(event, "/objectRef/name", "n-7") && event.code() >= 400
        }),
        (&["--user", "CORP\\carol \"x\"", "--verb", "delete"], &|event| {
            text(event, "/user/username", "CORP\\carol \"x\"") && text(event, "/verb", "delete")
        }),
        (&["--min-latency", "1s", "--verb", "!watch"], &|event| {
            event.latency().is_some_and(|latency| latency >= 1_000_000)
                && !text(event, "/verb", "watch")
        }),
        (&["--where", "responseStatus.code == 409", "--resource", "secrets"], &|event| {
            event.code() == 409 && text(event, "/objectRef/resource", "secrets")
        }),
        (&["--source-ip", "10.0.0.8/29", "--group", "dev"], &|event| {
            let list = |pointer: &str| {
                let list = event.json.pointer(pointer).and_then(Json::as_array).cloned();
                list.unwrap_or_default()
            };
            let is_inside = |address: &Json| {
                let last = address.as_str().and_then(|text| text.strip_prefix("10.0.0."));
                let last = last.and_then(|last| last.parse::<u8>().ok());
                last.is_some_and(|last| (8..16).contains(&last))
            };
            list("/sourceIPs").iter().any(is_inside)
                && list("/user/groups").iter().any(|group| group == "dev")
        }),
    ];
    for (filter, matches) in cases {
        let mut expected: Vec<String> = last
            .iter()
            .filter(|event| matches(event))
            .map(|event| event.text("/auditID"))
            .collect();
        expected.sort_unstable();
        assert!(!expected.is_empty(), "{filter:?}");
        for extra in
            [&[][..], &["--no-index"], &["--reverse"], &["--count"], &["--count", "--no-index"]]
        {
            let is_count = extra.contains(&"--count");
            let output = if is_count { &[][..] } else { &["-o", "id"] };
            let output = Command::new(BINARY)
                .args(["log", "query"])
                .args([filter, extra, output].concat())
                .arg(LOG.folder.join("audit.log"))
                .output()
                .unwrap();
            let found = String::from_utf8(output.stdout).unwrap();
            if is_count {
                assert_eq!(found, format!("{}\n", expected.len()), "{filter:?} {extra:?}");
                continue;
            }
            let mut found: Vec<&str> = found.lines().collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{filter:?} {extra:?}");
        }
    }
}

#[test]
fn percentiles_are_recounted() {
    for by in ["verb", "user"] {
        let mut all: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for event in model::last(&LOG.events) {
            if let Some(latency) = event.latency().filter(|latency| *latency >= 0) {
                let value = field(event, by).as_str().unwrap_or_default().to_owned();
                all.entry(value).or_default().push(latency);
            }
        }
        let row = |(value, mut durations): (String, Vec<i64>)| {
            durations.sort_unstable();
            let percentile = |hundredths: usize| {
                let rank = (durations.len() * hundredths).div_ceil(100).max(1);
                let micros = durations[rank - 1];
                let text = format!("{}.{:03}", micros / 1000, micros % 1000);
                serde_json::from_str::<Json>(&text).unwrap()
            };
            json!({
                by: value, "count": durations.len(), "p50": percentile(50), "p90": percentile(90),
                "p95": percentile(95), "p99": percentile(99), "max": percentile(100),
            })
        };
        let expected: Vec<Json> = all.into_iter().map(row).collect();
        compare(&["latency", "--by", by], &expected);
    }
}

#[test]
fn the_summary_is_recounted() {
    let last = model::last(&LOG.events);
    let counted = |events: Vec<&Event>, name: &str, pointer: &str| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for event in events {
            let value = event.json.pointer(pointer);
            let value = value.map_or(String::new(), |value| match value {
                Json::String(text) => text.clone(),
                other => other.to_string(),
            });
            *counts.entry(value).or_default() += 1;
        }
        let mut rows: Vec<_> = counts.into_iter().collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        json!(
            rows.iter()
                .map(|(value, count)| json!({name: value, "count": count}))
                .collect::<Vec<_>>()
        )
    };
    let failed: Vec<&Event> = last.iter().copied().filter(|event| event.code() >= 400).collect();
    let changed = |event: &&Event| {
        event.code() < 400 && model::WRITES.contains(&event.text("/verb").as_str())
    };
    let times = || last.iter().map(|event| event.time());
    let expected = json!({
        "files": 7,
        "first": times().min(),
        "last": times().max(),
        "events": last.len(),
        "bytes": last.iter().map(|event| event.length + 1).sum::<usize>(),
        "failed": failed.len(),
        "users": counted(last.clone(), "user", "/user/username"),
        "verbs": counted(last.clone(), "verb", "/verb"),
        "failures": counted(failed, "code", "/responseStatus/code"),
        "changes": counted(last.iter().copied().filter(changed).collect(), "user", "/user/username"),
        "tornFiles": 1,
    });
    for extra in [&[][..], &["--no-index"]] {
        let found = report(extra);
        for (name, expected) in expected.as_object().unwrap() {
            assert_eq!(&found[name], expected, "{name} {extra:?}");
        }
    }
}

#[test]
fn histories_are_recounted() {
    let fields = ["time", "who", "verb", "object", "namespace", "code", "source-ip", "user-agent"];
    for (object, resource, name) in [
        ("deployment/web", "deployments", "web"),
        ("pods/rich", "pods", "rich"),
        ("networkpolicies/deny", "networkpolicies", "deny"),
    ] {
        let changes: Vec<&Event> = model::last(&LOG.events)
            .into_iter()
            .filter(|event| {
                model::WRITES.contains(&event.text("/verb").as_str())
                    && event.text("/objectRef/resource") == resource
                    && event.text("/objectRef/name") == name
            })
            .collect();
        assert!(!changes.is_empty() || resource == "networkpolicies", "{object}");
        let expected: Vec<Json> = changes
            .iter()
            .map(|event| {
                let row: Map<String, Json> =
                    fields.iter().map(|name| ((*name).to_owned(), field(event, name))).collect();
                row.into()
            })
            .collect();
        compare(&["history", object], &expected);
    }
}

#[test]
fn differences_lead_from_one_object_to_the_next() {
    let arguments = ["history", "deployment/web", "-n", "prod", "--diff"];
    let rows = report(&arguments);
    let mut before: Vec<String> = Vec::new();
    let mut compared = 0;
    let objects = LOG.events.iter().filter(|event| {
        event.text("/objectRef/resource") == "deployments"
            && event.text("/objectRef/name") == "web"
            && event.text("/objectRef/namespace") == "prod"
            && model::WRITES.contains(&event.text("/verb").as_str())
            && event.text("/stage") == "ResponseComplete"
    });
    for (row, event) in rows["rows"].as_array().unwrap().iter().zip(objects) {
        assert_eq!(row["time"], event.text("/stageTimestamp"));
        // A failed request changed nothing.
        if event.code() >= 400 {
            assert_eq!(row["diff"], Json::Null);
            continue;
        }
        let after: Vec<String> = serde_json::to_string_pretty(&event.json["responseObject"])
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        let diff = row["diff"].as_str().unwrap_or_default();
        let lines = |sign: char| -> Vec<&str> {
            diff.lines()
                .filter_map(|line| line.trim_start_matches("  ").strip_prefix(sign))
                .map(str::trim)
                .collect()
        };
        // Added lines occur in the new object, removed lines in the old one.
        let count =
            |all: &[String], line: &str| all.iter().filter(|one| one.trim() == line).count();
        for line in lines('+') {
            assert!(count(&after, line) > 0, "{line} of {diff}");
        }
        for line in lines('-') {
            assert!(count(&before, line) > 0, "{line} of {diff}");
        }
        assert_eq!(
            lines('+').len() as i64 - lines('-').len() as i64,
            after.len() as i64 - before.len() as i64
        );
        compared += lines('+').len();
        before = after;
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn permissions_are_recounted() {
    for user in ["alice", "system:serviceaccount:ci:deployer", "kubernetes-admin"] {
        let mut expected = BTreeSet::new();
        for event in model::last(&LOG.events) {
            if event.text("/user/username") != user || matches!(event.code(), 401 | 403) {
                continue;
            }
            let text = |pointer: &str| event.text(pointer);
            let verb = text("/verb");
            let resource = text("/objectRef/resource");
            let subresource = text("/objectRef/subresource");
            let row = if resource.is_empty() {
                let uri = text("/requestURI");
                let path = uri.split('?').next().unwrap().to_owned();
                [String::new(), String::new(), path, String::new(), verb]
            } else {
                let is_named = ["get", "update", "patch", "delete"].contains(&verb.as_str());
                let name = if is_named { text("/objectRef/name") } else { String::new() };
                let whole = match subresource.as_str() {
                    "" => resource.clone(),
                    _ => format!("{resource}/{subresource}"),
                };
                let namespace = match whole.as_str() {
                    "namespaces" => String::new(),
                    _ => text("/objectRef/namespace"),
                };
                [namespace, text("/objectRef/apiGroup"), whole, name, verb]
            };
            expected.insert(row);
        }
        assert!(!expected.is_empty(), "{user}");
        let names = ["namespace", "api-group", "resource", "name", "verb"];
        let row = |row: &[String; 5]| -> Json {
            let cells = names.iter().zip(row).map(|(name, value)| {
                let value = if value.is_empty() { Json::Null } else { json!(value) };
                ((*name).to_owned(), value)
            });
            cells.collect::<Map<_, _>>().into()
        };
        let expected: Vec<Json> = expected.iter().map(row).collect();
        compare(&["rbac-for", "--user", user], &expected);
    }
}
