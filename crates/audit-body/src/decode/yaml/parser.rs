//! Events of a YAML stream, from its tokens: the grammar of YAML 1.1 as in go-yaml v2.

use super::Error;
use super::scanner::{Scanner, Token};

#[derive(Debug, PartialEq)]
pub(super) enum Event {
    StreamStart,
    StreamEnd,
    DocumentStart,
    DocumentEnd,
    Alias(Vec<u8>),
    Scalar(Option<Vec<u8>>, Scalar),
    /// With its anchor.
    SequenceStart(Option<Vec<u8>>),
    SequenceEnd,
    MappingStart(Option<Vec<u8>>),
    MappingEnd,
}

/// A scalar and what determines its type.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scalar {
    /// Empty if there is none.
    pub(super) tag: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// Whether it is plain, or has the tag `!`.
    pub(super) implicit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    StreamStart,
    ImplicitDocumentStart,
    DocumentStart,
    DocumentContent,
    DocumentEnd,
    BlockNode,
    BlockSequenceFirst,
    BlockSequenceEntry,
    IndentlessSequenceEntry,
    BlockMappingFirst,
    BlockMappingKey,
    BlockMappingValue,
    FlowSequenceFirst,
    FlowSequenceEntry,
    FlowPairKey,
    FlowPairValue,
    FlowPairEnd,
    FlowMappingFirst,
    FlowMappingKey,
    FlowMappingValue,
    FlowMappingEmptyValue,
    End,
}

/// What may stand in the place of a node.
#[derive(Clone, Copy, PartialEq)]
enum Context {
    Flow,
    Block,
    /// A sequence that is not indented, too.
    BlockOrIndentless,
}

pub(super) struct Parser<'b> {
    scanner: Scanner<'b>,
    state: State,
    states: Vec<State>,
    /// Handle and prefix.
    tags: Vec<(Vec<u8>, Vec<u8>)>,
}

type Parse = Result<Event, Error>;

impl<'b> Parser<'b> {
    pub(super) fn new(input: &'b [u8]) -> Parser<'b> {
        Parser {
            scanner: Scanner::new(input),
            state: State::StreamStart,
            states: Vec::new(),
            tags: Vec::new(),
        }
    }

    pub(super) fn next(&mut self) -> Parse {
        match self.state {
            State::StreamStart => {
                self.scanner.peek()?;
                self.scanner.take()?;
                self.state = State::ImplicitDocumentStart;
                Ok(Event::StreamStart)
            }
            State::ImplicitDocumentStart => self.document_start(true),
            State::DocumentStart => self.document_start(false),
            State::DocumentContent => self.document_content(),
            State::DocumentEnd => self.document_end(),
            State::BlockNode => self.node(Context::Block),
            State::BlockSequenceFirst | State::BlockSequenceEntry => self.block_sequence_entry(),
            State::IndentlessSequenceEntry => self.indentless_sequence_entry(),
            State::BlockMappingFirst | State::BlockMappingKey => self.block_mapping_key(),
            State::BlockMappingValue => self.block_mapping_value(),
            State::FlowSequenceFirst | State::FlowSequenceEntry => self.flow_sequence_entry(),
            State::FlowPairKey => self.flow_pair_key(),
            State::FlowPairValue => self.flow_pair_value(),
            State::FlowPairEnd => {
                self.scanner.peek()?;
                self.state = State::FlowSequenceEntry;
                Ok(Event::MappingEnd)
            }
            State::FlowMappingFirst | State::FlowMappingKey => self.flow_mapping_key(),
            State::FlowMappingValue => self.flow_mapping_value(),
            State::FlowMappingEmptyValue => {
                self.scanner.peek()?;
                Ok(self.empty(State::FlowMappingKey))
            }
            State::End => Ok(Event::StreamEnd),
        }
    }

    fn pop(&mut self) {
        self.state = self.states.pop().unwrap_or(State::End);
    }

    /// Takes the next token if it is this one.
    fn takes(&mut self, token: &Token) -> Result<bool, Error> {
        let found = self.scanner.peek()? == token;
        if found {
            self.scanner.take()?;
        }
        Ok(found)
    }

    fn next_is(&mut self, tokens: &[Token]) -> Result<bool, Error> {
        Ok(tokens.contains(self.scanner.peek()?))
    }

    /// A node that is not there.
    fn empty(&mut self, then: State) -> Event {
        self.state = then;
        Event::Scalar(None, Scalar { implicit: true, ..Scalar::default() })
    }

    /// A node, after which `then` follows.
    fn node_then(&mut self, context: Context, then: State) -> Parse {
        self.states.push(then);
        self.node(context)
    }
}

/// Documents.
impl Parser<'_> {
    fn document_start(&mut self, implicit: bool) -> Parse {
        while !implicit && self.takes(&Token::DocumentEnd)? {}
        match self.scanner.peek()? {
            Token::StreamEnd => {
                self.scanner.take()?;
                self.state = State::End;
                return Ok(Event::StreamEnd);
            }
            Token::Version(..) | Token::TagDirective { .. } | Token::DocumentStart => {}
            _ if implicit => {
                self.directives()?;
                self.states.push(State::DocumentEnd);
                self.state = State::BlockNode;
                return Ok(Event::DocumentStart);
            }
            _ => {}
        }
        self.directives()?;
        if !self.takes(&Token::DocumentStart)? {
            return Err(Error("did not find expected <document start>"));
        }
        self.states.push(State::DocumentEnd);
        self.state = State::DocumentContent;
        Ok(Event::DocumentStart)
    }

