//! Paths into a JSON value, compiled so that a scanner can follow many of them at the same time.

use std::collections::HashMap;
use std::str::FromStr;

use thiserror::Error;

/// The maximum length of a member's name in a path, in bytes. Keys of annotations have at most 317.
pub(crate) const MAX_NAME: usize = 320;

/// A path to values in a JSON value, such as `spec.containers[*].env[*].value`.
///
/// | written | matches |
/// |---|---|
/// | `name` | the member of that name |
/// | `["any.name"]` | the same, for names with dots, brackets, quotes, spaces or `*`; a JSON string |
/// | `*` | every member of an object, every element of an array |
/// | `[*]` | every element of an array |
///
/// Parts are separated by dots; brackets need none before them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Any,
    Element,
}

/// A path that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("character {column} of path {path:?}: {problem}")]
pub struct PathError {
    /// The path.
    pub path: String,
    /// The position of the error: a character, from 1.
    pub column: usize,
    /// What is wrong, and how to correct it.
    pub problem: PathProblem,
}

/// What can be wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[allow(missing_docs)] // each says what it is
pub enum PathProblem {
    #[error(
        "the name of a member is expected here, as in metadata.name; the path has no $ and no dot before it"
    )]
    NoName,
    #[error(
        "in brackets, only [*] for every element, or a quoted name such as [\"example.org/key\"]"
    )]
    Bracket,
    #[error("{0:?} cannot be in a plain name; write the name as [\"…\"]")]
    Character(char),
    #[error("a dot or a bracket is expected after ]")]
    NoSeparator,
    #[error("names have at most {MAX_NAME} bytes")]
    TooLong,
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Path, PathError> {
        let mut steps = Vec::new();
        let mut rest = text;
        // At the start or after a dot.
        let mut name_expected = true;
        while name_expected || !rest.is_empty() {
            let parsed = if rest.starts_with('[') {
                bracket(rest)
            } else if name_expected {
                plain_name(rest)
            } else {
                Err((rest, PathProblem::NoSeparator))
            };
            let (step, tail) = parsed.map_err(|(at, problem)| PathError {
                path: text.to_owned(),
                column: text[..text.len() - at.len()].chars().count() + 1,
                problem,
            })?;
            steps.push(step);
            rest = tail.strip_prefix('.').unwrap_or(tail);
            name_expected = rest.len() < tail.len();
        }
        Ok(Path(steps))
    }
}

/// A step and the text after it, or the text at which the error is.
type Parsed<'t> = Result<(Step, &'t str), (&'t str, PathProblem)>;

fn plain_name(text: &str) -> Parsed<'_> {
    let length = text.find(['.', '[']).unwrap_or(text.len());
    let (name, rest) = text.split_at(length);
    if name == "*" {
        return Ok((Step::Any, rest));
    }
    if name.is_empty() || name.starts_with('$') {
        return Err((text, PathProblem::NoName));
    }
    let odd = |c: char| matches!(c, ']' | '"' | '*' | '\\') || c.is_whitespace();
    if let Some((at, found)) = name.char_indices().find(|(_, c)| odd(*c)) {
        return Err((&text[at..], PathProblem::Character(found)));
    }
    member(name.to_owned(), text, rest)
}

fn bracket(text: &str) -> Parsed<'_> {
    if let Some(rest) = text.strip_prefix("[*]") {
        return Ok((Step::Element, rest));
    }
    let mut strings = serde_json::Deserializer::from_str(&text[1..]).into_iter::<String>();
    let Some(Ok(name)) = strings.next() else { return Err((text, PathProblem::Bracket)) };
    match text[1 + strings.byte_offset()..].strip_prefix(']') {
        Some(rest) => member(name, text, rest),
        None => Err((text, PathProblem::Bracket)),
    }
}

fn member<'t>(name: String, text: &'t str, rest: &'t str) -> Parsed<'t> {
    if name.len() > MAX_NAME {
        return Err((text, PathProblem::TooLong));
    }
    Ok((Step::Member(name), rest))
}

impl Path {
    /// Returns `parent` followed by this path.
    pub fn below(&self, parent: &Path) -> Path {
        Path(parent.0.iter().chain(&self.0).cloned().collect())
    }
}

