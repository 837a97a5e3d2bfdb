//! The same questions for other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::measure::{Measured, measure, own, table};
use crate::{CASES, Case};

const SCHEMA: &str = "{user:'STRUCT(username VARCHAR)',verb:'VARCHAR',objectRef:'STRUCT(resource VARCHAR,namespace VARCHAR,name VARCHAR)',responseStatus:'STRUCT(code INTEGER)',requestReceivedTimestamp:'TIMESTAMP',stageTimestamp:'TIMESTAMP'}";
const CHDB_SCHEMA: &str = "user Tuple(username Nullable(String)), verb String, objectRef Tuple(resource Nullable(String), name Nullable(String)), responseStatus Tuple(code Nullable(Int32)), requestReceivedTimestamp String, stageTimestamp String, auditID String";

/// The questions of [`CASES`] in DuckDB's SQL.
const DUCKDB: [&str; 4] = [
    "SELECT user.username FROM t WHERE verb='delete' AND objectRef.resource='secrets' AND objectRef.name='stripe-signing-key'",
    "SELECT verb FROM t WHERE user.username='alice@example.com' AND responseStatus.code>=400 AND stageTimestamp>='2026-11-01 00:10:00' AND stageTimestamp<'2026-11-01 01:10:00'",
    "SELECT user.username, verb, objectRef.resource, responseStatus.code, count(*) FROM t GROUP BY ALL",
    "SELECT verb, count(*), quantile_disc(epoch_us(stageTimestamp::TIMESTAMP)-epoch_us(requestReceivedTimestamp::TIMESTAMP), [0.5,0.9,0.95,0.99,1]) FROM t GROUP BY ALL",
];

/// The same for ClickHouse.
const CHDB: [&str; 4] = [
    "SELECT user.username FROM t WHERE verb='delete' AND objectRef.resource='secrets' AND objectRef.name='stripe-signing-key'",
    "SELECT auditID FROM t WHERE user.username='alice@example.com' AND responseStatus.code>=400 AND stageTimestamp>='2026-11-01T00:10:00' AND stageTimestamp<'2026-11-01T01:10:00'",
    "SELECT user.username, verb, objectRef.resource, responseStatus.code, count() FROM t GROUP BY ALL",
    "SELECT verb, count(), quantilesExact(0.5,0.9,0.95,0.99,1)(toUnixTimestamp64Micro(parseDateTime64BestEffort(stageTimestamp,6))-toUnixTimestamp64Micro(parseDateTime64BestEffort(requestReceivedTimestamp,6))) FROM t GROUP BY ALL",
];

/// The same for jq, which prints what would have to be counted.
const JQ: [&str; 4] = [
    "select(.verb==\"delete\" and .objectRef.resource==\"secrets\" and .objectRef.name==\"stripe-signing-key\")|.user.username",
    "select(.user.username==\"alice@example.com\" and .responseStatus.code>=400 and .stageTimestamp>=\"2026-11-01T00:10:00\" and .stageTimestamp<\"2026-11-01T01:10:00\")|.auditID",
    "[.user.username,.verb,.objectRef.resource,.responseStatus.code]|@csv",
    "[.verb,.requestReceivedTimestamp,.stageTimestamp]|@csv",
];

/// Returns the Python in AUDIT_QUERY_PYTHON, or one in a virtual environment in the folder, into
/// which duckdb and chdb are installed from PyPI.
fn python(folder: &Path) -> PathBuf {
    if let Some(python) = std::env::var_os("AUDIT_QUERY_PYTHON") {
        return python.into();
    }
    let venv = folder.join("peers");
    let python = venv.join("bin/python");
    let run = |program: &Path, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let made = run(&python, &["-c", "import duckdb, chdb"])
        || run(Path::new("python3"), &["-m", "venv", &venv.display().to_string()])
            && run(&python, &["-m", "pip", "install", "--quiet", "duckdb", "chdb"]);
    if !made {
        println!("duckdb and chdb cannot be installed into {}", venv.display());
    }
    python
}

