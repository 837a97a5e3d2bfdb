//! A report as one HTML file, without scripts and without resources from the network.
//!
//! All values come from clients and are escaped. In addition, the page's Content-Security-Policy
//! forbids everything but its own styles.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::render::{Cell, time};
use crate::output::format::printable;

const STYLE: &str = include_str!("report.css");
/// Maximum number of rows on a page, which browsers can display.
const ROWS: usize = 5_000;
/// Maximum number of bars in a chart.
const BARS: usize = 12;

/// A page: heading, facts, and sections.
#[derive(Debug, Default)]
pub(crate) struct Page {
    title: String,
    facts: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// Appends text, escaped for HTML.
pub(crate) fn escape(out: &mut String, text: &str) {
    for char in printable(text.as_bytes()).chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}

pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape(&mut out, text);
    out
}

/// Formats a number with thin spaces between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// `12.3 MB`
pub(crate) fn bytes(number: u64) -> String {
    let number = number as f64;
    match number {
        ..1e3 => format!("{number} B"),
        ..1e6 => format!("{:.1} kB", number / 1e3),
        ..1e9 => format!("{:.1} MB", number / 1e6),
        _ => format!("{:.2} GB", number / 1e9),
    }
}

/// Formats a point in time in UTC.
pub(crate) fn short_time(micros: i64) -> String {
    time(micros).map_or_else(|| "\u{2013}".to_owned(), |text| text[..19].replace('T', " ") + " UTC")
}

/// A number at the top of a summary.
pub(crate) struct Tile {
    pub(crate) label: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
    /// Shown as a warning.
    pub(crate) alarm: bool,
}

/// A bar of a chart: a name, a value, and the part of the value that failed.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) text: String,
    pub(crate) part: f64,
}

impl Page {
    pub(crate) fn new(title: &str) -> Page {
        Page { title: title.to_owned(), ..Page::default() }
    }

