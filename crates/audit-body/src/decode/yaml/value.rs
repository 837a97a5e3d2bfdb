//! The value of a YAML document: aliases expanded, keys merged, as go-yaml v2 decodes it into a
//! Go `interface{}`.

use std::collections::{HashMap, HashSet};

use k8s_audit::document::scalar::{self, Scalar};

use super::Error;
use super::nodes::{Document, Id, Node};
use crate::decode::ambiguity::{Ambiguities, Ambiguity};

/// The index of a value.
pub(super) type ValueId = u32;

#[derive(Debug)]
pub(super) enum Value {
    Scalar(Scalar, Id),
    Sequence(Vec<ValueId>),
    Mapping(Mapping),
}

/// Entries in the order in which their keys were first set.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    pub(super) entries: Vec<(Key, ValueId)>,
    /// Where each key is, and which decoding set it.
    places: HashMap<Key, Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    index: usize,
    set_by: Step,
}

/// A key, equal where Go finds two keys equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    /// The bits of the number.
    Float(u64),
    /// Not a number, which equals nothing.
    Nan(usize),
    Text(Vec<u8>),
}

/// The decoding of one mapping node, into a mapping of its own or into one that it is merged into.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    /// Counts up in the order in which they begin.
    number: usize,
    /// Those that are merged by the same `<<` have the same group.
    group: usize,
}

/// What is being decoded.
enum Frame {
    Alias(Id),
    Sequence {
        node: Id,
        next: usize,
        value: ValueId,
    },
    Mapping {
        node: Id,
        next: usize,
        value: ValueId,
        merged: bool,
        step: Step,
        key: Option<Key>,
    },
    /// A list of mappings to merge into `value`, from the last to the first.
    Merge {
        node: Id,
        left: usize,
        value: ValueId,
        group: usize,
    },
}

/// Where a node's value goes.
#[derive(Clone, Copy)]
enum Target {
    New,
    /// Into this mapping.
    Merge {
        value: ValueId,
        group: usize,
    },
}

pub(super) struct Values<'d> {
    pub(super) document: &'d Document,
    pub(super) values: Vec<Value>,
    pub(super) ambiguities: Ambiguities,
    frames: Vec<Frame>,
    /// Aliases that are being expanded.
    active: HashSet<Id>,
    decoded: u64,
    decoded_by_alias: u64,
    alias_depth: usize,
    /// Steps, groups and NaNs so far.
    numbers: usize,
}

/// Decodes a document. Its value is the last one.
pub(super) fn decode(document: &Document) -> Result<(Values<'_>, ValueId), Error> {
    let mut values = Values {
        document,
        values: Vec::new(),
        ambiguities: Ambiguities::default(),
        frames: Vec::new(),
        active: HashSet::new(),
        // The document itself counts.
        decoded: 1,
        decoded_by_alias: 0,
        alias_depth: 0,
        numbers: 0,
    };
    let root = values.run()?;
    Ok((values, root))
}

