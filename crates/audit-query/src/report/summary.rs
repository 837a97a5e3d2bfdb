//! The default report: what the log contains.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::gaps::{Gaps, Weight};
use super::group::{GroupBy, Groups, Measures};
use super::html::{Bar, Page, Tile, bytes, grouped, short_time};
use super::kinds::is_write_verb;
use super::render::{Cell, time};
use super::timeline::{QuietPeriod, Timeline};
use crate::event::Event;
use crate::index::{Column, Columns};
use crate::output::format::printable;
use crate::scan::{Counting, Numbers, Place, Records, Visitor};

/// Headings of the lists.
const TITLES: [&str; 4] =
    ["Most active users", "Verbs", "Failures by status code", "Who changed most"];

/// Number of entries of each list.
const LISTED: usize = 10;

/// Number of bars in the chart of events over time.
const BARS: usize = 160;

/// The counts for a summary, of one thread.
#[derive(Debug)]
pub(crate) struct Overview {
    groups: GroupBy,
    timeline: Timeline,
    /// Requests whose last event in the log is not a final one.
    unfinished: u64,
}

impl Overview {
    pub(crate) fn new(groups: GroupBy) -> Overview {
        Overview { groups, timeline: Timeline::default(), unfinished: 0 }
    }

    /// Combines the counts of all threads.
    pub(crate) fn merge(all: Vec<Overview>) -> (Groups, Timeline, u64) {
        let unfinished = all.iter().map(|one| one.unfinished).sum();
        let (groups, timelines): (Vec<_>, Vec<_>) =
            all.into_iter().map(|one| (one.groups, one.timeline)).unzip();
        (GroupBy::merge(groups), Timeline::merge(timelines.into_iter()), unfinished)
    }
}

impl Visitor for Overview {
    fn columns(&self) -> Option<Columns> {
        let more = Columns::of(&[Column::Stage, Column::StageTime, Column::Received]);
        Some(self.groups.columns()?.and(more))
    }

    fn visit(&mut self, event: &Event<'_>, place: Place<'_>, records: &mut Records) {
        self.groups.visit(event, place, records);
        if let Some(time) = event.time() {
            self.timeline.add(time, event.status.code.is_some_and(|code| code >= 400));
        }
        self.unfinished += u64::from(event.is_unfinished());
    }

    fn counting(&self) -> Option<Counting> {
        self.groups.counting()
    }

    fn class(&mut self, event: &Event<'_>, place: Place<'_>) -> Option<u32> {
        let class = self.groups.class(event, place)?;
        Some(class << 1 | u32::from(event.is_unfinished()))
    }

    fn count(&mut self, class: u32, numbers: Numbers) {
        let (class, unfinished) = (class >> 1, class & 1);
        self.groups.count(class, numbers);
        if let Some(time) = numbers.time() {
            self.timeline.add(time, GroupBy::has_failed(class));
        }
        self.unfinished += u64::from(unfinished);
    }
}

/// The contents of a log by user, verb, and code.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    whole: Measures,
    timeline: Timeline,
    holes: Vec<QuietPeriod>,
    gaps: Gaps,
    files: usize,
    users: BTreeMap<String, u64>,
    verbs: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    changes: BTreeMap<String, u64>,
}

impl Summary {
    /// Combines groups by user, verb, and code.
    pub(crate) fn new(
        groups: &Groups,
        timeline: Timeline,
        holes: Vec<QuietPeriod>,
        gaps: Gaps,
        files: usize,
    ) -> Summary {
        let mut summary =
            Summary { files, whole: groups.other, timeline, holes, gaps, ..Summary::default() };
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
        let gaps = self.gaps.list.iter();
        let gaps: Vec<_> =
            gaps.map(|gap| json!({"kind": gap.weight.name(), "text": gap.what})).collect();
        all.insert("gaps".to_owned(), json!(gaps));
        all.insert("skippedLines".to_owned(), json!(self.gaps.skipped));
        all.insert("tornFiles".to_owned(), json!(self.gaps.torn));
        let sealed = self.gaps.sealed.iter().map(|(log, outline)| {
            json!({
                "log": log.display().to_string(),
                "blocks": outline.blocks,
                "lines": outline.lines,
                "head": outline.head,
            })
        });
        all.insert("sealed".to_owned(), json!(sealed.collect::<Vec<_>>()));
        Json::Object(all)
    }

    /// Returns everything as rows of three columns.
    pub(crate) fn rows(&self) -> ([String; 3], Vec<Vec<Cell>>) {
        let row = |section: &str, name: &str, value: Cell| {
            vec![Cell::Text(section.to_owned()), Cell::Text(name.to_owned()), value]
        };
        let whole = self.whole;
        let mut rows = vec![
            row("period", "first", Cell::text(time(whole.first))),
            row("period", "last", Cell::text(time(whole.last))),
            row("total", "files", Cell::number(self.files)),
            row("total", "events", Cell::number(whole.count)),
            row("total", "bytes", Cell::number(whole.bytes)),
            row("total", "failed", Cell::number(whole.failed)),
            row("total", "skipped lines", Cell::number(self.gaps.skipped)),
            row("total", "torn files", Cell::number(self.gaps.torn)),
        ];
        for (section, _, list) in self.lists() {
            let counts = sorted(list).into_iter();
            rows.extend(counts.map(|(name, count)| row(section, name, Cell::number(count))));
        }
        let gaps = self.gaps.list.iter();
        rows.extend(gaps.map(|gap| row("gaps", gap.weight.name(), Cell::Text(gap.what.clone()))));
        (["section", "name", "value"].map(str::to_owned), rows)
    }

