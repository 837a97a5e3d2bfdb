//! From a URL to the objects to read, oldest first, without those that a period of time excludes.
//!
//! # Which objects a period excludes
//! In the layout of Hive, `date=2026-11-23/hour=04/`, the hour is that in which a request arrived,
//! and the backend writes all events of a request there. So an event can be later than its hour: by
//! the duration of its request. Objects of hours from the end of the period on are left out, as are
//! objects that were created before the period began, and hours that ended more than [`LONGEST`]
//! before it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Entry, Object, Store, Stores, Url};
use crate::input::names::LogName;
use crate::input::{Input, InputError};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
/// How long a request may take for its last event to be found by its own time. Longer ones are
/// found without `--since`, or with an earlier one.
const LONGEST: i64 = 24 * HOUR;
/// By how much the clocks of a proxy and of a store may differ. S3 refuses more.
const SKEW: i64 = 15 * MINUTE;
/// By how much an event may be earlier than the start of its request, when the clock was set.
const STEP: i64 = 5 * MINUTE;
/// Folders above those of dates.
const DEPTH: usize = 4;

/// From when and until when events are wanted, in microseconds since 1970.
pub(crate) type Period = (Option<i64>, Option<i64>);

/// Returns the objects below a URL that are logs.
pub(crate) fn find(
    url: Url<'_>,
    stores: &dyn Stores,
    period: Period,
) -> Result<Vec<Input>, InputError> {
    let path = match url.key {
        "" => url.bucket.to_owned(),
        key => format!("{}/{key}", url.bucket),
    };
    let failed = |error| InputError::Store { path: path.clone(), error };
    let store = stores.open(url.bucket).map_err(failed)?;
    let mut search = Search { store: &*store, period, found: Vec::new(), others: 0, excluded: 0 };
    search.all(url.key).map_err(failed)?;
    let Search { mut found, others, excluded, .. } = search;
    if found.is_empty() && excluded == 0 {
        return Err(match others {
            0 => InputError::NoObjects(path),
            _ => InputError::NoLogs(path),
        });
    }
    found.sort_by(|a, b| order(&a.key).cmp(&order(&b.key)));
    Ok(inputs(url.bucket, &store, found))
}

/// By the hour, and then by the key.
fn order(key: &str) -> (&str, &str) {
    let at = key.find("date=").filter(|at| *at == 0 || key[..*at].ends_with('/'));
    let time = at.map_or("", |at| &key[at..]);
    (time.rfind('/').map_or("", |end| &time[..end]), key)
}

fn inputs(bucket: &str, store: &Arc<dyn Store>, found: Vec<Entry>) -> Vec<Input> {
    let input = |entry: Entry| Input {
        path: PathBuf::from(format!("{bucket}/{}", entry.key)),
        file: None,
        object: Some(Object { store: store.clone(), key: entry.key.into(), size: entry.size }),
    };
    found.into_iter().map(input).collect()
}

struct Search<'a> {
    store: &'a dyn Store,
    period: Period,
    found: Vec<Entry>,
    /// Objects that are not logs.
    others: usize,
    /// Objects and folders that the period excludes.
    excluded: usize,
}

