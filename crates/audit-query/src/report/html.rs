//! A report as one HTML file without scripts and without anything from the network.
//!
//! All values come from clients and are escaped; the policy in the page forbids everything but its
//! own styles, should a browser disagree.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::render::{Cell, time};
use crate::output::format::printable;

const STYLE: &str = include_str!("report.css");
/// Rows that a page has at most; a browser does not show millions.
const ROWS: usize = 5_000;
/// Bars of one chart.
const BARS: usize = 12;
/// Size of the chart of events over time.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 10.0;
/// Times below it, at most.
const TICKS: i64 = 8;

/// A page: heading, facts, and sections.
#[derive(Debug, Default)]
pub(crate) struct Page {
    title: String,
    facts: Vec<(&'static str, String)>,
    body: String,
}

/// Appends text so that it is only text.
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

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape(&mut out, text);
    out
}

/// With a thin space between thousands.
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

/// A point in time for people, in UTC.
pub(crate) fn short_time(micros: i64) -> String {
    time(micros).map_or_else(|| "\u{2013}".to_owned(), |text| text[..19].replace('T', " ") + " UTC")
}

/// A figure at the top of a summary.
pub(crate) struct Tile {
    pub(crate) label: &'static str,
    pub(crate) value: String,
    pub(crate) note: String,
    /// Shown as a warning.
    pub(crate) alarm: bool,
}

/// A bar of a chart: what, how much, and how much of that failed.
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

    fn heading(&mut self, title: &str) {
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

    /// Sections beside each other, where the page is wide enough.
    pub(crate) fn beside(&mut self, write: impl FnOnce(&mut Page)) {
        self.body.push_str("<div class=beside>");
        write(self);
        self.body.push_str("</div>");
    }

    /// Horizontal bars.
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

    /// Events over time; `holes` are marked.
    pub(crate) fn timeline(
        &mut self,
        title: &str,
        (start, width, bars): (i64, i64, Vec<(u64, u64)>),
        holes: &[(i64, i64)],
    ) {
        let most = bars.iter().map(|bar| bar.0).max().unwrap_or(0);
        if most == 0 {
            return;
        }
        self.body.push_str("<section>");
        self.heading(title);
        let top = nice(most);
        let x = |micros: i64| {
            let whole = (width * bars.len() as i64) as f64;
            let share = ((micros - start) as f64 / whole).clamp(0.0, 1.0);
            LEFT + share * (WIDTH - LEFT)
        };
        let y = |count: u64| TOP + (1.0 - count as f64 / top as f64) * (HEIGHT - TOP - BOTTOM);
        let _ = write!(
            self.body,
            "<svg class=timeline viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"{}\">",
            escaped(title)
        );
        for step in 0..=4_u64 {
            let count = top * step / 4;
            let at = y(count);
            let _ = write!(
                self.body,
                "<line class=grid x1={LEFT} x2={WIDTH} y1={at:.1} y2={at:.1} /><text class=tick \
                 x={} y={:.1} text-anchor=end>{}</text>",
                LEFT - 8.0,
                at + 4.0,
                grouped(count)
            );
        }
        for (from, to) in holes {
            let (from, to) = (x(*from), x(*to));
            let _ = write!(
                self.body,
                "<rect class=hole x={from:.1} y={TOP} width={:.1} height={:.1}><title>no events</title></rect>",
                (to - from).max(2.0),
                HEIGHT - TOP - BOTTOM
            );
        }
        let step = (WIDTH - LEFT) / bars.len() as f64;
        let wide = if step > 3.0 { step - 1.0 } else { step };
        for (index, (events, failed)) in bars.iter().enumerate().filter(|(_, bar)| bar.0 > 0) {
            let from = LEFT + step * index as f64;
            let (above, split) = (y(*events), y(*failed));
            let _ = write!(
                self.body,
                "<g><title>{}: {} events, {} failed</title><rect class=good x={from:.1} \
                 y={above:.1} width={wide:.2} height={:.1} /><rect class=bad x={from:.1} \
                 y={split:.1} width={wide:.2} height={:.1} /></g>",
                short_time(start + width * index as i64),
                grouped(*events),
                grouped(*failed),
                (split - above).max(if events > failed { 0.6 } else { 0.0 }),
                HEIGHT - BOTTOM - split
            );
        }
        let span = width * bars.len() as i64;
        let step = tick_step(span);
        let mut at = (start + step - 1).div_euclid(step) * step;
        while at <= start + span {
            let anchor = match (x(at) - LEFT, WIDTH - x(at)) {
                (..20.0, _) => "start",
                (_, ..20.0) => "end",
                _ => "middle",
            };
            let _ = write!(
                self.body,
                "<text class=tick x={:.1} y={} text-anchor={anchor}>{}</text>",
                x(at),
                HEIGHT - 6.0,
                tick(at, step)
            );
            at += step;
        }
        self.body.push_str("</svg><p class=legend><span class=\"key good\"></span> succeeded ");
        self.body.push_str("<span class=\"key bad\"></span> failed (code 400 and above)");
        if !holes.is_empty() {
            self.body.push_str(" <span class=\"key hole\"></span> unusually long without events");
        }
        let _ =
            write!(self.body, "; one bar is {}; times are UTC</p>", super::gaps::duration(width));
        self.body.push_str("</section>");
    }

    /// A chart of the rows with the largest first number, where there are numbers.
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

    /// Lines with a mark before them, such as `proved`.
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

    /// Rows under a header. Returns how many there was no room for.
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
            // Seconds are enough for the eye.
            ("time", _) if text.len() == 27 && text.is_ascii() => text[..19].replace('T', " "),
            _ => text.clone(),
        };
        let bad = if bad { " bad" } else { "" };
        let _ = write!(self.body, "<td class=\"{class}{bad}\">{}</td>", escaped(&shown));
    }

    /// Text as it is, with the lines of a difference marked.
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

    /// The whole file.
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

/// The least of 1, 2, 4, 6, 8, 10 times a power of ten, and divisible by four, that is not less.
fn nice(most: u64) -> u64 {
    let mut power = 1_u64;
    loop {
        for step in [4, 8, 12, 16, 20, 28] {
            if step * power >= most {
                return step * power;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// A round time, of which there are a few in `span`, in microseconds.
fn tick_step(span: i64) -> i64 {
    const STEPS: [i64; 17] = [
        1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800,
        604_800,
    ];
    let fits = |step: &i64| span / (step * 1_000_000) <= TICKS;
    let step = STEPS.into_iter().find(fits).unwrap_or_else(|| {
        // Whole weeks.
        (span / 1_000_000 / TICKS / 604_800 + 1) * 604_800
    });
    step * 1_000_000
}

fn tick(micros: i64, step: i64) -> String {
    let text = time(micros).unwrap_or_default();
    let range = match step / 1_000_000 {
        ..60 => 11..19,
        60..43_200 => 11..16,
        43_200..86_400 => 5..16,
        _ => 0..10,
    };
    text.get(range).unwrap_or_default().replace('T', " ")
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
        for (most, expected) in [(1, 4), (5, 8), (13, 16), (20, 20), (29, 40), (1001, 1200)] {
            assert_eq!(nice(most), expected, "{most}");
        }
        const DAY: i64 = 86_400_000_000;
        for (span, step) in
            [(DAY / 24, 600), (DAY, 10_800), (30 * DAY, 604_800), (900 * DAY, 17 * 604_800)]
        {
            assert_eq!(tick_step(span), step * 1_000_000, "{span}");
        }
    }
}
