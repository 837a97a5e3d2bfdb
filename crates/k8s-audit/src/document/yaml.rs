//! Parses YAML into a [`Document`]. Only the first document counts; anchors, merge keys and
//! duplicate keys are treated like in Go's yaml.v2.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, Span, StructureStyle, Tag};

use super::scalar::{self, Scalar};
use super::tree::{Document, Duplicate, Entry, Node, Number, Position, SyntaxError, Value};
use super::yaml_1_1::Strictness;

/// Maximum nesting depth. Far more than any object has, so a deeper document is malicious.
const MAX_DEPTH: usize = 500;
/// Maximum number of members that merge keys may copy.
const MAX_MERGED: usize = 1_000_000;

/// Maximum number of attempts to parse a text, each after replacing tabs that stopped the parser.
const MAX_TRIES: usize = 1000;

/// Parses the first document of `text`.
pub(super) fn parse(text: &str) -> Result<Document, SyntaxError> {
    let mut text = Cow::Borrowed(text);
    for _ in 0..MAX_TRIES {
        match try_parse(&text) {
            Ok(document) => return Ok(document),
            Err(Stopped::AtTabsInFlow { line, error }) => match without_tabs(&text, line) {
                Some(changed) => text = Cow::Owned(changed),
                None => return Err(error),
            },
            Err(Stopped::For(error)) => return Err(error),
        }
    }
    Err(error(Position::START, "yaml: too many tabs"))
}

/// Why the parser stopped.
enum Stopped {
    For(SyntaxError),
    /// Leading tabs within brackets, which YAML 1.1 allows but the parser does not.
    AtTabsInFlow {
        line: usize,
        error: SyntaxError,
    },
}

impl From<SyntaxError> for Stopped {
    fn from(error: SyntaxError) -> Stopped {
        Stopped::For(error)
    }
}

fn try_parse(text: &str) -> Result<Document, Stopped> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::new(text);
    builder.strictness.check_directives()?;
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|problem| {
            let error = syntax_error(text, &problem);
            match problem.kind() {
                ErrorKind::TabInBlockIndentation
                | ErrorKind::TabNotAllowed
                | ErrorKind::TabInIndentation
                    if builder.in_flow() =>
                {
                    Stopped::AtTabsInFlow { line: error.at.line, error }
                }
                _ => Stopped::For(error),
            }
        })?;
        if let Some(root) = builder.event(event, &span)? {
            builder.strictness.check_empty_lines(span.end.line())?;
            check_aliases(&root)?;
            return Ok(Document { root: root.node, duplicates: builder.duplicates });
        }
    }
    let root = Node { at: Position::START, value: Value::Null, plain: None };
    Ok(Document { root, duplicates: builder.duplicates })
}

/// Returns the text with this line's leading tabs replaced by spaces, if it has any.
fn without_tabs(text: &str, number: usize) -> Option<String> {
    let start: usize = text.split_inclusive('\n').take(number - 1).map(str::len).sum();
    let indentation = text[start..].bytes().take_while(|b| matches!(b, b' ' | b'\t')).count();
    let (before, rest) = text.split_at(start);
    let (indentation, after) = rest.split_at(indentation);
    let spaces = indentation.replace('\t', " ");
    (spaces != indentation).then(|| format!("{before}{spaces}{after}"))
}

fn syntax_error(text: &str, error: &granit_parser::ScanError) -> SyntaxError {
    let marker = error.marker();
    let at = Position { line: marker.line(), column: marker.col() + 1 };
    let line = text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
    let indentation = &line[..line.len() - line.trim_start().len()];
    let rest = line.trim_start().trim_start_matches("- ");
    let starts_value = |c: char| rest.contains(&format!(" {c}")) || rest.contains(&format!("[{c}"));
    let help = if indentation.contains('\t') {
        Some("indent with spaces: YAML allows no tabs there".into())
    } else {
        let special = ['*', '%', '@', '`'].into_iter().find(|c| starts_value(*c));
        special.map(|character| format!("quote values that begin with {character:?}"))
    };
    SyntaxError { at, message: format!("yaml: line {}: {}", at.line, error.info()), help }
}

/// A node, and the cost of resolving its aliases.
#[derive(Debug, Clone)]
struct Built {
    node: Node,
    is_merge_key: bool,
    is_alias: bool,
    /// The number of nodes in it, counting each as often as aliases refer to it.
    weight: u64,
    /// The number of nodes that are reached through aliases.
    aliased: u64,
    depth: usize,
}

#[derive(Debug)]
struct Open {
    at: Position,
    anchor: usize,
    in_flow: bool,
    content: Content,
    weight: u64,
    aliased: u64,
    depth: usize,
}

#[derive(Debug)]
enum Content {
    List(Vec<Node>),
    Map { members: Members, key: Option<Key> },
}

