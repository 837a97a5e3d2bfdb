//! `log query` and `log report` compared with a simple recount by serde_json.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use serde_json::{Value as Json, json};

use crate::support::proxy::BINARY;

/// A log with its rotated files: recorded events of a real kube-apiserver, and lines that are hard
/// to parse.
struct Log {
    folder: PathBuf,
    /// The lines that are events, in order.
    lines: Vec<String>,
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("log-query-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut recorded = Vec::new();
    for name in ["all-metadata", "mixed", "narrow"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/exchanges").join(name);
        for line in std::fs::read_to_string(path.with_extension("jsonl")).unwrap().lines() {
            let exchange: Json = serde_json::from_str(line).unwrap();
            let events = exchange["events"].as_array().unwrap().iter();
            recorded.extend(events.map(|event| event.as_str().unwrap().to_owned()));
        }
    }
    let third = recorded.len() / 3;
    let (oldest, rest) = recorded.split_at(third);
    let (older, newest) = rest.split_at(third);
    let text = |lines: &[String]| lines.iter().flat_map(|line| [line, "\n"]).collect::<String>();
    let zstd = zstd::encode_all(text(oldest).as_bytes(), 1).unwrap();
    std::fs::write(folder.join("audit-2026-11-21T00-00-00.000.log.zst"), zstd).unwrap();
    let gzip = std::fs::File::create(folder.join("audit-2026-11-22T00-00-00.000.log.gz")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(gzip, flate2::Compression::fast());
    gzip.write_all(text(older).as_bytes()).unwrap();
    gzip.finish().unwrap();
    let mut live = text(newest).into_bytes();
    for line in misleading(newest) {
        live.extend_from_slice(&line);
        live.push(b'\n');
    }
    // A line that was being written.
    live.extend_from_slice(&newest[0].as_bytes()[..newest[0].len() / 2]);
    std::fs::write(folder.join("audit.log"), &live).unwrap();
    let mut lines = oldest.to_vec();
    lines.extend_from_slice(older);
    lines.extend(
        live.split(|byte| *byte == b'\n').map(|line| String::from_utf8_lossy(line).into_owned()),
    );
    lines.retain(|line| parse(line).is_some());
    Log { folder, lines }
});

/// Returns lines that are hard to parse; some are not events.
pub(crate) fn misleading(recorded: &[String]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in recorded.iter().step_by(40) {
        let event: Json = serde_json::from_str(line).unwrap();
        // Other key order, spaces, escapes for every character, CRLF.
        lines.push(event.to_string().into_bytes());
        lines.push(line.replace("\":", "\" : ").replace(",\"", " , \"").into_bytes());
        lines.push(escaped(&event).into_bytes());
        lines.push(format!("{line}\r").into_bytes());
        // A value that looks like the rest of an event.
        let lookalike = r#"\",\"requestReceivedTimestamp\":\"2026-11-23T05:00:00.000000Z\",\"verb\":\"delete\"}"#;
        lines.push(line.replace("lab/1.0", lookalike).into_bytes());
        let nested =
            format!(r#","requestObject":{{"verb":"delete","a":[{line}]}},"verb":"patch","#);
        lines.push(line.replacen(',', &nested, 3).into_bytes());
        lines.push(
            line.replacen("\"user\":{", "\"user\":{\"username\":\"first\"},\"user\":{", 1)
                .into_bytes(),
        );
        // Bytes that are not UTF-8, and NUL bytes.
        let mut bytes = line.replace("lab/1.0", "lab/@").into_bytes();
        bytes.iter_mut().filter(|byte| **byte == b'@').for_each(|byte| *byte = 0xff);
        lines.push(bytes);
        lines.push(line.replace("lab/1.0", "lab/\0").into_bytes());
        lines.push([&[0; 100], line.as_bytes()].concat());
        lines.push(line.as_bytes()[..line.len() - 2].to_vec());
    }
    lines.push(recorded[0].replace("lab/1.0", &"x".repeat(3 << 20)).into_bytes());
    lines.push(Vec::new());
    lines.push(b"2026-11-23T05:10:34Z AUDIT: id=\"1\"".to_vec());
    lines.push(br#"{"kind":"Pod","auditID":"1","stage":"ResponseComplete"}"#.to_vec());
    lines
}

fn escaped(json: &Json) -> String {
    let string = |text: &str| {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        format!("\"{units}\"")
    };
    match json {
        Json::Object(members) => {
            let members = members.iter().map(|(key, value)| string(key) + ":" + &escaped(value));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Json::Array(items) => {
            format!("[{}]", items.iter().map(escaped).collect::<Vec<_>>().join(","))
        }
        Json::String(text) => string(text),
        other => other.to_string(),
    }
}

fn parse(line: &str) -> Option<Json> {
    let event: Json = serde_json::from_str(line).ok()?;
    let kind = event.get("kind").is_none_or(|kind| kind == "Event");
    (kind && event.get("auditID").is_some()).then_some(event)
}

/// Returns the last event of each request, or all events, that match.
fn recount(all: bool, matches: impl Fn(&Json) -> bool) -> Vec<&'static String> {
    let mut requests: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    let events: Vec<Json> = LOG.lines.iter().filter_map(|line| parse(line)).collect();
    for (index, event) in events.iter().enumerate() {
        let key = (event["auditID"].to_string(), event["requestReceivedTimestamp"].to_string());
        requests.entry(key).or_default().push(index);
    }
    let mut kept = Vec::new();
    for indices in requests.values() {
        let is_last = |index: &usize| {
            let stage = &events[*index]["stage"];
            stage != "RequestReceived" && stage != "ResponseStarted"
        };
        if all {
            kept.extend(indices);
            continue;
        }
        kept.extend(indices.iter().copied().filter(|index| is_last(index)));
        // No other event of the request follows.
        kept.extend(indices.last().filter(|index| !is_last(index)));
    }
    kept.retain(|index| matches(&events[*index]));
    kept.sort_unstable();
    kept.into_iter().map(|index| &LOG.lines[index]).collect()
}

fn log(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.arg("log").args(arguments).arg(LOG.folder.join("audit.log")).stdin(Stdio::null());
    command.env_remove("KUBE_AUDIT_LOG").output().unwrap()
}

fn text(event: &Json, pointer: &str) -> String {
    event.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn code(event: &Json) -> i64 {
    event.pointer("/responseStatus/code").and_then(Json::as_i64).unwrap_or_default()
}

fn latency(event: &Json) -> i64 {
    let micros = |name: &str| {
        let time: jiff::Timestamp = event[name].as_str().unwrap().parse().unwrap();
        time.as_microsecond()
    };
    micros("stageTimestamp") - micros("requestReceivedTimestamp")
}

type Case = (&'static [&'static str], fn(&Json) -> bool);

const CASES: [Case; 24] = [
    (&[], |_| true),
    (&["-u", "alice"], |event| text(event, "/user/username") == "alice"),
    (&["-u", "!alice", "-u", "!kubernetes-admin"], |event| {
        !["alice", "kubernetes-admin"].contains(&text(event, "/user/username").as_str())
    }),
    (&["--human"], |event| {
        let user = text(event, "/user/username");
        !user.is_empty() && !user.starts_with("system:")
    }),
    (&["--anonymous"], |event| text(event, "/user/username") == "system:anonymous"),
    (&["--group", "dev"], |event| {
        let groups = event.pointer("/user/groups").and_then(Json::as_array);
        groups.is_some_and(|groups| groups.iter().any(|group| group == "dev"))
    }),
    (&["--service-account", "team-a:default"], |event| {
        text(event, "/user/username") == "system:serviceaccount:team-a:default"
    }),
    (&["--impersonated"], |event| event.get("impersonatedUser").is_some()),
    (&["--verb", "delete"], |event| text(event, "/verb") == "delete"),
    (&["--verb", "delete", "--verb", "patch"], |event| {
        ["delete", "patch"].contains(&text(event, "/verb").as_str())
    }),
    (&["--resource", "secrets"], |event| text(event, "/objectRef/resource") == "secrets"),
    (&["--resource", "*.apps"], |event| text(event, "/objectRef/apiGroup") == "apps"),
    (&["--resource", "pods/exec"], |event| {
        text(event, "/objectRef/resource") == "pods"
            && text(event, "/objectRef/subresource") == "exec"
    }),
    (&["-n", "team-*", "--name", "rich"], |event| {
        text(event, "/objectRef/namespace").starts_with("team-")
            && text(event, "/objectRef/name") == "rich"
    }),
    (&["--name", "!rich"], |event| text(event, "/objectRef/name") != "rich"),
    (&["--code", "4xx"], |event| (400..500).contains(&code(event))),
    (&["--failed", "--code", "!404"], |event| code(event) >= 400 && code(event) != 404),
    (&["--forbidden"], |event| code(event) == 403),
    (&["--user-agent", "lab/*"], |event| text(event, "/userAgent").starts_with("lab/")),
    (&["--uri", "*watch=true*"], |event| text(event, "/requestURI").contains("watch=true")),
    (&["--source-ip", "127.0.0.0/8"], |event| {
        let addresses = event["sourceIPs"].as_array();
        addresses.is_some_and(|all| all.iter().any(|one| one.as_str().unwrap().starts_with("127.")))
    }),
    (&["--min-latency", "20ms"], |event| {
        event["stage"] != "RequestReceived" && latency(event) >= 20_000
    }),
    (&["--since", "2026-11-23T05:09:00Z", "--until", "2026-11-23T05:10:00Z"], |event| {
        let time = text(event, "/stageTimestamp");
        ("2026-11-23T05:09:00".."2026-11-23T05:10:00").contains(&time.as_str())
    }),
    (&["--annotation", "authorization.k8s.io/decision=forbid"], |event| {
        event["annotations"]["authorization.k8s.io/decision"] == "forbid"
    }),
];

#[test]
fn queries_find_what_a_recount_finds() {
    for (arguments, matches) in CASES {
        let mut expected = recount(false, matches);
        let output = log(&[&["query", "-o", "json"], arguments].concat());
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut found: Vec<_> = found.lines().collect();
        // Requests without a final event come last.
        found.sort_unstable();
        expected.sort();
        let same = found.len() == expected.len()
            && found.iter().zip(&expected).all(|(a, b)| a.trim_end() == b.trim_end());
        assert!(same, "{arguments:?}: {} and {}", found.len(), expected.len());
        let status = i32::from(expected.is_empty());
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        // If lines are first searched for a literal, other lines are not parsed.
        let warned = String::from_utf8_lossy(&output.stderr).contains("are not audit events");
        assert!(warned || !arguments.is_empty());
    }
}

#[test]
fn all_stages_are_shown_in_order() {
    for (extra, threads) in [(None, "1"), (Some("--reverse"), "3")] {
        let mut arguments = vec!["query", "--stage", "all", "-o", "id", "--threads", threads];
        arguments.extend(extra);
        let output = log(&arguments);
        let mut expected: Vec<String> = recount(true, |_| true)
            .into_iter()
            .map(|line| text(&parse(line).unwrap(), "/auditID"))
            .collect();
        if extra.is_some() {
            expected.reverse();
        }
        let found = String::from_utf8(output.stdout).unwrap();
        assert!(found.lines().eq(expected.iter().map(String::as_str)), "{extra:?}");
    }
}

#[test]
fn counts_and_limits_agree() {
    let expected = recount(false, |event| text(event, "/verb") == "list").len();
    let output = log(&["query", "--count", "--verb", "list"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{expected}\n"));
    let output =
        log(&["query", "--limit", "7", "--verb", "list", "-o", "csv", "--columns", "verb,code"]);
    let rows = String::from_utf8(output.stdout).unwrap();
    assert_eq!(rows.lines().next(), Some("verb,code"));
    assert_eq!(rows.lines().count(), 8);
    assert!(rows.lines().skip(1).all(|row| row.starts_with("list,")));
}

#[test]
fn expressions_choose_events() {
    let source = r#"objectRef.resource == "configmaps" && responseStatus.code >= 400"#;
    let matches =
        |event: &Json| text(event, "/objectRef/resource") == "configmaps" && code(event) >= 400;
    let output = log(&["query", "--count", "--where", source]);
    let expected = recount(false, matches).len();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{expected}\n"));
}

fn rows(arguments: &[&str]) -> Vec<Json> {
    let output = log(&[&["report"], arguments, &["-o", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    report["rows"].as_array().unwrap().clone()
}

fn value(event: &Json, pointer: &str) -> Json {
    event.pointer(pointer).cloned().unwrap_or_default()
}

#[test]
fn top_counts_what_a_recount_counts() {
    let mut groups: BTreeMap<String, (Json, u64)> = BTreeMap::new();
    for line in recount(false, |_| true) {
        let event = parse(line).unwrap();
        let row = json!({
            "user": value(&event, "/user/username"),
            "verb": value(&event, "/verb"),
            "resource": value(&event, "/objectRef/resource"),
            "code": value(&event, "/responseStatus/code"),
        });
        groups.entry(row.to_string()).or_insert((row, 0)).1 += 1;
    }
    let mut expected: Vec<Json> = groups
        .into_values()
        .map(|(mut row, count)| {
            row["count"] = json!(count);
            row
        })
        .collect();
    let mut found = rows(&["top", "--by", "user,verb,resource,code"]);
    let counts: Vec<_> = found.iter().map(|row| row["count"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted_by(|a, b| a >= b));
    let order = |row: &Json| row.to_string();
    found.sort_by_key(order);
    expected.sort_by_key(order);
    assert_eq!(found, expected);
}

#[test]
fn other_reports_count_what_a_recount_counts() {
    let is_exec = |event: &Json| {
        let part = ["exec", "attach", "portforward", "ephemeralcontainers", "proxy"];
        part.contains(&text(event, "/objectRef/subresource").as_str())
            && ["pods", "nodes", "services"].contains(&text(event, "/objectRef/resource").as_str())
    };
    let is_rbac = |event: &Json| {
        let verbs = ["create", "update", "patch", "delete", "deletecollection"];
        text(event, "/objectRef/apiGroup") == "rbac.authorization.k8s.io"
            && verbs.contains(&text(event, "/verb").as_str())
    };
    type Belongs = fn(&Json) -> bool;
    let reports: [(&str, Belongs); 8] = [
        ("users", |_| true),
        ("failed", |event| code(event) >= 400),
        ("secrets", |event| text(event, "/objectRef/resource") == "secrets"),
        ("exec", is_exec),
        ("anonymous", |event| text(event, "/user/username") == "system:anonymous"),
        ("impersonation", |event| event.get("impersonatedUser").is_some()),
        ("volume", |_| true),
        ("agents", |_| true),
    ];
    for (report, matches) in reports {
        let total: u64 = rows(&[report]).iter().map(|row| row["count"].as_u64().unwrap()).sum();
        assert_eq!(total, recount(false, matches).len() as u64, "{report}");
    }
    let granted = rows(&["rbac"]);
    assert!(granted.len() <= recount(false, is_rbac).len() && !granted.is_empty());
    assert!(granted.iter().any(|row| row["name"] == "reader" && row["verb"] == "create"));
}

#[test]
fn percentiles_are_those_of_a_recount() {
    let mut verbs: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for line in recount(false, |event| event["stage"] != "RequestReceived") {
        let event = parse(line).unwrap();
        verbs.entry(text(&event, "/verb")).or_default().push(latency(&event));
    }
    let found = rows(&["latency"]);
    assert_eq!(found.len(), verbs.len());
    for row in found {
        let durations = verbs.get_mut(row["verb"].as_str().unwrap()).unwrap();
        durations.sort_unstable();
        assert_eq!(row["count"], durations.len());
        for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
            let rank = ((share * durations.len() as f64).ceil() as usize).max(1);
            let expected = durations[rank - 1] as f64 / 1000.0;
            assert_eq!(row[name].as_f64(), Some(expected), "{name} of {row}");
        }
    }
}

#[test]
fn a_summary_and_a_directory() {
    let count = recount(false, |_| true).len();
    let output = Command::new(BINARY).args(["log", "report"]).arg(&LOG.folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains(&format!("Events    {count} (")) && text.contains("in 3 files"),
        "{text}"
    );
}

#[test]
fn the_binary_is_a_kubectl_plugin_too() {
    let plugin = LOG.folder.join("kubectl-audit");
    let _ = std::os::unix::fs::symlink(BINARY, &plugin);
    let output = Command::new(&plugin)
        .args(["query", "--count", "--verb", "list"])
        .arg(LOG.folder.join("audit.log"))
        .output()
        .unwrap();
    let expected = recount(false, |event| text(event, "/verb") == "list").len();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{expected}\n"));
}

#[test]
fn events_come_from_standard_input_and_a_closed_pipe_is_no_error() {
    let input = LOG.lines.join("\n");
    let mut child = Command::new(BINARY)
        .args(["log", "query", "-o", "json", "--stage", "all", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut pipe = child.stdin.take().unwrap();
    // The command ends when its output is closed.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

#[test]
fn errors_are_usage_or_files() {
    for (arguments, expected) in [
        (&["query", "--since", "never"][..], "--since=never: not a time"),
        (&["query", "--stage", "done"], "--stage=done: unknown stage; accepted are last, all"),
        (&["query", "--columns", "usr"], "--columns=usr: unknown column; accepted are time"),
        (&["query", "/nowhere/audit.log"], "/nowhere/audit.log: no such file"),
        (&["report", "top", "--by", "usr"], "--by=usr: unknown column"),
    ] {
        let output = log(arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