    fn directives(&mut self) -> Result<(), Error> {
        let mut version = false;
        loop {
            match self.scanner.peek()? {
                Token::Version(..) if version => {
                    return Err(Error("found duplicate %YAML directive"));
                }
                Token::Version(1, 1) => version = true,
                Token::Version(..) => return Err(Error("found incompatible YAML document")),
                Token::TagDirective { .. } => {}
                _ => break,
            }
            if let Token::TagDirective { handle, prefix } = self.scanner.take()? {
                if self.tags.iter().any(|(known, _)| *known == handle) {
                    return Err(Error("found duplicate %TAG directive"));
                }
                self.tags.push((handle, prefix));
            }
        }
        for (handle, prefix) in [(&b"!"[..], &b"!"[..]), (b"!!", b"tag:yaml.org,2002:")] {
            if !self.tags.iter().any(|(known, _)| known == handle) {
                self.tags.push((handle.to_vec(), prefix.to_vec()));
            }
        }
        Ok(())
    }

    fn document_content(&mut self) -> Parse {
        match self.scanner.peek()? {
            Token::Version(..)
            | Token::TagDirective { .. }
            | Token::DocumentStart
            | Token::DocumentEnd
            | Token::StreamEnd => {
                let then = self.states.pop().unwrap_or(State::End);
                Ok(self.empty(then))
            }
            _ => self.node(Context::Block),
        }
    }

    fn document_end(&mut self) -> Parse {
        self.takes(&Token::DocumentEnd)?;
        self.tags.clear();
        self.state = State::DocumentStart;
        Ok(Event::DocumentEnd)
    }
}