    pub(crate) fn fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.facts.push((name, value.into()));
    }

    pub(super) fn heading(&mut self, title: &str) {
        let _ = write!(self.body, "<h2>{}</h2>", escaped(title));
    }

    pub(crate) fn paragraph(&mut self, text: &str) {
        let _ = write!(self.body, "<p>{}</p>", escaped(text));
    }

    pub(crate) fn tiles(&mut self, tiles: &[Tile]) {
        self.body.push_str("<div class=tiles>");
        for tile in tiles {
            let alarm = if tile.alarm { " alarm" } else { "" };
            let _ = write!(
                self.body,
                "<div class=\"tile{alarm}\"><div class=label>{}</div><div class=value>{}</div>\
                 <div class=note>{}</div></div>",
                escaped(tile.label),
                escaped(&tile.value),
                escaped(&tile.note)
            );
        }
        self.body.push_str("</div>");
    }

    /// Adds sections side by side, if the page is wide enough.
    pub(crate) fn beside(&mut self, write: impl FnOnce(&mut Page)) {
        self.body.push_str("<div class=beside>");
        write(self);
        self.body.push_str("</div>");
    }

    /// Adds a chart with horizontal bars.
    pub(crate) fn bars(&mut self, title: &str, bars: &[Bar], more: usize) {
        self.body.push_str("<section class=bars>");
        self.heading(title);
        let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        self.body.push_str("<table>");
        for bar in bars.iter().take(BARS) {
            let share = |value: f64| if most > 0.0 { value / most * 100.0 } else { 0.0 };
            let label = if bar.label.is_empty() { "(none)" } else { &bar.label };
            let _ = write!(
                self.body,
                "<tr><th scope=row title=\"{0}\">{0}</th><td class=bar><svg viewBox=\"0 0 100 10\" \
                 preserveAspectRatio=none aria-hidden=true><rect class=good width=\"{1:.2}\" \
                 height=10 /><rect class=bad width=\"{2:.2}\" height=10 /></svg></td>\
                 <td class=number>{3}</td></tr>",
                escaped(label),
                share(bar.value).max(0.4),
                share(bar.part),
                escaped(&bar.text)
            );
        }
        self.body.push_str("</table>");
        let more = more + bars.len().saturating_sub(BARS);
        if more > 0 {
            let _ = write!(self.body, "<p class=more>and {} more</p>", grouped(more as u64));
        }
        self.body.push_str("</section>");
    }

    /// Adds a chart of the rows with the largest first number, if they contain numbers.
    pub(crate) fn chart(&mut self, names: &[String], rows: &[Vec<Cell>]) {
        let is_measure = |name: &&String| ["bytes", "p99", "count"].contains(&name.as_str());
        let best = ["bytes", "p99", "count"]
            .iter()
            .find_map(|measure| names.iter().position(|name| name == measure));
        let (Some(column), true) = (best, rows.len() > 1) else { return };
        let labels = names.iter().take_while(|name| !is_measure(name)).count().min(4);
        let failed = names.iter().position(|name| name == "failed");
        let number = |row: &[Cell], column: usize| match &row[column] {
            Cell::Number(text) => text.parse::<f64>().unwrap_or_default(),
            _ => 0.0,
        };
        let mut largest: Vec<&Vec<Cell>> = rows.iter().collect();
        largest.sort_by(|a, b| number(b, column).total_cmp(&number(a, column)));
        let bars: Vec<_> = largest
            .iter()
            .take(BARS)
            .map(|row| {
                let value = number(row, column);
                let text = |cell: &Cell| match cell {
                    Cell::Text(text) | Cell::Number(text) => Some(text.clone()),
                    Cell::None => None,
                };
                Bar {
                    label: row[..labels]
                        .iter()
                        .filter_map(text)
                        .collect::<Vec<_>>()
                        .join(" \u{b7} "),
                    value,
                    text: match names[column].as_str() {
                        "bytes" => bytes(value as u64),
                        "p99" => format!("{value:.1} ms"),
                        _ => grouped(value as u64),
                    },
                    part: failed.map_or(0.0, |failed| number(row, failed)),
                }
            })
            .collect();
        let title = match names[column].as_str() {
            "bytes" => "Bytes of the log",
            "p99" => "99th percentile",
            _ if failed.is_some() => "Requests, and how many of them failed",
            _ => "Requests",
        };
        self.bars(title, &bars, rows.len() - bars.len());
    }

    /// Adds lines with a label, such as `proved`.
    pub(crate) fn notices(&mut self, title: &str, notices: &[(&str, &str)], none: &str) {
        self.body.push_str("<section>");
        self.heading(title);
        if notices.is_empty() {
            self.paragraph(none);
        } else {
            self.body.push_str("<ul class=notices>");
            for (mark, text) in notices {
                let _ = write!(
                    self.body,
                    "<li><span class=\"mark {0}\">{0}</span> <span>{1}</span></li>",
                    escaped(mark),
                    escaped(text)
                );
            }
            self.body.push_str("</ul>");
        }
        self.body.push_str("</section>");
    }

    /// Adds a table. Returns the number of rows beyond the maximum.
    pub(crate) fn table(&mut self, title: &str, names: &[String], rows: &[Vec<Cell>]) {
        self.body.push_str("<section>");
        if !title.is_empty() {
            self.heading(title);
        }
        if rows.is_empty() {
            self.body.push_str("<p>Nothing was found.</p></section>");
            return;
        }
        let is_number = |column: usize| {
            names[column] != "code" && rows.iter().any(|row| matches!(row[column], Cell::Number(_)))
        };
        let classes: Vec<_> = (0..names.len())
            .map(|column| match names[column].as_str() {
                _ if is_number(column) => "number",
                "time" | "first" | "last" => "time",
                "code" => "code",
                _ => "text",
            })
            .collect();
        self.body.push_str("<div class=scroll><table class=rows><thead><tr>");
        for (name, class) in names.iter().zip(&classes) {
            let _ = write!(self.body, "<th class={class} scope=col>{}</th>", escaped(name));
        }
        self.body.push_str("</tr></thead><tbody>");
        for row in rows.iter().take(ROWS) {
            self.body.push_str("<tr>");
            for (cell, class) in row.iter().zip(&classes) {
                self.cell(cell, class);
            }
            self.body.push_str("</tr>");
        }
        self.body.push_str("</tbody></table></div>");
        if rows.len() > ROWS {
            let _ = write!(
                self.body,
                "<p class=more>{} more rows are left out; -o csv has all</p>",
                grouped((rows.len() - ROWS) as u64)
            );
        }
        self.body.push_str("</section>");
    }

    fn cell(&mut self, cell: &Cell, class: &str) {
        let text = match cell {
            Cell::None => {
                let _ =
                    write!(self.body, "<td class={class}><span class=none>\u{2013}</span></td>");
                return;
            }
            Cell::Number(text) | Cell::Text(text) => text,
        };
        let bad = class == "code" && text.starts_with(['4', '5']);
        let shown = match (class, text.parse::<u64>()) {
            ("number", Ok(number)) => grouped(number),
            // Seconds are precise enough for readers.
            ("time", _) if text.len() == 27 && text.is_ascii() => text[..19].replace('T', " "),
            _ => text.clone(),
        };
        let bad = if bad { " bad" } else { "" };
        let _ = write!(self.body, "<td class=\"{class}{bad}\">{}</td>", escaped(&shown));
    }

    /// Adds preformatted text, in which the lines of a difference are highlighted.
    pub(crate) fn text(&mut self, title: &str, text: &str, is_diff: bool) {
        self.body.push_str("<section>");
        if !title.is_empty() {
            let _ = write!(self.body, "<h3>{}</h3>", escaped(title));
        }
        self.body.push_str("<pre>");
        for line in text.lines() {
            let class = match line.trim_start().chars().next() {
                Some('-') if is_diff => "removed",
                Some('+') if is_diff => "added",
                _ => "",
            };
            let _ = match class {
                "" => writeln!(self.body, "{}", escaped(line)),
                class => writeln!(self.body, "<span class={class}>{}</span>", escaped(line)),
            };
        }
        self.body.push_str("</pre></section>");
    }

    /// Writes the HTML file.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let title = escaped(&self.title);
        write!(
            out,
            "<!DOCTYPE html>\n<html lang=en>\n<head>\n<meta charset=utf-8>\n\
             <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <meta name=viewport content=\"width=device-width, initial-scale=1\">\n\
             <meta name=color-scheme content=\"light dark\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<header><h1>{title}</h1>\n<dl>"
        )?;
        for (name, value) in &self.facts {
            write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(value))?;
        }
        writeln!(out, "</dl></header>\n{}\n</main>\n</body>\n</html>", self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_value_is_markup() {
        let hostile = "<script>alert(1)</script>\"'&\u{202e}\u{1b}]";
        let mut page = Page::new(hostile);
        page.fact("Log", hostile);
        page.paragraph(hostile);
        page.tiles(&[Tile {
            label: "x",
            value: hostile.into(),
            note: hostile.into(),
            alarm: true,
        }]);
        page.bars(
            hostile,
            &[Bar { label: hostile.into(), value: 1.0, text: hostile.into(), part: 0.0 }],
            0,
        );
        page.notices(hostile, &[(hostile, hostile)], "");
        page.table(hostile, &[hostile.to_owned()], &[vec![Cell::Text(hostile.into())]]);
        page.text(hostile, hostile, true);
        let mut out = Vec::new();
        page.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            !text.contains("<script") && !text.contains('\u{202e}') && !text.contains('\u{1b}')
        );
        let shown = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\\u{202e}\\u{1b}]";
        assert_eq!(text.matches(shown).count(), 19);
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("url("));
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(grouped(123), "123");
        assert_eq!((bytes(999), bytes(1_500_000)), ("999 B".to_owned(), "1.5 MB".to_owned()));
    }
}
