//! The first report: what is in the log.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::group::{Groups, Measures};
use super::kinds::is_write_verb;
use super::render::time;
use crate::output::format::printable;

/// Entries of each list.
const LISTED: usize = 10;

/// What a log holds, by user, verb, and code.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    whole: Measures,
    files: usize,
    users: BTreeMap<String, u64>,
    verbs: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    changes: BTreeMap<String, u64>,
}

impl Summary {
    /// Adds up groups by user, verb, and code.
    pub(crate) fn new(groups: &Groups, files: usize) -> Summary {
        let mut summary = Summary { files, whole: groups.other, ..Summary::default() };
        for row in &groups.rows {
            let [user, verb, code] = &row.values[..] else { continue };
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            let (count, measures) = (row.measures.count, row.measures);
            summary.whole.count += count;
            summary.whole.failed += measures.failed;
            summary.whole.bytes += measures.bytes;
            summary.whole.first = summary.whole.first.min(measures.first);
            summary.whole.last = summary.whole.last.max(measures.last);
            *summary.users.entry(text(user)).or_default() += count;
            *summary.verbs.entry(text(verb)).or_default() += count;
            if measures.failed > 0 {
                *summary.failures.entry(text(code)).or_default() += measures.failed;
            }
            if measures.failed == 0 && is_write_verb(text(verb).as_bytes()) {
                *summary.changes.entry(text(user)).or_default() += count;
            }
        }
        summary
    }

    pub(crate) fn count(&self) -> u64 {
        self.whole.count
    }

    fn lists(&self) -> [(&'static str, &'static str, &BTreeMap<String, u64>); 4] {
        [
            ("users", "user", &self.users),
            ("verbs", "verb", &self.verbs),
            ("failures", "code", &self.failures),
            ("changes", "user", &self.changes),
        ]
    }

    pub(crate) fn json(&self) -> Json {
        let mut all = Map::new();
        all.insert("files".to_owned(), json!(self.files));
        all.insert("first".to_owned(), json!(time(self.whole.first)));
        all.insert("last".to_owned(), json!(time(self.whole.last)));
        all.insert("events".to_owned(), json!(self.whole.count));
        all.insert("bytes".to_owned(), json!(self.whole.bytes));
        all.insert("failed".to_owned(), json!(self.whole.failed));
        for (name, key, list) in self.lists() {
            let rows: Vec<_> = sorted(list)
                .into_iter()
                .map(|(value, count)| json!({key: value, "count": count}))
                .collect();
            all.insert(name.to_owned(), json!(rows));
        }
        Json::Object(all)
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let Measures { count, failed, bytes, first, last } = self.whole;
        let none = || "-".to_owned();
        let (first, last) = (time(first).unwrap_or_else(none), time(last).unwrap_or_else(none));
        let _ = writeln!(out, "Period    {first} to {last}");
        let _ = writeln!(
            out,
            "Events    {count} ({:.1} MB) in {} files",
            bytes as f64 / 1e6,
            self.files
        );
        let _ = writeln!(out, "Users     {}", self.users.len());
        let share = if count > 0 { failed as f64 / count as f64 * 100.0 } else { 0.0 };
        let _ = writeln!(out, "Failed    {failed} ({share:.1} %)");
        let changes: u64 = self.changes.values().sum();
        let _ = writeln!(out, "Changes   {changes}");
        for ((_, _, list), title) in self.lists().into_iter().zip([
            "Most active users",
            "Verbs",
            "Failures by status code",
            "Who changed most",
        ]) {
            if list.is_empty() {
                continue;
            }
            let _ = writeln!(out, "\n{title}");
            for (value, count) in sorted(list).into_iter().take(LISTED) {
                let value = if value.is_empty() { "(none)" } else { value };
                let _ = writeln!(out, "{count:>10}  {}", printable(value.as_bytes()));
            }
            if list.len() > LISTED {
                let _ = writeln!(out, "{:>10}  and {} more", "", list.len() - LISTED);
            }
        }
        out
    }
}

fn sorted(list: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut rows: Vec<_> = list.iter().map(|(value, count)| (value.as_str(), *count)).collect();
    rows.sort_by_key(|(_, count)| Reverse(*count));
    rows
}