/// Nodes.
impl Parser<'_> {
    fn node(&mut self, context: Context) -> Parse {
        if let Token::Alias(_) = self.scanner.peek()?
            && let Token::Alias(name) = self.scanner.take()?
        {
            self.pop();
            return Ok(Event::Alias(name));
        }
        let (anchor, tag) = self.properties()?;
        let block = context != Context::Flow;
        match self.scanner.peek()? {
            Token::BlockEntry if context == Context::BlockOrIndentless => {
                self.state = State::IndentlessSequenceEntry;
                Ok(Event::SequenceStart(anchor))
            }
            Token::Scalar { .. } => {
                let Token::Scalar { value, plain } = self.scanner.take()? else {
                    return Err(Error("no token"));
                };
                let implicit = (tag.is_empty() && plain) || tag == b"!";
                self.pop();
                Ok(Event::Scalar(anchor, Scalar { tag, value, implicit }))
            }
            Token::FlowSequenceStart => {
                self.state = State::FlowSequenceFirst;
                Ok(Event::SequenceStart(anchor))
            }
            Token::FlowMappingStart => {
                self.state = State::FlowMappingFirst;
                Ok(Event::MappingStart(anchor))
            }
            Token::BlockSequenceStart if block => {
                self.state = State::BlockSequenceFirst;
                Ok(Event::SequenceStart(anchor))
            }
            Token::BlockMappingStart if block => {
                self.state = State::BlockMappingFirst;
                Ok(Event::MappingStart(anchor))
            }
            _ if anchor.is_some() || !tag.is_empty() => {
                self.pop();
                let implicit = tag.is_empty();
                Ok(Event::Scalar(anchor, Scalar { tag, value: Vec::new(), implicit }))
            }
            _ => Err(Error("did not find expected node content")),
        }
    }

    /// The anchor and the tag of a node, in either order.
    fn properties(&mut self) -> Result<(Option<Vec<u8>>, Vec<u8>), Error> {
        let (mut anchor, mut tag) = (None, None);
        loop {
            match self.scanner.peek()? {
                Token::Anchor(_) if anchor.is_none() => {}
                Token::Tag { .. } if tag.is_none() => {}
                _ => break,
            }
            match self.scanner.take()? {
                Token::Anchor(name) => anchor = Some(name),
                Token::Tag { handle, suffix } => tag = Some((handle, suffix)),
                _ => {}
            }
        }
        let tag = match tag {
            None => Vec::new(),
            Some((handle, suffix)) if handle.is_empty() => suffix,
            Some((handle, suffix)) => {
                let prefix = self.tags.iter().find(|(known, _)| *known == handle);
                let tag = prefix.map(|(_, prefix)| [&prefix[..], &suffix].concat());
                let tag = tag.filter(|tag| !tag.is_empty());
                tag.ok_or(Error("found undefined tag handle"))?
            }
        };
        Ok((anchor, tag))
    }

    fn block_sequence_entry(&mut self) -> Parse {
        if self.state == State::BlockSequenceFirst {
            self.scanner.peek()?;
            self.scanner.take()?;
        }
        if self.takes(&Token::BlockEntry)? {
            if self.next_is(&[Token::BlockEntry, Token::BlockEnd])? {
                return Ok(self.empty(State::BlockSequenceEntry));
            }
            return self.node_then(Context::Block, State::BlockSequenceEntry);
        }
        if self.takes(&Token::BlockEnd)? {
            self.pop();
            return Ok(Event::SequenceEnd);
        }
        Err(Error("did not find expected '-' indicator"))
    }

    fn indentless_sequence_entry(&mut self) -> Parse {
        if self.takes(&Token::BlockEntry)? {
            let ends = [Token::BlockEntry, Token::Key, Token::Value, Token::BlockEnd];
            if self.next_is(&ends)? {
                return Ok(self.empty(State::IndentlessSequenceEntry));
            }
            return self.node_then(Context::Block, State::IndentlessSequenceEntry);
        }
        self.pop();
        Ok(Event::SequenceEnd)
    }

    fn block_mapping_key(&mut self) -> Parse {
        if self.state == State::BlockMappingFirst {
            self.scanner.peek()?;
            self.scanner.take()?;
        }
        if self.takes(&Token::Key)? {
            if self.next_is(&[Token::Key, Token::Value, Token::BlockEnd])? {
                return Ok(self.empty(State::BlockMappingValue));
            }
            return self.node_then(Context::BlockOrIndentless, State::BlockMappingValue);
        }
        if self.takes(&Token::BlockEnd)? {
            self.pop();
            return Ok(Event::MappingEnd);
        }
        Err(Error("did not find expected key"))
    }

    fn block_mapping_value(&mut self) -> Parse {
        if self.takes(&Token::Value)?
            && !self.next_is(&[Token::Key, Token::Value, Token::BlockEnd])?
        {
            return self.node_then(Context::BlockOrIndentless, State::BlockMappingKey);
        }
        Ok(self.empty(State::BlockMappingKey))
    }

    fn flow_sequence_entry(&mut self) -> Parse {
        let first = self.state == State::FlowSequenceFirst;
        if first {
            self.scanner.peek()?;
            self.scanner.take()?;
        }
        if !self.next_is(&[Token::FlowSequenceEnd])? {
            if !first && !self.takes(&Token::FlowEntry)? {
                return Err(Error("did not find expected ',' or ']'"));
            }
            if self.takes(&Token::Key)? {
                self.state = State::FlowPairKey;
                return Ok(Event::MappingStart(None));
            }
            if !self.next_is(&[Token::FlowSequenceEnd])? {
                return self.node_then(Context::Flow, State::FlowSequenceEntry);
            }
        }
        self.scanner.take()?;
        self.pop();
        Ok(Event::SequenceEnd)
    }

    fn flow_pair_key(&mut self) -> Parse {
        if !self.next_is(&[Token::Value, Token::FlowEntry, Token::FlowSequenceEnd])? {
            return self.node_then(Context::Flow, State::FlowPairValue);
        }
        // go-yaml passes over the token, whatever it is.
        self.scanner.take()?;
        Ok(self.empty(State::FlowPairValue))
    }

    fn flow_pair_value(&mut self) -> Parse {
        if self.takes(&Token::Value)?
            && !self.next_is(&[Token::FlowEntry, Token::FlowSequenceEnd])?
        {
            return self.node_then(Context::Flow, State::FlowPairEnd);
        }
        Ok(self.empty(State::FlowPairEnd))
    }

    fn flow_mapping_key(&mut self) -> Parse {
        let first = self.state == State::FlowMappingFirst;
        if first {
            self.scanner.peek()?;
            self.scanner.take()?;
        }
        if !self.next_is(&[Token::FlowMappingEnd])? {
            if !first && !self.takes(&Token::FlowEntry)? {
                return Err(Error("did not find expected ',' or '}'"));
            }
            if self.takes(&Token::Key)? {
                let ends = [Token::Value, Token::FlowEntry, Token::FlowMappingEnd];
                if self.next_is(&ends)? {
                    return Ok(self.empty(State::FlowMappingValue));
                }
                return self.node_then(Context::Flow, State::FlowMappingValue);
            }
            if !self.next_is(&[Token::FlowMappingEnd])? {
                return self.node_then(Context::Flow, State::FlowMappingEmptyValue);
            }
        }
        self.scanner.take()?;
        self.pop();
        Ok(Event::MappingEnd)
    }

    fn flow_mapping_value(&mut self) -> Parse {
        if self.takes(&Token::Value)?
            && !self.next_is(&[Token::FlowEntry, Token::FlowMappingEnd])?
        {
            return self.node_then(Context::Flow, State::FlowMappingKey);
        }
        Ok(self.empty(State::FlowMappingKey))
    }
}