impl Search<'_> {
    /// Finds what a key stands for: a folder, an object, or the beginning of the names of some.
    fn all(&mut self, key: &str) -> io::Result<()> {
        if !key.is_empty()
            && is_log(key)
            && let Some(entry) = self.store.get(key)?
        {
            // What is named is read, whatever its name says.
            self.found.push(entry);
            return Ok(());
        }
        self.folder(key, 0)?;
        if key.is_empty() || self.found.len() + self.others + self.excluded > 0 {
            return Ok(());
        }
        let (parent, _) = key.rsplit_once('/').unwrap_or(("", key));
        let listing = self.store.list(parent, false)?;
        for folder in listing.folders.iter().filter(|folder| folder.starts_with(key)) {
            self.below(folder, 0)?;
        }
        let objects = listing.objects.into_iter();
        objects.filter(|entry| entry.key.starts_with(key)).for_each(|entry| self.add(entry));
        Ok(())
    }

    /// Finds the objects below a folder.
    fn folder(&mut self, folder: &str, depth: usize) -> io::Result<()> {
        let is_dated = partition(&format!("{folder}/")).is_some();
        let recursive = self.period == (None, None) || is_dated || depth == DEPTH;
        let listing = self.store.list(folder, recursive)?;
        listing.objects.into_iter().for_each(|entry| self.add(entry));
        for folder in &listing.folders {
            self.below(folder, depth + 1)?;
        }
        Ok(())
    }

    fn below(&mut self, folder: &str, depth: usize) -> io::Result<()> {
        if partition(&format!("{folder}/")).is_some_and(|times| self.excludes(times, LONGEST)) {
            self.excluded += 1;
            return Ok(());
        }
        self.folder(folder, depth)
    }

    fn add(&mut self, entry: Entry) {
        let Entry { key, modified, .. } = &entry;
        let name = key.rsplit('/').next().unwrap_or(key);
        if !is_log(key) {
            self.others += 1;
            return;
        }
        // Exports are partitioned by the time of each event.
        let longest = if name.starts_with("events-") { 0 } else { LONGEST };
        let is_before = self.period.0.is_some_and(|since| modified.saturating_add(SKEW) < since);
        if is_before || partition(key).is_some_and(|times| self.excludes(times, longest)) {
            self.excluded += 1;
            return;
        }
        self.found.push(entry);
    }

    /// Whether no event of a partition is in the period.
    fn excludes(&self, (from, to): (i64, i64), longest: i64) -> bool {
        let (since, until) = self.period;
        since.is_some_and(|since| to.saturating_add(longest) <= since)
            || until.is_some_and(|until| from >= until.saturating_add(STEP))
    }
}

/// Whether an object is a log: by its name, and not the index file of one.
fn is_log(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    if name.starts_with(['.', '_']) {
        return false;
    }
    let is_log = |name: &str| LogName::parse(name.as_ref()).is_log();
    match name.strip_suffix(".parquet") {
        Some(stem) => !stem.is_empty() && !is_log(stem),
        None => is_log(name),
    }
}

/// The times of the partition that a key is in: of its hour, or else of its date.
fn partition(key: &str) -> Option<(i64, i64)> {
    let (folders, _) = key.rsplit_once('/')?;
    let value =
        |name: &str| folders.split('/').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let date: jiff::civil::Date = value("date")?.parse().ok()?;
    let date = jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?.as_microsecond();
    let hour = value("hour").and_then(|hour| hour.parse::<i64>().ok());
    Some(match hour.filter(|hour| (0..24).contains(hour)) {
        Some(hour) => (date + hour * HOUR, date + (hour + 1) * HOUR),
        None => (date, date + 24 * HOUR),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_hours_or_dates() {
        let date = 1_795_392_000_000_000;
        assert_eq!(
            partition("a/date=2026-11-23/hour=04/x"),
            Some((date + 4 * HOUR, date + 5 * HOUR))
        );
        assert_eq!(partition("date=2026-11-23/x"), Some((date, date + 24 * HOUR)));
        assert_eq!(partition("date=2026-11-23"), None);
        assert_eq!(partition("date=__HIVE_DEFAULT_PARTITION__/x"), None);
        assert_eq!(order("c=b/date=1/hour=2/x"), ("date=1/hour=2", "c=b/date=1/hour=2/x"));
        assert_eq!(order("update=1/x").0, "");
    }

    #[test]
    fn logs_are_told_from_what_is_beside_them() {
        for (key, expected) in [
            ("a/proxy-0-00000000000000000007.parquet", true),
            ("a/proxy-0-00000000000000000007.json.zst", true),
            ("a/audit.log", true),
            ("a/audit-2026-11-23T04-42-40.000.log.gz", true),
            // An index file, a seal, and what other programs leave behind.
            ("a/audit-2026-11-23T04-42-40.000.log.parquet", false),
            ("a/audit.log.seal", false),
            ("a/_SUCCESS", false),
            ("a/.events-0.parquet", false),
            ("a/notes.txt", false),
        ] {
            assert_eq!(is_log(key), expected, "{key}");
        }
    }
}