#[derive(Debug)]
enum Key {
    Name(Rc<str>, Position),
    Merge,
}

#[derive(Debug, Default)]
struct Members {
    entries: Vec<Entry>,
    by_key: HashMap<Rc<str>, usize>,
}

#[derive(Debug)]
struct Builder<'t> {
    strictness: Strictness<'t>,
    open: Vec<Open>,
    anchors: HashMap<usize, Built>,
    duplicates: Vec<Duplicate>,
    merged: usize,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Builder<'t> {
        Builder {
            strictness: Strictness::new(text),
            open: Vec::new(),
            anchors: HashMap::new(),
            duplicates: Vec::new(),
            merged: 0,
        }
    }

    fn in_flow(&self) -> bool {
        self.open.last().is_some_and(|around| around.in_flow)
    }

    /// Adds an event. Returns the root when it is complete.
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<Option<Built>, SyntaxError> {
        let at = Position { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(_, Some(version)) if (version.major, version.minor) != (1, 1) => {
                let help = "remove the %YAML line: files are read as YAML 1.1".to_owned();
                let message = "yaml: found incompatible YAML document".to_owned();
                Err(SyntaxError { at, message, help: Some(help) })
            }
            Event::Scalar(text, style, anchor, tag) => {
                if !self.in_flow() {
                    self.strictness.check_start(at)?;
                }
                if style == ScalarStyle::Plain {
                    self.strictness.check_plain(&text, self.in_flow(), at)?;
                }
                self.strictness.continues(at.line, span);
                let scalar = scalar_node(at, &text, style, tag.as_deref())?;
                self.complete(scalar, anchor)
            }
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor) else {
                    return Err(error(at, "yaml: anchor value contains itself"));
                };
                let alias = Built {
                    is_merge_key: false,
                    is_alias: true,
                    weight: target.weight.saturating_add(1),
                    aliased: target.weight,
                    ..target.clone()
                };
                self.complete(alias, 0)
            }
            Event::SequenceStart(style, anchor, _) => {
                self.open(at, anchor, style, Content::List(Vec::new()))
            }
            Event::MappingStart(style, anchor, _) => self.open(
                at,
                anchor,
                style,
                Content::Map { members: Members::default(), key: None },
            ),
            Event::SequenceEnd | Event::MappingEnd => {
                let closed = self.open.pop().expect("the parser pairs starts with ends");
                if closed.in_flow {
                    self.strictness.continues(closed.at.line, span);
                }
                let value = match closed.content {
                    Content::List(elements) => Value::List(elements.into()),
                    Content::Map { members, .. } => Value::Map(members.entries.into()),
                };
                let built = Built {
                    node: Node { at: closed.at, value, plain: None },
                    is_merge_key: false,
                    is_alias: false,
                    weight: closed.weight,
                    aliased: closed.aliased,
                    depth: closed.depth + 1,
                };
                self.complete(built, closed.anchor)
            }
            _ => Ok(None),
        }
    }

    fn open(
        &mut self,
        at: Position,
        anchor: usize,
        style: StructureStyle,
        content: Content,
    ) -> Result<Option<Built>, SyntaxError> {
        if !self.in_flow() {
            self.strictness.check_start(at)?;
        }
        let in_flow = style == StructureStyle::Flow;
        self.open.push(Open { at, anchor, in_flow, content, weight: 1, aliased: 0, depth: 0 });
        Ok(None)
    }

    /// Adds a complete node to the enclosing collection, or returns it as the root.
    fn complete(&mut self, built: Built, anchor: usize) -> Result<Option<Built>, SyntaxError> {
        if built.depth > MAX_DEPTH {
            return Err(error(built.node.at, "yaml: nested too deeply"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, built.clone());
        }
        let Some(around) = self.open.last_mut() else { return Ok(Some(built)) };
        let is_key = matches!(&around.content, Content::Map { key: None, .. });
        if !is_key && matches!(built.node.value, Value::Number(Number::Float(f)) if !f.is_finite())
        {
            return Err(error(built.node.at, "json: unsupported value: not a finite number"));
        }
        around.weight = around.weight.saturating_add(built.weight);
        around.aliased = around.aliased.saturating_add(built.aliased);
        around.depth = around.depth.max(built.depth);
        match &mut around.content {
            Content::List(elements) => elements.push(built.node),
            Content::Map { members, key } => match key.take() {
                None => *key = Some(key_of(&built)?),
                Some(Key::Name(name, key_at)) => {
                    let entry = Entry { key: name, key_at, node: built.node };
                    self.duplicates.extend(members.set(entry));
                }
                Some(Key::Merge) => {
                    for map in maps_to_merge(&built)? {
                        self.merged += map.len();
                        if self.merged > MAX_MERGED {
                            return Err(error(built.node.at, "yaml: too much is merged"));
                        }
                        self.duplicates
                            .extend(map.iter().filter_map(|entry| members.set(entry.clone())));
                    }
                }
            },
        }
        Ok(None)
    }
}