/// How names of members are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Case-sensitively, as in kube-apiserver.
    Exact,
    /// Ignoring the case of ASCII letters.
    IgnoreCase,
}

/// Many paths with an action each, as a tree that is walked together with a value.
#[derive(Debug)]
pub struct Paths<A> {
    nodes: Vec<Node<A>>,
    names: Names,
}

/// A node of a [`Paths`] tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Place {
    /// No path leads to or beyond this node.
    pub(crate) const NOWHERE: Place = Place(0);
    /// The node of the whole value.
    pub(crate) const ROOT: Place = Place(1);
}

#[derive(Debug)]
struct Node<A> {
    action: Option<A>,
    members: Vec<(String, Place)>,
    /// The node for members with other names.
    other: Place,
    element: Place,
}

/// The index of a path, and how many of its steps have been followed.
type Position = (usize, usize);

impl<A: Copy> Paths<A> {
    /// Compiles paths. If two paths lead to the same value, the action of the first one counts.
    pub fn new(paths: &[(Path, A)], names: Names) -> Paths<A> {
        let nowhere = Node {
            action: None,
            members: Vec::new(),
            other: Place::NOWHERE,
            element: Place::NOWHERE,
        };
        let mut tree = Paths { nodes: vec![nowhere], names };
        let start = (0..paths.len()).map(|path| (path, 0)).collect();
        tree.add(paths, start, &mut HashMap::new());
        tree
    }

    /// Returns the node for the paths at `positions`.
    fn add(
        &mut self,
        paths: &[(Path, A)],
        positions: Vec<Position>,
        known: &mut HashMap<Vec<Position>, Place>,
    ) -> Place {
        if positions.is_empty() {
            return Place::NOWHERE;
        }
        if let Some(place) = known.get(&positions) {
            return *place;
        }
        let place = Place(u32::try_from(self.nodes.len()).expect("fewer than 2³² path steps"));
        known.insert(positions.clone(), place);
        let done = |(path, step): &&Position| paths[*path].0.0.len() == *step;
        let action = positions.iter().find(done).map(|(path, _)| paths[*path].1);
        self.nodes.push(Node {
            action,
            members: Vec::new(),
            other: Place::NOWHERE,
            element: Place::NOWHERE,
        });
        let steps = |matches: &dyn Fn(&Step) -> bool| -> Vec<Position> {
            let next = |(path, step): &Position| {
                let is_match = paths[*path].0.0.get(*step).is_some_and(matches);
                is_match.then_some((*path, step + 1))
            };
            positions.iter().filter_map(next).collect()
        };
        let names = self.names;
        let mut members: Vec<(String, Place)> = Vec::new();
        for (path, step) in &positions {
            let Some(Step::Member(name)) = paths[*path].0.0.get(*step) else { continue };
            if members.iter().any(|(known, _)| names.equal(known.as_bytes(), name.as_bytes())) {
                continue;
            }
            let same = |step: &Step| match step {
                Step::Member(other) => names.equal(other.as_bytes(), name.as_bytes()),
                Step::Any => true,
                Step::Element => false,
            };
            members.push((name.clone(), self.add(paths, steps(&same), known)));
        }
        let other = self.add(paths, steps(&|step| *step == Step::Any), known);
        let element = steps(&|step| matches!(step, Step::Any | Step::Element));
        let element = self.add(paths, element, known);
        let node = &mut self.nodes[place.0 as usize];
        (node.members, node.other, node.element) = (members, other, element);
        place
    }
}

impl Names {
    fn equal(self, left: &[u8], right: &[u8]) -> bool {
        match self {
            Names::Exact => left == right,
            Names::IgnoreCase => left.eq_ignore_ascii_case(right),
        }
    }
}

impl<A: Copy> Paths<A> {
    /// Returns the node of the member `name` of the object at `place`.
    pub(super) fn member(&self, place: Place, name: &[u8]) -> Place {
        let node = &self.nodes[place.0 as usize];
        let found = node.members.iter().find(|(known, _)| self.names.equal(known.as_bytes(), name));
        found.map_or(node.other, |(_, place)| *place)
    }

    /// Returns the node of the elements of the array at `place`.
    pub(super) fn element(&self, place: Place) -> Place {
        self.nodes[place.0 as usize].element
    }

