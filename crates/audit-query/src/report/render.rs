//! Rows of a report as a table, JSON, or CSV.

use std::io::{self, Write};

use jiff::Timestamp;

use crate::output::format::{push_csv, push_json};
use crate::output::table::{Style, Table, cell};

/// A value of a report.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Text(String),
    Number(String),
    None,
}

impl Cell {
    pub(crate) fn text(value: Option<String>) -> Cell {
        value.map_or(Cell::None, Cell::Text)
    }

    pub(crate) fn number(value: impl ToString) -> Cell {
        Cell::Number(value.to_string())
    }

    fn as_text(&self) -> &str {
        match self {
            Cell::Text(text) | Cell::Number(text) => text,
            Cell::None => "",
        }
    }
}

/// A point in time, RFC 3339.
pub(crate) fn time(micros: i64) -> Option<String> {
    let time = Timestamp::from_microsecond(micros).ok()?;
    (micros != i64::MAX && micros != i64::MIN).then(|| format!("{time:.6}"))
}

/// Writes `{"rows": [...]}`, one row a line.
pub(crate) fn json(names: &[String], rows: &[Vec<Cell>], out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"{\"rows\": [")?;
    let mut line = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        line.clear();
        line.extend_from_slice(if index > 0 { b",\n{" } else { b"\n{" });
        for (index, (name, cell)) in names.iter().zip(row).enumerate() {
            if index > 0 {
                line.extend_from_slice(b", ");
            }
            push_json(&mut line, name);
            line.extend_from_slice(b": ");
            match cell {
                Cell::Text(text) => push_json(&mut line, text),
                Cell::Number(number) => line.extend_from_slice(number.as_bytes()),
                Cell::None => line.extend_from_slice(b"null"),
            }
        }
        line.push(b'}');
        out.write_all(&line)?;
    }
    out.write_all(b"\n]}\n")
}

/// Writes a header and a line a row.
pub(crate) fn csv(names: &[String], rows: &[Vec<Cell>], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", names.join(","))?;
    let mut line = Vec::new();
    for row in rows {
        line.clear();
        for (index, cell) in row.iter().enumerate() {
            if index > 0 {
                line.push(b',');
            }
            push_csv(&mut line, cell.as_text().as_bytes());
        }
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(())
}

/// Writes aligned columns.
pub(crate) fn table(
    names: &[String],
    rows: &[Vec<Cell>],
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let header = names.iter().map(|name| name.to_uppercase()).collect();
    let style = |name: &String| match name.as_str() {
        "verb" => Style::Verb,
        "code" => Style::Code,
        "time" | "first" | "last" => Style::Time,
        _ => Style::Plain,
    };
    let is_number = |column: usize| rows.iter().any(|row| matches!(row[column], Cell::Number(_)));
    let right =
        (0..names.len()).map(|column| is_number(column) && names[column] != "code").collect();
    let mut table = Table::new(header, names.iter().map(style).collect(), right, colour);
    for row in rows {
        table.row(row.iter().map(|value| cell(value.as_text().as_bytes())).collect(), out)?;
    }
    table.flush(out)
}
