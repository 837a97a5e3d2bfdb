//! A document (YAML or JSON) as a tree that remembers where everything stood.

use std::fmt;
use std::rc::Rc;

/// A place in a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
}

impl Position {
    /// Where every file begins.
    pub(crate) const START: Position = Position { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong with a document, and where.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Position,
    pub(crate) message: String,
    /// What to do about it, if there is something to say.
    pub(crate) remedy: Option<String>,
}

/// A value in a document.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
    /// The unquoted text of a scalar that is no string, for messages.
    pub(crate) plain: Option<Box<str>>,
}

/// What a node is. Lists and maps are shared: aliases lead to the same ones.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(Rc<str>),
    List(Rc<[Node]>),
    Map(Rc<[Entry]>),
}

/// A number, as Go's YAML tells them apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Integer(i64),
    /// Beyond `i64`.
    Large(u64),
    Float(f64),
}

/// A member of a map. No two have the same key.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Rc<str>,
    pub(crate) key_at: Position,
    pub(crate) node: Node,
}

/// A document, with what lenient reading forgave.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Node,
    pub(crate) duplicates: Vec<Duplicate>,
}

/// A key that stands twice in one map.
#[derive(Debug)]
pub(crate) struct Duplicate {
    pub(crate) key: Rc<str>,
    pub(crate) at: Position,
    pub(crate) first_at: Position,
}

impl Value {
    /// What Go's JSON decoder calls it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::List(_) => "array",
            Value::Map(_) => "object",
        }
    }
}

impl Node {
    /// The member of that name, if this is a map with one.
    pub(crate) fn member(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| &*entry.key == key).map(|entry| &entry.node)
    }

    /// The members, none if this is no map.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements, none if this is no list.
    pub(crate) fn elements(&self) -> &[Node] {
        match &self.value {
            Value::List(elements) => elements,
            _ => &[],
        }
    }

    /// The text, empty if this is no string.
    pub(crate) fn text(&self) -> &str {
        match &self.value {
            Value::String(text) => text,
            _ => "",
        }
    }
}
