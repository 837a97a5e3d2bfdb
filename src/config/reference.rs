//! The configuration reference, `docs/configuration.md`: generated from the flags of `serve`, and
//! compared with the committed file by a test.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Args, Command};

use super::file::command;
use super::kafka::KafkaKeys;
use super::otlp::OtlpKeys;
use super::s3::S3Keys;
use super::sinks::entry::SinkType;
use super::stream::StreamKeys;

const HEADER: &str = "\
# Configuration reference

<!-- Generated from the flags of `serve`. Do not edit; change the help text of the flag in
src/config and run: UPDATE_DOCS=1 cargo test --locked configuration_reference -->

`kube-audit-proxy serve` is configured with flags, a file, or both. Flags have the names and
defaults of kube-apiserver if the meaning is the same. `kube-audit-proxy serve --help` prints this
reference; `kube-audit-proxy man DIRECTORY` writes manual pages of all commands.

- Durations are written like `500ms`, `30s` or `1m30s`.
- Boolean flags without a value are true: `--audit-log-seal` is `--audit-log-seal=true`.
- Lists are comma-separated, or repeat the flag where the description says so.
- If a flag is given several times and is not a list, the last value is used.
- Invalid flags and files are reported at startup with exit code 2.

";

const FILE: &str = "\
## The file of `--config`

The file is YAML. Its keys are the flags without dashes; a list is a YAML list or a comma-separated
string. Flags on the command line override the file. [`config/settings.yaml`](../config/settings.yaml)
is an example. Unknown keys and invalid values are errors that name line and column. The file is
read once, at startup.

```yaml
secure-port: 6443
client-ca-file: /etc/kubernetes/pki/ca.crt
proxy-protocol: [10.0.0.0/24]
audit-policy-file: /etc/kube-audit-proxy/policy.yaml
audit-log-path: /var/log/kubernetes/audit.log
```

## Sinks

The list `sinks` in the file replaces the flags `--audit-policy-file`, `--audit-log-*`,
`--audit-webhook-*`, `--audit-redact`, `--audit-max-body-bytes` and `--audit-max-request-body-bytes`.
Each entry is one backend with its own policy ([Backends](backends.md#several-sinks),
[`config/sinks.yaml`](../config/sinks.yaml)). A key has the meaning, the values and the default of
the flag in the table; `name`, `type` and `policy-file` are required, and so is `path` for the type
`file` and `config-file` for the type `webhook`.

| key | `file` | `stdout` | `webhook` | flag |
|---|---|---|---|---|
";

const S3: &str = "
## Sinks of type `s3`

An entry of type `s3` ([Object storage](object-storage.md)) has `name`, `type`, `policy-file`, `redact`,
`max-body-bytes` and `max-request-body-bytes` like the others, and these keys. `url` and `spool-dir` are
required.

| key | default | description |
|---|---|---|
";

const KAFKA: &str = "
## Sinks of type `kafka`

An entry of type `kafka` ([Kafka](kafka.md)) has `name`, `type`, `policy-file`, `redact`, `max-body-bytes` and
`max-request-body-bytes` like the others, and these keys. `brokers`, `topic` and `spool-dir` are required.

| key | default | description |
|---|---|---|
";

const OTLP: &str = "
## Sinks of type `otlp`

An entry of type `otlp` ([OpenTelemetry](opentelemetry.md)) has `name`, `type`, `policy-file`, `redact`,
`max-body-bytes` and `max-request-body-bytes` like the others, and these keys. `endpoint` and `spool-dir` are
required.

| key | default | description |
|---|---|---|
";

/// Renders the reference as Markdown.
fn reference() -> String {
    let mut out = HEADER.to_owned();
    let command = command();
    let mut headings: Vec<&str> = Vec::new();
    for heading in command.get_arguments().filter_map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for heading in headings {
        let _ = writeln!(out, "## {heading}\n\n| flag | default | description |\n|---|---|---|");
        let of_it = |arg: &&Arg| arg.get_help_heading() == Some(heading);
        for arg in command.get_arguments().filter(of_it) {
            out.push_str(&row(arg));
        }
        out.push('\n');
    }
    out.push_str(FILE);
    out.push_str(&sink_keys());
    out.push_str(S3);
    out.push_str(&rows_of_keys(&S3Keys::augment_args(Command::new("s3"))));
    for (text, own) in [
        (KAFKA, KafkaKeys::augment_args(Command::new("kafka"))),
        (OTLP, OtlpKeys::augment_args(Command::new("otlp"))),
    ] {
        out.push_str(text);
        out.push_str(&rows_of_keys(&StreamKeys::augment_args(own)));
    }
    out
}

/// The rows of keys that are declared like flags.
fn rows_of_keys(command: &Command) -> String {
    command.get_arguments().map(|arg| row(arg).replacen("`--", "`", 1)).collect()
}

/// The row of one flag.
fn row(arg: &Arg) -> String {
    let flag = arg.get_long().unwrap_or_default();
    let value = arg.get_value_names().unwrap_or_default().join(" ");
    let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    let mut default = match defaults.as_slice() {
        [] => String::new(),
        values => format!("`{}`", values.join(",")),
    };
    // Defaults that clap does not apply itself are part of the text.
    if let Some((text, rest)) = help.split_once(" [default: ") {
        let stated = rest.trim_end_matches(']');
        default = match stated.contains(' ') {
            true => stated.to_owned(),
            false => format!("`{stated}`"),
        };
        help = text.to_owned();
    }
    let values = arg.get_possible_values();
    for value in values.iter().filter(|value| !value.is_hide_set()) {
        if let Some(text) = value.get_help() {
            let _ = write!(help, "<br>`{}`: {text}", value.get_name());
        }
    }
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let value = value.replace('|', "\\|");
    format!("| {short}`--{flag} {value}` | {default} | {} |\n", help.replace('|', "\\|"))
}

/// The rows of the keys of `sinks`.
fn sink_keys() -> String {
    let has_flags =
        |kind: SinkType| !matches!(kind, SinkType::S3 | SinkType::Kafka | SinkType::Otlp);
    let of_flags = SinkType::ALL.iter().filter(|(kind, _)| has_flags(*kind));
    let of_types: Vec<_> = of_flags.map(|(kind, _)| (*kind, kind.keys())).collect();
    let mut keys: Vec<&'static str> = Vec::new();
    for key in of_types.iter().flat_map(|(_, keys)| keys) {
        if !keys.contains(key) {
            keys.push(key);
        }
    }
    let mut out = String::new();
    for key in keys {
        let marks: Vec<_> =
            of_types.iter().map(|(_, known)| if known.contains(&key) { "x" } else { "" }).collect();
        let takers = of_types.iter().filter(|(_, known)| known.contains(&key));
        let mut flags: Vec<_> = takers
            .filter_map(|(kind, _)| kind.flag(key))
            .map(|flag| format!("`--{flag}`"))
            .collect();
        flags.dedup();
        let meaning = match key {
            "name" => "name of the backend in metrics, logs and health checks".to_owned(),
            "type" => "`file`, `stdout`, `webhook`, `s3`, `kafka` or `otlp`".to_owned(),
            _ => flags.join(", "),
        };
        let _ = writeln!(out, "| `{key}` | {} | {meaning} |", marks.join(" | "));
    }
    out
}

#[test]
fn configuration_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let generated = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let different = generated.lines().zip(committed.lines()).find(|(new, old)| new != old);
    assert!(
        generated == committed,
        "docs/configuration.md is outdated, first at {different:#?}; regenerate it with: \
         UPDATE_DOCS=1 cargo test --locked configuration_reference"
    );
}