impl Values<'_> {
    fn run(&mut self) -> Result<ValueId, Error> {
        let mut done = self.begin(0, Target::New)?;
        while let Some(frame) = self.frames.pop() {
            done = self.advance(frame, done)?;
        }
        done.ok_or(Error("no value"))
    }

    /// Begins a node. Returns its value if that is a scalar; others are completed by their frames.
    fn begin(&mut self, id: Id, target: Target) -> Result<Option<ValueId>, Error> {
        let (mut id, mut target) = (id, target);
        loop {
            self.count()?;
            match &self.document.nodes[id as usize] {
                Node::Alias(to) => {
                    if !self.active.insert(id) {
                        return Err(Error("anchor value contains itself"));
                    }
                    self.alias_depth += 1;
                    self.frames.push(Frame::Alias(id));
                    id = *to;
                }
                Node::Scalar(node) => {
                    let resolved = scalar::resolve(&node.value, node.implicit, &node.tag)
                        .map_err(|_| Error("cannot decode a value as its tag says"))?;
                    let value = Value::Scalar(resolved, id);
                    return self.push(value).map(Some);
                }
                Node::Sequence(children) => {
                    let value = self.push(Value::Sequence(Vec::with_capacity(children.len())))?;
                    self.frames.push(Frame::Sequence { node: id, next: 0, value });
                    return Ok(None);
                }
                Node::Mapping(_) => {
                    let merged = matches!(target, Target::Merge { .. });
                    if let Target::New = target {
                        let value = self.push(Value::Mapping(Mapping::default()))?;
                        target = Target::Merge { value, group: self.number() };
                    }
                    if let Target::Merge { value, group } = target {
                        let step = Step { number: self.number(), group };
                        let frame =
                            Frame::Mapping { node: id, next: 0, value, merged, step, key: None };
                        self.frames.push(frame);
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Goes on with `frame`, a value in which may be done. Returns its own value if that is done.
    fn advance(
        &mut self,
        frame: Frame,
        mut done: Option<ValueId>,
    ) -> Result<Option<ValueId>, Error> {
        let document = self.document;
        match frame {
            Frame::Alias(id) => {
                self.active.remove(&id);
                self.alias_depth -= 1;
                Ok(done)
            }
            Frame::Sequence { node, mut next, value } => {
                let children = children(document, node);
                loop {
                    if let Some(element) = done
                        && let Value::Sequence(elements) = &mut self.values[value as usize]
                    {
                        elements.push(element);
                    }
                    let Some(child) = children.get(next) else { return Ok(Some(value)) };
                    next += 1;
                    let at = self.frames.len();
                    self.frames.push(Frame::Sequence { node, next, value });
                    done = self.begin(*child, Target::New)?;
                    if done.is_none() || self.frames.len() > at + 1 {
                        return Ok(done);
                    }
                    self.frames.pop();
                }
            }
            Frame::Mapping { node, mut next, value, merged, step, mut key } => {
                let children = children(document, node);
                if let Some(done) = done {
                    match key.take() {
                        None => key = Some(self.key(done)?),
                        Some(key) => self.set(value, key, done, step),
                    }
                }
                let Some(&child) = children.get(next) else {
                    return Ok((!merged).then_some(value));
                };
                next += 1;
                if key.is_none() && is_merge(&document.nodes[child as usize]) {
                    let from = children[next];
                    next += 1;
                    self.frames.push(Frame::Mapping { node, next, value, merged, step, key });
                    self.merge(from, value)?;
                    return Ok(None);
                }
                self.frames.push(Frame::Mapping { node, next, value, merged, step, key });
                self.begin(child, Target::New)
            }
            Frame::Merge { node, left, value, group } => {
                let Some(left) = left.checked_sub(1) else { return Ok(None) };
                let child = children(document, node)[left];
                self.check_merged(child)?;
                self.frames.push(Frame::Merge { node, left, value, group });
                self.begin(child, Target::Merge { value, group })
            }
        }
    }

    /// Merges a mapping, an alias of one, or a list of them into the mapping `value`.
    fn merge(&mut self, from: Id, value: ValueId) -> Result<(), Error> {
        let group = self.number();
        if let Node::Sequence(children) = &self.document.nodes[from as usize] {
            let left = children.len();
            self.frames.push(Frame::Merge { node: from, left, value, group });
            return Ok(());
        }
        self.check_merged(from)?;
        self.begin(from, Target::Merge { value, group }).map(drop)
    }

    fn check_merged(&self, id: Id) -> Result<(), Error> {
        let node = &self.document.nodes[id as usize];
        let node = match node {
            Node::Alias(to) => &self.document.nodes[*to as usize],
            node => node,
        };
        match node {
            Node::Mapping(_) => Ok(()),
            _ => Err(Error("map merge requires map or sequence of maps as the value")),
        }
    }

    fn push(&mut self, value: Value) -> Result<ValueId, Error> {
        let id = ValueId::try_from(self.values.len()).map_err(|_| Error("too many values"))?;
        self.values.push(value);
        Ok(id)
    }

    fn number(&mut self) -> usize {
        self.numbers += 1;
        self.numbers
    }

    fn key(&mut self, id: ValueId) -> Result<Key, Error> {
        let number = self.number();
        let Value::Scalar(resolved, node) = &self.values[id as usize] else {
            return Err(Error("invalid map key"));
        };
        Ok(match resolved {
            Scalar::Null => Key::Null,
            Scalar::Bool(value) => Key::Bool(*value),
            Scalar::Int(value) => Key::Int(*value),
            Scalar::Uint(value) => Key::Uint(*value),
            Scalar::Float(value) if value.is_nan() => Key::Nan(number),
            Scalar::Float(value) => Key::Float(value.to_bits()),
            Scalar::Text => Key::Text(text(self.document, *node).to_vec()),
            Scalar::Binary(bytes) => Key::Text(bytes.clone()),
        })
    }

    fn set(&mut self, mapping: ValueId, key: Key, value: ValueId, step: Step) {
        let Value::Mapping(mapping) = &mut self.values[mapping as usize] else { return };
        // Zero is one key whatever its sign, but the one that was set first is kept.
        let same = match key {
            Key::Float(bits) => Key::Float((f64::from_bits(bits) + 0.0).to_bits()),
            ref other => other.clone(),
        };
        let Some(place) = mapping.places.get_mut(&same) else {
            let place = Place { index: mapping.entries.len(), set_by: step };
            mapping.entries.push((key, value));
            mapping.places.insert(same, place);
            return;
        };
        if place.set_by == step {
            self.ambiguities.insert(Ambiguity::DuplicateKeys);
        } else if place.set_by.number < step.number && place.set_by.group != step.group {
            // It was there before this was merged. Values that were merged earlier can be
            // overridden.
            self.ambiguities.insert(Ambiguity::MergeKeyOverride);
        }
        place.set_by = step;
        mapping.entries[place.index].1 = value;
    }

    /// Counts a decoding; go-yaml gives up where most of them come from aliases.
    fn count(&mut self) -> Result<(), Error> {
        const LOW: u64 = 400_000;
        const HIGH: u64 = 4_000_000;
        self.decoded += 1;
        if self.alias_depth > 0 {
            self.decoded_by_alias += 1;
        }
        let allowed = match self.decoded {
            ..=LOW => 0.99,
            HIGH.. => 0.10,
            count => 0.99 - 0.89 * ((count - LOW) as f64 / (HIGH - LOW) as f64),
        };
        let by_alias = self.decoded_by_alias as f64;
        if self.decoded_by_alias > 100
            && self.decoded > 1000
            && by_alias / self.decoded as f64 > allowed
        {
            return Err(Error("document contains excessive aliasing"));
        }
        Ok(())
    }
}

fn children(document: &Document, id: Id) -> &[Id] {
    match &document.nodes[id as usize] {
        Node::Sequence(children) | Node::Mapping(children) => children,
        _ => &[],
    }
}

/// The text of a scalar node.
pub(super) fn text(document: &Document, id: Id) -> &[u8] {
    match &document.nodes[id as usize] {
        Node::Scalar(scalar) => &scalar.value,
        _ => &[],
    }
}

fn is_merge(node: &Node) -> bool {
    match node {
        Node::Scalar(scalar) => {
            scalar.value == b"<<" && (scalar.implicit || scalar.tag == b"tag:yaml.org,2002:merge")
        }
        _ => false,
    }
}
