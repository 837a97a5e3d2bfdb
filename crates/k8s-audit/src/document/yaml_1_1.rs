//! Rejects documents that a YAML 1.2 parser accepts and Go's yaml.v2 (libyaml, YAML 1.1) does not,
//! so that no file is valid here and rejected by kube-apiserver.

use granit_parser::Span;

use super::tree::{Position, SyntaxError};

/// Checks the parser's events against the text.
#[derive(Debug)]
pub(super) struct Strictness<'t> {
    lines: Vec<&'t str>,
    /// Lines that continue a scalar or a flow collection, in which tabs are allowed everywhere.
    continued: Vec<bool>,
}

impl<'t> Strictness<'t> {
    /// Creates the checks for `text`.
    pub(super) fn new(text: &'t str) -> Strictness<'t> {
        let lines: Vec<&str> = text.split('\n').collect();
        Strictness { continued: vec![false; lines.len()], lines }
    }

    /// Checks the lines before the first document, which may only be `%YAML` and `%TAG` directives.
    pub(super) fn check_directives(&self) -> Result<(), SyntaxError> {
        for (index, line) in self.lines.iter().enumerate() {
            if let Some(directive) = line.strip_prefix('%') {
                let name = directive.split_whitespace().next();
                if !matches!(name, Some("YAML" | "TAG")) {
                    let at = Position { line: index + 1, column: 1 };
                    return Err(error(at, "found unknown directive name", "remove this line"));
                }
            } else if !line.trim_start().is_empty() && !line.trim_start().starts_with('#') {
                break;
            }
        }
        Ok(())
    }

    /// Checks an unquoted scalar.
    pub(super) fn check_plain(&self, text: &str, in_flow: bool, at: Position) -> Checked {
        if in_flow && (text.contains('?') || text.starts_with(':')) {
            let message = "did not find expected ',' or ']'";
            return Err(error(at, message, "quote the value: it has a `?` or begins with `:`"));
        }
        Ok(())
    }

    /// Checks the beginning of a node in block context: no tab may precede it, except after `key:`.
    pub(super) fn check_start(&self, at: Position) -> Checked {
        let line = self.lines.get(at.line - 1).copied().unwrap_or_default();
        let before = line.chars().take(at.column - 1);
        let leads = before.clone().all(|c| matches!(c, ' ' | '\t' | '-' | '?'));
        if leads && before.clone().any(|c| c == '\t') {
            return Err(tab(at.line, line));
        }
        Ok(())
    }

    /// Marks the lines of a scalar or flow collection, from `first` to the end of `span`.
    pub(super) fn continues(&mut self, first: usize, span: &Span) {
        let last = span.end.line().min(self.continued.len());
        if let Some(lines) = self.continued.get_mut(first.min(last)..last) {
            lines.fill(true);
        }
    }

    /// Rejects lines up to `last` that are empty except for a tab, or a comment after one.
    pub(super) fn check_empty_lines(&self, last: usize) -> Checked {
        for (index, line) in self.lines.iter().enumerate().take(last) {
            let rest = line.trim_start();
            let empty = rest.is_empty() || rest.starts_with('#');
            if line.starts_with('\t') && empty && !self.continued[index] {
                return Err(tab(index + 1, line));
            }
        }
        Ok(())
    }
}

type Checked = Result<(), SyntaxError>;

fn tab(number: usize, line: &str) -> SyntaxError {
    let column = line.chars().position(|c| c == '\t').unwrap_or_default() + 1;
    let at = Position { line: number, column };
    let help = "use spaces: YAML allows no tabs there";
    error(at, "found character that cannot start any token", help)
}

fn error(at: Position, message: &str, help: &str) -> SyntaxError {
    let message = format!("yaml: line {}: {message}", at.line);
    SyntaxError { at, message, help: Some(help.to_owned()) }
}
