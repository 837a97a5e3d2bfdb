//! A document (YAML or JSON) as a tree in which every value has a position.

use std::fmt;
use std::rc::Rc;

/// A position in a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
}

impl Position {
    /// The start of a file.
    pub const START: Position = Position { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Why a text is not a document, and where.
#[derive(Debug)]
pub struct SyntaxError {
    /// The position of the error.
    pub at: Position,
    /// The error, in kube-apiserver's words where it has any.
    pub message: String,
    /// A suggestion, if known.
    pub help: Option<String>,
}

/// A value with its position.
#[derive(Debug, Clone)]
pub struct Node {
    /// The position of the value.
    pub at: Position,
    /// The value.
    pub value: Value,
    /// The unquoted text of a scalar that is not a string, for messages.
    pub plain: Option<Box<str>>,
}

/// The value of a [`Node`]. Lists and maps are reference counted because YAML aliases share them.
#[derive(Debug, Clone)]
pub enum Value {
    /// `null`, `~`, or nothing.
    Null,
    /// `true` or `false`, and YAML 1.1's other spellings.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(Rc<str>),
    /// A sequence.
    List(Rc<[Node]>),
    /// A mapping, entries in the order of the file.
    Map(Rc<[Entry]>),
}

/// A number, classified like Go's YAML decoder does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// An integer that fits `i64`.
    Integer(i64),
    /// An integer between `i64::MAX` and `u64::MAX`.
    Large(u64),
    /// Any other number.
    Float(f64),
}

/// An entry of a map. Keys are unique within a map.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: Rc<str>,
    /// The position of the key.
    pub key_at: Position,
    /// The value.
    pub node: Node,
}

/// A parsed document.
#[derive(Debug)]
pub struct Document {
    /// The outermost value.
    pub root: Node,
    /// Keys that occur more than once in a map. kube-apiserver only warns about them.
    pub duplicates: Vec<Duplicate>,
}

/// A key that occurs more than once in one map; the last occurrence counts.
#[derive(Debug)]
pub struct Duplicate {
    /// The key.
    pub key: Rc<str>,
    /// The later occurrence.
    pub at: Position,
    /// The earlier occurrence.
    pub first_at: Position,
}

impl Value {
    /// Returns the name that Go's JSON decoder gives to the type of the value.
    pub fn kind(&self) -> &'static str {
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
    /// Returns the value of `key` if this is a map that contains it.
    pub fn member(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| &*entry.key == key).map(|entry| &entry.node)
    }

    /// Returns the entries of a map, none for any other value.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Returns the elements of a list, none for any other value.
    pub fn elements(&self) -> &[Node] {
        match &self.value {
            Value::List(elements) => elements,
            _ => &[],
        }
    }

    /// Returns the text of a string, an empty one for any other value.
    pub fn text(&self) -> &str {
        match &self.value {
            Value::String(text) => text,
            _ => "",
        }
    }
}