impl Members {
    /// Adds a member, or replaces the one with the same key.
    fn set(&mut self, entry: Entry) -> Option<Duplicate> {
        if let Some(&index) = self.by_key.get(&entry.key) {
            let (key, at) = (entry.key.clone(), entry.key_at);
            let first_at = self.entries[index].key_at;
            self.entries[index] = entry;
            return Some(Duplicate { key, at, first_at });
        }
        self.by_key.insert(entry.key.clone(), self.entries.len());
        self.entries.push(entry);
        None
    }
}

fn scalar_node(
    at: Position,
    text: &str,
    style: ScalarStyle,
    tag: Option<&Tag>,
) -> Result<Built, SyntaxError> {
    let tag = tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix()));
    let quoted = style != ScalarStyle::Plain;
    let resolved =
        scalar::resolve(text.as_bytes(), !quoted, tag.as_deref().unwrap_or("").as_bytes());
    let mismatch = || {
        let tag = tag.as_deref().unwrap_or_default().replace("tag:yaml.org,2002:", "!!");
        error(at, &format!("yaml: cannot decode `{text}` as a {tag}"))
    };
    let value = match resolved.map_err(|scalar::TagMismatch| mismatch())? {
        Scalar::Null => Value::Null,
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Int(number) => Value::Number(Number::Integer(number)),
        Scalar::Uint(number) => Value::Number(Number::Large(number)),
        Scalar::Float(number) => Value::Number(Number::Float(number)),
        Scalar::Text => Value::String(text.into()),
        Scalar::Binary(bytes) => Value::String(String::from_utf8_lossy(&bytes).into()),
    };
    let is_merge_key = text == "<<"
        && match tag.as_deref() {
            None => !quoted,
            Some(tag) => tag == "!" || tag == "tag:yaml.org,2002:merge",
        };
    let plain = !matches!(value, Value::String(_));
    let node = Node { at, value, plain: plain.then(|| text.into()) };
    Ok(Built { node, is_merge_key, is_alias: false, weight: 1, aliased: 0, depth: 0 })
}

/// Returns the JSON member name for a key.
fn key_of(key: &Built) -> Result<Key, SyntaxError> {
    if key.is_merge_key {
        return Ok(Key::Merge);
    }
    let name = match &key.node.value {
        Value::String(text) => text.clone(),
        Value::Bool(value) => value.to_string().into(),
        Value::Number(Number::Integer(number)) => number.to_string().into(),
        Value::Number(Number::Float(_)) => key.node.plain.as_deref().unwrap_or_default().into(),
        Value::Null | Value::Number(Number::Large(_)) => {
            let message = format!("unsupported map key of type {}", key.node.value.kind());
            return Err(error(key.node.at, &message));
        }
        Value::List(_) | Value::Map(_) => return Err(error(key.node.at, "invalid map key")),
    };
    Ok(Key::Name(name, key.node.at))
}

/// Returns the maps that `<<` merges, in the order in which they are applied: earlier maps of a
/// list override later ones.
fn maps_to_merge(value: &Built) -> Result<Vec<Rc<[Entry]>>, SyntaxError> {
    let unfit = || {
        let message = "yaml: map merge requires map or sequence of maps as the value";
        error(value.node.at, message)
    };
    match &value.node.value {
        Value::Map(entries) => Ok(vec![entries.clone()]),
        Value::List(elements) if !value.is_alias => {
            let map = |node: &Node| match &node.value {
                Value::Map(entries) => Ok(entries.clone()),
                _ => Err(unfit()),
            };
            elements.iter().rev().map(map).collect()
        }
        _ => Err(unfit()),
    }
}

/// Rejects small documents that expand into huge ones, with the same limits as yaml.v2.
fn check_aliases(root: &Built) -> Result<(), SyntaxError> {
    const LOW: u64 = 400_000;
    const HIGH: u64 = 4_000_000;
    let allowed = match root.weight {
        ..=LOW => 0.99,
        HIGH.. => 0.10,
        weight => 0.99 - 0.89 * ((weight - LOW) as f64 / (HIGH - LOW) as f64),
    };
    let share = root.aliased as f64 / root.weight as f64;
    if root.aliased > 100 && root.weight > 1000 && share > allowed {
        return Err(error(root.node.at, "yaml: document contains excessive aliasing"));
    }
    Ok(())
}

fn error(at: Position, message: &str) -> SyntaxError {
    SyntaxError { at, message: message.to_owned(), help: None }
}