    fn gap_count(&self, weight: Weight) -> usize {
        self.gaps.list.iter().filter(|gap| gap.weight == weight).count()
    }

    pub(crate) fn html(&self, page: &mut Page) {
        let Measures { count, failed, bytes: size, first, last } = self.whole;
        let changes: u64 = self.changes.values().sum();
        let (proved, unusual) = (self.gap_count(Weight::Proved), self.gap_count(Weight::Unusual));
        let share = if count > 0 { failed as f64 / count as f64 * 100.0 } else { 0.0 };
        let files =
            if self.files == 1 { "1 file".to_owned() } else { format!("{} files", self.files) };
        page.fact("Period", format!("{} to {}", short_time(first), short_time(last)));
        let tile = |label, value: String, note: String, alarm| Tile { label, value, note, alarm };
        page.tiles(&[
            tile("Requests", grouped(count), format!("{} in {files}", bytes(size)), false),
            tile("Users", grouped(self.users.len() as u64), "as authenticated".to_owned(), false),
            tile("Failed", grouped(failed), format!("{share:.1} %, code 400 and above"), false),
            tile("Changes", grouped(changes), "successful writes".to_owned(), false),
            tile("Gaps proved", grouped(proved as u64), "by the seals".to_owned(), proved > 0),
            tile("Unusual", grouped(unusual as u64), "not proved".to_owned(), false),
        ]);
        let holes: Vec<_> = self.holes.iter().map(|hole| (hole.from, hole.to)).collect();
        page.timeline("Requests over time", self.timeline.bars(BARS), &holes);
        let gaps = self.gaps.list.iter();
        let notices: Vec<_> = gaps.map(|gap| (gap.weight.name(), gap.what.as_str())).collect();
        page.notices("Gaps in the record", &notices, "None was found.");
        page.beside(|page| {
            for ((_, key, list), title) in self.lists().into_iter().zip(TITLES) {
                if list.is_empty() {
                    continue;
                }
                let rows = sorted(list);
                let bars: Vec<_> = rows
                    .iter()
                    .take(LISTED)
                    .map(|(value, count)| Bar {
                        label: (*value).to_owned(),
                        value: *count as f64,
                        text: grouped(*count),
                        part: if key == "code" { *count as f64 } else { 0.0 },
                    })
                    .collect();
                page.bars(title, &bars, rows.len().saturating_sub(LISTED));
            }
        });
        for (log, outline) in &self.gaps.sealed {
            let text = format!(
                "{}: {} lines in {} sealed blocks, head={}. Signatures are verified by log verify.",
                log.display(),
                grouped(outline.lines),
                grouped(outline.blocks),
                outline.head.as_deref().unwrap_or("-")
            );
            page.notices("Seal", &[("note", &text)], "");
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let Measures { count, failed, bytes, first, last } = self.whole;
        let none = || "-".to_owned();
        let (first, last) = (time(first).unwrap_or_else(none), time(last).unwrap_or_else(none));
        let _ = writeln!(out, "Period    {first} to {last}");
        let _ = writeln!(
            out,
            "Events    {count} ({}) in {} file{}",
            super::html::bytes(bytes),
            self.files,
            if self.files == 1 { "" } else { "s" }
        );
        let _ = writeln!(out, "Users     {}", self.users.len());
        let share = if count > 0 { failed as f64 / count as f64 * 100.0 } else { 0.0 };
        let _ = writeln!(out, "Failed    {failed} ({share:.1} %)");
        let changes: u64 = self.changes.values().sum();
        let _ = writeln!(out, "Changes   {changes}");
        let _ = writeln!(
            out,
            "Unread    {} lines, {} files that end in the middle of a line",
            self.gaps.skipped, self.gaps.torn
        );
        for (log, outline) in &self.gaps.sealed {
            let log = log.display().to_string();
            let _ = writeln!(
                out,
                "Sealed    {} lines in {} blocks of {}, head={}",
                outline.lines,
                outline.blocks,
                printable(log.as_bytes()),
                outline.head.as_deref().unwrap_or("-")
            );
        }
        if !self.gaps.list.is_empty() {
            let _ = writeln!(out, "\nGaps in the record (proved by the seals, or only unusual)");
        }
        for gap in &self.gaps.list {
            let _ = writeln!(out, "{:>10}  {}", gap.weight.name(), gap.what);
        }
        for ((_, _, list), title) in self.lists().into_iter().zip(TITLES) {
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