    /// Returns the action for the value at `place`.
    pub(super) fn action(&self, place: Place) -> Option<A> {
        self.nodes[place.0 as usize].action
    }

    /// Returns the action for all members or elements of the value at `place`, whatever their
    /// names.
    pub(super) fn action_below(&self, place: Place) -> Option<A> {
        let node = &self.nodes[place.0 as usize];
        self.action(node.other).or(self.action(node.element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str], names: Names) -> Paths<usize> {
        let paths: Vec<_> =
            paths.iter().enumerate().map(|(at, path)| (path.parse().unwrap(), at)).collect();
        Paths::new(&paths, names)
    }

    /// Follows steps from the root; `[]` is an element.
    fn at(tree: &Paths<usize>, steps: &[&str]) -> Option<usize> {
        let place = steps.iter().fold(Place::ROOT, |place, step| match *step {
            "[]" => tree.element(place),
            name => tree.member(place, name.as_bytes()),
        });
        tree.action(place)
    }

    #[test]
    fn paths_are_followed_together() {
        let tree = tree(
            &["data.*", "items[*].data.*", "*.a.b", r#"metadata.annotations["x.y/z"]"#, "data.a"],
            Names::Exact,
        );
        for (steps, expected) in [
            (&["data", "x"][..], Some(0)),
            (&["data", "[]"], Some(0)),
            (&["data"], None),
            (&["data", "a", "b"], Some(2)),
            (&["data", "a"], Some(0)),
            (&["items", "[]", "data", "x"], Some(1)),
            (&["items", "0", "data", "x"], None),
            (&["[]", "a", "b"], Some(2)),
            (&["metadata", "annotations", "x.y/z"], Some(3)),
            (&["metadata", "Annotations", "x.y/z"], None),
            (&["metadata", "a", "b"], Some(2)),
            (&["x", "x", "x", "x"], None),
        ] {
            assert_eq!(at(&tree, steps), expected, "{steps:?}");
        }
        assert_eq!(tree.action_below(tree.member(Place::ROOT, b"data")), Some(0));
        assert_eq!(tree.action_below(tree.member(Place::ROOT, b"items")), None);
    }

    #[test]
    fn names_can_ignore_case() {
        let tree = tree(&["data.*", "stringData.A", "STRINGDATA.B"], Names::IgnoreCase);
        assert_eq!(at(&tree, &["Data", "x"]), Some(0));
        assert_eq!(at(&tree, &["stringdata", "a"]), Some(1));
        assert_eq!(at(&tree, &["stringData", "b"]), Some(2));
    }

    #[test]
    fn errors_say_where_and_what() {
        for (path, expected) in [
            ("", (1, PathProblem::NoName)),
            (".spec", (1, PathProblem::NoName)),
            ("$.spec", (1, PathProblem::NoName)),
            ("spec.", (6, PathProblem::NoName)),
            ("spec..x", (6, PathProblem::NoName)),
            ("spec.é[0]", (7, PathProblem::Bracket)),
            ("spec[\"x\"", (5, PathProblem::Bracket)),
            ("spec[\"x]", (5, PathProblem::Bracket)),
            ("spec[*]x", (8, PathProblem::NoSeparator)),
            ("a b", (2, PathProblem::Character(' '))),
            ("a*", (2, PathProblem::Character('*'))),
        ] {
            let error = path.parse::<Path>().unwrap_err();
            assert_eq!((error.column, error.problem), expected, "{path}");
        }
        let long = format!("spec.{}", "x".repeat(MAX_NAME + 1));
        assert_eq!(long.parse::<Path>().unwrap_err().problem, PathProblem::TooLong);
        assert_eq!(
            "spec[0]".parse::<Path>().unwrap_err().to_string(),
            "character 5 of path \"spec[0]\": in brackets, only [*] for every element, or a \
             quoted name such as [\"example.org/key\"]"
        );
    }

    #[test]
    fn many_stars_stay_small() {
        let path = ["*"; 40].join(".");
        let named = format!("a.{path}");
        let tree = tree(&[&path, &named, "a.b.c.*.d"], Names::Exact);
        assert!(tree.nodes.len() < 300, "{}", tree.nodes.len());
    }
}
