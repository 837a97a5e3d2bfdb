//! Tables with aligned columns, written while rows arrive.

use std::io::{self, Write};

use super::format::printable;

/// Number of rows that determine the widths of columns.
const SAMPLE: usize = 500;
/// Maximum width of a column; longer cells do not widen it.
const WIDEST: usize = 64;

/// The appearance of a cell on a terminal with colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Time,
    Verb,
    Code,
}

/// A table that is written while rows arrive.
#[derive(Debug)]
pub(crate) struct Table {
    styles: Vec<Style>,
    right: Vec<bool>,
    colour: bool,
    waiting: Vec<Row>,
    widths: Option<Vec<usize>>,
}

#[derive(Debug)]
enum Row {
    Cells(Vec<String>),
    /// Text across all columns.
    Note(String),
}

impl Table {
    /// Creates a table with a header. `right`: right-aligned columns.
    pub(crate) fn new(
        header: Vec<String>,
        styles: Vec<Style>,
        right: Vec<bool>,
        colour: bool,
    ) -> Table {
        Table { styles, right, colour, waiting: vec![Row::Cells(header)], widths: None }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<String>, out: &mut dyn Write) -> io::Result<()> {
        if self.widths.is_some() {
            return self.write(&cells, false, out);
        }
        self.waiting.push(Row::Cells(cells));
        if self.waiting.len() > SAMPLE { self.flush(out) } else { Ok(()) }
    }

    /// Adds a line of text below the last row.
    pub(crate) fn note(&mut self, text: String, out: &mut dyn Write) -> io::Result<()> {
        if self.widths.is_some() {
            return writeln!(out, "{text}");
        }
        self.waiting.push(Row::Note(text));
        Ok(())
    }

    /// Writes rows that wait for the widths of columns.
    pub(crate) fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.widths.is_none() {
            let width = |column: usize| {
                let cells = self.waiting.iter().filter_map(|row| match row {
                    Row::Cells(cells) => cells.get(column),
                    Row::Note(_) => None,
                });
                cells.map(|cell| cell.chars().count()).filter(|width| *width <= WIDEST).max()
            };
            self.widths = Some(
                (0..self.styles.len()).map(|column| width(column).unwrap_or(WIDEST)).collect(),
            );
        }
        for (index, row) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            match row {
                Row::Cells(cells) => self.write(&cells, index == 0, out)?,
                Row::Note(text) => writeln!(out, "{text}")?,
            }
        }
        Ok(())
    }

    fn write(&self, cells: &[String], header: bool, out: &mut dyn Write) -> io::Result<()> {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let width = self.widths.as_ref().map_or(0, |widths| widths[index]);
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let code = if self.colour { self.colour(index, cell, header) } else { "" };
            if index > 0 {
                line.push_str("  ");
            }
            if self.right[index] {
                line.push_str(&padding);
            }
            match code {
                "" => line.push_str(cell),
                code => line.extend([code, cell, "\x1b[0m"]),
            }
            if !self.right[index] && index + 1 < cells.len() {
                line.push_str(&padding);
            }
        }
        writeln!(out, "{line}")
    }

    fn colour(&self, column: usize, cell: &str, header: bool) -> &'static str {
        match self.styles[column] {
            _ if header => "\x1b[1m",
            Style::Time => "\x1b[2m",
            Style::Verb if cell.starts_with("delete") => "\x1b[31m",
            Style::Verb if matches!(cell, "create" | "update" | "patch") => "\x1b[33m",
            Style::Code if cell.starts_with('5') => "\x1b[1;31m",
            Style::Code if cell.starts_with('4') => "\x1b[31m",
            Style::Code if cell.starts_with('2') => "\x1b[32m",
            _ => "",
        }
    }
}

/// Returns the text of a cell.
pub(crate) fn cell(bytes: &[u8]) -> String {
    printable(bytes).into_owned()
}
