//! The nodes of the first document of a YAML stream.

use std::collections::HashMap;

use super::Error;
use super::parser::{Event, Parser, Scalar};

/// The index of a node.
pub(super) type Id = u32;

#[derive(Debug)]
pub(super) enum Node {
    Scalar(Scalar),
    Sequence(Vec<Id>),
    /// Keys and values in turn.
    Mapping(Vec<Id>),
    Alias(Id),
}

/// A document; its first node is the root.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) nodes: Vec<Node>,
    /// Whether something follows it.
    pub(super) has_more: bool,
}

/// Reads the first document; `None` if there is none.
pub(super) fn first_document(input: &[u8]) -> Result<Option<Document>, Error> {
    let mut parser = Parser::new(input);
    parser.next()?;
    if parser.next()? == Event::StreamEnd {
        return Ok(None);
    }
    let mut nodes: Vec<Node> = Vec::new();
    let mut anchors: HashMap<Vec<u8>, Id> = HashMap::new();
    let mut open: Vec<Id> = Vec::new();
    loop {
        let (node, anchor, opens) = match parser.next()? {
            Event::Scalar(anchor, scalar) => (Node::Scalar(scalar), anchor, false),
            Event::SequenceStart(anchor) => (Node::Sequence(Vec::new()), anchor, true),
            Event::MappingStart(anchor) => (Node::Mapping(Vec::new()), anchor, true),
            Event::Alias(name) => {
                let target = anchors.get(&name).ok_or(Error("unknown anchor referenced"))?;
                (Node::Alias(*target), None, false)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                if open.is_empty() {
                    break;
                }
                continue;
            }
            _ => return Err(Error("attempted to parse unknown event")),
        };
        let id = Id::try_from(nodes.len()).map_err(|_| Error("too many nodes"))?;
        nodes.push(node);
        if let Some(anchor) = anchor {
            anchors.insert(anchor, id);
        }
        if let Some(parent) = open.last()
            && let Node::Sequence(children) | Node::Mapping(children) = &mut nodes[*parent as usize]
        {
            children.push(id);
        }
        if opens {
            open.push(id);
        } else if open.is_empty() {
            break;
        }
    }
    if parser.next()? != Event::DocumentEnd {
        return Err(Error("expected document end"));
    }
    let has_more = parser.next() != Ok(Event::StreamEnd);
    Ok(Some(Document { nodes, has_more }))
}
