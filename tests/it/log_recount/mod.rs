//! Every report against a recount with serde_json: on recorded events, on lines that try to mislead
//! a parser, and on a generated log; plain, gzip, and zstd, with index files and without.

mod generate;
mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Map, Value as Json, json};

use self::model::{Event, field};
use crate::log_query::misleading;
use crate::support::proxy::BINARY;

struct Log {
    folder: PathBuf,
    /// All events, in order.
    events: Vec<Event>,
}

/// Recorded events and misleading lines, and generated events.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("log-recount-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut recorded = Vec::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/exchanges");
    for name in ["all-metadata", "all-requestresponse", "mixed", "narrow"] {
        let path = corpus.join(name).with_extension("jsonl");
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let exchange: Json = serde_json::from_str(line).unwrap();
            let events = exchange["events"].as_array().unwrap().iter();
            recorded.extend(events.map(|event| event.as_str().unwrap().to_owned()));
        }
    }
    let generated = generate::lines(3000);
    let (half, quarter) = (recorded.len() / 2, generated.len() / 4);
    let bytes = |lines: &[String]| {
        lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect::<Vec<u8>>()
    };
    let mut live = misleading(&recorded[half..]).join(&b'\n');
    live.push(b'\n');
    live.extend(bytes(&generated[3 * quarter..]));
    // A line that is being written.
    live.extend_from_slice(&generated[0].as_bytes()[..200]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes(&generated[2 * quarter..3 * quarter])).unwrap();
    let files = [
        ("audit-2026-11-20T00-00-00.000.log", bytes(&recorded[..half]), None),
        ("audit-2026-11-21T00-00-00.000.log", Vec::new(), None),
        ("audit-2026-11-22T00-00-00.000.log", bytes(&generated[..quarter]), None),
        ("audit-2026-11-23T00-00-00.000.log.zst", bytes(&generated[quarter..2 * quarter]), {
            Some(zstd::encode_all(&bytes(&generated[quarter..2 * quarter])[..], 1).unwrap())
        }),
        ("audit-2026-11-24T00-00-00.000.log.gz", bytes(&generated[2 * quarter..3 * quarter]), {
            Some(gzip.finish().unwrap())
        }),
        (
            "audit-2026-11-25T00-00-00.000.log",
            [bytes(&recorded[half..]), misleading(&recorded).join(&b'\n'), b"\n".to_vec()].concat(),
            None,
        ),
        ("audit.log", live, None),
    ];
    let mut events = Vec::new();
    for (name, text, compressed) in files {
        std::fs::write(folder.join(name), compressed.as_ref().unwrap_or(&text)).unwrap();
        text.split(|byte| *byte == b'\n').for_each(|line| model::parse(line, &mut events));
    }
    let indexed = Command::new(BINARY).args(["log", "index"]).arg(&folder).output().unwrap();
    assert!(indexed.status.success(), "{indexed:?}");
    assert!(folder.join("audit-2026-11-24T00-00-00.000.log.parquet").exists());
    Log { folder, events }
});

/// What a report prints as JSON.
fn report(arguments: &[&str]) -> Json {
    let output = Command::new(BINARY)
        .args(["log", "report"])
        .args(arguments)
        .args(["-o", "json"])
        .arg(LOG.folder.join("audit.log"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {error}");
    assert!(!error.contains("index file"), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|problem| panic!("{arguments:?}: {problem}: {error}"))
}

/// Compares a report with rows in any order, with index files and without.
fn compare(arguments: &[&str], expected: &[Json]) {
    let order = |rows: &[Json]| {
        let mut rows: Vec<String> = rows.iter().map(Json::to_string).collect();
        rows.sort_unstable();
        rows
    };
    let expected = order(expected);
    for extra in [&[][..], &["--no-index"], &["--threads", "1"]] {
        let found = report(&[arguments, extra].concat());
        let found = order(found["rows"].as_array().unwrap());
        let differs = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        if let Some((found, expected)) = differs {
            panic!("{arguments:?} {extra:?}: {:.2000}\n{:.2000}", found, expected);
        }
        assert_eq!(found.len(), expected.len(), "{arguments:?} {extra:?}");
    }
}

/// Counts events by fields.
fn groups<'a>(
    events: impl IntoIterator<Item = &'a Event>,
    fields: &[&str],
    measures: &[&str],
) -> Vec<Json> {
    let mut groups: BTreeMap<String, (Map<String, Json>, Vec<&Event>)> = BTreeMap::new();
    for event in events {
        let row: Map<String, Json> =
            fields.iter().map(|name| ((*name).to_owned(), field(event, name))).collect();
        let key = Json::from(row.clone()).to_string();
        groups.entry(key).or_insert((row, Vec::new())).1.push(event);
    }
    let measured = |(mut row, events): (Map<String, Json>, Vec<&Event>)| {
        let times = || events.iter().map(|event| event.time());
        for measure in measures {
            let value = match *measure {
                "count" => json!(events.len()),
                "failed" => json!(events.iter().filter(|event| event.code() >= 400).count()),
                "bytes" => json!(events.iter().map(|event| event.length + 1).sum::<usize>()),
                "first" => json!(times().min()),
                "last" => json!(times().max()),
                other => panic!("{other}"),
            };
            row.insert((*measure).to_owned(), value);
        }
        Json::from(row)
    };
    groups.into_values().map(measured).collect()
}

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
        // What failed changed nothing.
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
        // What was added is in the new object and as often not in the old one, and the reverse.
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