/// Prints the versions of the programs.
fn versions(python: &Path) {
    let modules =
        "import duckdb, chdb; print('duckdb', duckdb.__version__, '/ chdb', chdb.__version__)";
    let python = python.display().to_string();
    for command in [&["rg", "--version"][..], &["jq", "--version"], &[&python, "-c", modules]] {
        if let Ok(output) = Command::new(command[0]).args(&command[1..]).output() {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            println!("{}", text.lines().next().unwrap_or("not there"));
        }
    }
    println!();
}

struct Rows<'a> {
    log: &'a str,
    empty: &'a str,
    rows: Vec<Vec<String>>,
}

impl Rows<'_> {
    /// Measures a program on both logs, and compares it with this crate.
    fn add(
        &mut self,
        name: &str,
        case: &Case,
        own: Measured,
        run: impl Fn(&str) -> Option<Measured>,
    ) {
        let (Some(start), Some(whole)) = (run(self.empty), run(self.log)) else {
            let unknown = std::iter::repeat_n("-".to_owned(), 5);
            self.rows
                .push([name.to_owned(), case.name.to_owned()].into_iter().chain(unknown).collect());
            return;
        };
        let measured = whole.less(start);
        self.rows.push(vec![
            name.to_owned(),
            format!("{}: {}", case.name, case.question),
            format!("{:.2}", measured.cpu),
            format!("{:.2}", start.cpu),
            format!("{:.0}", measured.peak),
            format!("{:.2}", own.cpu),
            format!("{:.1}x", measured.cpu / own.cpu),
        ]);
    }
}

/// Measures all installed programs alternately with this crate, so that both are measured under the
/// same conditions.
pub(crate) fn run(folder: &Path, log: &Path, empty: &Path) {
    let python = python(folder);
    versions(&python);
    let (log_path, empty_path) = (log.display().to_string(), empty.display().to_string());
    let mut rows = Rows { log: &log_path, empty: &empty_path, rows: Vec::new() };
    for (index, case) in CASES.iter().enumerate() {
        let own = own(case, log, 1).less(own(case, empty, 1));
        if index == 0 {
            let rg =
                |path: &str| measure(Path::new("rg"), &["-c", "stripe-signing-key", path], &[1]);
            rows.add("ripgrep (no parsing)", case, own, rg);
        }
        let duckdb = |path: &str, columns: &str| {
            let from = format!(
                "read_json('{path}',format='newline_delimited'{columns},maximum_object_size=67108864)"
            );
            let script = format!(
                "import duckdb; c=duckdb.connect(); c.execute('SET threads=1'); c.execute(\"\"\"{}\"\"\").fetchall()",
                DUCKDB[index].replace("FROM t", &format!("FROM {from}"))
            );
            measure(&python, &["-c", &script], &[])
        };
        let columns = format!(",columns={SCHEMA}");
        rows.add("DuckDB, schema by hand", case, own, |path| duckdb(path, &columns));
        rows.add("DuckDB, auto-detection", case, own, |path| duckdb(path, ""));
        let chdb = |path: &str| {
            let from = format!("file('{path}', 'JSONEachRow', '{CHDB_SCHEMA}')");
            let script = format!(
                "import chdb; chdb.query(\"\"\"{} SETTINGS max_threads=1, input_format_skip_unknown_fields=1\"\"\")",
                CHDB[index].replace("FROM t", &format!("FROM {from}"))
            );
            measure(&python, &["-c", &script], &[])
        };
        rows.add("chDB, schema by hand", case, own, chdb);
        let jq = |path: &str| measure(Path::new("jq"), &["-r", JQ[index], path], &[]);
        rows.add("jq", case, own, jq);
    }
    table(
        &[
            "program",
            "question",
            "CPU s",
            "start-up s (subtracted)",
            "MB peak",
            "this crate",
            "ratio",
        ],
        &rows.rows,
    );
}
