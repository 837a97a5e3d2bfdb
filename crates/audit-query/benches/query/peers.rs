//! The same questions to other programs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cpu_seconds;

const SCHEMA: &str = "{user:'STRUCT(username VARCHAR)',verb:'VARCHAR',objectRef:'STRUCT(resource VARCHAR,namespace VARCHAR,name VARCHAR)',responseStatus:'STRUCT(code INTEGER)',stageTimestamp:'TIMESTAMP'}";

/// Questions a, b, and c in SQL, with `objectRef.name` and the like as DuckDB spells them.
const SQL: [&str; 3] = [
    "SELECT user.username FROM t WHERE verb='delete' AND objectRef.resource='secrets' AND objectRef.name='stripe-signing-key'",
    "SELECT count(*) FROM t WHERE user.username='alice@example.com' AND responseStatus.code>=400 AND stageTimestamp>='2026-11-01 00:10:00' AND stageTimestamp<'2026-11-01 01:10:00'",
    "SELECT user.username, verb, objectRef.resource, responseStatus.code, count(*) FROM t GROUP BY ALL",
];

/// The best CPU seconds of three runs.
fn measure(program: &str, arguments: &[&str]) -> Option<f64> {
    // ripgrep ends with 1 if nothing was found, Python after an error.
    let accepted = i32::from(program == "rg");
    let mut best = f64::MAX;
    for _ in 0..3 {
        let before = cpu_seconds();
        let status = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.ok().filter(|status| status.code().is_some_and(|code| code <= accepted))?;
        best = best.min(cpu_seconds() - before);
    }
    Some(best)
}

fn print(name: &str, question: &str, empty: Option<f64>, whole: Option<f64>) {
    match (empty, whole) {
        (Some(empty), Some(whole)) => println!(
            "{name:14} {question:40} {:6.2}  start-up of {empty:.2} subtracted",
            (whole - empty).max(0.0)
        ),
        _ => println!("{name:14} {question:40} is not there"),
    }
}

/// The Python in AUDIT_QUERY_PYTHON, or one in a virtual environment in the folder, into which
/// duckdb and chdb are installed from PyPI.
fn python(folder: &Path) -> String {
    if let Ok(python) = std::env::var("AUDIT_QUERY_PYTHON") {
        return python;
    }
    let venv = folder.join("peers");
    let python = venv.join("bin/python").display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let has_both = || run(&python, &["-c", "import duckdb, chdb"]);
    let made = has_both()
        || run("python3", &["-m", "venv", &venv.display().to_string()])
            && run(&python, &["-m", "pip", "install", "--quiet", "duckdb", "chdb"]);
    if !made {
        println!("duckdb and chdb cannot be installed into {}", venv.display());
    }
    python
}

/// Measures all that are there.
pub(crate) fn run(folder: &Path, log: &Path) {
    let empty = folder.join("empty.log");
    let first = fs::read(log)
        .map(|text| text.split_inclusive(|byte| *byte == b'\n').next().map(<[u8]>::to_vec));
    if let Ok(Some(line)) = first {
        fs::write(&empty, line).expect("the folder is there");
    }
    let (log, empty) = (log.display().to_string(), empty.display().to_string());
    let rg = |path: &str| measure("rg", &["-c", "stripe-signing-key", path]);
    print("ripgrep", "a (no parsing)", rg(&empty), rg(&log));
    let filters = [
        (
            "a",
            "select(.verb==\"delete\" and .objectRef.resource==\"secrets\" and .objectRef.name==\"stripe-signing-key\")|.user.username",
        ),
        (
            "b",
            "select(.user.username==\"alice@example.com\" and .responseStatus.code>=400)|.auditID",
        ),
        ("c", "[.user.username,.verb,.objectRef.resource,.responseStatus.code]|@csv"),
    ];
    for (question, filter) in filters {
        let jq = |path: &str| measure("jq", &["-r", filter, path]);
        print("jq", question, jq(&empty), jq(&log));
    }
    let python = python(folder);
    for (index, question) in ["a", "b", "c"].into_iter().enumerate() {
        for (name, columns) in
            [("duckdb schema", format!(",columns={SCHEMA}")), ("duckdb auto", String::new())]
        {
            let duckdb = |path: &str| {
                let from = format!(
                    "read_json('{path}',format='newline_delimited'{columns},maximum_object_size=67108864)"
                );
                let script = format!(
                    "import duckdb; c=duckdb.connect(); c.execute('SET threads=1'); c.execute(\"\"\"{}\"\"\").fetchall()",
                    SQL[index].replace("FROM t", &format!("FROM {from}"))
                );
                measure(&python, &["-c", &script])
            };
            print(name, question, duckdb(&empty), duckdb(&log));
        }
    }
    let chdb = |path: &str| {
        let script = format!(
            "import chdb; chdb.query(\"\"\"SELECT user.username, verb, objectRef.resource, responseStatus.code, count() FROM file('{path}', 'JSONEachRow', 'user Tuple(username Nullable(String)), verb String, objectRef Tuple(resource Nullable(String)), responseStatus Tuple(code Nullable(Int32))') GROUP BY ALL SETTINGS max_threads=1, input_format_skip_unknown_fields=1\"\"\")"
        );
        measure(&python, &["-c", &script])
    };
    print("chdb schema", "c", chdb(&empty), chdb(&log));
}
